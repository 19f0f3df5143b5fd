"""An answer is given again only while it would still be the same answer."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from msgconv_async.client import answer_cache
from msgconv_async.client.answer_cache import AnswerCache
from msgconv_async.client.http.transport import Answer

pytestmark = pytest.mark.looptime


def _answer(second: int, *, took: float, body: bytes = b"{}") -> Answer:
    """Return an answer whose head has just come, dated so many seconds after 12:00."""
    now = asyncio.get_running_loop().time()
    at = datetime(2026, 3, 4, 12, second // 60, second % 60, tzinfo=UTC)
    return Answer(body, at, {}, sent=now - took, arrived=now)


async def test_the_time_that_a_body_took_counts_before_the_edge() -> None:
    """The head came ten seconds before the edge, the body five seconds later."""
    cache = AnswerCache(60)
    answer = _answer(290, took=0.1)
    await asyncio.sleep(5)
    cache.keep("question", answer)
    await asyncio.sleep(4)
    assert cache.get("question") is answer
    await asyncio.sleep(1)
    assert cache.get("question") is None


async def test_an_answer_that_an_edge_passed_under_is_not_kept() -> None:
    """The service may have counted before the edge, and dated its answer after it."""
    cache = AnswerCache(60)
    cache.keep("slow", _answer(302, took=3))
    cache.keep("quick", _answer(302, took=1))
    assert cache.get("slow") is None
    assert cache.get("quick") is not None
    cache.close()


async def test_the_oldest_answers_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_cache, "MOST_BYTES", 1000)
    cache = AnswerCache(60)
    for number in range(5):
        cache.keep(number, _answer(10, took=0.1, body=b"x" * 400))
    assert [False, False, False, True, True] == [
        cache.get(number) is not None for number in range(5)
    ]
    cache.close()
