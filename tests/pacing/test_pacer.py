"""The pacer: bucket, slots and what is learnt, together."""

import asyncio
from typing import Any

import pytest

from msgconv_async.errors import ConfigurationError
from msgconv_async.pacing.pacer import Pacer, PacerStats
from tests.pacing.virtual import run_virtual


def _fixed(rate: float, concurrency: int) -> Pacer:
    return Pacer(rate=rate, concurrency=concurrency)


async def _request(pacer: Pacer, seconds: float, starts: list[float]) -> None:
    async with pacer.turn() as turn:
        starts.append(asyncio.get_running_loop().time())
        await asyncio.sleep(seconds)
        turn.answered()


@pytest.mark.parametrize(
    ("rate", "concurrency", "expected"),
    [(2.0, 10, [0, 0.5, 1.0, 1.5]), (100.0, 1, [0, 3, 6, 9]), (1.0, 2, [0, 1, 3, 4])],
    ids=["the rate holds", "the slots hold", "both hold"],
)
def test_a_start_needs_a_token_and_a_slot(
    rate: float, concurrency: int, expected: list[float]
) -> None:
    """Requests of 3 seconds each start as soon as both limits let them, and no sooner."""

    async def main() -> list[float]:
        starts: list[float] = []
        pacer = _fixed(rate, concurrency)
        await asyncio.gather(*(_request(pacer, 3, starts) for _ in range(4)))
        return starts

    assert expected == pytest.approx(run_virtual(main()), abs=1e-6)


def test_it_counts_what_it_sends_and_what_comes_of_it() -> None:
    """Sent is answered, throttled and neutral together; nothing is left in flight."""

    async def main() -> Pacer:
        pacer = _fixed(1000.0, 100)
        for outcome in ("answered", "answered", "throttled", "neutral"):
            async with pacer.turn() as turn:
                if outcome == "answered":
                    turn.answered()
                elif outcome == "throttled":
                    turn.throttled(None)
        return pacer

    stats = run_virtual(main()).stats()
    assert PacerStats(4, 2, 1, 0, 0, 0, 1000.0, 100, "rate") == stats


def test_fixed_slots_tell_when_a_request_would_start() -> None:
    """Before anything is refused: the rate may grow, they do not."""

    async def main() -> float:
        pacer = Pacer(concurrency=4)
        for _ in range(20):
            await _request(pacer, 2, [])
        tasks = [asyncio.create_task(_request(pacer, 2, [])) for _ in range(24)]
        await asyncio.sleep(1)
        eta = pacer.eta()
        await asyncio.gather(*tasks)
        return eta

    assert 6 <= run_virtual(main()) <= 11


@pytest.mark.parametrize("cancel_at", [0.0, 0.5, 1.0, 1.5, 2.5])
def test_a_cancelled_request_leaves_nothing_behind(cancel_at: float) -> None:
    """Wherever a request is cancelled, queued or in flight, the next one finds a free slot."""

    async def main() -> tuple[float, int, int]:
        pacer, starts = _fixed(1.0, 1), list[float]()
        tasks = [asyncio.create_task(_request(pacer, 2, starts)) for _ in range(2)]
        await asyncio.sleep(cancel_at)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        before = asyncio.get_running_loop().time()
        await _request(pacer, 0, starts)
        return starts[-1] - before, pacer.in_flight, pacer.waiting

    waited, in_flight, waiting = run_virtual(main())
    assert (0, 0) == (in_flight, waiting)
    assert waited <= 1.0 + 1e-6


def test_a_refusal_slows_the_account_down() -> None:
    """After 429 the pacer allows less than before it."""

    async def main() -> tuple[tuple[float, int], tuple[float, int]]:
        pacer, starts = Pacer(), list[float]()
        await asyncio.gather(*(_request(pacer, 0.1, starts) for _ in range(50)))
        before = pacer.rate, pacer.concurrency
        async with pacer.turn() as turn:
            turn.throttled(None)
        return before, (pacer.rate, pacer.concurrency)

    before, after = run_virtual(main())
    assert after[0] < before[0] or after[1] < before[1]


def test_a_turn_that_comes_too_late_for_an_answer_goes_to_the_next() -> None:
    """Its slot and its token are free again, and a caller with more time starts at once."""

    async def main() -> tuple[float, list[float]]:
        pacer, starts = Pacer(rate=2), list[float]()
        for _ in range(8):
            await _request(pacer, 0.4, starts)
        loop, ends = asyncio.get_running_loop(), asyncio.get_running_loop().time() + 0.5
        impatient = asyncio.create_task(pacer.start_in_time(lambda: ends))
        await asyncio.sleep(0)
        patient = asyncio.create_task(_request(pacer, 0.4, starts))
        assert await impatient is None
        left = loop.time()
        await patient
        assert pacer.in_flight == 0
        return left, starts

    left, starts = run_virtual(main())
    assert starts[-1] == left


def test_a_lost_request_does_not_tell_how_long_answers_take() -> None:
    """Or calls with less time than that would be turned away, for one that was never answered."""

    async def main() -> tuple[float, float]:
        pacer = Pacer(rate=100)
        for _ in range(8):
            await _request(pacer, 0.4, [])
        before = pacer.holding
        async with pacer.turn():
            await asyncio.sleep(20)
        return before, pacer.holding

    before, after = run_virtual(main())
    assert 0.4 <= before < 2.0
    assert after == before


def test_a_cold_pacer_starts_gently_and_learns() -> None:
    """Against a service that refuses nothing it begins with few at once and soon sends many."""

    async def main() -> tuple[int, float, float]:
        pacer, starts = Pacer(), list[float]()
        tasks = [asyncio.create_task(_request(pacer, 0.2, starts)) for _ in range(500)]
        await asyncio.sleep(0.01)
        at_first = pacer.in_flight
        await asyncio.gather(*tasks)
        return at_first, pacer.rate, starts[-1]

    at_first, rate, took = run_virtual(main())
    assert at_first <= 4
    assert rate > 50
    assert took < 10


@pytest.mark.parametrize(
    ("bounds", "named"),
    [
        ({"rate": 0}, "rate=0: it must be a finite number above 0, or a pair"),
        ({"rate": (5, 2)}, r"rate=\(5, 2\): .* the lower one first"),
        ({"rate": (1, 2, 3)}, "rate=.*a pair of bounds"),
        ({"rate": ()}, "rate=.*a pair of bounds"),
        ({"rate": [1, 5]}, r"rate=\[1, 5\]: "),
        ({"rate": "10"}, "rate='10': "),
        ({"rate": None}, "rate=None: "),
        ({"rate": True}, "rate=True: "),
        ({"concurrency": 0}, "concurrency=0: it must be a whole number, at least 1"),
        ({"concurrency": 2.5}, "concurrency=2.5: "),
        ({"concurrency": (4, 1)}, "concurrency"),
    ],
)
def test_bounds_that_cannot_be_are_refused_by_name(bounds: dict[str, Any], named: str) -> None:
    """One sentence: which value, and what would be right."""
    with pytest.raises(ConfigurationError, match=named):
        Pacer(**bounds)


def test_bounds_are_kept() -> None:
    """However much there is to do, a bounded pacer stays within its bounds."""

    async def main() -> Pacer:
        pacer, starts = Pacer(rate=(1, 20), concurrency=(1, 3)), list[float]()
        await asyncio.gather(*(_request(pacer, 0.1, starts) for _ in range(200)))
        return pacer

    pacer = run_virtual(main())
    assert pacer.rate <= 20
    assert pacer.concurrency <= 3


def test_after_an_outage_one_goes_first() -> None:
    """All refused, and a pause: then one request, and the others once its refusal would be back."""

    async def main() -> list[float]:
        starts: list[float] = []
        pacer = Pacer(rate=(100.0, 1000.0), concurrency=50)
        loop = asyncio.get_running_loop()

        async def request() -> None:
            async with pacer.turn() as turn:
                starts.append(loop.time())
                await asyncio.sleep(0.04 if loop.time() < 1 else 1.0)
                if loop.time() < 1:
                    turn.throttled(1.0)
                else:
                    turn.answered()

        await asyncio.gather(*(request() for _ in range(30)))
        return starts

    starts = run_virtual(main())
    first, second, third = [at for at in starts if at >= 1.0][:3]
    assert 2 * 0.04 == pytest.approx(second - first, abs=0.002)
    assert 0.01 == pytest.approx(third - second, abs=0.002)
