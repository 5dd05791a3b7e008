"""The name that pip knows fastloop by, and a project that has our import name.

PyPI's ``fastloop`` is another project.  Its package has this one's name, so
files of the one replace files of the other where both are installed.
"""

from __future__ import annotations

__all__ = ["NAME", "other_installed"]

NAME = "asyncio-fastloop"


def other_installed() -> str:
    """Return a sentence if the other project is installed too, else ""."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        version("fastloop")
    except PackageNotFoundError:
        return ""
    return (
        "the distribution `fastloop`, which is another project, is installed "
        f"here too, and files of the two replace each other: `pip uninstall "
        f"fastloop {NAME}`, then `pip install {NAME}`"
    )
