"""A pytest plugin: skip what needs a browser, and say what to install (see ./dev test)."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every browser test as skipped."""
    reason = "chromium is not installed; on Debian: sudo apt-get install chromium"
    for item in items:
        if item.get_closest_marker("browser"):
            item.add_marker(pytest.mark.skip(reason=reason))
