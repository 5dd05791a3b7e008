"""`python -m fastloop`: runs the command line in `fastloop.cli`."""

from fastloop.cli import command

if __name__ == "__main__":
    command()
