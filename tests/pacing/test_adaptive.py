"""What the adaptive limit reaches, in virtual time, against servers that publish nothing.

The figures are means over seeds with the worst seed beside them where it matters; each bound leaves
a little slack under what is reached, so that a failure means a change and not bad luck.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from statistics import fmean

import pytest

from msgconv_async.pacing import adaptive
from msgconv_async.pacing.adaptive import AdaptiveLimit
from tests.pacing.simulation import (
    Both,
    FixedWindow,
    LeakyBucket,
    Report,
    Scenario,
    SlotLimit,
    between,
    run,
)

SEEDS = range(1, 7)
HALVED = between(40, 100, 0.5)
PAIR, FOUR = (0.0, 0.5), (0.0, 0.5, 1.0, 1.5)

SCENARIOS = {
    "bucket 50/s": Scenario(lambda: LeakyBucket(50, 5)),
    "bucket 50/s, fast": Scenario(lambda: LeakyBucket(50, 5), service=0.05),
    "bucket 50/s, slow": Scenario(lambda: LeakyBucket(50, 5), service=1.5),
    "bucket 500/s": Scenario(lambda: LeakyBucket(500, 20), service=0.1, duration=60),
    "bucket 5/s": Scenario(lambda: LeakyBucket(5, 2)),
    "one every 2 s": Scenario(lambda: LeakyBucket(0.5, 1), duration=600),
    "4 slots": Scenario(lambda: SlotLimit(4)),
    "4 slots, slow": Scenario(lambda: SlotLimit(4), service=1.5),
    "20 slots": Scenario(lambda: SlotLimit(20)),
    "20 slots, slow": Scenario(lambda: SlotLimit(20), service=1.5),
    "both": Scenario(lambda: Both(LeakyBucket(50, 5), SlotLimit(10))),
    "windows of 1 s": Scenario(lambda: FixedWindow(50, 1)),
    "windows of 60 s": Scenario(lambda: FixedWindow(3000, 60, phase=0.0), duration=300),
    "windows of 60 s, announced": Scenario(
        lambda: FixedWindow(3000, 60, announce=True, phase=0.0), duration=300
    ),
    "bucket halves": Scenario(lambda: LeakyBucket(50, 5, HALVED), duration=140, changes=(40, 100)),
    "slots halve": Scenario(lambda: SlotLimit(20, HALVED), duration=140, changes=(40, 100)),
    "two on a bucket": Scenario(lambda: LeakyBucket(100, 10), begins=PAIR),
    "four on a bucket": Scenario(lambda: LeakyBucket(100, 10), begins=FOUR),
    "one comes late": Scenario(lambda: LeakyBucket(100, 10), begins=(0.0, 30.0)),
    "two on slots": Scenario(lambda: SlotLimit(20), begins=PAIR),
    "four on slots": Scenario(lambda: SlotLimit(40), begins=FOUR),
}


@cache
def reports(name: str) -> tuple[Report, ...]:
    return tuple(run(SCENARIOS[name], seed) for seed in SEEDS)


def mean(name: str, figure: Callable[[Report], float]) -> float:
    return fmean(figure(report) for report in reports(name))


def fresh(name: str, figure: Callable[[Report], float]) -> float:
    """The mean again, when something was changed since."""
    return fmean(figure(run(SCENARIOS[name], seed)) for seed in SEEDS)


@pytest.mark.parametrize(
    ("name", "goodput", "refused"),
    [
        ("bucket 50/s", 0.96, 0.007),
        ("bucket 50/s, fast", 0.97, 0.008),
        ("bucket 50/s, slow", 0.88, 0.008),  # the ramp counts in round trips: see the next test
        ("bucket 500/s", 0.92, 0.008),
        ("4 slots", 0.94, 0.010),
        ("4 slots, slow", 0.94, 0.018),  # 320 answers in all: 4 refusals are more than 1 %
        ("20 slots", 0.94, 0.006),
        ("20 slots, slow", 0.92, 0.012),
        ("both", 0.93, 0.009),
        ("windows of 1 s", 0.86, 0.025),  # a window hides an excess for up to a second
        ("bucket halves", 0.94, 0.010),
        ("slots halve", 0.92, 0.010),
        ("two on a bucket", 0.95, 0.010),
        ("four on a bucket", 0.95, 0.014),
        ("one comes late", 0.95, 0.010),
        ("two on slots", 0.93, 0.014),
        ("four on slots", 0.95, 0.014),
    ],
)
def test_uses_the_limit_and_is_seldom_refused(name: str, goodput: float, refused: float) -> None:
    """From cold, nearly all of an unknown limit is used, at about one refusal in a hundred."""
    assert goodput <= mean(name, Report.goodput)
    assert refused >= mean(name, Report.refusal_share)


@pytest.mark.parametrize("name", ["bucket 50/s", "bucket 50/s, fast", "bucket 50/s, slow"])
def test_a_settled_bucket_is_used_up(name: str) -> None:
    """Once found, a bucket is used to 97 % at six refusals in a thousand or fewer."""
    assert 0.97 <= mean(name, lambda report: report.goodput(60))
    assert 0.006 >= mean(name, lambda report: report.refusal_share(60))


@pytest.mark.parametrize("name", ["bucket halves", "slots halve"])
def test_follows_a_limit_that_falls_and_returns(name: str) -> None:
    """On average a halved limit is met within 5 s, and so is its return."""
    assert 5.0 >= mean(name, lambda report: report.regain(40))
    assert 5.0 >= mean(name, lambda report: report.regain(100))


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("two on a bucket", 0.93),
        ("one comes late", 0.85),
        ("four on a bucket", 0.80),
        ("two on slots", 0.93),
        ("four on slots", 0.85),
    ],
)
def test_clients_share_alike(name: str, index: float) -> None:
    """Clients that share a limit get like shares, the last one's cold start included."""
    last = max(SCENARIOS[name].begins)
    assert index <= mean(name, lambda report: report.fairness(last))


@pytest.mark.parametrize(
    ("name", "goodput", "refused"),
    [("bucket 5/s", 0.68, 0.03), ("one every 2 s", 0.75, 0.09)],
)
def test_lives_with_a_very_low_limit(name: str, goodput: float, refused: float) -> None:
    """A limit so low that a cold start alone costs several per cent is still found and held."""
    assert goodput <= mean(name, Report.goodput)
    assert refused >= mean(name, Report.refusal_share)


def test_spreads_a_quota_over_its_long_window() -> None:
    """3,000 a minute: used to 80 %, found out without being told; to 98 % when told."""
    assert 0.80 <= mean("windows of 60 s", Report.goodput)
    assert 0.06 >= mean("windows of 60 s", Report.refusal_share)
    assert 0.98 <= mean("windows of 60 s, announced", Report.goodput)
    assert 0.04 >= mean("windows of 60 s, announced", Report.refusal_share)


def test_two_clients_for_fifteen_minutes() -> None:
    """3,000 a minute for two, halved for a minute: 97 % used, under 1 % refused, back in 10 s."""
    scenario = Scenario(
        lambda: LeakyBucket(50, 5, between(420, 480, 0.5)), begins=PAIR, duration=900
    )
    both = [run(scenario, seed) for seed in (1, 2)]
    assert 0.97 <= fmean(report.goodput() for report in both)
    assert 0.012 >= fmean(report.refusal_share() for report in both)
    assert 10.0 >= fmean(report.regain(480) for report in both)


def test_demand_below_the_limit_teaches_nothing() -> None:
    """Five minutes at a tenth of the limit: no refusal, and the rate does not drift beyond it."""
    report = run(Scenario(lambda: LeakyBucket(50, 5), duration=300, demand=5.0), seed=1)
    limit = report.clients[0].limit
    assert 0 == report.refused()
    assert 50 > limit.rate
    assert 30 > limit.concurrency


def test_an_idle_hour_changes_nothing() -> None:
    """After an hour without work the limit is where it was, and no burst meets the server."""
    scenario = Scenario(lambda: LeakyBucket(50, 5), idle=(60.0, 3660.0), duration=3720.0)
    report = run(scenario, seed=1)
    assert 0.94 <= report.answered(3660, 3720) / (50 * 60)
    assert 0.01 >= report.refusal_share(3660, 3720)


def test_failures_say_nothing() -> None:
    """One answer in ten a failure: the limit is found all the same."""
    report = run(Scenario(lambda: LeakyBucket(50, 5), failures=0.1), seed=1)
    assert 0.94 * 0.9 <= report.goodput()
    assert 0.01 >= report.refusal_share()


def test_the_same_seed_gives_the_same_run() -> None:
    """The simulation is deterministic."""
    scenario = Scenario(lambda: SlotLimit(8), duration=30)
    assert run(scenario, 3).clients[0].answers == run(scenario, 3).clients[0].answers


# What single calls do


def test_a_refusal_with_n_in_flight_means_one_less() -> None:
    """Slots are exact: refused as the fifth, four fit."""
    limit = AdaptiveLimit()
    start = limit.started(1.0, 5, "concurrency")
    limit.throttled(start, 1.1, None)
    assert 3 <= limit.concurrency <= 4
    for turn in range(25):
        limit.answered(limit.started(2.0 + turn, 4, "concurrency"), 2.5 + turn)
    assert 4 == limit.concurrency


def test_requests_sent_before_a_cut_do_not_cut_again() -> None:
    """Five refusals of one overshoot are one piece of news."""
    limit = AdaptiveLimit()
    starts = [limit.started(1.0 + each / 100, each + 1, "concurrency") for each in range(9)]
    limit.throttled(starts[4], 1.2, None)
    before = limit.concurrency
    for start in starts[5:7]:
        limit.throttled(start, 1.21, None)
    assert before == limit.concurrency


def test_pauses_only_when_everything_is_refused() -> None:
    """One refusal pauses nobody, whatever its Retry-After; the third in a row does."""
    limit = AdaptiveLimit()
    starts = [limit.started(1.0 + each / 10, 1, "rate") for each in range(3)]
    for start in starts[:2]:
        limit.throttled(start, 1.5, 30.0)
    assert -math.inf == limit.paused_until
    limit.throttled(starts[2], 1.5, 30.0)
    assert 31.5 == limit.paused_until


def test_without_retry_after_the_pause_grows_with_the_outage() -> None:
    """Half as long again as everything has been refused so far."""
    limit = AdaptiveLimit()
    for each in range(3):
        limit.throttled(limit.started(1.0 + each, 1, "rate"), 2.0 + each, None)
    assert 4.0 + (4.0 - 1.0) / 2 == limit.paused_until


@pytest.mark.parametrize("server", [LeakyBucket(50, 5), SlotLimit(4)])
def test_bounds_hold(server: LeakyBucket | SlotLimit) -> None:
    """Neither knob leaves the caller's bounds, whatever the server does."""
    seen: list[tuple[float, int]] = []

    class Watched(AdaptiveLimit):
        def started(self, now: float, in_flight: int, held: adaptive.Knob | None) -> adaptive.Start:
            seen.append((self.rate, self.concurrency))
            return super().started(now, in_flight, held)

    scenario = Scenario(
        lambda: server,
        duration=30,
        limit=lambda: Watched(rate=(8.0, 20.0), concurrency=(2, 6)),
    )
    run(scenario, seed=1)
    assert 8.0 <= min(rate for rate, _ in seen)
    assert 20.0 >= max(rate for rate, _ in seen)
    assert {2, 3, 4, 5, 6} >= {slots for _, slots in seen}


def test_a_fixed_limit_stays_fixed() -> None:
    """Equal bounds leave nothing to find."""
    scenario = Scenario(
        lambda: LeakyBucket(50, 5),
        duration=30,
        limit=lambda: AdaptiveLimit(rate=(25.0, 25.0), concurrency=(30, 30)),
    )
    report = run(scenario, seed=1)
    assert (25.0, 30) == (report.clients[0].limit.rate, report.clients[0].limit.concurrency)
    assert 0 == report.refused()


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (2.0, 1.0)])
def test_bounds_out_of_order_are_refused(bounds: tuple[float, float]) -> None:
    """Bounds that are not positive and in order are a mistake of the caller."""
    with pytest.raises(ValueError, match="bounds"):
        AdaptiveLimit(rate=bounds)


# Each constant earns its place: without it, a figure falls


@pytest.mark.parametrize(
    ("constant", "neutral", "name"),
    [
        ("REST", 4.0, "bucket 5/s"),
        ("SHARED_SECONDS", 0.0, "four on a bucket"),
        ("OUTAGE", 10**6, "windows of 60 s"),
        ("FEW", 0, "4 slots, slow"),
    ],
)
def test_without_it_more_is_refused(
    monkeypatch: pytest.MonkeyPatch, constant: str, neutral: float, name: str
) -> None:
    """Refusals rise by half or more."""
    monkeypatch.setattr(adaptive, constant, neutral)
    assert 1.5 * mean(name, Report.refusal_share) < fresh(name, Report.refusal_share)


@pytest.mark.parametrize(("constant", "neutral"), [("CALM", 0.0), ("MOVED", 0.0)])
def test_without_it_a_standing_limit_is_probed_for_ever(
    monkeypatch: pytest.MonkeyPatch, constant: str, neutral: float
) -> None:
    """Refusals in the second minute double."""

    def settled(report: Report) -> float:
        return report.refusal_share(60)

    monkeypatch.setattr(adaptive, constant, neutral)
    assert 2 * mean("bucket 50/s", settled) < fresh("bucket 50/s", settled)


@pytest.mark.parametrize(("constant", "neutral"), [("REACH", 0.02), ("MOVED", 5.0)])
def test_without_it_a_raised_limit_is_missed(
    monkeypatch: pytest.MonkeyPatch, constant: str, neutral: float
) -> None:
    """The return of a halved limit takes at least two seconds longer to notice."""

    def regain(report: Report) -> float:
        return min(30.0, report.regain(100))

    monkeypatch.setattr(adaptive, constant, neutral)
    assert 2.0 + mean("bucket halves", regain) < fresh("bucket halves", regain)


@pytest.mark.parametrize(
    ("constant", "neutral", "name", "loss"),
    [
        ("WEIGHT", 0.0, "20 slots", 0.05),
        ("VERDICT", 9.0, "20 slots", 0.05),
        ("LOOSE", 1.0, "4 slots", 0.005),
        ("START_RATE", 1.0, "bucket 50/s, slow", 0.02),
    ],
)
def test_without_it_less_is_used(
    monkeypatch: pytest.MonkeyPatch, constant: str, neutral: float, name: str, loss: float
) -> None:
    """Goodput falls."""
    monkeypatch.setattr(adaptive, constant, neutral)
    assert mean(name, Report.goodput) - loss > fresh(name, Report.goodput)
