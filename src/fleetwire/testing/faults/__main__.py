"""`python -m fleetwire.testing.faults`, see `runner`."""

import signal
import sys

from fleetwire.testing.faults.runner import main

if __name__ == "__main__":
    # Ended from outside it takes its system down as it does after Ctrl-C.
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(143))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main())
