from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetwire.testing.lab import Lab


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab(tmp_path) as started:
        started.start_server()
        yield started
