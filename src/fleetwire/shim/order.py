"""The `order` record: what the agent asks of a shim (docs/seams.md, section 1)."""

import os
from typing import Any, NamedTuple

from fleetwire.shim.confine import Confinement

_POLICIES = ("block", "drop", "kill")


def secrets_folder(record: dict[str, Any], attempt: str) -> str:
    """The folder of the delivery that an attempt's order names; "" where there is none. To be asked
    of any record, also of one that is no good order.
    """
    strict = record.get("strict")
    path = str(strict.get("secrets", "")) if isinstance(strict, dict) else ""
    # The last part is the attempt's id: no damaged order can name a folder of somebody else.
    return path if os.path.basename(path) == attempt else ""


class OrderError(ValueError):
    """The order cannot be carried out as it is written."""


class Order(NamedTuple):
    """One attempt, ready to run. Durations in seconds, sizes in bytes."""

    attempt: str
    epoch: int
    argv: list[str]
    env: dict[str, str]
    cwd: str
    tty: tuple[int, int] | None
    stdin: bool
    deadline_s: float
    grace_s: float
    quota: int
    quota_policy: str
    piece: int
    most: int  # bytes of output after which the task is ended; 0: no end
    confine: Confinement | None
    boot_id: str  # of the boot in which it was written; "" by an agent that did not say it yet
    secrets: str  # the folder in which they are delivered; "" where there are none

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> "Order":
        """Read the record; raises OrderError, which names what is wrong with it."""
        try:
            tty = record["tty"]
            strict = record.get("strict") or {}
            order = cls(
                attempt=str(record["attempt"]),
                epoch=int(record["epoch"]),
                argv=[str(each) for each in (strict or record)["argv"]],
                env={str(name): str(value) for name, value in record["env"].items()},
                cwd=str(record["cwd"]),
                tty=None if tty is None else (int(tty["rows"]), int(tty["cols"])),
                stdin=record["stdin"] == "control",
                deadline_s=float(record["deadline_s"]),
                grace_s=float(record["grace_s"]),
                quota=int(record["quota"]),
                quota_policy=str(record["quota_policy"]),
                piece=int(record["piece"]),
                most=int(strict.get("most", 0)),
                confine=Confinement.from_record(strict.get("confine")),
                boot_id=str(record.get("boot_id", "")),
                secrets=str(strict.get("secrets", "")),
            )
        except KeyError as error:
            raise OrderError(f"the order has no field {error}") from error
        except (TypeError, ValueError, AttributeError) as error:
            raise OrderError(f"the order has a field of the wrong kind: {error}") from error
        if order.secrets != secrets_folder(record, order.attempt):
            raise OrderError("the order's secrets stand in no folder of this attempt")
        if not order.argv:
            raise OrderError("the order has an empty argv")
        if order.quota_policy not in _POLICIES:
            raise OrderError(f"the order's quota_policy is not one of {', '.join(_POLICIES)}")
        return order
