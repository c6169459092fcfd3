"""Requests made up from the OpenAPI document (schemathesis), with each role: never a 500, never an
answer that the document does not name, never more than the role may.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from fleetwire.core import access
from fleetwire.server.api import openapi
from fleetwire.server.api.access_page import EVERYBODY, passes
from fleetwire.server.api.doors import OPEN
from fleetwire.server.api.routes import DOORS

if TYPE_CHECKING:
    from tests.server.api.conftest import Server

pytestmark = pytest.mark.slow

EXAMPLES = 60
LASTING = ("/events", "/log/stream")
COSTLY = {"POST /api/v1/login", "DELETE /api/v1/login"}
"""Passwords are costly by design, and a logout is for cookies; both have tests of their own."""

DOCUMENT = openapi.document(DOORS)
PERMISSION = {f"{door.method} {door.path}": door.permission for door in DOORS}


def operations() -> Iterator[Any]:
    schema = schemathesis.openapi.from_dict(DOCUMENT)
    for found in schema.get_all_operations():
        operation = found.ok()
        name = f"{operation.method.upper()} {operation.path}"
        if name not in COSTLY and not operation.path.endswith(LASTING):
            yield operation


@pytest.fixture(scope="module")
def tokens(server: Server) -> dict[str, str]:
    return {
        who: server.new_user(
            f"schema-{number}",
            *rights.roles.get("p", ()),
            role="admin" if rights.is_system_admin else "user",
        )
        for number, (who, rights) in enumerate(EVERYBODY.items())
    }


@pytest.mark.parametrize("who", EVERYBODY)
def test_what_is_made_up_is_never_a_mistake_of_ours(
    server: Server, tokens: dict[str, str], who: str
) -> None:
    headers = {"Authorization": f"Bearer {tokens[who]}"}
    cases = st.one_of([operation.as_strategy() for operation in operations()])

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases)
    def ask(case: Any) -> None:
        answer = case.call(base_url=server.origin, headers=headers, allow_redirects=False)
        name = f"{case.operation.method.upper()} {case.operation.path}"
        assert answer.status_code < 500, (name, answer.text)
        named = DOCUMENT["paths"][case.operation.path][case.operation.method]["responses"]
        # The router and the front door answer what never comes to a door.
        assert str(answer.status_code) in {*named, "400", "404", "405", "414", "431"}, name
        permission = PERMISSION[name]
        may = passes(EVERYBODY[who], permission) and permission not in access.BY_LOGIN_ONLY
        if permission != OPEN and not may and answer.status_code not in {400, 404, 405}:
            assert answer.status_code == 403, (name, answer.text)

    ask()
