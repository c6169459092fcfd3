"""Secrets as values: how a run names them, what they may be, and what is sealed for a node.

A run names secrets and never holds one. Their values are put together when the attempt is given
to a node, sealed to that node's X25519 key, and bound by the order's signature (promises, 2).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Sequence
from typing import Final, Literal, NamedTuple, TypeAlias

import msgspec

from fleetwire.core import limits
from fleetwire.core.errors import BadSpec, LimitExceeded

FEATURE: Final = "secrets"
"""What an agent offers that can take them (protocol.versions)."""
As: TypeAlias = Literal["file", "env"]
NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
ENV_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_ARMOUR: Final = re.compile(rb"-----(BEGIN|END) [A-Z0-9 ]+-----")


class Box(NamedTuple):
    """An encrypted value: which master key, the nonce, and what came of it."""

    key_id: str
    nonce: bytes
    data: bytes


class SecretUse(msgspec.Struct, frozen=True, rename={"as_": "as"}):
    """One secret of a run: its name, and as what the task gets it. `to` is the name of the file
    in `FLEETWIRE_SECRETS`, or of the environment variable; the secret's own name where not given.
    """

    name: str
    as_: As = "file"
    to: str = ""

    def __post_init__(self) -> None:
        """Say `to` always: a spec has one form and so one hash."""
        if not self.to:
            msgspec.structs.force_setattr(self, "to", self.name)


class Given(msgspec.Struct, frozen=True, rename={"as_": "as"}):
    """One secret with its value, as it is sealed."""

    name: str
    as_: As
    to: str
    value: bytes


class Content(msgspec.Struct, frozen=True):
    """What is sealed for a node: for one start of one attempt, so that it fits no other."""

    attempt: str
    epoch: int
    secrets: tuple[Given, ...]


_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(Content)


def write_content(content: Content) -> bytes:
    """Return the bytes that are sealed."""
    return _encode(content)


def read_content(data: bytes, uses: Sequence[SecretUse], *, attempt: str, epoch: int) -> Content:
    """Return what was unsealed. Raises BadSpec, without a word of the content, unless it is for
    this start and holds exactly what the spec names.
    """
    try:
        content = _decoder.decode(data)
    except msgspec.MsgspecError:
        content = None
    if (
        content is None
        or (content.attempt, content.epoch) != (attempt, epoch)
        or [(each.name, each.as_, each.to) for each in content.secrets]
        != [(each.name, each.as_, each.to) for each in uses]
    ):
        raise BadSpec(
            "What was sealed for this node is not what the order names.",
            hint="Try the run again; if it stays so, the server has been tampered with.",
            field="spec.secrets",
        )
    return content


def sealed_sha256(sealed: bytes) -> str:
    """Return the hash that binds what is sealed to its envelope."""
    return hashlib.sha256(sealed).hexdigest()


def check_uses(uses: Sequence[SecretUse], environment: Collection[str]) -> None:
    """Raise BadSpec or LimitExceeded for the first use that cannot be accepted. `environment`:
    the variables that the spec sets.
    """
    if len(uses) > limits.SECRETS_PER_RUN:
        raise LimitExceeded(
            f"spec.secrets has {len(uses)} entries.",
            hint=f"At most {limits.SECRETS_PER_RUN}.",
            field="spec.secrets",
        )
    taken = {("env", name) for name in environment}
    for number, use in enumerate(uses):
        field = f"spec.secrets[{number}]"
        check_name(use.name, f"{field}.name")
        form = NAME if use.as_ == "file" else ENV_NAME
        if not form.fullmatch(use.to) or use.to.startswith("FLEETWIRE_"):
            kind = "a file" if use.as_ == "file" else "an environment variable"
            raise BadSpec(
                f"{use.to[:80]!r} is not a name for {kind} of a secret.",
                hint="Use letters, digits and _ (for files also . and -), and not FLEETWIRE_...",
                field=f"{field}.to",
            )
        if (use.as_, use.to) in taken:
            raise BadSpec(
                f"{use.to!r} is given twice.", hint="Give each its own name.", field=f"{field}.to"
            )
        taken.add((use.as_, use.to))


def check_name(name: str, field: str) -> None:
    """Raise BadSpec for what is no name of a secret."""
    if not NAME.fullmatch(name):
        raise BadSpec(
            f"{name[:80]!r} is not a name for a secret.",
            hint="Use 1 to 128 letters, digits, _ . -, beginning with a letter, a digit or _.",
            field=field,
        )


def check_value(value: bytes) -> None:
    """Raise LimitExceeded for a value that is too long, or too short to be masked in output."""
    if len(value) > limits.SECRET_BYTES:
        raise LimitExceeded(
            f"The secret has {len(value)} bytes.",
            hint=f"At most {limits.SECRET_BYTES}; keep large data elsewhere, and its key here.",
            field="value",
        )
    if not is_maskable(value):
        raise LimitExceeded(
            f"The secret is too short: none of its lines has {limits.SECRET_LEAST_BYTES} bytes.",
            hint="So short a text cannot be masked in output without masking much else. "
            "Use a longer secret.",
            field="value",
        )


def is_maskable(value: bytes) -> bool:
    """Say whether the shim will mask it (`fleetwire.shim.variants` finds it by the same rule)."""
    lines = re.split(rb"[\r\n]+", value)
    return len(value.strip(b"\r\n")) >= limits.SECRET_LEAST_BYTES and any(
        len(line) >= limits.SECRET_LEAST_BYTES and not _ARMOUR.fullmatch(line) for line in lines
    )


def check_total(values: Sequence[Given]) -> None:
    """Raise LimitExceeded where they are too much for one order together, or one of them cannot
    be what it is to be.
    """
    total = sum(len(each.value) for each in values)
    if total > limits.SECRETS_BYTES:
        raise LimitExceeded(
            f"The run's secrets have {total} bytes together.",
            hint=f"At most {limits.SECRETS_BYTES}.",
            field="spec.secrets",
        )
    for each in values:
        if each.as_ == "env" and b"\0" in each.value:
            raise BadSpec(
                f"The secret {each.name!r} has a NUL, which no environment variable can hold.",
                hint="Give it to the task as a file.",
                field="spec.secrets",
            )
