"""Adapters of ``loop.metrics()`` to what watches programs in production."""
