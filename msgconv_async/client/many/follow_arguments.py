"""What may be given to following, and what is refused with one sentence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from msgconv_async import checks
from msgconv_async.client.access.account import Account
from msgconv_async.client.many.checkpoint import REACH, Checkpoint
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
    if isinstance(since, timedelta) and not timedelta() < since <= REACH:
        raise ConfigurationError(f"since={since}: the API reaches 24 hours back, so above 0 to 24")
    if isinstance(since, datetime):
        checks.aware("since", since)
    if isinstance(since, Checkpoint) and since.query and since.query != digest:
        raise ConfigurationError(
            "since: this checkpoint is of another query, with other skills, agents, groups or"
            " version: hand back one of this query, or begin at an instant instead"
        )


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
    checks.whole("settle", settle, 0, REACH // BUCKET)
    checks.instance("revise", revise, bool, "True or False")
    if over is not None:
        checks.instance("over", over, timedelta, "a timedelta, or None")
    if over is not None and over < timedelta():
        raise ConfigurationError(f"over={over}: it must be 0 seconds or more, or None")
    checks.whole("max_in_flight", max_in_flight, 1)
    checks.function("clock", clock, "a function that tells the time")
    checks.aware("clock: the time that it tells", clock())


def each_once(accounts: Iterable[Account]) -> tuple[Account, ...]:
    """Return accounts as they were given.

    Raises:
        ConfigurationError: There is none, or one is given twice.
    """
    checks.instance("accounts", accounts, Iterable, "an iterable of accounts, such as a list")
    accounts = tuple(accounts)
    for place, account in enumerate(accounts):
        checks.instance(f"accounts[{place}]", account, Account, "an Account")
    if not accounts:
        raise ConfigurationError("there is no account to follow: give at least one")
    for account_id, times in Counter(account.id for account in accounts).items():
        if times > 1:
            raise ConfigurationError(f"account {account_id} is given {times} times: follow it once")
    return accounts


def of_buckets(queries: Sequence[ConversationQuery]) -> tuple[ConversationQuery, ...]:
    """Return queries with an interval of one bucket.

    Raises:
        ConfigurationError: There is none.
        InvalidQuery: One has another interval.
    """
    checks.instance("query", queries, Iterable, "a ConversationQuery, or several in a list")
    queries = tuple(queries)
    for query in queries:
        checks.instance("query", query, ConversationQuery, "a ConversationQuery")
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
