"""What a refusal says about its cause."""

import pytest

from msgconv_async.pacing.starts import LOOK_BACK, Knob, Start, Starts


def test_company_is_what_was_in_flight_when_the_refusal_was_decided() -> None:
    """Whoever was answered while the refusal travelled had left the server before it came."""
    starts = Starts()
    for number in range(1, 6):
        refused = starts.add(number / 100, number, "rate")
    assert 5 == starts.company(refused)
    starts.ended += 2
    assert 3 == starts.company(refused)
    starts.ended += 7  # so late that later starts were over: what it started with is all one knows
    assert 5 == starts.company(refused)


def test_only_the_last_starts_are_remembered() -> None:
    """A start long ago is no longer looked at, and its refusal harms nothing."""
    starts = Starts()
    old = starts.add(0.0, 1, "rate")
    for each in range(1, 2 * LOOK_BACK):
        starts.add(each / 10, 1, "rate")
        starts.ended += 1
    old.refused = True
    assert starts.first_of_run(old) is None
    assert 0.0 == starts.testimony(old, 100.0, 1, "rate")
    assert 10.0 == pytest.approx(starts.pace(starts.seq))


def _played(gaps: list[float], in_flight: list[int]) -> tuple[Starts, Start]:
    """A hundred starts with these gaps and companies, in turn; nobody ends; the last is refused."""
    starts, now = Starts(), 0.0
    for each in range(100):
        now += gaps[each % len(gaps)]
        start = starts.add(now, in_flight[each % len(in_flight)], "rate")
        starts.ended = start.ended
    start.refused = True
    return starts, start


@pytest.mark.parametrize("steered", ["rate", "concurrency"])
def test_rare_company_at_an_ordinary_pace_blames_the_slots(steered: Knob) -> None:
    """Five in flight and refused, where up to four were always accepted."""
    starts, _ = _played([0.1, 0.02, 0.2, 0.08], [2, 3, 4])
    refused = starts.add(starts.seq / 10 + 0.1, 5, steered)
    starts.ended = refused.ended
    refused.refused = True
    assert 1.0 < starts.testimony(refused, refused.at + 0.04, 5, steered)


@pytest.mark.parametrize("steered", ["rate", "concurrency"])
def test_a_rare_pace_in_ordinary_company_blames_the_rate(steered: Knob) -> None:
    """Three in flight and refused after a hurry, where five were accepted often."""
    starts, last = _played([0.1], [2, 3, 4, 5])
    for each in range(1, 9):
        refused = starts.add(last.at + each / 100, 3, steered)
    starts.ended = refused.ended
    refused.refused = True
    assert -1.0 > starts.testimony(refused, refused.at + 0.04, 3, steered)
