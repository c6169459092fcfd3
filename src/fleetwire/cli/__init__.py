"""The command line: one file per noun, each imported only when its command is called."""

from __future__ import annotations


def main() -> int:
    """Run the command line of this process and return its exit code."""
    from fleetwire.cli.app import run

    return run()
