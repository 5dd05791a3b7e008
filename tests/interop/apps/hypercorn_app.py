"""An application for hypercorn, which imports it and then makes a loop."""

import warnings

from holding import app

import fastloop

__all__ = ["app"]

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    fastloop.install()
