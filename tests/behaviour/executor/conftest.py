"""The fixture of a pool of threads."""

from concurrent.futures import ThreadPoolExecutor

import pytest


@pytest.fixture(params=["default", "own"])
def pool(request):
    """Return None, for the default executor, or one of the user's."""
    if request.param == "default":
        yield None
        return
    with ThreadPoolExecutor(4) as executor:
        yield executor
