"""Many accounts at once: work in flight is bounded, failures stay with their account."""

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TypeAlias

import anyio
import msgspec
from anyio.abc import TaskGroup

from msgconv_async.client.account import Account
from msgconv_async.errors import ConfigurationError, MsgConvError
from msgconv_async.protocol.query import ConversationQuery
from msgconv_async.protocol.report import ConversationReport

Question: TypeAlias = tuple[Account, ConversationQuery]
Asked: TypeAlias = Account | Question
"""What may be drawn from: an account, or a pair of an account and its own query."""

MAX_IN_FLIGHT = 100
"""Accounts asked at the same time, by default; as many as an aiohttp session has connections."""


class Outcome(msgspec.Struct, frozen=True):
    """What came of asking one account: a report or an error, never both.

    Attributes:
        account: Whom was asked about.
        query: What was asked.
        report: The answer, or None.
        error: What went wrong, or None.
    """

    account: Account
    query: ConversationQuery
    report: ConversationReport | None = None
    error: MsgConvError | None = None


@asynccontextmanager
async def fan_out(
    ask: Callable[[Account, ConversationQuery], Awaitable[ConversationReport]],
    draw: Callable[[], Awaitable[Question | None]],
    max_in_flight: int,
) -> AsyncIterator[AsyncIterator[Outcome]]:
    """Ask many questions; hand out what comes of them as it comes.

    Each of up to ``max_in_flight`` workers draws a question, asks it, and waits until its outcome
    is taken: so questions are drawn no faster than outcomes are consumed.

    Args:
        ask: Asks one.
        draw: Returns the next one, or None when there are no more.
        max_in_flight: Bounds requests in flight and outcomes not yet taken, together.

    Yields:
        The outcomes, in the order of completion. Leaving the context cancels what still runs.
    """
    send, receive = anyio.create_memory_object_stream[Outcome]()
    drawing = anyio.Lock()
    workers = 1

    async def work() -> None:
        nonlocal workers
        while True:
            async with drawing:
                question = await draw()
            if question is None:
                break
            if workers < max_in_flight:
                workers += 1
                group.start_soon(work)
            await send.send(await _outcome(ask, *question))
        workers -= 1
        if not workers:
            send.close()

    async with send, receive, background() as group:
        group.start_soon(work)
        yield receive


@asynccontextmanager
async def background() -> AsyncIterator[TaskGroup]:
    """Run tasks while inside; leaving cancels them.

    What the caller's own code raises, or a single task, comes out as itself: the group is no
    business of the caller's.

    Yields:
        The task group to start them in.
    """
    # Raised outside the handler, which would put the group in the place of its own context.
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


async def _outcome(
    ask: Callable[[Account, ConversationQuery], Awaitable[ConversationReport]],
    account: Account,
    query: ConversationQuery,
) -> Outcome:
    try:
        return Outcome(account, query, report=await ask(account, query))
    except MsgConvError as error:
        return Outcome(account, query, error=error)


def drawing_from(
    asked: Iterable[Asked] | AsyncIterable[Asked], query: ConversationQuery | None
) -> Callable[[], Awaitable[Question | None]]:
    """Return what draws questions, one after the other, from either kind of iterable.

    Args:
        asked: Accounts, or pairs of an account and its own query.
        query: The query of those that bring none.

    Raises:
        ConfigurationError: It is not an iterable; when drawn from, that something else than these
            came out of it.
    """
    if isinstance(asked, AsyncIterable):
        later = aiter(asked)

        async def draw() -> Question | None:
            async for each in later:
                return _question(each, query)
            return None

    elif isinstance(asked, Iterable):
        ready = iter(asked)

        async def draw() -> Question | None:
            for each in ready:
                return _question(each, query)
            return None

    else:
        raise ConfigurationError(
            f"accounts={asked!r}: give an iterable of accounts, such as a list of them"
        )
    return draw


def _question(asked: object, query: ConversationQuery | None) -> Question:
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
