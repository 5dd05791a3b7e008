"""An application for hypercorn: workers import it, then make a loop."""

import warnings

from holding import app

import fastloop

__all__ = ["app"]

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    fastloop.install()
