"""`python -m redsam` is `redsam`."""

import sys

from redsam.cli import main

if __name__ == "__main__":
    sys.exit(main())
