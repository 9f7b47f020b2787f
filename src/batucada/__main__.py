"""`python -m batucada` is the `batucada` command."""

import sys

from batucada.cli import main

if __name__ == "__main__":
    sys.exit(main())
