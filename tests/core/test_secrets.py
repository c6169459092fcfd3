"""What a run may say of secrets, and what a secret may be."""

from __future__ import annotations

import msgspec
import pytest

from fleetwire.core import limits
from fleetwire.core.errors import BadSpec, FleetwireError, LimitExceeded
from fleetwire.core.secrets import (
    Given,
    SecretUse,
    check_name,
    check_total,
    check_uses,
    check_value,
    sealed_sha256,
)
from fleetwire.core.specs import Script, Spec, check, secrets_of


def test_a_use_has_one_form_however_it_was_said() -> None:
    said = msgspec.json.decode(b'{"name": "db"}', type=SecretUse)
    assert said == SecretUse("db", "file", "db")
    assert msgspec.json.encode(said) == b'{"name":"db","as":"file","to":"db"}'


def test_a_spec_without_secrets_is_written_as_ever() -> None:
    assert b"secrets" not in msgspec.json.encode(Script("true"))
    assert b"secrets" not in msgspec.json.encode(Script("true", secrets=()))
    named = Script("true", secrets=(SecretUse("db"),))
    assert msgspec.json.decode(msgspec.json.encode(named), type=Spec) == named
    assert secrets_of(named) == (SecretUse("db"),)
    assert secrets_of(Script("true")) == ()


@pytest.mark.parametrize(
    "uses",
    [
        (SecretUse("a/b"),),
        (SecretUse(""),),
        (SecretUse("..", "file", "x"),),
        (SecretUse("db", "file", "../x"),),
        (SecretUse("db", "file", ".values"),),
        (SecretUse("db", "file", "a/b"),),
        (SecretUse("db", "env", "not-a-variable"),),
        (SecretUse("db", "env", "FLEETWIRE_ATTEMPT"),),
        (SecretUse("db", "env", "TAKEN"),),
        (SecretUse("a", "env", "X"), SecretUse("b", "env", "X")),
        (SecretUse("a"), SecretUse("b", "file", "a")),
    ],
)
def test_a_use_that_cannot_be_is_refused(uses: tuple[SecretUse, ...]) -> None:
    with pytest.raises(BadSpec) as caught:
        check(Script("true", env={"TAKEN": "x"}, secrets=uses))
    assert str(caught.value.field).startswith("spec.secrets[")


def test_the_same_secret_may_be_given_in_two_ways() -> None:
    check_uses((SecretUse("db"), SecretUse("db", "env", "DB"), SecretUse("db", "file", "x")), ())


@pytest.mark.limit("secrets_per_run")
def test_as_many_secrets_as_a_run_may_have() -> None:
    uses = tuple(SecretUse(f"s{number}") for number in range(limits.SECRETS_PER_RUN))
    check_uses(uses, ())
    with pytest.raises(LimitExceeded):
        check_uses((*uses, SecretUse("more")), ())


@pytest.mark.limit("secret_bytes")
def test_the_longest_secret() -> None:
    check_value(b"x" * limits.SECRET_BYTES)
    with pytest.raises(LimitExceeded):
        check_value(b"x" * (limits.SECRET_BYTES + 1))


@pytest.mark.limit("secret_least_bytes")
def test_the_shortest_secret() -> None:
    check_value(b"x" * limits.SECRET_LEAST_BYTES + b"\n")
    for short in (b"", b"x" * (limits.SECRET_LEAST_BYTES - 1) + b"\n\n", b"\n".join([b"xx"] * 99)):
        with pytest.raises(LimitExceeded, match="too short"):
            check_value(short)


@pytest.mark.limit("secrets_bytes")
def test_as_much_as_one_order_takes() -> None:
    check_total([Given("a", "file", "a", b"x" * limits.SECRETS_BYTES)])
    with pytest.raises(LimitExceeded):
        check_total([Given("a", "file", "a", b"x" * (limits.SECRETS_BYTES + 1))])


def test_no_environment_variable_holds_a_nul() -> None:
    check_total([Given("a", "file", "a", b"secret\0secret")])
    with pytest.raises(BadSpec, match="as a file") as caught:
        check_total([Given("a", "env", "A", b"secret\0secret")])
    assert "secret\0" not in str(caught.value)


def test_names() -> None:
    for good in ("db", "db-password.2", "_x", "X" * 128, "9"):
        check_name(good, "name")
    for bad in ("", ".x", "-x", "x y", "é", "x" * 129, "a/b", "x\n"):
        with pytest.raises(FleetwireError):
            check_name(bad, "name")
    assert len(sealed_sha256(b"")) == 64
