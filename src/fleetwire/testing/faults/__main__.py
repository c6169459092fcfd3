"""`python -m fleetwire.testing.faults`, see `runner`."""

import sys

from fleetwire.testing.faults.runner import main

if __name__ == "__main__":
    sys.exit(main())
