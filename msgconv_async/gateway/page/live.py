"""One follower for all accounts while somebody looks, and what it tells every viewer.

Nothing is asked before the first viewer comes; a while after the last one has left, following
ends. What was seen stays, and so does its checkpoint: the next viewer's follower asks for what was
missed. A viewer is told everything once, and then what changes. One that does not keep up is sent
away, and has everything once more when it comes back: what waits for it is bounded.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from itertools import chain
from typing import Any

import anyio
import msgspec

from msgconv_async.client.access.account import Account
from msgconv_async.client.many.checkpoint import (
    REACH,
    Checkpoint,
    ClosedBucket,
    Failure,
    Gap,
    Item,
)
from msgconv_async.client.many.follow import utc_now
from msgconv_async.client.session import ConversationSession
from msgconv_async.errors import SessionUnusable
from msgconv_async.gateway.page.history import AN_HOUR, Memory, Summary, listed, together
from msgconv_async.names import NOBODY, Names
from msgconv_async.pacing.pacer import Pacer, PacerStats
from msgconv_async.protocol.buckets import DAY
from msgconv_async.protocol.query import ConversationQuery

QUERIES = (ConversationQuery(5), ConversationQuery(5, skill_ids="all", agent_ids="all"))
"""What a turn asks: two requests, since the service gives no totals beside a breakdown."""

LINGER = 60.0
"""Seconds that following goes on after the last viewer has left: a page that is loaded again, or a
connection that broke, is no reason to begin anew."""

TELL_EVERY = 0.25
"""Seconds between two looks at what there is to tell."""

PACE_EVERY = 3.0
"""Seconds between two looks at the accounts' pace."""

WAITING = 200
"""Messages that may wait for a viewer."""

ADD_UP_EVERY = 2.0
"""Seconds for which the sum of all accounts may be told again: a page asks for it a little later
after a change, so that it misses none."""

VIEWERS = 100
"""Viewers at most."""

_REST = 5.0
"""Seconds until following begins anew, after a fault of this library's own ended it."""

_LOG = logging.getLogger("msgconv_async")


class Viewer:
    """A browser that looks."""

    def __init__(self) -> None:
        self._messages = asyncio.Queue[bytes | None](WAITING)

    def tell(self, message: bytes) -> bool:
        """Give a message to a viewer; tell whether there was room for it."""
        try:
            self._messages.put_nowait(message)
        except asyncio.QueueFull:
            return False
        return True

    def end(self) -> None:
        """Stop sending to this viewer, and drop its waiting messages."""
        while not self._messages.empty():
            self._messages.get_nowait()
        self._messages.put_nowait(None)

    async def message(self) -> bytes | None:
        """Wait for the next message; None if there will be none."""
        return await self._messages.get()


class AccountState(msgspec.Struct):
    """The state of an account, as it is sent to a browser.

    Attributes:
        id: The account's id.
        summary: Its figures; None before any was seen.
        failure: What went wrong the last time, in a sentence; empty if nothing did.
        failed_at: When, in seconds since 1970.
        gap: What was missed, in a sentence; empty if nothing was.
        name: Its name; empty if it has none.
    """

    id: str
    summary: Summary | None = None
    failure: str = ""
    failed_at: int = 0
    gap: str = ""
    name: str = ""


class Live:
    """What is known of the accounts, for as many as look.

    Args:
        session: The gateway's session, shared with its clients.
        accounts: Those that are followed.
        pacer: Returns an account's pacer, by its id.
        names: The names of accounts, skills and agents.
    """

    def __init__(
        self,
        session: ConversationSession,
        accounts: Iterable[Account],
        pacer: Callable[[str], Pacer],
        names: Names = NOBODY,
    ) -> None:
        self._session = session
        self._accounts = tuple(accounts)
        self._pacer = pacer
        self._memories = {account.id: Memory() for account in self._accounts}
        self._names = names
        self._states = {
            account.id: AccountState(account.id, name=names.accounts.get(account.id, ""))
            for account in self._accounts
        }
        self._encoded: dict[str, msgspec.Raw] = {}
        self._gaps: dict[str, datetime] = {}
        self._changed: set[str] = set()
        self._together: dict[str, Any] = {"accounts": 0}
        self._added_up_at = -math.inf
        self._paced: dict[str, list[Any]] = {}
        self._checkpoint: Checkpoint | None = None
        self._viewers: set[Viewer] = set()
        self._looked_at, self._alone = asyncio.Event(), asyncio.Event()
        self._alone.set()
        self._told = 0
        self._closed = False

    # ------------------------------------------------------------------ viewers

    def enter(self) -> tuple[Viewer, bytes] | None:
        """Let a viewer in, with all there is to tell; None if there are too many, or it is over."""
        if self._closed or len(self._viewers) >= VIEWERS:
            return None
        viewer = Viewer()
        self._viewers.add(viewer)
        self._alone.clear()
        self._looked_at.set()
        # From here on a viewer hears of every change: nothing can fall in between.
        rows = [self._row(account.id) for account in self._accounts]
        return viewer, self._message("all", {"rows": rows, "pace": self._pace()})

    def leave(self, viewer: Viewer) -> None:
        """Let a viewer go; it may have been sent away already."""
        self._viewers.discard(viewer)
        if not self._viewers:
            self._looked_at.clear()
            self._alone.set()

    def close(self) -> None:
        """Send every viewer away, and let no other in."""
        self._closed = True
        for viewer in list(self._viewers):
            viewer.end()
            self.leave(viewer)

    def beat(self) -> bytes:
        """Return the message that is sent when nothing changed for a while.

        It is an event rather than a comment, since a page cannot see comments, and has to know a
        connection that is dead.
        """
        return self._message("beat", {})

    # ------------------------------------------------------------------ one account, and all

    def account(self, account_id: str) -> dict[str, Any] | None:
        """Return two days of an account, and an hour by skill and agent; None if it is unknown."""
        memory = self._memories.get(account_id)
        if memory is None:
            return None
        periods = [_listed(memory, buckets) for buckets in (1, AN_HOUR)]
        skills = [row for each in periods for row in each["skills"]]
        agents = [
            row for each in periods for row in chain(each["agents"], *each["within"].values())
        ]
        return {
            "id": account_id,
            "names": {
                "skills": _named(self._names.skills, skills),
                "agents": _named(self._names.agents, agents),
            },
            "day": 0 if memory.newest is None else memory.today,
            "today": [] if memory.newest is None else memory.day(memory.today),
            "before": [] if memory.newest is None else memory.day(memory.today - 1),
            "periods": periods,
        }

    def everything(self) -> dict[str, Any]:
        """Return two days of all accounts together."""
        now = asyncio.get_running_loop().time()
        if not self._together["accounts"] or now - self._added_up_at >= ADD_UP_EVERY:
            self._added_up_at = now
            day, today, before, accounts = together(self._memories.values())
            self._together = {"day": day, "today": today, "before": before, "accounts": accounts}
        return self._together

    # ------------------------------------------------------------------ following

    async def run(self) -> None:
        """Follow whenever somebody looks, until it is cancelled."""
        while True:
            await self._looked_at.wait()
            async with anyio.create_task_group() as group:
                group.start_soon(self._keep_following)
                group.start_soon(self._keep_telling)
                await self._until_alone()
                group.cancel_scope.cancel()

    async def _until_alone(self) -> None:
        while True:
            await self._alone.wait()
            with anyio.move_on_after(LINGER) as lingering:
                await self._looked_at.wait()
            if lingering.cancelled_caught:
                return

    async def _keep_following(self) -> None:
        while True:
            try:
                await self._follow()
            except SessionUnusable:  # the gateway ends
                return
            except Exception:  # noqa: BLE001 - it is to come back by itself
                _LOG.exception("the live page: following failed, and begins anew")
            await anyio.sleep(_REST)

    async def _follow(self) -> None:
        since = self._checkpoint or REACH
        async with self._session.follow(
            self._accounts, QUERIES, since=since, clock=utc_now
        ) as following:
            try:
                async for item in following:
                    self._take(item)
            finally:
                self._checkpoint = following.checkpoint

    def _take(self, item: Item) -> None:
        account_id = item.account.id
        row = self._states[account_id]
        match item:
            case ClosedBucket():
                self._memories[account_id].add(item.interval)
                row.failure = ""
                if item.interval.end - self._gaps.get(account_id, item.interval.end) > DAY:
                    row.gap = ""
            case Gap():
                row.gap, self._gaps[account_id] = str(item), item.end
            case Failure():
                if not row.failure:
                    row.failed_at = int(utc_now().timestamp())
                row.failure = str(item.error)
        self._changed.add(account_id)

    async def _keep_telling(self) -> None:
        looks = 0
        while True:
            try:
                self._tell_changes()
                if looks % round(PACE_EVERY / TELL_EVERY) == 0:
                    self._tell_pace()
            except Exception:  # noqa: BLE001 - viewers must not believe that nothing happens
                _LOG.exception("the live page: a change could not be sent")
            looks += 1
            await anyio.sleep(TELL_EVERY)

    def _tell_changes(self) -> None:
        if self._changed:
            changed, self._changed = self._changed, set()
            for account_id in changed:
                self._encoded.pop(account_id, None)
            self._tell("rows", {"rows": [self._row(account_id) for account_id in changed]})

    def _tell_pace(self) -> None:
        paced = self._pace()
        changed = {name: pace for name, pace in paced.items() if pace != self._paced.get(name)}
        self._paced = paced
        if changed:
            self._tell("pace", {"pace": changed})

    def _tell(self, kind: str, what: Mapping[str, Any]) -> None:
        message = self._message(kind, what)
        for viewer in list(self._viewers):
            if not viewer.tell(message):
                viewer.end()
                self.leave(viewer)

    def _row(self, account_id: str) -> msgspec.Raw:
        encoded = self._encoded.get(account_id)
        if encoded is None:
            row = self._states[account_id]
            row.summary = self._memories[account_id].summary()
            encoded = self._encoded[account_id] = msgspec.Raw(msgspec.json.encode(row))
        return encoded

    def _pace(self) -> dict[str, list[Any]]:
        return {account.id: _told(self._pacer(account.id).stats()) for account in self._accounts}

    def _message(self, kind: str, what: Mapping[str, Any]) -> bytes:
        """Write a server-sent event; none of its data has a line end in it."""
        self._told += 1
        data = msgspec.json.encode({"now": utc_now().timestamp(), **what})
        return b"id: %d\nevent: %s\ndata: %s\n\n" % (self._told, kind.encode(), data)


def _told(stats: PacerStats) -> list[Any]:
    """Return an account's pace, as `page.js` takes it apart."""
    return [
        stats.limited_by,
        round(stats.rate, 2),
        stats.concurrency,
        stats.waiting,
        stats.in_flight,
        stats.throttled,
        stats.sent,
    ]


def _named(names: Mapping[int, str], rows: Iterable[list[Any]]) -> dict[str, str]:
    """Return the names of what some rows are of, by their ids as the rows have them."""
    return {id_: name for id_, *_ in rows if (name := names.get(int(id_))) is not None}


def _listed(memory: Memory, buckets: int) -> dict[str, Any]:
    found = memory.breakdown(buckets)
    return {
        "skills": list(listed(found.skills)),
        "within": {str(skill): list(listed(agents)) for skill, agents in found.within.items()},
        "agents": list(listed(found.agents)),
    }
