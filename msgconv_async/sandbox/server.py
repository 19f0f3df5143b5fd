"""The sandbox as a whole: it checks its settings, and starts and stops its server."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self

import anyio
import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from anyio.from_thread import start_blocking_portal

from msgconv_async import checks
from msgconv_async.errors import ConfigurationError, short
from msgconv_async.names import Names
from msgconv_async.protocol.buckets import ceil
from msgconv_async.sandbox.aggregate import Aggregates
from msgconv_async.sandbox.app import Failure, Fault, RetryAfter, Service
from msgconv_async.sandbox.clock import Clock
from msgconv_async.sandbox.credentials import CredentialStore
from msgconv_async.sandbox.events import (
    Conversation,
    Recorded,
    Source,
    Synthetic,
    check_conversations,
    invented_names,
)
from msgconv_async.sandbox.throttle import Throttle

_ACCOUNT_NAMES = ("Aarhus", "Bergen", "Cork", "Delft", "Essen", "Faro", "Ghent", "Haifa", "Izmir")

FIRST_ACCOUNT = 10_000_001
_LAST_PORT = 65_535
_TOO_MANY = 429

# Enough for every account of a fleet to connect at once.
_BACKLOG = 1024

# Requests in flight when the sandbox is left get this long to end, and are then cancelled.
_GRACE = 0.1


def _is_ours(record: logging.LogRecord) -> bool:
    """Tell an error of the sandbox from that of a client whose request could not be read."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError | web.RequestPayloadError)


_LOG = logging.getLogger("msgconv_async.sandbox")
_LOG.addFilter(_is_ours)


class Sandbox:
    """LivePerson's Messaging Conversation API as a local server, for as long as it is entered.

    With ``async with`` it runs in the event loop that enters it; with ``with`` in a thread of its
    own, for tests and programs that are not asynchronous. It speaks plain HTTP. One origin holds
    every service: the metrics, the Domain API, Sentinel's tokens and the login. Every account
    accepts the credentials that are constants of this package.

        async with Sandbox(accounts=50, concurrency=4, latency=0.5) as sandbox:
            print(sandbox.url, sandbox.account_ids[0])

    ``/openapi.json`` describes what it serves.

    Args:
        accounts: How many, numbered from 10000001; recorded conversations bring their own instead.
        seed: Another seed makes other synthetic conversations.
        events: The resolved conversations: the path of a file (`Conversation` shows its format) or
            any source, such as a `Recorded`, or a `Synthetic` of other sizes; None for a
            `Synthetic`.
        clock: Returns the sandbox's time, aware; None for a `Clock`, which starts at the real time,
            or, for recorded conversations, as soon as the last of them is in a closed bucket.
        concurrency: Metrics requests of one account at once, or None for no limit.
        rate: Metrics requests of one account per second, or None for no limit.
        burst: Requests that may come ahead of the rate; any more are refused.
        latency: Seconds that an answer to a metrics request takes at least.
        retry_after: Seconds that a 429 asks to wait (Retry-After), or None for no such header.
        retry_after_date: Send the wait as an HTTP date.
        token_lifetime: Seconds that an OAuth 2.0 token is valid.
        fault: A function that may answer a request in place of the sandbox; can be changed at any
            time.
        host: The address to listen on.
        port: The port to listen on, or 0 for a free one.

    Raises:
        ConfigurationError: A setting cannot work; the error says which and why. On entering: the
            port is taken.
    """

    def __init__(
        self,
        *,
        accounts: int = 1,
        seed: int = 0,
        events: Source | str | os.PathLike[str] | None = None,
        clock: Callable[[], datetime] | None = None,
        concurrency: int | None = None,
        rate: float | None = None,
        burst: int = 0,
        latency: float = 0.0,
        retry_after: float | None = None,
        retry_after_date: bool = False,
        token_lifetime: float = 3600.0,
        fault: Fault | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        checks.whole("accounts", accounts, 1)
        checks.whole("seed", seed, 0)
        if concurrency is not None:
            checks.whole("concurrency", concurrency, 1)
        if rate is not None:
            checks.number("rate", rate, "above 0, in requests per second", above=True)
        checks.whole("burst", burst, 0)
        checks.number("latency", latency, "0 or more, in seconds")
        checks.number("token_lifetime", token_lifetime, "above 0, in seconds", above=True)
        checks.whole("port", port, 0, _LAST_PORT)
        if clock is not None:
            checks.function("clock", clock, "a function that tells the time, or None")
        _check_fault(fault)
        checks.switch("retry_after_date", retry_after_date)
        checks.text("host", host, "an address to listen on, such as '127.0.0.1'")
        self._account_ids = tuple(str(FIRST_ACCOUNT + number) for number in range(accounts))
        if isinstance(events, str | os.PathLike):
            checks.path("events", events)
            events = Recorded.from_file(events)
        if events is not None:
            what = "the path of a file, a source of conversations, or None"
            checks.function("events", events, what)
        if isinstance(events, Recorded):
            self._account_ids = events.account_ids
            clock = clock or Clock(ceil(events.last + timedelta(milliseconds=1)))
        self._source = events or Synthetic(seed)
        self._added: dict[str, list[Conversation]] = {}
        self._clock = clock or Clock()
        self._aggregates = Aggregates(self._conversations)
        self._retry_after_date = retry_after_date
        self._retry_after = self._wait(retry_after)
        self._service = Service(
            self._account_ids,
            self._aggregates,
            CredentialStore(self._clock, timedelta(seconds=token_lifetime)),
            Throttle(concurrency=concurrency, rate=rate, burst=burst),
            clock=self._clock,
            latency=latency,
            retry_after=self._retry_after,
            fault=fault,
        )
        self._host, self._port = host, port
        self._runner: web.AppRunner | None = None
        self._thread = ExitStack()

    async def __aenter__(self) -> Self:
        checks.aware("clock: the time that it tells", self._clock())
        # Cancelling the handler of a client that went away gives its slot back.
        runner = web.AppRunner(
            self._service.application(),
            access_log=None,
            logger=_LOG,
            handler_cancellation=True,
            shutdown_timeout=_GRACE,
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self._port, backlog=_BACKLOG).start()
        except BaseException as error:
            await _stop(runner)
            if isinstance(error, OSError):
                raise ConfigurationError(
                    f"cannot listen on {self._host}:{self._port}: {error.strerror}"
                ) from None
            raise
        self._runner = runner
        self._port = runner.addresses[0][1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await _stop(runner)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            portal = stack.enter_context(start_blocking_portal())
            stack.enter_context(portal.wrap_async_context_manager(self))
            self._thread = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # The server ends as it always does, whatever ended the block.
        self._thread.close()

    @property
    def url(self) -> str:
        """The address that it listens on, such as ``"http://127.0.0.1:8080"``, for every service.

        Raises:
            RuntimeError: It has not been entered, or was left.
        """
        if self._runner is None:
            raise RuntimeError("the sandbox is not running: enter it with `with` or `async with`")
        return f"http://{self._host}:{self._port}"

    @property
    def account_ids(self) -> tuple[str, ...]:
        """The accounts it knows."""
        return self._account_ids

    @property
    def names(self) -> Names:
        """Invented names of its accounts, skills and agents; recorded conversations have none."""
        if not isinstance(self._source, Synthetic):
            return Names()
        accounts = dict(zip(self._account_ids, invented_names(_ACCOUNT_NAMES), strict=False))
        return msgspec.structs.replace(self._source.names, accounts=accounts)

    @property
    def clock(self) -> Callable[[], datetime]:
        """The sandbox's time."""
        return self._clock

    @property
    def requests(self) -> Counter[str]:
        """How many metrics requests came, by account, refused ones included."""
        return self._service.requests

    @property
    def throttled(self) -> Counter[str]:
        """How many metrics requests a limit answered with 429, by account."""
        return self._service.throttled

    @property
    def tokens(self) -> Counter[str]:
        """How many tokens were given out, logins included, by account."""
        return self._service.tokens

    @property
    def fault(self) -> Fault | None:
        """A function that may answer a request in place of the sandbox."""
        return self._service.fault

    @fault.setter
    def fault(self, fault: Fault | None) -> None:
        _check_fault(fault)
        self._service.fault = fault

    def fail_next(
        self,
        status: int = 503,
        *,
        times: int = 1,
        retry_after: float | None = None,
        account_id: str | None = None,
    ) -> None:
        """Answer the next metrics requests with a status, for any question and any credentials.

        Args:
            status: The HTTP status.
            times: How many requests.
            retry_after: Seconds that the answers ask to wait (Retry-After); None for no such
                header, except that a 429 then asks for the sandbox's own ``retry_after``.
            account_id: Only requests of this account; None for any account.

        Raises:
            ConfigurationError: The status is no failure, ``times`` is not 1 or more,
                ``retry_after`` is below 0, or the sandbox has no such account.
        """
        checks.whole("status", status, 400, 599)  # a failure's: RFC 9110, section 15
        checks.whole("times", times, 1)
        wait = self._wait(retry_after)
        if account_id is not None:
            self._check_account(account_id)
        if status == _TOO_MANY and wait is None:
            wait = self._retry_after
        self._service.failures[account_id].extend([Failure(status, wait)] * times)

    def add(self, *conversations: Conversation) -> None:
        """Add conversations to those of the source, whenever they were resolved.

        So events come late: a bucket that had been closed shows them from now on.

        Raises:
            ConfigurationError: One is of an account that the sandbox does not have, or has a member
                that cannot be. None of them was added then.
        """
        for place, conversation in enumerate(check_conversations(conversations)):
            if conversation.account not in self._account_ids:
                raise ConfigurationError(
                    f"conversations[{place}]: account {conversation.account!r} is not one of the"
                    " sandbox's"
                )
        for conversation in conversations:
            self._added.setdefault(conversation.account, []).append(conversation)
            self._aggregates.forget(conversation.account)

    def resolved(self, account_id: str, start: datetime, end: datetime) -> list[Conversation]:
        """Return the truth: the conversations that an account resolved in a stretch of time.

        Args:
            account_id: One of `account_ids`.
            start: The first instant, aware.
            end: The first instant no longer counted, aware; the future is never returned.

        Returns:
            The conversations, straight from the source, in no particular order.

        Raises:
            ConfigurationError: The sandbox has no such account, or an instant is naive.
        """
        self._check_account(account_id)
        checks.aware("start", start)
        checks.aware("end", end)
        return list(self._conversations(account_id, start, min(end, self._clock())))

    def _wait(self, seconds: float | None) -> RetryAfter | None:
        if seconds is None:
            return None
        checks.number("retry_after", seconds, "0 or more, in seconds")
        return RetryAfter(seconds, self._retry_after_date)

    def _check_account(self, account_id: object) -> None:
        if account_id not in self._account_ids:
            raise ConfigurationError(
                f"account_id={short(account_id)}: the sandbox has no such account"
            )

    def _conversations(
        self, account_id: str, start: datetime, end: datetime
    ) -> Iterator[Conversation]:
        yield from self._source(account_id, start, end)
        for conversation in self._added.get(account_id, ()):
            if start <= conversation.resolved_at < end:
                yield conversation


def _check_fault(fault: object) -> None:
    if fault is not None:
        checks.function("fault", fault, "an async function of a request, or None")


async def _stop(runner: web.AppRunner) -> None:
    # Shielded, since a cancelled scope may leave the sandbox; it takes no longer than the grace.
    with anyio.CancelScope(shield=True):
        await runner.cleanup()
