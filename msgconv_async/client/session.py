"""The session: it asks questions of accounts, in turn and within a timeout."""

from __future__ import annotations

import asyncio
import logging
import math
import os
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, contextmanager
from datetime import datetime, timedelta
from typing import NamedTuple, Self

import aiohttp
import anyio

from msgconv_async import checks
from msgconv_async.client.access.account import Account
from msgconv_async.client.access.domains import is_loopback_url, parse_origin
from msgconv_async.client.answer_cache import AnswerCache
from msgconv_async.client.http.connections import Connector
from msgconv_async.client.http.deadlines import CallDeadline, Deadline, Deadlines, WatchedCall
from msgconv_async.client.http.proxies import Proxies, proxies_of
from msgconv_async.client.http.retry import RetryPolicy
from msgconv_async.client.http.single_flight import SingleFlight
from msgconv_async.client.http.transport import MAX_BODY, Answer, Transport
from msgconv_async.client.many.fan_out import (
    MAX_IN_FLIGHT,
    Asked,
    Outcome,
    drawing_from,
    fan_out,
)
from msgconv_async.client.many.follow import SETTLE, Following, Reading, Since, utc_now
from msgconv_async.client.pacers import Pacers
from msgconv_async.client.request import Requests
from msgconv_async.errors import (
    ConfigurationError,
    SessionUnusable,
    UnexpectedResponse,
)
from msgconv_async.events import Emit, Event, Source, emitter, is_asynchronous
from msgconv_async.pacing.pacer import Pacer, PacerStats
from msgconv_async.protocol.decoding import decode_intervals, decode_report
from msgconv_async.protocol.query import ConversationQuery
from msgconv_async.protocol.report import ConversationReport

TIMEOUT = 60.0
"""Seconds: the default for a whole call, waits and retries included."""

_LOG = logging.getLogger("msgconv_async")
_LOG.addHandler(logging.NullHandler())

CONNECTIONS = 1000
"""Connections at most, over all hosts. Pacers and ``max_in_flight`` bound requests; a request that
waited here would hold its account's slot without using it."""

MOST_UNKNOWN = 20
"""How many kinds of unknown members a session warns of. Without a limit, a service that makes up
names without end would fill the log."""

CONNECT_TIMEOUT = 30.0
"""Seconds in which a connection must be made, so that a call without a timeout ends as well."""


class _Net(NamedTuple):
    """The parts that exist only while the session is open."""

    loop: asyncio.AbstractEventLoop
    http: aiohttp.ClientSession
    requests: Requests
    deadlines: Deadlines
    flights: SingleFlight[Answer]
    cache: AnswerCache
    unknown: _UnknownMembers
    emit: Emit | None


class Shared(NamedTuple):
    """A document, and where it comes from.

    Attributes:
        body: The service's JSON document as it was sent.
        at: The instant of asking, by the service's clock.
        source: ``"hit"``: from the cache; ``"shared"``: from another call's request; ``"fetched"``:
            from a request of this call.
        age: Seconds that it was in the cache.
    """

    body: bytes
    at: datetime
    source: Source
    age: float


class _UnknownMembers:
    """Warns of members of answers that this library does not know, once of each kind."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def __call__(self, path: str) -> None:
        """Note an unknown member, by its place in a document."""
        if path not in self._told and len(self._told) < MOST_UNKNOWN:
            self._told.add(path)
            _LOG.warning(
                "the service sends %s, which this version of msgconv_async does not know: it is"
                " left out",
                path,
            )


class ConversationSession:
    """Asks LivePerson's Messaging Conversation method, at each account's own pace.

    Use it as an async context manager, for one question or for the life of a service. It may be
    created outside an event loop; it belongs to the one it is entered in.

    Args:
        http: An aiohttp session to use. You close it yourself. Its own timeouts, connection limits,
            proxy, headers and middlewares apply as well; its cookie jar is not used. It must not
            have ``auth=``. None: the session makes and closes one of its own, which takes the proxy
            of ``HTTPS_PROXY`` except for hosts in ``NO_PROXY``, and never to a loopback address.
        base_url: One origin for every service, such as a local server's. None takes
            ``MSGCONV_BASE_URL`` from the environment, or each service's own host if that is not
            set. Plain http is allowed only to a loopback address.
        retry: When failed requests are repeated.
        pacer: Makes each account's pacer; by default one that finds the account's limit by itself.
        coalesce: Let calls that ask the same question of the same account at the same time share
            one request. A call that gives up leaves the request to the others; the last one to give
            up cancels it. A call that comes when the request was sent a second ago or earlier makes
            a new one, since the first may be lost.
        fresh_for: Seconds for which an answer may be given again to the same question, but never
            across a five-minute edge. The default, 0, gives none again.
        max_body: The most bytes of an answer, decoded, that are read.
        on_event: Called with each event of `msgconv_async.events`: a call begins or ends, an
            attempt is over, another will follow. It is called in the middle of the calls, so it
            must be quick and must not wait. An exception that it raises is logged once and harms no
            call.

    Raises:
        ConfigurationError: ``base_url`` is not an origin, or would carry credentials in the clear;
            ``pacer`` cannot be called, ``fresh_for`` is negative, ``max_body`` is below 1,
            ``HTTPS_PROXY`` is not the address of a proxy, ``on_event`` is not a plain function, or
            ``http`` or ``retry`` is of another type than said here.
    """

    def __init__(
        self,
        *,
        http: aiohttp.ClientSession | None = None,
        base_url: str | None = None,
        retry: RetryPolicy | None = None,
        pacer: Callable[[], Pacer] = Pacer,
        coalesce: bool = True,
        fresh_for: float = 0.0,
        max_body: int = MAX_BODY,
        on_event: Callable[[Event], object] | None = None,
    ) -> None:
        if base_url is None:
            base_url = os.environ.get("MSGCONV_BASE_URL") or None
        self._origin = None if base_url is None else parse_origin(base_url)
        if http is not None:
            what = "an aiohttp.ClientSession, or None"
            checks.instance("http", http, aiohttp.ClientSession, what)
        self._given = http
        stays = self._origin is not None and is_loopback_url(self._origin)
        self._proxies = Proxies() if stays or http is not None else proxies_of(os.environ)
        if retry is not None:
            checks.instance("retry", retry, RetryPolicy, "a RetryPolicy, or None")
        self._policy = retry or RetryPolicy()
        checks.function(
            "pacer",
            pacer,
            "a function that makes one for each account, such as `lambda: Pacer(rate=50)`",
        )
        self._pacers = Pacers(pacer)
        checks.number("fresh_for", fresh_for, "0 seconds or more, and finite")
        checks.whole("max_body", max_body, 1)
        checks.switch("coalesce", coalesce)
        what = "a plain function that takes an event, or None"
        if on_event is not None:
            checks.function("on_event", on_event, what)
            if is_asynchronous(on_event):
                raise checks.refused("on_event", on_event, what)
        self._on_event = on_event
        self._coalesce = coalesce
        self._fresh_for = fresh_for
        self._max_body = max_body
        self._net: _Net | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        """Open the session.

        Raises:
            SessionUnusable: It was entered before, or the aiohttp session given to it belongs to
                another event loop.
            ConfigurationError: The aiohttp session given to it has credentials of its own.
        """
        if self._closed or self._net is not None:
            raise SessionUnusable(
                "this ConversationSession was entered before: make a new one for each 'async with'"
            )
        loop = asyncio.get_running_loop()
        if self._given is not None:
            _check_given(self._given, loop)
        http = self._given or aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(),
            connector=Connector(limit=CONNECTIONS),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT),
        )
        transport = Transport(http, self._max_body, self._proxies)
        emit = None if self._on_event is None else emitter(self._on_event)
        requests = Requests(transport, self._policy, self._origin, self._pacers.of, emit)
        self._net = _Net(
            loop,
            http,
            requests,
            Deadlines(loop),
            SingleFlight(),
            AnswerCache(self._fresh_for),
            _UnknownMembers(),
            emit,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the session, as `close` does."""
        await self.close()

    async def close(self) -> None:
        """Log users out and close the connections; may be repeated. Calls under way fail."""
        if self._net is not None:
            self._usable()
        net, self._net, self._closed = self._net, None, True
        if net is None:
            return
        net.cache.close()
        # Shielded from an enclosing cancel scope: closing is quick, and must be complete.
        with anyio.CancelScope(shield=True):
            try:
                await net.deadlines.close()
                await net.requests.close()
            finally:
                if self._given is None:
                    await net.http.close()

    async def fetch(
        self, account: Account, query: ConversationQuery, *, timeout: float | None = TIMEOUT
    ) -> ConversationReport:
        """Ask one question of one account.

        It waits for the account's turn, logs in if needed, and repeats failed requests as the retry
        policy says.

        Args:
            account: The account to ask about.
            query: The question.
            timeout: Seconds for everything: queue, login, waits and retries. None waits as long
                as it takes; each try then still has its ``RetryPolicy.attempt_timeout``.

        Returns:
            The report, its window by the server's clock.

        Raises:
            BadRequest: The service refused the question (400).
            Unauthorized: The account is unknown or the credentials are not accepted.
            RateLimited: The service throttled until the timeout would be overrun, or asked for a
                longer wait than the policy's ceiling.
            ServerError: The service failed (5xx) after every retry.
            ApiError: Any other status that is not 200; redirects are not followed.
            UnexpectedResponse: The answer is not what the API describes, or too large.
            ConnectionFailed: No connection, a broken one, or no answer in the time of one try,
                after every retry.
            DeadlineExceeded: The timeout ran out. If a try had failed before, the message says how,
                and that error is the ``__cause__``.
            SessionUnusable: The session is not open, or belongs to another event loop.
        """
        net = self._usable()
        with _deadline(net, account, query, timeout) as deadline:
            _, report = await self._told(net, account, query, deadline)
            return report

    async def fetch_document(
        self, account: Account, query: ConversationQuery, *, timeout: float | None = TIMEOUT
    ) -> bytes:
        """Ask as `fetch` does, and return the service's JSON document as it was sent.

        The document is one that `fetch` accepts; for any other, the errors of `fetch` are raised.
        """
        net = self._usable()
        with _deadline(net, account, query, timeout) as deadline:
            answer, _ = await self._told(net, account, query, deadline)
            return answer.body

    async def fetch_shared(
        self,
        account: Account,
        query: ConversationQuery,
        *,
        timeout: float | None = TIMEOUT,
        max_wait: float = math.inf,
    ) -> Shared:
        """Ask as `fetch_document` does, and tell where the document comes from: for a gateway.

        Calls share one request even if ``coalesce`` is False, and the document is decoded once for
        all of them.

        Args:
            account: As `fetch` takes it.
            query: As `fetch` takes it.
            timeout: As `fetch` takes it.
            max_wait: Seconds that the call may wait for its turn, by default as long as `timeout`
                allows. `TurnTooLate`, a `DeadlineExceeded`, says that they ran out.
        """
        net = self._usable()
        _check(account, query, timeout)
        checks.number("max_wait", max_wait, "above 0 seconds", above=True, most=math.inf)
        question = (account, query)

        async def ask(until: Deadline) -> Answer:
            answer = await net.requests.ask(account, query, until)
            _decoded(net, answer, account, query)
            net.cache.keep(question, answer)
            return answer

        with _until(net, account, timeout, max_wait) as call:
            if (kept := net.cache.get(question)) is not None:
                call.source = "hit"
                return Shared(kept.body, kept.at, call.source, net.cache.age(question))
            if question in net.flights:
                call.source = "shared"
            answer = await net.flights.join(question, ask, call)
        return Shared(answer.body, answer.at, call.source, 0.0)

    def at_hand(self, account: Account, query: ConversationQuery) -> bool:
        """Tell whether `fetch_shared` would now need no request and no turn of its own."""
        net, question = self._usable(), (account, query)
        _check(account, query, None)
        return net.cache.get(question) is not None or question in net.flights

    def fetch_many(
        self,
        accounts: Iterable[Asked] | AsyncIterable[Asked],
        query: ConversationQuery | None = None,
        *,
        timeout: float | None = TIMEOUT,
        max_in_flight: int = MAX_IN_FLIGHT,
    ) -> AbstractAsyncContextManager[AsyncIterator[Outcome]]:
        """Ask many accounts.

        A failure stays with its account, as its outcome's ``error``; so does an exception that is a
        fault of this library, with its traceback in the log. An account given twice is asked twice.

        Args:
            accounts: Accounts, or pairs of an account and its own query. They are drawn only as
                fast as outcomes are taken, so the iterable may be endless.
            query: The question to the accounts that have none of their own.
            timeout: Seconds for each account's whole call, as in `fetch`.
            max_in_flight: The most accounts being asked and outcomes not yet taken, together.

        Returns:
            An async context manager. Inside it is an async iterator of `Outcome`, in the order of
            completion; leaving it cancels what still runs.

        Raises:
            ConfigurationError: ``max_in_flight`` is not a whole number of 1 or more, or
                ``accounts`` gave something other than an account or a pair.
            SessionUnusable: As in `fetch`.
        """
        checks.whole("max_in_flight", max_in_flight, 1)
        _check_timeout(timeout)
        if query is not None:
            checks.instance("query", query, ConversationQuery, "a ConversationQuery, or None")
        self._usable()
        return fan_out(self._asking(timeout), drawing_from(accounts, query), max_in_flight)

    def follow(
        self,
        accounts: Iterable[Account],
        query: ConversationQuery | Sequence[ConversationQuery],
        *,
        since: Since = None,
        settle: int = SETTLE,
        revise: bool = True,
        over: timedelta | None = None,
        timeout: float | None = TIMEOUT,
        max_in_flight: int = MAX_IN_FLIGHT,
        clock: Callable[[], datetime] = utc_now,
    ) -> AbstractAsyncContextManager[Following]:
        """Follow accounts over time: every closed five-minute bucket, once and in order.

        Each account is asked every five minutes, at a moment that follows from its id, for all the
        time that was not taken yet. An account that fails is tried again at its next turn, and
        catches up; while the service fails, its turns are 5, 5 and then every 10 minutes apart. A
        bucket that an answer leaves out, or that cannot be read, is a `Failure` once. It is asked
        for again, and handed out when an answer has it, after later buckets. The iteration does not
        end by itself, unless ``over`` is given.

        Args:
            accounts: The accounts; none of them may be given twice.
            query: Its skills, agents and groups are used. The time frame is not: `follow` sets
                that, and an interval of 5 minutes. Several queries are all asked in each turn, and
                their sections stand side by side in one bucket: account totals, for example, come
                only from a query that names neither skills nor agents.
            since: Where to begin: a `Checkpoint` of the same queries (their skills, agents, groups
                and versions); an aware datetime; or a timedelta back from now, up to 24 hours. None
                begins as far back as the API reaches, and so does an account that the checkpoint
                does not hold.
            settle: How many of an account's latest closed buckets to read again, since the server
                may still change them.
            revise: Hand out a bucket as soon as it closes, and again if it changes. False hands it
                out once it has settled, for a consumer that cannot take anything back.
            over: Give every account one turn only, spread over this time, and then end. This is for
                a job that runs again later, for example. None goes on without end.
            timeout: Seconds for each call, as in `fetch`.
            max_in_flight: The most accounts that are being asked, or whose buckets are not all
                taken yet, together. So a slow consumer slows the questions down.
            clock: Returns the time of day, as an aware datetime. It decides when to ask, and is a
                witness against an answer whose own clock is ahead. A wrong clock loses no bucket
                and repeats none.

        Returns:
            An async context manager. Inside it is an async iterator of `ClosedBucket`, `Gap`
            (what lies further back than the API reaches) and `Failure`, with the ``checkpoint``
            to store once an item is dealt with. Leaving it ends all that runs.

        Raises:
            ConfigurationError: There is no account or no query, an account is given twice, the
                checkpoint is of another query, or a setting cannot work.
            InvalidQuery: The query's interval is another than 5 minutes.
            SessionUnusable: As in `fetch`; the context raises it too when the session is closed.
        """
        self._usable()
        _check_timeout(timeout)
        following = Following(
            self._reading(timeout),
            accounts,
            (query,) if isinstance(query, ConversationQuery) else query,
            since=since,
            settle=settle,
            revise=revise,
            over=over,
            max_in_flight=max_in_flight,
            clock=clock,
        )
        return following.running()

    def pacer(self, account: Account) -> Pacer:
        """Return the account's pacer. It knows what was sent and the present pace.

        An account that was never throttled may get a new pacer after a thousand others were asked.

        Raises:
            ConfigurationError: ``account`` is not an `Account`.
        """
        checks.instance("account", account, Account, "an Account")
        return self._pacers.of(account.id)

    def stats(self, account: Account) -> PacerStats:
        """Return how many requests of the account were sent and answered, and its present pace.

        Raises:
            ConfigurationError: ``account`` is not an `Account`.
        """
        return self.pacer(account).stats()

    def _asking(
        self, timeout: float | None
    ) -> Callable[[Account, ConversationQuery], Awaitable[ConversationReport]]:
        """Return a function that asks one question, with a request of its own."""

        async def ask(account: Account, query: ConversationQuery) -> ConversationReport:
            net = self._usable()
            with _deadline(net, account, query, timeout) as deadline:
                return _decoded(
                    net, await net.requests.ask(account, query, deadline), account, query
                )

        return ask

    def _reading(
        self, timeout: float | None
    ) -> Callable[[Account, ConversationQuery], Awaitable[Reading]]:
        """Return a function that reads the intervals of one answer, with a request of its own."""

        async def read(account: Account, query: ConversationQuery) -> Reading:
            net = self._usable()
            with _deadline(net, account, query, timeout) as deadline:
                answer = await net.requests.ask(account, query, deadline)
                with _naming(account):
                    intervals = decode_intervals(
                        answer.body, query, at=answer.at, on_unknown=net.unknown
                    )
                return Reading(intervals, answer.at if answer.dated else None)

        return read

    async def _told(
        self, net: _Net, account: Account, query: ConversationQuery, deadline: CallDeadline
    ) -> tuple[Answer, ConversationReport]:
        """Ask, together with other calls for the same unless that is switched off."""
        if not self._coalesce:
            answer = await net.requests.ask(account, query, deadline)
            return answer, _decoded(net, answer, account, query)
        question = (account, query)
        kept = net.cache.get(question)
        if kept is not None:
            deadline.source, answer = "hit", kept
        else:
            if question in net.flights:
                deadline.source = "shared"
            answer = await net.flights.join(
                question, lambda until: net.requests.ask(account, query, until), deadline
            )
        report = _decoded(net, answer, account, query)
        net.cache.keep(question, answer)  # not before it is known to be an answer
        return answer, report

    def _usable(self) -> _Net:
        if self._net is None:
            raise SessionUnusable(
                "this ConversationSession is closed: make a new one"
                if self._closed
                else "this ConversationSession is not open: use 'async with ConversationSession()'"
            )
        if self._net.loop is not asyncio.get_running_loop():
            raise SessionUnusable(
                "this ConversationSession belongs to another event loop: make one in each loop"
            )
        return self._net


def _deadline(
    net: _Net, account: Account, query: ConversationQuery, timeout: float | None
) -> CallDeadline:
    _check(account, query, timeout)
    return _until(net, account, timeout)


def _until(
    net: _Net, account: Account, timeout: float | None, max_wait: float = math.inf
) -> CallDeadline:
    seconds = math.inf if timeout is None else timeout
    if net.emit is not None:
        return WatchedCall(net.deadlines, account.id, seconds, max_wait, net.emit)
    return CallDeadline(net.deadlines, account.id, seconds, max_wait)


def _decoded(
    net: _Net, answer: Answer, account: Account, query: ConversationQuery
) -> ConversationReport:
    with _naming(account):
        return decode_report(answer.body, query, at=answer.at, on_unknown=net.unknown)


@contextmanager
def _naming(account: Account) -> Iterator[None]:
    """Say in an answer's error whose answer it was."""
    try:
        yield
    except UnexpectedResponse as error:
        error.account_id = account.id
        raise


def _check(account: object, query: object, timeout: object) -> None:
    checks.instance("account", account, Account, "an Account")
    checks.instance("query", query, ConversationQuery, "a ConversationQuery")
    _check_timeout(timeout)


def _check_timeout(timeout: object) -> None:
    if timeout is not None:
        checks.number("timeout", timeout, "above 0 seconds, or None", above=True, most=math.inf)


def _check_given(http: aiohttp.ClientSession, loop: asyncio.AbstractEventLoop) -> None:
    if http._loop is not loop:  # noqa: SLF001 - its public name is deprecated
        raise SessionUnusable(
            "the aiohttp session given as http= belongs to another event loop: make it in the one"
            " that uses it"
        )
    if http.auth is not None:
        raise ConfigurationError(
            "the aiohttp session given as http= has auth=, which would go with the accounts'"
            " requests or stand against their own credentials: make it without"
        )
