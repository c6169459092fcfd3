"""The authoriser: what no table names is denied, and nobody gets more than they have."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetwire.core import access
from fleetwire.core.access import Forbidden, Rights, Scope, allowed, narrower, reach

PROJECTS = ("a", "b", access.DEFAULT_PROJECT)
projects = st.sampled_from(PROJECTS)
permissions = st.sampled_from(sorted(access.PERMISSIONS))
roles = st.frozensets(st.sampled_from(sorted(access.ROLES)))
scopes = st.builds(Scope, st.none() | projects, st.none() | st.frozensets(permissions, max_size=6))
rights = st.builds(
    Rights,
    is_system_admin=st.booleans(),
    roles=st.dictionaries(projects, roles, max_size=3),
    scope=st.none() | scopes,
)
anything = st.text(max_size=20) | permissions


@given(rights, anything, st.none() | projects | st.text(max_size=5))
def test_deny_by_default(who: Rights, permission: str, project: str | None) -> None:
    if not allowed(who, permission, project):
        return
    assert permission in access.PERMISSIONS
    if permission in access.IN_PROJECT:
        assert project is not None
        had = access.of_roles(who.roles.get(project, ()))
        assert permission in had or (who.is_system_admin and permission == "manage-roles")
    if permission in access.OF_SYSTEM:
        assert who.is_system_admin


def test_what_is_unknown_gives_nothing() -> None:
    future = Rights(roles={"a": frozenset({"owner", "root"})})
    assert not any(allowed(future, one, "a") for one in access.IN_PROJECT)
    assert access.of_roles(["owner"]) == frozenset()
    viewer = Rights(roles={"a": frozenset({"viewer"})})
    assert not allowed(viewer, "read")
    assert not allowed(viewer, "read", "b")
    assert not allowed(viewer, "everything", "a")


def test_a_system_admin_runs_and_reads_nothing_without_a_role() -> None:
    admin = Rights(is_system_admin=True)
    assert {one for one in access.IN_PROJECT if allowed(admin, one, "a")} == {"manage-roles"}
    assert reach(admin, "run").is_nowhere
    assert reach(admin, "manage-roles").everywhere


def test_the_table_of_the_promises() -> None:
    """Roles of docs/promises.md, section 2, word for word; what is not there is not given."""
    run = {"run", "stop", "drain"}
    manage = {"manage-jobs", "manage-secrets", "manage-enrolment", "manage-nodes", "manage-roles"}
    assert access.ROLES["viewer"] == {"read", "read-logs"}
    assert access.ROLES["operator"] == access.ROLES["viewer"] | run
    assert access.ROLES["project-admin"] == access.ROLES["operator"] | manage
    assert access.ROLES["auditor"] == {"read", "read-audit"}
    for grant in ("terminal", "file-write", "use-secret"):
        assert [role for role, gives in access.ROLES.items() if grant in gives] == [grant]


@given(rights, st.sampled_from(sorted(access.IN_PROJECT)))
def test_reach_is_allowed_in_each_project(who: Rights, permission: str) -> None:
    found = reach(who, permission)
    for project in PROJECTS:
        assert found.has(project) is allowed(who, permission, project)
    assert found.knows <= set(who.roles)


@given(rights, permissions, projects, scopes)
def test_a_token_never_has_more_than_its_owner(
    who: Rights, permission: str, project: str, wanted: Scope
) -> None:
    try:
        scope = narrower(who, wanted)
    except Forbidden:
        return
    token = Rights(is_system_admin=who.is_system_admin, roles=who.roles, scope=scope)
    for where in (project, None):
        if allowed(token, permission, where):
            assert allowed(who, permission, where)
    assert not allowed(token, "manage-own-account")


@given(rights, projects, roles, roles, st.booleans())
def test_nobody_gives_more_than_they_may(
    who: Rights, project: str, before: frozenset[str], after: frozenset[str], is_self: bool
) -> None:
    if is_self:
        before = who.roles.get(project, frozenset())
    try:
        access.check_assignment(who, project, before, after, is_self=is_self)
    except Forbidden:
        return
    if before != after:
        assert allowed(who, "manage-roles", project)
    if is_self:
        assert access.of_roles(after) <= access.of_roles(before)
    if not who.is_system_admin:
        gained = access.of_roles(after - before)
        assert gained <= access.of_roles(who.roles.get(project, ()))


def test_a_narrow_token_makes_no_wider_one() -> None:
    bound = Rights(scope=Scope("a", frozenset({"read", "run"})))
    assert narrower(bound, Scope()) == Scope("a", frozenset({"read", "run"}))
    assert narrower(bound, Scope("a", frozenset({"run"}))) == Scope("a", frozenset({"run"}))
    with pytest.raises(Forbidden, match="another"):
        narrower(bound, Scope("b"))
    with pytest.raises(Forbidden, match="stop"):
        narrower(bound, Scope("a", frozenset({"run", "stop"})))
