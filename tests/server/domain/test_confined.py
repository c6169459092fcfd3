"""Runs that name a user or limits never reach an agent that does not know them."""

from __future__ import annotations

from functools import partial

import pytest
from tests.server.domain.test_report import greet

from fleetwire.core.specs import Resources, Script
from fleetwire.server.domain import desired
from fleetwire.server.domain.desired import Asked
from fleetwire.testing.heart import Serve


@pytest.mark.parametrize(
    "spec",
    [Script("true", run_as="nobody"), Script("true", resources=Resources(files=10))],
    ids=["run_as", "resources"],
)
@pytest.mark.parametrize("full", [True, False])
async def test_an_older_agent_is_never_given_one(serve: Serve, spec: Script, full: bool) -> None:
    async with serve(loops=False) as one:
        identity = await one.identity("a")
        link = await greet(one, identity)
        run_id = await one.submit(spec=spec, nodes=(identity.node,))
        await one.dispatch.round()
        asked = {identity.node: Asked(link, full=full, confines=False)}
        levels = await one.database.write(partial(desired.desired, asked=asked, key="k"))
        assert levels[identity.node].wanted == ()
        assert (await one.run(run_id)).counts["refused"] == 1
        levels = await one.database.write(partial(desired.desired, asked=asked, key="k"))
        assert levels[identity.node].wanted == ()


async def test_an_older_agent_is_given_what_it_knows(serve: Serve) -> None:
    async with serve(loops=False) as one:
        identity = await one.identity("a")
        link = await greet(one, identity)
        await one.submit(spec=Script("true"), nodes=(identity.node,))
        await one.dispatch.round()
        asked = {identity.node: Asked(link, full=True, confines=False)}
        levels = await one.database.write(partial(desired.desired, asked=asked, key="k"))
        assert len(levels[identity.node].wanted) == 1
