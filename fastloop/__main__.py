"""`python -m fastloop`: runs the command line in `fastloop.cli`."""

import sys

from fastloop.cli import main

if __name__ == "__main__":
    sys.exit(main())
