from __future__ import annotations

import importlib
import pkgutil

import pytest

import fleetwire.core
import fleetwire.server
from fleetwire.core import access
from fleetwire.core.errors import FleetwireError
from fleetwire.server.api import errors


def all_errors() -> list[type[FleetwireError]]:
    for package in (fleetwire.core, fleetwire.server):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if "migrations" not in module.name and not module.name.endswith("__main__"):
                importlib.import_module(module.name)

    def below(kind: type[FleetwireError]) -> list[type[FleetwireError]]:
        return [one for child in kind.__subclasses__() for one in (child, *below(child))]

    ours = ("fleetwire.core.", "fleetwire.server.")
    return [kind for kind in below(FleetwireError) if kind.__module__.startswith(ours)]


def test_every_error_has_a_code_of_its_own_kind() -> None:
    found = all_errors()
    assert len(found) > 30
    for kind in found:
        assert "code" in kind.__dict__, kind
        assert kind.code == kind.code.lower()
        assert " " not in kind.code


def test_every_status_belongs_to_an_error() -> None:
    codes = {kind.code for kind in all_errors()} | {"internal", "method-not-allowed", "not-ready"}
    assert set(errors.STATUS) <= codes, set(errors.STATUS) - codes


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (errors.BadJson, 400),
        (errors.Unauthenticated, 401),
        (access.Forbidden, 403),
        (errors.BodyTooLarge, 413),
        (errors.Unprocessable, 422),
        (FleetwireError, 422),
    ],
)
def test_status(kind: type[FleetwireError], status: int) -> None:
    response = errors.problem_of(kind("What.", hint="Do.", field="f"))
    assert response.status_code == status


def test_text_that_is_no_unicode_is_made_visible() -> None:
    response = errors.problem_of(FleetwireError("a\ud800b", hint="\udfff", field="\ud800"))
    assert rb"a\\ud800b" in response.body
