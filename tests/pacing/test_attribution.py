"""Which limit a refusal is blamed on."""

import pytest

from msgconv_async.pacing.attribution import Attribution, evidence
from msgconv_async.pacing.recent import LOOK_BACK, RecentStarts
from msgconv_async.pacing.schedule import Knob


def test_answers_as_fast_as_refusals_leave_nobody_but_oneself() -> None:
    """Who was accepted was one, even if its answer came as soon as a refusal would have."""
    starts = RecentStarts()
    for each in range(100):
        starts.add(each / 10, 1, "rate")
        starts.end(each / 10 + 0.04)
    refused = starts.add(10.0, 2, "rate")
    refused.refused = True
    assert 1.0 < evidence(starts, refused, 10.04, 2, "concurrency")


def _play(starts: RecentStarts, gaps: list[float], companies: list[int], count: int) -> float:
    """So many starts, with these gaps and companies in turn; returns when the last one began."""
    now, busy = 0.0, 0
    for each in range(count):
        now += gaps[each % len(gaps)]
        company = companies[each % len(companies)]
        while busy >= company:
            starts.end(now)
            busy -= 1
        busy += 1
        starts.add(now, busy, "rate")
    return now


@pytest.mark.parametrize("steered", ["rate", "concurrency"])
def test_rare_company_at_an_ordinary_pace_blames_the_slots(steered: Knob) -> None:
    """Five in flight and refused, where up to four were always accepted."""
    starts = RecentStarts()
    now = _play(starts, [0.1, 0.05, 0.2, 0.08], [2, 3, 4], 100)
    refused = starts.add(now + 0.1, 5, steered)
    refused.refused = True
    assert 1.0 < evidence(starts, refused, now + 0.14, 5, steered)


@pytest.mark.parametrize("steered", ["rate", "concurrency"])
def test_a_rare_pace_in_ordinary_company_blames_the_rate(steered: Knob) -> None:
    """Three in flight and refused after a hurry, where five were accepted often."""
    starts = RecentStarts()
    now = _play(starts, [0.1], [2, 3, 4, 5], 100)
    for each in range(1, 9):
        refused = starts.add(now + each / 100, 3, steered)
    refused.refused = True
    assert -1.0 > evidence(starts, refused, refused.at + 0.04, 3, steered)


def test_four_accepted_are_little_evidence() -> None:
    """A bucket refuses the fifth of the first starts as well as four slots do."""
    starts = RecentStarts()
    now = _play(starts, [0.05], [1, 2, 3, 4], 4)
    refused = starts.add(now + 0.05, 5, "rate")
    refused.refused = True
    assert 0.5 > abs(evidence(starts, refused, now + 0.09, 5, "rate"))


def test_a_start_that_is_forgotten_is_no_evidence() -> None:
    """A start long ago is no longer looked at, and its refusal blames nothing."""
    starts = RecentStarts()
    old = starts.add(0.0, 1, "rate")
    for number in range(1, 2 * LOOK_BACK):
        starts.add(number / 10, 1, "rate")
        starts.end(number / 10)
    old.refused = True
    assert 0.0 == evidence(starts, old, 100.0, 1, "rate")


def test_the_rate_is_to_blame_until_a_clear_refusal_tells_otherwise() -> None:
    attribution = Attribution(None)
    suspects = []
    for told in (0.0, 1.0, 4.0):
        attribution.weigh(told)
        suspects.append(attribution.suspect)
    assert ["rate", "rate", "concurrency"] == suspects


def test_no_number_of_refusals_makes_it_surer_than_one_clear_refusal() -> None:
    """What was to blame for hours is dropped when a few refusals tell otherwise."""
    attribution = Attribution(None)
    for _ in range(1000):
        attribution.weigh(-3.0)
    attribution.weigh(5.0)
    assert "concurrency" == attribution.suspect


def test_one_at_a_time_that_is_refused_again_blames_the_rate() -> None:
    attribution = Attribution(None)
    attribution.weigh(100.0)
    attribution.refused_alone()
    assert "rate" == attribution.suspect


@pytest.mark.parametrize("only", ["rate", "concurrency"])
def test_of_one_fixed_knob_the_other_is_to_blame(only: Knob) -> None:
    attribution = Attribution(only)
    for told in (100.0, -100.0):
        attribution.weigh(told)
        assert only == attribution.suspect
