"""`python -m fleetwire.cli`: how `fleetwire up` starts its own children."""

import sys

from fleetwire.cli import main

if __name__ == "__main__":
    sys.exit(main())
