"""What a user of gunicorn writes to have fastloop in its workers.

`worker_class = "gunicorn_fastloop.FastloopWorker"` for uvicorn's worker; for
gunicorn's own ASGI worker this module itself as the configuration file.
"""

import warnings

from uvicorn_worker import UvicornWorker


class FastloopWorker(UvicornWorker):
    CONFIG_KWARGS = {"loop": "fastloop:new_event_loop", "http": "httptools"}


class AsyncioWorker(UvicornWorker):
    CONFIG_KWARGS = {"loop": "asyncio", "http": "httptools"}


asgi_loop = "asyncio"


def post_fork(server, worker) -> None:
    """Gunicorn's ASGI worker asks asyncio for its loop: answer it."""
    import fastloop

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        fastloop.install()
