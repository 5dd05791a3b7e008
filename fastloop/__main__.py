"""The command line of `fastloop.cli`: `python -m fastloop`, or `fastloop`."""

try:
    from fastloop.cli import command
except ImportError:  # PyPI's `fastloop` has a file of that name
    import sys
    import textwrap

    from fastloop._loop._environment import NAME, other_installed

    fault = other_installed() or (
        f"files are missing: `pip install --force-reinstall {NAME}`"
    )
    print(textwrap.fill(f"fastloop: {fault}", 79), file=sys.stderr)
    sys.exit(2)

if __name__ == "__main__":
    command()
