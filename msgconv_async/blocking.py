"""Questions without ``await``: for scripts, notebooks, and code that is not asynchronous.

All calls of a process share one event loop in a thread of its own, and one session there. So
accounts are logged in once, and what a pacer has learnt serves the next call. It makes no
difference whether the caller's thread has a running event loop, as a notebook's does.

A process that was forked begins with a thread and a session of its own. When the interpreter ends,
the session is closed, which takes no more than some seconds.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Future, wait
from typing import TypeVar

import anyio
from anyio.from_thread import BlockingPortal

from msgconv_async import checks
from msgconv_async.client.access.account import Account
from msgconv_async.client.many.fan_out import MAX_IN_FLIGHT, Asked, Outcome
from msgconv_async.client.session import TIMEOUT, ConversationSession
from msgconv_async.protocol.query import ConversationQuery
from msgconv_async.protocol.report import ConversationReport

__all__ = ["fetch", "fetch_many"]

T = TypeVar("T")

_TO_CLOSE = 5.0
"""Seconds that the end of the interpreter waits for sessions to be closed, logouts included."""

_LOOK = 1.0
"""Seconds after which a waiting caller looks for Ctrl-C, for on Windows nothing wakes it."""


def fetch(
    account: Account, query: ConversationQuery, *, timeout: float | None = TIMEOUT
) -> ConversationReport:
    """Ask one question of one account, as `ConversationSession.fetch` does; wait for the answer.

    Ctrl-C cancels the call. Any number of threads may call at the same time.

    Args:
        account: The account to ask about.
        query: The question.
        timeout: Seconds for everything: queue, login, waits and retries. None waits as long as it
            takes.

    Returns:
        The report, its window by the server's clock.

    Raises:
        MsgConvError: As `ConversationSession.fetch` raises it.
    """

    async def ask(session: ConversationSession) -> ConversationReport:
        return await session.fetch(account, query, timeout=timeout)

    return _call(ask)


def fetch_many(
    accounts: Iterable[Asked],
    query: ConversationQuery | None = None,
    *,
    timeout: float | None = TIMEOUT,
    max_in_flight: int = MAX_IN_FLIGHT,
) -> list[Outcome]:
    """Ask many accounts, as `ConversationSession.fetch_many` does, and wait for all of them.

    Ctrl-C cancels the call. Any number of threads may call at the same time.

    Args:
        accounts: Accounts, or pairs of an account and its own query.
        query: The query of the accounts that come without one.
        timeout: Seconds for each account.
        max_in_flight: Accounts asked at the same time.

    Returns:
        An outcome for each account, in the order in which they came: a report or an error.

    Raises:
        ConfigurationError: An argument cannot be, or something else came out of ``accounts``.
    """
    what = "an iterable of accounts, such as a list of them"
    checks.instance("accounts", accounts, Iterable, what)
    asked = tuple(accounts)  # here, since an iterator may belong to its thread

    async def ask(session: ConversationSession) -> list[Outcome]:
        async with session.fetch_many(
            asked, query, timeout=timeout, max_in_flight=max_in_flight
        ) as outcomes:
            return [outcome async for outcome in outcomes]

    return _call(ask)


class _Loop:
    """An event loop in a thread of its own, and its sessions by the base URL of their time.

    It is what `anyio.from_thread.start_blocking_portal` makes, except that nothing ever waits for
    its thread to end: that could take for ever.
    """

    def __init__(self) -> None:
        self._sessions: dict[str | None, ConversationSession] = {}
        ready: Future[BlockingPortal] = Future()
        threading.Thread(
            target=anyio.run, args=(self._run, ready), name="msgconv_async", daemon=True
        ).start()
        self._portal = ready.result()

    async def _run(self, ready: Future[BlockingPortal]) -> None:
        async with BlockingPortal() as portal:
            ready.set_result(portal)
            await portal.sleep_until_stopped()

    def call(self, ask: Callable[[ConversationSession], Awaitable[T]]) -> T:
        """Have a session asked, and wait for what comes of it."""
        future = self._portal.start_task_soon(self._ask, ask)
        try:
            while not wait([future], _LOOK).done:
                pass
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def _ask(self, ask: Callable[[ConversationSession], Awaitable[T]]) -> T:
        base_url = os.environ.get("MSGCONV_BASE_URL")
        if base_url not in self._sessions:
            session = ConversationSession()
            self._sessions[base_url] = session
            await session.__aenter__()
        return await ask(self._sessions[base_url])

    def close(self) -> None:
        """Close the sessions; calls under way fail. Do not wait longer than is reasonable."""
        wait([self._portal.start_task_soon(self._close)], _TO_CLOSE)

    async def _close(self) -> None:
        async with anyio.create_task_group() as group:
            while self._sessions:
                _, session = self._sessions.popitem()
                group.start_soon(session.close)


_starting = threading.Lock()
_loop: _Loop | None = None
_inherited: list[_Loop] = []


def _call(ask: Callable[[ConversationSession], Awaitable[T]]) -> T:
    global _loop  # noqa: PLW0603 - the one of the process
    with _starting:
        if _loop is None:
            _loop = _Loop()
            atexit.register(_loop.close)
        loop = _loop
    return loop.call(ask)


def _begin_anew() -> None:
    """Leave a forked process nothing of its parent's but the memory.

    The parent's loop stays as it is, for its end would reach into the parent's sockets.
    """
    global _loop, _starting  # noqa: PLW0603 - the one of the process
    _starting = threading.Lock()
    if _loop is not None:
        atexit.unregister(_loop.close)
        _inherited.append(_loop)
        _loop = None


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_begin_anew)
