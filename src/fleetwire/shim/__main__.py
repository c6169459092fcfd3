"""`python -m fleetwire.shim STATE_DIR`: the spawner, in the background once it listens."""

import sys

if __name__ == "__main__":
    if sys.platform == "win32":
        sys.exit("attempts cannot run on Windows yet: shims need POSIX process trees")
    else:
        from fleetwire.shim.forkserver import main

        sys.exit(main(sys.argv[1:]))
