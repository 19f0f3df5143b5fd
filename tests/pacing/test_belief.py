"""What one pacer learnt, another may begin from."""

from __future__ import annotations

import asyncio

import pytest

from msgconv_async import Pacer
from msgconv_async.pacing.adaptive import Belief

pytestmark = pytest.mark.looptime


async def _ask(pacer: Pacer, seconds: float, rate: float) -> int:
    """Ask a bucket of one request with sixteen askers; return how many were refused."""
    loop = asyncio.get_running_loop()
    free_at, until = 0.0, loop.time() + seconds
    before = pacer.throttled

    async def asker() -> None:
        nonlocal free_at
        while loop.time() < until:
            async with pacer.turn() as turn:
                if loop.time() + 1e-9 < free_at - 2 / rate:
                    turn.throttled(None)
                else:
                    free_at = max(free_at, loop.time()) + 1 / rate
                    turn.answered()
                await asyncio.sleep(0.01)

    await asyncio.gather(*(asker() for _ in range(16)))
    return pacer.throttled - before


async def test_nothing_is_believed_before_a_refusal() -> None:
    assert Pacer().belief() is None


async def test_who_begins_from_a_belief_is_refused_less_than_who_begins_cold() -> None:
    learnt = Pacer()
    cold = await _ask(learnt, 60, 30)
    belief = learnt.belief()
    assert belief is not None
    assert "rate" == belief.limited_by
    assert 30 == pytest.approx(belief.limit, rel=0.1)

    again = Pacer()
    again.believe(belief)
    refused = await _ask(again, 10, 30)

    cold_anew = await _ask(Pacer(), 10, 30)
    assert refused * 3 <= cold_anew <= cold


@pytest.mark.parametrize("limit", [5.0, 200.0])
async def test_a_wrong_belief_is_unlearnt(limit: float) -> None:
    """It is a limit that moved: within a minute the true one is used to nine tenths."""
    pacer = Pacer()
    pacer.believe(Belief("rate", limit, limit, 20))
    await _ask(pacer, 60, 30)
    before = pacer.answered
    await _ask(pacer, 20, 30)
    assert 0.9 * 20 * 30 <= pacer.answered - before


async def test_slots_are_believed_in_as_well() -> None:
    pacer = Pacer()
    pacer.believe(Belief("concurrency", 6.0, 12.0, 6, 4.0))
    assert ("concurrency", 6) == (pacer.stats().limited_by, pacer.concurrency)
    assert 24 == pacer.rate


async def test_a_pacer_that_is_opened_allows_its_bounds() -> None:
    pacer = Pacer(concurrency=(1, 50))
    pacer.open()
    assert (10_000, 50) == (pacer.rate, pacer.concurrency)


async def test_a_pacer_that_met_a_limit_is_not_opened() -> None:
    pacer = Pacer()
    pacer.believe(Belief("concurrency", 6.0, 12.0, 6, 4.0))
    pacer.open()
    assert 6 == pacer.concurrency
