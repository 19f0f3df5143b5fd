"""What may be given to following, and what is refused with one sentence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from msgconv_async import checks
from msgconv_async.client.access.account import Account
from msgconv_async.client.many.checkpoint import REACH, Checkpoint, Position
from msgconv_async.client.many.service_clock import ServiceClock
from msgconv_async.errors import ConfigurationError, InvalidQuery
from msgconv_async.protocol.buckets import BUCKET
from msgconv_async.protocol.query import MIN_INTERVAL, ConversationQuery


def check_since(since: object, digest: str) -> None:
    """Refuse what following cannot begin at.

    Raises:
        ConfigurationError: It is of another type, too far back, naive, or of another query.
    """
    if since is not None and not isinstance(since, Checkpoint | datetime | timedelta):
        raise checks.refused("since", since, "a Checkpoint, a datetime, a timedelta, or None")
    if isinstance(since, timedelta):
        span = "more than 0 and at most 24 hours"
        checks.duration("since", since, span, above=True, most=REACH)
    if isinstance(since, datetime):
        checks.aware("since", since)
    if isinstance(since, Checkpoint):
        _check_held(since)
    if isinstance(since, Checkpoint) and since.query and since.query != digest:
        raise ConfigurationError(
            "since: this checkpoint is of another query, with other skills, agents, groups or"
            " version: hand back one of this query, or begin anew, with another file if it came"
            " from a store"
        )


def _check_held(since: Checkpoint) -> None:
    """Refuse a checkpoint that holds something else than positions and clocks.

    It is not done when a checkpoint is made: that happens often, and would cost what it holds.
    """
    for name, held, kind in (
        ("accounts", since.accounts, Position),
        ("clocks", since.clocks, ServiceClock),
    ):
        for account_id, value in held.items():
            checks.instance(f"since: the account id in {name}", account_id, str, "a string")
            checks.instance(f"since: {name}[{account_id!r}]", value, kind, f"a {kind.__name__}")


def check_settle(settle: object) -> None:
    """Refuse a number of buckets that the API does not reach back.

    Raises:
        ConfigurationError: It is no whole number, or too large.
    """
    checks.whole("settle", settle, 0, REACH // BUCKET)


def check_settings(
    settle: object,
    revise: object,
    over: timedelta | None,
    max_in_flight: object,
    clock: Callable[[], object],
) -> None:
    """Refuse settings that cannot work.

    Raises:
        ConfigurationError: One of them cannot; says which and why.
    """
    check_settle(settle)
    checks.switch("revise", revise)
    if over is not None:
        checks.duration("over", over, "a timedelta of 0 or more, or None")
    checks.whole("max_in_flight", max_in_flight, 1)
    checks.function("clock", clock, "a function that tells the time")
    checks.aware("clock: the time that it tells", clock())


def each_once(accounts: Iterable[Account]) -> tuple[Account, ...]:
    """Return accounts as they were given.

    Raises:
        ConfigurationError: There is none, or one is given twice.
    """
    what = "an iterable of accounts, such as a list"
    accounts = checks.members("accounts", accounts, Account, "an Account", what)
    if not accounts:
        raise ConfigurationError("there is no account: give at least one")
    for account_id, times in Counter(account.id for account in accounts).items():
        if times > 1:
            raise ConfigurationError(f"account {account_id} is given {times} times: give it once")
    return accounts


def of_buckets(queries: Sequence[ConversationQuery]) -> tuple[ConversationQuery, ...]:
    """Return queries with an interval of one bucket.

    Raises:
        ConfigurationError: There is none.
        InvalidQuery: One has another interval.
    """
    what = "a ConversationQuery"
    queries = checks.members(
        "query", queries, ConversationQuery, what, f"{what}, or a list of some"
    )
    for query in queries:
        if query.interval not in {None, MIN_INTERVAL}:
            raise InvalidQuery(
                "interval",
                query.interval,
                f"following hands out buckets of {MIN_INTERVAL} minutes: leave it out",
            )
    if not queries:
        raise ConfigurationError("there is no query to follow with: give at least one")
    # With an interval, a time frame must be a multiple of it: one bucket does until a turn knows.
    return tuple(replace(query, timeframe=MIN_INTERVAL, interval=MIN_INTERVAL) for query in queries)
