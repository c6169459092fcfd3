"""Worlds for the tests of the simulation."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from fleetwire.testing.simulation.installed import Installed, installed


@pytest.fixture
def where() -> Iterator[Installed]:
    """Put the simulated system into force; nothing else may run agents meanwhile."""
    with installed() as found:
        gc.disable()
        try:
            yield found
        finally:
            gc.enable()
            gc.collect()
