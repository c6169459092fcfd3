"""Tests of the server may be coroutines, and may have a running server to talk to."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fleetwire.testing.heart import Clock, Heart, Serve, heart


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine function in an event loop of its own."""
    test = pyfuncitem.obj
    if not inspect.iscoroutinefunction(test):
        return None
    wanted = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    asyncio.run(test(**wanted))
    return True


@pytest.fixture
def serve(tmp_path: Path, record_url: str) -> Serve:
    """Start the server on the database of this run; again and again on the same data."""
    url = None if record_url.startswith("sqlite:") else record_url

    @asynccontextmanager
    async def start(**options: bool | Clock | None) -> AsyncIterator[Heart]:
        async with heart(tmp_path, database_url=url, logs_at=url, **options) as running:  # type: ignore[arg-type]
            yield running

    return start
