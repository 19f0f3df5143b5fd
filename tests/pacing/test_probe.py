"""The curve along which a limit is probed, and how calm it becomes."""

from __future__ import annotations

from itertools import count, pairwise

import pytest

from msgconv_async.pacing.probe import Found, Probe
from msgconv_async.pacing.recent import REST, Start


def _found(probe: Probe, place: float, *, new: bool = False, early: bool = False) -> None:
    probe.rest("rate", place, place, place, new=new, early=early)


def _answers_in_a_rest(probe: Probe) -> int:
    for answers in count():
        if probe.x >= 1.0:
            return answers
        probe.advance()
    raise AssertionError


def test_it_rests_under_the_ceiling_and_probes_above_it() -> None:
    """It rises with each answer, and reaches the ceiling at the end of a rest."""
    probe = Probe()
    _found(probe, 100.0, new=True)
    values = []
    while probe.x < 2.0:
        values.append(probe.value())
        probe.advance()
    assert all(before < after for before, after in pairwise(values))
    assert 100.0 - values[0] == pytest.approx(values[-1] - 100.0, rel=0.2)
    assert 90.0 < values[0] < 100.0 < values[-1]


def test_a_rest_takes_forty_answers_and_twice_as_many_when_it_was_found_there_again() -> None:
    """Up to eight times; a place that is another one begins anew."""
    probe = Probe()
    _found(probe, 10.0, new=True)
    _found(probe, 10.0)
    rests = []
    for _ in range(5):
        rests.append(_answers_in_a_rest(probe))
        _found(probe, 10.0)
    assert [1, 2, 4, 8, 8] == [round(rest / REST) for rest in rests]
    _found(probe, 20.0)
    assert _answers_in_a_rest(probe) <= REST


def test_the_calmer_it_is_the_less_far_it_reaches() -> None:
    probe = Probe()
    _found(probe, 100.0, new=True)
    reaches = []
    for _ in range(4):
        _found(probe, 100.0)
        reaches.append(probe.reach)
    assert reaches == sorted(reaches, reverse=True)
    assert reaches[0] == pytest.approx(8 * reaches[-1])


def test_the_rests_of_many_clients_grow_with_their_number() -> None:
    """Of two, each meets its own probe in one refusal of two; at most eight clients are told."""
    probe = Probe()
    seconds = []
    for number, early in enumerate([True, False] * 20 + [True] * 100):
        probe.refused(Start(0.0, 100 * number + 100, 1, "rate"), early=early, new=False)
        _found(probe, 1000.0, new=True)
        seconds.append(_answers_in_a_rest(probe) / 1000.0)
    assert seconds[39] == pytest.approx(2 * 0.75, rel=0.25)
    assert seconds[-1] == pytest.approx(8 * 0.75, rel=0.01)


def test_what_fell_is_probed_every_half_minute_until_what_stood_is_forgotten() -> None:
    """At one answer in two seconds, a rest of forty answers would take eighty seconds."""
    probe = Probe()
    _found(probe, 50.0, new=True)
    _found(probe, 50.0)
    rests = []
    for _ in range(200):
        _found(probe, 0.5)
        rests.append(_answers_in_a_rest(probe))
    assert 15 <= rests[1] <= 16  # thirty seconds
    assert rests[-1] >= REST


def test_an_outage_tells_nothing_about_the_place_of_a_rate() -> None:
    """What was found before it is what a quota is compared with."""
    probe = Probe()
    _found(probe, 100.0, new=True)
    _found(probe, 100.0)
    before = probe.found
    _found(probe, 40.0)
    probe.resume(before)
    assert before == probe.found


def test_of_slots_only_what_stood_is_taken_up_after_an_outage() -> None:
    probe = Probe()
    probe.rest("concurrency", 4.0, 4.0, 10.0, new=True, early=False)
    probe.rest("concurrency", 4.0, 4.0, 10.0, new=False, early=False)
    before = probe.found
    _found(probe, 8.0, new=True)
    probe.resume(before)
    assert Found("rate", 8.0, 0.5, 10.0, 4.0) == probe.found
