"""What is remembered of the last starts, and what they tell."""

import math

import pytest

from msgconv_async.pacing.recent import LOOK_BACK, RecentStarts
from msgconv_async.pacing.schedule import Knob


def test_company_is_what_was_in_flight_when_the_refusal_was_decided() -> None:
    """Whoever was answered while the refusal travelled had left the server before it came."""
    starts = RecentStarts()
    for number in range(1, 6):
        start = starts.add(number / 100, number, "rate")
    assert 5 == starts.company(start, 0.09)
    for when in (0.07, 0.08, 0.10):
        starts.end(when)
    assert 3 == starts.company(start, 0.09)
    assert 2 == starts.company(start, 0.10)


def test_a_refusal_later_than_all_others_tells_how_it_started() -> None:
    """So late that later starts were over: what it started with is all one knows."""
    starts = RecentStarts()
    for number in range(1, 4):
        late = starts.add(number / 100, number, "rate")
    for each in range(4, 9):
        starts.add(each / 100, 4, "rate")
        starts.end(each / 100)
    assert 3 == starts.company(late, 1.0)


def test_the_speed_is_known_however_late_a_refusal_comes() -> None:
    """Of a hundred starts that are remembered, the oldest tell the speed of those before."""
    starts = RecentStarts()
    for each in range(4 * LOOK_BACK):
        starts.add(each / 1000, 150, "rate")
        if each >= 2 * LOOK_BACK:
            late = starts.seq - LOOK_BACK
            assert 1000.0 == pytest.approx(starts.speed_before(late), rel=0.1)


@pytest.mark.parametrize(
    ("gaps", "resumed", "paused"),
    [
        ([(0.02, "rate"), (0.02, None)], -math.inf, False),  # the head of the queue, by chance
        ([(0.02, None), (0.02, None)], -math.inf, True),
        ([(0.02, "rate"), (9.0, None)], -math.inf, True),
        ([(0.02, "rate"), (9.0, None)], 9.0, False),  # it was we who paused
    ],
)
def test_demand_pauses_when_nobody_comes(
    gaps: list[tuple[float, Knob | None]], resumed: float, *, paused: bool
) -> None:
    """One start that nothing held is chance, unless it came long after the one before."""
    starts, now = RecentStarts(), 0.0
    for gap, held in gaps:
        now += gap
        starts.add(now, 1, held)
    assert paused == starts.demand_paused(resumed, 50.0)


def test_only_the_last_starts_are_remembered() -> None:
    """A start long ago is no longer looked at, and its refusal harms nothing."""
    starts = RecentStarts()
    old = starts.add(0.0, 1, "rate")
    for each in range(1, 2 * LOOK_BACK):
        starts.add(each / 10, 1, "rate")
        starts.end(each / 10)
    old.refused = True
    assert starts.first_of_run(old) is None
    assert starts.before(old) == []
    assert 10.0 == pytest.approx(starts.pace(starts.seq))


def test_an_account_that_is_asked_now_and_then_holds_few_starts() -> None:
    """What was long before tells nothing, and thousands of accounts would remember it all."""
    starts = RecentStarts()
    for turn in range(100):
        starts.add(300.0 * turn, 1, None)
        starts.add(300.0 * turn + 1, 1, None)
        starts.end(300.0 * turn + 2)
    assert 2 == len(starts._last)
    assert 1 == len(starts._ends)


def test_a_pause_with_something_in_flight_forgets_nothing() -> None:
    """What is still under way will be compared with what was before."""
    starts = RecentStarts()
    for place in range(10):
        starts.add(place / 10, 2, "rate")
    starts.add(1000.0, 2, None)
    assert 11 == len(starts._last)
