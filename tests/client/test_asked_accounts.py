"""What may be given to fetch_many and fetch, and what is said of anything else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from msgconv_async import (
    Account,
    ConfigurationError,
    ConversationQuery,
    ConversationSession,
    RetryPolicy,
)
from msgconv_async.sandbox import Sandbox
from tests.client.support import CLIENT

HOUR, DAY = ConversationQuery(60), ConversationQuery(1440)


async def _later(items: list[Any]) -> AsyncIterator[Any]:
    for each in items:
        yield each


@pytest.mark.parametrize("kind", [list, iter, _later], ids=["list", "iterator", "async"])
async def test_pairs_bring_their_own_query(kind: Any) -> None:
    """An account may stand with its own query, beside others that take the one for all."""
    async with Sandbox(accounts=2) as sandbox:
        one, two = (Account(each, CLIENT) for each in sandbox.account_ids)
        async with (
            ConversationSession(base_url=sandbox.url) as session,
            session.fetch_many(kind([one, (two, DAY), (one, DAY)]), HOUR) as outcomes,
        ):
            asked = {(each.account, each.query) async for each in outcomes if not each.error}
    assert {(one, HOUR), (two, DAY), (one, DAY)} == asked


@pytest.mark.parametrize(
    ("accounts", "said"),
    [
        (["10000001"], "'10000001' came out of the accounts"),
        ([None], "None came out of the accounts"),
        ([Account("1", CLIENT)], "account 1 brings no query"),
        ([(Account("1", CLIENT), 60)], "60. came out of the accounts"),
        (Account("1", CLIENT), "it must be an iterable of accounts"),
    ],
    ids=["an id", "nothing", "no query", "a number for a query", "a single account"],
)
async def test_what_is_no_question_is_refused(accounts: Any, said: str) -> None:
    """It says what came, and what would be right."""

    async def ask() -> None:
        async with (
            ConversationSession(base_url="http://localhost") as session,
            session.fetch_many(accounts) as outcomes,
        ):
            async for _ in outcomes:
                pass

    with pytest.raises(ConfigurationError, match=said):
        await ask()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("10000001", HOUR), "account='10000001': it must be an Account"),
        ((Account("1", CLIENT), 60), "query=60: it must be a ConversationQuery"),
        ((HOUR, Account("1", CLIENT)), "it must be an Account"),
    ],
)
async def test_wrong_types_are_named(arguments: tuple[Any, Any], said: str) -> None:
    async with ConversationSession(base_url="http://localhost") as session:
        with pytest.raises(ConfigurationError, match=said):
            await session.fetch(*arguments)


@pytest.mark.parametrize("timeout", [0, -1, "5", float("nan")])
async def test_a_timeout_that_is_none_is_refused(timeout: Any) -> None:
    async with ConversationSession(base_url="http://localhost") as session:
        with pytest.raises(ConfigurationError, match="timeout"):
            await session.fetch(Account("1", CLIENT), HOUR, timeout=timeout)


@pytest.mark.parametrize("count", [0, -1, 1.5, "5"])
async def test_a_bound_that_is_none_is_refused(count: Any) -> None:
    async with ConversationSession(base_url="http://localhost") as session:
        with pytest.raises(ConfigurationError, match="max_in_flight"):
            session.fetch_many([], HOUR, max_in_flight=count)


def test_settings_of_the_wrong_type_are_named() -> None:
    wrong: Any = 5
    with pytest.raises(ConfigurationError, match="base_url=5: it must be a string"):
        ConversationSession(base_url=wrong)
    with pytest.raises(ConfigurationError, match="waits=5: it must be a list of seconds"):
        RetryPolicy(waits=wrong)
