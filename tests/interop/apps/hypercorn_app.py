"""An application for hypercorn, whose workers import it and then make a loop."""

import warnings

from holding import app

import fastloop

__all__ = ["app"]

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    fastloop.install()
