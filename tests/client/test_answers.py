"""What the service says with 200 is checked before anybody takes it for an answer."""

from __future__ import annotations

import logging

import pytest
from aiohttp import web

from msgconv_async import Account, ConversationQuery, ConversationSession, UnexpectedResponse
from tests.client.support import BEARER, QUERY, answering, serving

WHO = Account("71", BEARER)
SKILLS = ConversationQuery(60, skill_ids="all")


@pytest.mark.parametrize(
    "body", [b"[]", b"null", b'"x"', b'{"error":"internal"}', b'{"metricsTotals":{}}']
)
async def test_a_document_without_what_was_asked_for_is_no_answer(body: bytes) -> None:
    """Neither as a report nor as the service's own document."""
    async with serving(answering(body)) as url, ConversationSession(base_url=url) as session:
        with pytest.raises(UnexpectedResponse) as told:
            await session.fetch(WHO, SKILLS)
        with pytest.raises(UnexpectedResponse) as document:
            await session.fetch_document(WHO, SKILLS)
        async with session.fetch_many([WHO], SKILLS) as outcomes:
            (outcome,) = [each async for each in outcomes]

    assert "71" == told.value.account_id
    assert str(told.value) == str(document.value) == str(outcome.error)


async def test_an_answer_that_is_none_is_not_kept() -> None:
    """What `fresh_for` gives again is an answer."""
    bodies = [b"[]", b'{"metricsTotals":{}}']

    async def one_after_the_other(request: web.BaseRequest) -> web.StreamResponse:
        return await answering(bodies.pop(0))(request)

    async with (
        serving(one_after_the_other) as url,
        ConversationSession(base_url=url, fresh_for=30) as session,
    ):
        with pytest.raises(UnexpectedResponse):
            await session.fetch(WHO, QUERY)
        await session.fetch(WHO, QUERY)

    assert [] == bodies


async def test_members_that_nobody_knows_are_warned_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each kind of them, over all accounts, and without filling the log."""
    names = ",".join(f'"new{number}":1' for number in range(50))
    with caplog.at_level(logging.WARNING, "msgconv_async"):
        body = b'{"metricsTotals":{"totalResolvedConversations":1,"abandoned":1}}'
        async with serving(answering(body)) as url, ConversationSession(base_url=url) as session:
            for who in ("1", "2", "2"):
                await session.fetch(Account(who, BEARER), QUERY)
        (warning,) = caplog.messages
        assert warning.startswith("the service sends $.metricsTotals.abandoned, which ")
        caplog.clear()
        body = b'{"metricsTotals":{"totalResolvedConversations":1,%s}}' % names.encode()
        async with serving(answering(body)) as url, ConversationSession(base_url=url) as session:
            await session.fetch(WHO, QUERY)
            await session.fetch(WHO, QUERY)

    assert 20 == len(caplog.messages)
