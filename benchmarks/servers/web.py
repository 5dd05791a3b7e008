"""Servers of HTTP, as people run them.

    python benchmarks/servers/web.py --loop NAME --app plain

uvicorn with httptools has an application that answers with a few words
(plain), a plain function of FastAPI, which runs in a thread (def), a row of a
table by SQLAlchemy and asyncpg under FastAPI (sqlalchemy; sqlalchemy_64 has a
pool of so many), an asynchronous view of Django (django), or streams of tokens
(tokens.py).  It is uvicorn's own Server, without access log, as under load.
Alone it binds its own socket: asyncio sets TCP_NODELAY only then.
aiohttp has its own server (aiohttp).
"""

from __future__ import annotations

import argparse
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import serving
import tokens
from harness import CERTIFICATE, KEY, tls_context

WORDS = {"message": "Hello, world!"}
BODY = b"Hello, world!"
START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [
        (b"content-type", b"text/plain"),
        (b"content-length", str(len(BODY)).encode()),
    ],
}
END = {"type": "http.response.body", "body": BODY}


def plain_text(args: argparse.Namespace) -> Any:
    async def app(scope: dict, receive: Any, send: Any) -> None:
        await send(START)
        await send(END)

    return app


def plain_function(args: argparse.Namespace) -> Any:
    import fastapi

    app = fastapi.FastAPI()

    @app.get("/")
    def answer() -> dict[str, str]:
        return WORDS

    return app


def sqlalchemy_row(args: argparse.Namespace, **pool: int) -> Any:
    import fastapi
    from harness.daemons import port_of
    from sqlalchemy import Integer, String
    from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
    from sqlalchemy.orm import DeclarativeBase, mapped_column

    class Base(DeclarativeBase):
        pass

    class Words(Base):
        # The servers of other loops have the same database.
        __tablename__ = f"words_{os.getpid()}"
        number = mapped_column(Integer, primary_key=True)
        message = mapped_column(String)

    address = f"race@127.0.0.1:{port_of('postgres')}/postgres?ssl=disable"
    engine = create_async_engine(f"postgresql+asyncpg://{address}", **pool)

    @asynccontextmanager
    async def filled(app: fastapi.FastAPI) -> AsyncIterator[None]:
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.drop_all)
            await connection.run_sync(Base.metadata.create_all)
        async with AsyncSession(engine) as session, session.begin():
            session.add(Words(number=1, **WORDS))
        yield
        await engine.dispose()

    app = fastapi.FastAPI(lifespan=filled)

    @app.get("/")
    async def answer() -> dict[str, str]:
        async with AsyncSession(engine) as session:
            found = await session.get_one(Words, 1)
            return {"message": found.message}

    return app


def django_view(args: argparse.Namespace) -> Any:
    import django
    from django.conf import settings
    from django.core.asgi import get_asgi_application
    from django.http import HttpRequest, JsonResponse
    from django.urls import path

    async def answer(request: HttpRequest) -> JsonResponse:
        return JsonResponse(WORDS)

    settings.configure(
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=(path("", answer),),
        MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
    )
    django.setup()
    return get_asgi_application()


APPS: dict[str, Callable[[argparse.Namespace], Any]] = {
    "plain": plain_text,
    "def": plain_function,
    "sqlalchemy": sqlalchemy_row,
    "sqlalchemy_64": partial(sqlalchemy_row, pool_size=64),
    "django": django_view,
    **tokens.APPS,
}


async def serve_uvicorn(args: argparse.Namespace) -> None:
    import uvicorn

    config = uvicorn.Config(
        APPS[args.app](args),
        host="127.0.0.1",
        port=0,
        http="httptools",
        timeout_keep_alive=600,  # it may be stopped meanwhile
        ws="none",
        lifespan="on" if args.app.startswith("sqlalchemy") else "off",
        log_level="warning",
        access_log=False,
        ssl_certfile=CERTIFICATE if args.tls else None,
        ssl_keyfile=KEY if args.tls else None,
    )

    class Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            if self.started:
                serving.announce(serving.port_of(self.servers[0]))

    await Server(config).serve([args.sock] if args.sock else None)


async def serve_aiohttp(args: argparse.Namespace) -> None:
    from aiohttp import web

    async def hello(request: web.Request) -> web.Response:
        return web.Response(text="Hello, world!")

    app = web.Application()
    app.router.add_get("/", hello)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    context = tls_context() if args.tls else None
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    serving.announce(runner.addresses[0][1])
    await serving.forever()


if __name__ == "__main__":
    parser = serving.parser(__doc__)
    parser.add_argument("--app", choices=(*APPS, "aiohttp"), required=True)
    parser.add_argument("--streams", type=int, default=1, help="of tokens")
    args = parser.parse_args()
    serving.serve(
        args, serve_aiohttp if args.app == "aiohttp" else serve_uvicorn
    )
