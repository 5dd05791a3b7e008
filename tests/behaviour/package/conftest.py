"""The fixture that runs suites of their own."""

from inner_suites import suite

__all__ = ["suite"]
