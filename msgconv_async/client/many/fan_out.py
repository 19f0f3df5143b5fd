"""Many accounts at once: work in flight is bounded, failures stay with their account."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Self, TypeAlias

import anyio
import msgspec
from anyio.abc import TaskGroup

from msgconv_async import checks
from msgconv_async.client.access.account import Account
from msgconv_async.errors import ConfigurationError, MsgConvError
from msgconv_async.protocol.query import ConversationQuery
from msgconv_async.protocol.report import ConversationReport

_LOG = logging.getLogger("msgconv_async")

AccountQuery: TypeAlias = tuple[Account, ConversationQuery]
Asked: TypeAlias = Account | AccountQuery
"""One thing to ask about: an account, or a pair of an account and its own query."""

MAX_IN_FLIGHT = 100
"""Accounts asked at the same time, by default; as many as an aiohttp session has connections."""


class Outcome(msgspec.Struct, frozen=True):
    """The result of asking one account: a report or an error, never both.

    Attributes:
        account: The account that was asked about.
        query: What was asked.
        report: The answer, or None.
        error: What went wrong, or None.
    """

    account: Account
    query: ConversationQuery
    report: ConversationReport | None = None
    error: MsgConvError | None = None


class _Outcomes:
    """Hands each outcome over to one taker, in the order of completion."""

    def __init__(self) -> None:
        self._offered: deque[tuple[Outcome, asyncio.Future[None] | None]] = deque()
        self._takers: deque[asyncio.Future[Outcome | None]] = deque()
        self._ended = False

    async def offer(self, outcome: Outcome) -> None:
        """Wait until a taker takes it; a taker that waits already does so at once."""
        if not self._hand(outcome):
            taken = asyncio.get_running_loop().create_future()
            self._offered.append((outcome, taken))
            await taken

    def end(self) -> None:
        """Tell all present and later takers that there will be no more."""
        self._ended = True
        while self._hand(None):
            pass

    def drop(self) -> None:
        """End, and forget the outcomes that were not taken."""
        self._offered.clear()
        self.end()

    def _hand(self, outcome: Outcome | None) -> bool:
        """Give it to the taker that has waited longest; tell whether there was one."""
        while self._takers:
            if not (taker := self._takers.popleft()).done():
                taker.set_result(outcome)
                return True
        return False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome:
        if self._offered:
            outcome, taken = self._offered.popleft()
            if taken is not None:
                taken.set_result(None)
            return outcome
        if self._ended:
            raise StopAsyncIteration
        taker: asyncio.Future[Outcome | None] = asyncio.get_running_loop().create_future()
        self._takers.append(taker)
        try:
            handed = await taker
        except asyncio.CancelledError:
            if taker.cancelled():
                with suppress(ValueError):  # an offer may have passed over it already
                    self._takers.remove(taker)
            elif (back := taker.result()) is not None and not self._hand(back):
                self._offered.appendleft((back, None))
            raise
        if handed is None:
            raise StopAsyncIteration
        return handed


@asynccontextmanager
async def fan_out(
    ask: Callable[[Account, ConversationQuery], Awaitable[ConversationReport]],
    draw: Callable[[], Awaitable[AccountQuery | None]],
    max_in_flight: int,
) -> AsyncIterator[AsyncIterator[Outcome]]:
    """Ask many questions; hand out their outcomes as they come.

    Each of up to ``max_in_flight`` workers draws a question, asks it, and waits until its outcome
    is taken. So questions are drawn no faster than outcomes are consumed.

    Args:
        ask: Asks one question.
        draw: Returns the next question, or None when there are no more.
        max_in_flight: Bounds requests in flight and outcomes not yet taken, together.

    Yields:
        The outcomes, in the order of completion. Leaving the context cancels what still runs.
    """
    outcomes = _Outcomes()
    workers = 1

    async def work() -> None:
        nonlocal workers
        while (question := await draw()) is not None:
            if workers < max_in_flight:
                workers += 1
                group.start_soon(work)
            account, query = question
            try:
                outcome = Outcome(account, query, await ask(account, query))
            except MsgConvError as error:
                outcome = Outcome(account, query, None, error)
            except Exception as error:  # noqa: BLE001 - a fault of ours must stop no other account
                outcome = Outcome(account, query, None, unforeseen(account, error))
            await outcomes.offer(outcome)
        workers -= 1
        if not workers:
            outcomes.end()

    async with background() as group:
        group.start_soon(work)
        try:
            yield outcomes
        finally:
            outcomes.drop()


def unforeseen(account: Account, error: Exception) -> MsgConvError:
    """Log an exception that is a fault of this library, and return the error to show for it.

    The error names the exception and does not chain it: its frames hold what signed the request.
    """
    _LOG.error("account %s: an unforeseen exception", account.id, exc_info=error)
    return MsgConvError(
        f"account {account.id}: an unforeseen {type(error).__name__}, a fault of this library: its"
        " traceback is in the log of 'msgconv_async'"
    )


@asynccontextmanager
async def background() -> AsyncIterator[TaskGroup]:
    """Run tasks while inside; leaving cancels them.

    An exception of the caller's own code, or of a single task, comes out as it is, not inside an
    exception group.

    Yields:
        The task group to start them in.
    """
    # Raised outside the handler, which would replace its own context by the group.
    single: BaseException | None = None
    try:
        async with anyio.create_task_group() as group:
            try:
                yield group
            finally:
                group.cancel_scope.cancel()
    except BaseExceptionGroup as errors:
        if len(errors.exceptions) != 1:
            raise
        single = errors.exceptions[0]
    if single is not None:
        raise single


def drawing_from(
    asked: Iterable[Asked] | AsyncIterable[Asked], query: ConversationQuery | None
) -> Callable[[], Awaitable[AccountQuery | None]]:
    """Return a function that draws questions from either kind of iterable; many may call it.

    Args:
        asked: Accounts, or pairs of an account and its own query.
        query: The query of the accounts that have none of their own.

    Raises:
        ConfigurationError: It is not an iterable. The function raises it when anything else came
            out of it.
    """
    if isinstance(asked, AsyncIterable):
        later = aiter(asked)
        drawing = asyncio.Lock()

        async def draw() -> AccountQuery | None:
            async with drawing:
                async for item in later:
                    return _question(item, query)
            return None

    elif isinstance(asked, Iterable):
        ready = iter(asked)

        async def draw() -> AccountQuery | None:
            for item in ready:
                return _question(item, query)
            return None

    else:
        raise checks.refused("accounts", asked, "an iterable of accounts, such as a list of them")
    return draw


def _question(asked: object, query: ConversationQuery | None) -> AccountQuery:
    match asked:
        case Account() if query is not None:
            return asked, query
        case (Account() as account, ConversationQuery() as own):
            return account, own
        case Account():
            raise ConfigurationError(
                f"account {asked.id} brings no query: give one for all, or pairs of account and"
                " query"
            )
    raise ConfigurationError(
        f"{asked!r} came out of the accounts: each must be an Account, or a pair of an Account and"
        " a ConversationQuery"
    )
