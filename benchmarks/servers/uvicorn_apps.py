"""uvicorn with httptools and an application of a framework.

    python benchmarks/servers/uvicorn_apps.py --loop NAME --app def

The applications are a plain function of FastAPI, which runs in a thread (def),
a row of a table by SQLAlchemy and asyncpg under FastAPI (sqlalchemy, which
wants --postgres PORT), and an asynchronous view of Django (django).
"""

from __future__ import annotations

import argparse
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import serving
import uvicorn
from uvicorn_plain import Server

WORDS = {"message": "Hello, world!"}


def plain_function(args: argparse.Namespace) -> Any:
    """Return a FastAPI application with an endpoint that is no coroutine."""
    import fastapi

    app = fastapi.FastAPI()

    @app.get("/")
    def answer() -> dict[str, str]:
        return WORDS

    return app


def sqlalchemy_row(args: argparse.Namespace) -> Any:
    """Return a FastAPI application that reads a row by its key."""
    import fastapi
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

    address = f"race@127.0.0.1:{args.postgres}/postgres?ssl=disable"
    engine = create_async_engine(f"postgresql+asyncpg://{address}")

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
    """Return a Django application of one asynchronous view."""
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
    "def": plain_function,
    "sqlalchemy": sqlalchemy_row,
    "django": django_view,
}


if __name__ == "__main__":
    parser = serving.parser(__doc__)
    parser.add_argument("--app", choices=APPS, required=True)
    parser.add_argument("--postgres", metavar="PORT")
    args = parser.parse_args()
    config = uvicorn.Config(
        APPS[args.app](args),
        host="127.0.0.1",
        port=0,
        http="httptools",
        timeout_keep_alive=600,  # it may be stopped meanwhile
        ws="none",
        lifespan="on" if args.app == "sqlalchemy" else "off",
        log_level="warning",
        access_log=False,
    )
    serving.serve(args, Server(config).serve)
