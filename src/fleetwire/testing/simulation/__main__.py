"""`python -m fleetwire.testing.simulation`, see `runner`."""

import sys

from fleetwire.testing.simulation.runner import main

if __name__ == "__main__":
    sys.exit(main())
