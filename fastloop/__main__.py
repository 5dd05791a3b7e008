"""`python -m fastloop`: the command line, see `fastloop.cli`."""

import sys

from fastloop.cli import main

if __name__ == "__main__":
    sys.exit(main())
