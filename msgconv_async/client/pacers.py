"""One pacer for each account.

A pacer is kept while it knows something, so memory does not grow with the number of accounts.
"""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakValueDictionary

from msgconv_async.errors import ConfigurationError
from msgconv_async.pacing.pacer import Pacer

RECENT = 1000
"""How many pacers of the accounts asked last are kept, at 2 kB each. Pacers in use are kept
besides, and so are pacers that were throttled: they know what a new one would have to find out."""


class Pacers:
    """Makes pacers, and forgets a pacer when a new one would do as well.

    Args:
        make: Makes a pacer.
    """

    def __init__(self, make: Callable[[], Pacer]) -> None:
        self._make = make
        self._all = WeakValueDictionary[str, Pacer]()
        self._recent: dict[str, Pacer] = {}
        self._kept: dict[str, Pacer] = {}

    def __len__(self) -> int:
        return len(self._all)

    def of(self, account_id: str) -> Pacer:
        """Return the account's pacer; while a caller holds it, the account has no other."""
        pacer = self._recent.pop(account_id, None) or self._all.get(account_id)
        if pacer is None:
            pacer = self._make()
            if not isinstance(pacer, Pacer):
                raise ConfigurationError(f"pacer: it made {pacer!r}, and must make a Pacer")
            self._all[account_id] = pacer
        self._recent[account_id] = pacer
        if len(self._recent) > RECENT:
            oldest = next(iter(self._recent))
            past = self._recent.pop(oldest)
            if past.belief() or past.throttled or past.in_flight or past.waiting:
                self._kept[oldest] = past
        return pacer
