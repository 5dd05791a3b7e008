"""A function a framework that makes an application, which names its loop."""

import asyncio


async def which() -> str:
    return repr(asyncio.get_running_loop())


def quart():
    from quart import Quart

    app = Quart(__name__)
    app.get("/")(which)
    return app


def litestar():
    from litestar import Litestar, get

    return Litestar([get("/")(which)])


def django():
    from django.conf import settings
    from django.core.asgi import get_asgi_application
    from django.http import HttpResponse
    from django.urls import path

    async def view(request):
        return HttpResponse(await which())

    urls = (path("", view),)
    settings.configure(ROOT_URLCONF=urls, SECRET_KEY="x", ALLOWED_HOSTS=["*"])
    return get_asgi_application()
