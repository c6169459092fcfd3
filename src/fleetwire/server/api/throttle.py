"""How many wrong passwords: token buckets per account and address, in memory.

A wrong password costs one token, a right one none. An account is also bounded over all addresses,
so that many machines cannot guess together; that bound is wide, so that they cannot lock a person
out for long either. An IPv6 address counts as its /64 (core.shares.origin).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple

from fleetwire.core import limits
from fleetwire.core.shares import origin
from fleetwire.server.api.errors import TooManyLogins

BUCKETS: Final = 10_000


class Rate(NamedTuple):
    """`burst` tries at once, then one each `seconds`."""

    burst: int
    seconds: float


PAIR: Final = Rate(limits.LOGIN_TRIES_PER_ACCOUNT_AND_ADDRESS, 6.0)
ACCOUNT: Final = Rate(limits.LOGIN_TRIES_PER_ACCOUNT, 1.0)
ADDRESS: Final = Rate(limits.LOGIN_TRIES_PER_ADDRESS, 2.0)
CODE: Final = Rate(limits.CODE_TRIES_PER_ACCOUNT, 60.0)
"""Only who has the password tries codes, and there are but a million: this bound is narrow."""


class LoginThrottle:
    """Counts tries. `clock` is monotonic seconds. Not for use from several threads."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._buckets: OrderedDict[tuple[str, str], tuple[float, float]] = OrderedDict()

    def take(self, account: str, address: str) -> None:
        """Pay for one try before its password is looked at, or raise TooManyLogins."""
        now = self._clock()
        keys = self._keys(account, address)
        waits = [rate.seconds * (1 - self._tokens(key, rate, now)) for key, rate in keys]
        if max(waits) > 0:
            raise TooManyLogins(
                "Too many wrong passwords came for this account or from this address.",
                hint=f"Wait {max(waits):.0f} s, then try again.",
                retry_after=max(waits),
            )
        for key, rate in keys:
            self._set(key, self._tokens(key, rate, now) - 1, now)

    def give_back(self, account: str, address: str) -> None:
        """The password was right: the try cost nothing."""
        now = self._clock()
        for key, rate in self._keys(account, address):
            self._set(key, min(rate.burst, self._tokens(key, rate, now) + 1), now)

    def take_code(self, user: str) -> None:
        """Pay for one code of a second factor before it is looked at, or raise TooManyLogins."""
        now = self._clock()
        key = (user, "code")
        tokens = self._tokens(key, CODE, now)
        if tokens < 1:
            wait = CODE.seconds * (1 - tokens)
            raise TooManyLogins(
                "Too many wrong codes came for this account.",
                hint=f"Wait {wait:.0f} s, then try again.",
                retry_after=wait,
            )
        self._set(key, tokens - 1, now)

    def give_code_back(self, user: str) -> None:
        """The code was right: the try cost nothing."""
        now = self._clock()
        key = (user, "code")
        self._set(key, min(CODE.burst, self._tokens(key, CODE, now) + 1), now)

    def _keys(self, account: str, address: str) -> list[tuple[tuple[str, str], Rate]]:
        address = origin(address)
        return [((account, address), PAIR), ((account, ""), ACCOUNT), (("", address), ADDRESS)]

    def _tokens(self, key: tuple[str, str], rate: Rate, now: float) -> float:
        tokens, at = self._buckets.get(key, (float(rate.burst), now))
        return min(rate.burst, tokens + (now - at) / rate.seconds)

    def _set(self, key: tuple[str, str], tokens: float, now: float) -> None:
        self._buckets[key] = (tokens, now)
        self._buckets.move_to_end(key)
        while len(self._buckets) > BUCKETS:
            self._buckets.popitem(last=False)
