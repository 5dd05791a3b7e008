"""The FastAPI application for hypercorn, on the loop that LOOP names.

Hypercorn's workers import the application before they make their loop, and
ask asyncio for it.  Run as a program, hypercorn's own `serve` is a coroutine
under `fastloop.run`, as its manual tells for programs.
"""

import asyncio
import os
import sys
import warnings

from fastapi_app import app

__all__ = ["app"]

if os.environ["LOOP"] == "fastloop":
    import fastloop

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        fastloop.install()


if __name__ == "__main__":
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    config = Config()
    config.bind = [f"127.0.0.1:{sys.argv[1]}"]
    main = serve(app, config)
    if os.environ["LOOP"] == "fastloop":
        fastloop.run(main)
    else:
        asyncio.run(main)
