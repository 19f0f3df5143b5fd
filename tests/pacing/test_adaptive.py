"""What the adaptive limit reaches, in virtual time, against servers that publish nothing.

The figures are means over seeds with the worst seed beside them where it matters; each bound leaves
a little slack under what is reached, so that a failure means a change and not bad luck.
"""

from __future__ import annotations

import math
import random
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from statistics import fmean

import pytest

from msgconv_async.pacing import adaptive, attribution, probe, recent, refusals, throughput
from msgconv_async.pacing.adaptive import START_RATE, AdaptiveLimit
from msgconv_async.pacing.recent import Start
from msgconv_async.pacing.schedule import Knob
from tests.pacing.simulation import (
    FixedWindow,
    LeakyBucket,
    Refuses,
    Report,
    Scenario,
    SlotLimit,
    Way,
    between,
    run,
)
from tests.pacing.situations import SITUATIONS, WAYS

# Millions of decisions, each traced, would take four times as long; other tests cover every line.
pytestmark = pytest.mark.no_cover

SEEDS = range(1, 9)
FEWER = 4


Fresh = Callable[[], LeakyBucket | SlotLimit]


def bucket() -> LeakyBucket:
    return LeakyBucket(50, 5)


def slots() -> SlotLimit:
    return SlotLimit(20)


@cache
def reports(name: str) -> tuple[Report, ...]:
    return tuple(run(SITUATIONS[name].scenario, seed) for seed in SEEDS)


def mean(name: str, figure: Callable[[Report], float], count: int = len(SEEDS)) -> float:
    return fmean(figure(report) for report in reports(name)[:count])


def fresh(name: str, figure: Callable[[Report], float]) -> float:
    """The mean of the first few again, when something was changed since."""
    return fmean(figure(run(SITUATIONS[name].scenario, seed)) for seed in SEEDS[:FEWER])


@pytest.mark.parametrize(
    ("name", "goodput", "refused"),
    [
        ("bucket 50/s", 0.97, 0.003),
        ("bucket 50/s, answers 0.05 s", 0.98, 0.003),
        ("bucket 50/s, answers 1.5 s", 0.94, 0.003),  # a ramp of some five slow round trips
        ("bucket 500/s", 0.95, 0.003),
        ("bucket 5/s", 0.96, 0.011),  # 600 answers in all: 6 refusals are 1 %
        ("one every 2 s", 0.89, 0.050),  # 300 answers in all
        ("4 slots", 0.95, 0.008),
        ("4 slots, answers 1.5 s", 0.95, 0.022),  # 320 answers in all
        ("20 slots", 0.96, 0.004),
        ("20 slots, answers 1.5 s", 0.96, 0.009),
        ("100 slots, answers 0.5 s", 0.95, 0.004),
        ("50/s and 10 slots", 0.95, 0.005),
        ("50 in each second", 0.95, 0.008),
        ("50 in each second, answers 0.05 s", 0.96, 0.009),
        ("3,000 in each minute", 0.94, 0.011),
        ("3,000 in each minute, announced", 0.98, 0.008),
        ("bucket 50/s halves", 0.95, 0.009),
        ("bucket 200/s halves", 0.94, 0.004),
        ("20 slots halve", 0.94, 0.008),
        ("8 slots halve, answers 1 s", 0.88, 0.018),  # 3.5 answers a second: no probe in 5 s at 1 %
        ("50 in each second halves", 0.92, 0.018),  # a window hides an excess for up to a second
        ("two on 100/s", 0.96, 0.006),
        ("two on 100/s, one late", 0.96, 0.007),
        ("four on 100/s", 0.97, 0.011),
        ("two on 20 slots", 0.94, 0.008),
        ("two on 20 slots, one late", 0.94, 0.008),
        ("four on 40 slots", 0.95, 0.009),
        ("four on 8 slots", 0.85, 0.040),  # two slots each: one more is half as much again
    ],
)
def test_uses_the_limit_and_is_seldom_refused(name: str, goodput: float, refused: float) -> None:
    """From cold, most of an unknown limit is used; where less than the goals, the row says why."""
    assert goodput <= mean(name, Report.goodput)
    assert refused >= mean(name, Report.refusal_share)


@pytest.mark.parametrize(
    "name", ["bucket 50/s", "bucket 50/s, answers 0.05 s", "bucket 50/s, answers 1.5 s"]
)
def test_a_settled_bucket_is_used_up(name: str) -> None:
    """Once found, a bucket is used to 95 % at six refusals in a thousand or fewer."""
    assert 0.95 <= mean(name, lambda report: report.goodput(60))
    assert 0.006 >= mean(name, lambda report: report.refusal_share(60))


@pytest.mark.parametrize(
    ("name", "fall", "rise"),
    [
        ("bucket 50/s halves", 2.0, 5.0),
        ("bucket 200/s halves", 2.0, 6.0),
        ("20 slots halve", 2.5, 6.5),
        ("8 slots halve, answers 1 s", 2.0, 24.0),
        ("50 in each second halves", 4.0, 8.0),
    ],
)
def test_follows_a_limit_that_falls_and_returns(name: str, fall: float, rise: float) -> None:
    """A halved limit is met within seconds; its return is met by the next probe, in every seed."""
    assert fall >= mean(name, lambda report: report.regain(40))
    assert rise >= mean(name, lambda report: min(40.0, report.regain(100)))


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("two on 100/s", 0.95),
        ("two on 100/s, one late", 0.93),
        ("four on 100/s", 0.88),
        ("two on 20 slots", 0.93),
        ("two on 20 slots, one late", 0.92),
        ("four on 40 slots", 0.88),
        ("four on 8 slots", 0.7),
    ],
)
def test_clients_share_alike(name: str, index: float) -> None:
    """Clients that share a limit get like shares, the last one's cold start included."""
    last = max(SITUATIONS[name].scenario.begins)
    assert index <= mean(name, lambda report: report.fairness(last))


def test_a_client_of_few_slots_is_not_starved() -> None:
    """Four clients on 8 slots, ten minutes later: refused by others' probes, each has its share."""
    scenario = Scenario(partial(SlotLimit, 8), begins=(0.0, 0.5, 1.0, 1.5), duration=1200)
    assert 0.8 <= fmean(run(scenario, seed).fairness(600) for seed in SEEDS[:FEWER])


@pytest.mark.parametrize("way", ["retry after 1 s", "backoff", "AIMD x 0.5"])
def test_others_are_refused_more_or_use_less(way: str) -> None:
    """In the same simulator, what is common either floods a bucket or leaves a tenth unused."""
    report = run(SITUATIONS["bucket 50/s"].scenario, 1, WAYS[way])
    assert report.refusal_share() > 0.05 or report.goodput() < 0.9


def test_two_clients_for_fifteen_minutes() -> None:
    """3,000 a minute for two, halved for a minute: 96 % used, 0.5 % refused, back in 8 s."""
    scenario = SITUATIONS["two on 3,000 a minute, halved"].scenario
    both = [run(scenario, seed) for seed in (1, 2)]
    assert 0.96 <= fmean(report.goodput() for report in both)
    assert 0.005 >= fmean(report.refusal_share() for report in both)
    assert 8.0 >= fmean(report.regain(480) for report in both)


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
    assert 0.92 <= report.answered(3660, 3720) / (50 * 60)
    assert 0.01 >= report.refusal_share(3660, 3720)


@pytest.mark.parametrize("idle", [None, (60.0, 660.0)])
@pytest.mark.parametrize("seed", [1, 2])
def test_an_outage_of_seconds_is_soon_forgotten(
    seed: int, idle: tuple[float, float] | None
) -> None:
    """Neither the seconds of the outage nor idle minutes before it count as time of a quota."""
    scenario = Scenario(
        lambda: Refuses(bucket(), lambda now: 663 <= now < 668), idle=idle, duration=730.0
    )
    assert 0.9 <= run(scenario, seed).answered(680, 730) / (50 * 50)


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
    limit = AdaptiveLimit(rate=(1000.0, 1000.0))
    starts = [limit.started(1.0, each, "concurrency") for each in range(1, 6)]
    limit.throttled(starts[4], 1.1, None)
    assert "concurrency" == limit.steered
    assert 3 <= limit.concurrency <= 4


def test_requests_sent_before_a_cut_do_not_cut_again() -> None:
    """Five refusals of one overshoot are one piece of news."""
    limit = AdaptiveLimit()
    starts = [limit.started(1.0 + each / 100, each + 1, "concurrency") for each in range(9)]
    limit.throttled(starts[4], 1.2, None)
    before = limit.rate, limit.concurrency
    assert START_RATE > limit.rate
    for start in starts[5:7]:
        limit.throttled(start, 1.21, None)
    assert before == (limit.rate, limit.concurrency)


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
    """A third as long again as everything has been refused so far."""
    limit = AdaptiveLimit()
    for each in range(3):
        limit.throttled(limit.started(1.0 + each, 1, "rate"), 2.0 + each, None)
    assert 4.0 + (4.0 - 1.0) / 3 == limit.paused_until


def test_after_an_outage_one_goes_first_but_not_by_much() -> None:
    """Until its refusal would be back, or its answer is, and at most for a second and a half."""
    limit = AdaptiveLimit()
    for each in range(3):
        limit.throttled(limit.started(60.0 * each, 1, "rate"), 60.0 * each + 60.0, 3600.0)
    start = limit.started(4000.0, 1, "rate")
    assert 4001.5 == limit.paused_until
    limit.answered(start, 4000.3)
    assert 4000.3 == limit.paused_until


def test_a_pause_in_demand_does_not_make_the_limit_less() -> None:
    """What was accepted while few asked tells nothing: a refusal then is met by the speed alone."""
    limit, now = AdaptiveLimit(concurrency=(1000, 1000)), 0.0

    def ask(*, wait: float, held: Knob | None, refused: bool = False) -> None:
        nonlocal now
        now += wait
        start = limit.started(now, 1, held)
        if refused:
            limit.throttled(start, now, None)
        else:
            limit.answered(start, now)

    ask(wait=0.0, held="rate", refused=True)
    for _ in range(20):
        ask(wait=5.0, held=None)
    for _ in range(20):
        ask(wait=0.1, held="rate")
    ask(wait=0.1, held="rate", refused=True)
    assert 8.0 <= limit.rate


def test_refusals_by_others_alone_do_not_stop_us_for_good() -> None:
    """After hundreds of refusals at rest, a limit that refuses no more is probed all the same."""
    limit, now = AdaptiveLimit(), 0.0

    def ask(*, refused: bool) -> None:
        nonlocal now
        start = limit.started(now, 2, "rate")
        now += 1.0 / limit.rate
        if refused:
            limit.throttled(start, now, None)
        else:
            limit.answered(start, now)

    for each in range(4000):
        ask(refused=each % 10 == 9)
    before = limit.rate
    for _ in range(4000):
        ask(refused=False)
    assert 2 * before < limit.rate


@pytest.mark.parametrize("server", [LeakyBucket(50, 5), SlotLimit(4)])
def test_bounds_hold(server: LeakyBucket | SlotLimit) -> None:
    """Neither knob leaves the caller's bounds, whatever the server does."""
    seen: list[tuple[float, int]] = []

    class Watched(AdaptiveLimit):
        def started(self, now: float, in_flight: int, held: Knob | None) -> Start:
            seen.append((self.rate, self.concurrency))
            return super().started(now, in_flight, held)

    scenario = Scenario(
        lambda: server,
        duration=30,
    )
    run(scenario, 1, Way(lambda: Watched(rate=(8.0, 20.0), concurrency=(2, 6))))
    assert 8.0 <= min(rate for rate, _ in seen)
    assert 20.0 >= max(rate for rate, _ in seen)
    assert {2, 3, 4, 5, 6} >= {slots for _, slots in seen}


def test_a_fixed_limit_stays_fixed() -> None:
    """Equal bounds leave nothing to find."""
    way = Way(lambda: AdaptiveLimit(rate=(25.0, 25.0), concurrency=(30, 30)))
    report = run(Scenario(lambda: LeakyBucket(50, 5), duration=30), 1, way)
    assert (25.0, 30) == (report.clients[0].limit.rate, report.clients[0].limit.concurrency)
    assert 0 == report.refused()


def test_what_is_not_fixed_adapts() -> None:
    """One knob fixed, the other finds the limit all the same."""
    fixed_slots = Way(lambda: AdaptiveLimit(concurrency=(40, 40)))
    report = run(Scenario(lambda: LeakyBucket(50, 5)), 1, fixed_slots)
    assert 0.94 <= report.goodput()
    assert 40 == report.clients[0].limit.concurrency
    fixed_rate = Way(lambda: AdaptiveLimit(rate=(100.0, 100.0)))
    report = run(Scenario(lambda: SlotLimit(8)), 1, fixed_rate)
    assert 0.9 <= report.goodput()
    assert 100.0 == report.clients[0].limit.rate


@pytest.mark.parametrize("name", ["rate", "concurrency"])
@pytest.mark.parametrize("bounds", [(0, 1), (2, 1), (1, math.inf), (math.nan, 1), (-1, 5)])
def test_bounds_out_of_order_are_refused(name: str, bounds: tuple[int, int]) -> None:
    """Bounds that are not positive and in order are a mistake of the caller, told by name."""
    with pytest.raises(ValueError, match=f"{name}=.*lower one first"):
        AdaptiveLimit(**{name: bounds})


def test_less_than_one_at_a_time_is_refused() -> None:
    """Half a request never starts."""
    with pytest.raises(ValueError, match="at least 1"):
        AdaptiveLimit(concurrency=(0.5, 0.9))  # type: ignore[arg-type]


def test_ten_thousand_fresh_limits_are_small() -> None:
    """A limit costs under 1 kB before it is used, and remembers 160 starts at most."""
    tracemalloc.start()
    limits = [AdaptiveLimit() for _ in range(1000)]
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 1_000 > size / 1000
    for each in range(1000):
        limits[0].started(each / 100, 1, "rate")
    assert 160 >= len(limits[0]._recent._last)


# Constants earn their place: without them, a figure falls


def without(monkeypatch: pytest.MonkeyPatch, constant: str, neutral: float) -> None:
    """Sets a constant wherever it is used to what has no effect, or the opposite one."""
    for module in (adaptive, attribution, probe, recent, refusals, throughput):
        if hasattr(module, constant):
            monkeypatch.setattr(module, constant, neutral)


@pytest.mark.parametrize(
    ("constant", "neutral", "name"),
    [
        ("FAST", 1e6, "bucket 500/s"),
        ("LOOSE", 1e6, "two on 100/s"),
        ("REST", 4.0, "bucket 5/s"),
        ("REST_SECONDS", 0.0, "50 in each second, answers 0.05 s"),
        ("LATELY", 1e9, "four on 40 slots"),
        ("FEW", 1, "bucket 5/s"),
        ("WINDOW_REST", 0.0, "3,000 in each minute"),
        ("CALMEST", 1.0, "bucket 50/s"),
        ("OUTAGE", 10**6, "3,000 in each minute"),
    ],
)
def test_without_it_more_is_refused(
    monkeypatch: pytest.MonkeyPatch, constant: str, neutral: float, name: str
) -> None:
    """Refusals rise by half or more."""
    usual = mean(
        name, Report.refusal_share, FEWER
    )  # before the change, as it is kept for other tests
    without(monkeypatch, constant, neutral)
    assert 1.5 * usual < fresh(name, Report.refusal_share)


@pytest.mark.parametrize(
    ("constant", "neutral", "name", "loss"),
    [
        ("START_RATE", 2.0, "4 slots, answers 1.5 s", 0.07),
        ("LOOK_BACK", 8, "4 slots", 0.20),
        ("SURE", 0.0, "bucket 5/s", 0.20),
        ("FEW", 40, "one every 2 s", 0.15),
        ("OWN", 1e-9, "two on 20 slots, one late", 0.02),
        ("REACH", 3.0, "4 slots", 0.20),
    ],
)
def test_without_it_less_is_used(
    monkeypatch: pytest.MonkeyPatch, constant: str, neutral: float, name: str, loss: float
) -> None:
    """Goodput falls."""
    usual = mean(name, Report.goodput, FEWER)
    without(monkeypatch, constant, neutral)
    assert usual - loss > fresh(name, Report.goodput)


def test_without_it_a_return_is_found_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit that fell and returned is used again five seconds later, or worse."""

    def returned(report: Report) -> float:
        return min(40.0, report.regain(100))

    usual = mean("bucket 50/s halves", returned, FEWER)
    without(monkeypatch, "MOVED", 10.0)
    assert 5.0 + usual < fresh("bucket 50/s halves", returned)


def test_without_it_a_late_comer_gets_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was there first keeps what it has, where nobody gives way."""

    def index(report: Report) -> float:
        return report.fairness(30)

    usual = mean("two on 100/s, one late", index, FEWER)
    without(monkeypatch, "GIVE", 0.0)
    assert usual - 0.05 > fresh("two on 100/s, one late", index)


def after_ten_minutes_down(server: Fresh) -> float:
    """What is used half a minute after the outage, in the worst of a few seeds."""
    scenario = Scenario(lambda: Refuses(server(), lambda now: 120 <= now < 720), duration=812)
    return min(run(scenario, seed).goodput(752, 812) for seed in SEEDS[:FEWER])


@pytest.mark.parametrize("server", [bucket, slots])
def test_an_incident_is_no_quota(server: Fresh) -> None:
    """Half a minute after an outage of ten, the limit that was known is in use."""
    assert 0.9 <= after_ten_minutes_down(server)


def test_without_it_the_end_of_an_outage_is_found_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits that grow with the outage and never stop growing miss its end by minutes."""
    without(monkeypatch, "LONGEST_WAIT", 1e9)
    assert 0.5 > after_ten_minutes_down(bucket)


@pytest.mark.parametrize(("quota", "used"), [(600, 0.98), (200, 0.93), (60, 0.8)])
@pytest.mark.parametrize("seed", [1, 2])
def test_a_quota_a_minute_that_stands_is_learnt(seed: int, quota: int, used: float) -> None:
    """Some five refusals in each of the later minutes, and no more; 60 leave little to learn by."""
    report = run(Scenario(lambda: FixedWindow(quota, 60), duration=1800), seed)
    assert used <= report.goodput(1200, 1800)
    assert 0.012 >= report.refusal_share(1200, 1800)


@dataclass
class NoQuotaAnyMore(LeakyBucket):
    """3,000 in ten minutes, and soon a bucket of four times that, which halves for a minute."""

    quota: FixedWindow = field(default_factory=lambda: FixedWindow(3000, 600, phase=0.0))

    def offer(self, now: float) -> bool:
        return self.quota.offer(now) if now < 2500 else super().offer(now)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_long_window_is_forgotten(seed: int) -> None:
    """Within ten minutes of its end; and what comes then is followed as if it had not been."""
    server = partial(NoQuotaAnyMore, 20, 5, between(3300, 3360, 0.5))
    report = run(Scenario(server, duration=3420), seed)
    assert 0.95 <= report.goodput(3100, 3300)
    assert 15.0 >= report.regain(3360)


def test_three_short_outages_cost_no_minute() -> None:
    """Half of the limit is used in the half minute after them, and then all of it."""
    outages = [(begin, begin + 5) for begin in (100, 112, 124)]
    scenario = Scenario(
        lambda: Refuses(bucket(), lambda now: any(begin <= now < end for begin, end in outages)),
        duration=189,
    )
    report = run(scenario, 1)
    assert 0.5 <= report.goodput(129, 159)
    assert 0.9 <= report.goodput(159, 189)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_two_outages_are_no_quota_for_long(seed: int) -> None:
    """They look like one, since little was accepted in between; three minutes later it is gone."""
    scenario = Scenario(
        lambda: Refuses(bucket(), lambda now: 100 <= now < 160 or 172 <= now < 1000), duration=1240
    )
    assert 0.9 <= run(scenario, seed).goodput(1180, 1240)


def after_shedding(server: Fresh, begins: float = 60.0, minutes: int = 2) -> float:
    """What is used so many minutes after its end, in the worst of a few seeds."""
    ends = begins + 60.0

    def sheds() -> Refuses:
        rng = random.Random(1)
        return Refuses(server(), lambda now: begins <= now < ends and rng.random() < 0.3)

    after = ends + 60 * minutes
    scenario = Scenario(sheds, duration=after + 30)
    return min(run(scenario, seed).goodput(after) for seed in SEEDS[:FEWER])


@pytest.mark.parametrize("server", [bucket, slots])
@pytest.mark.parametrize(("begins", "minutes"), [(60.0, 2), (0.0, 3)])
def test_a_limit_is_used_again_after_a_minute_of_shedding(
    server: Fresh, begins: float, minutes: int
) -> None:
    """Three refusals in ten drive the pace to very little, where answers are few."""
    assert 0.9 <= after_shedding(server, begins, minutes)


@pytest.mark.parametrize("server", [bucket, slots])
def test_without_it_shedding_costs_more_minutes(
    monkeypatch: pytest.MonkeyPatch, server: Fresh
) -> None:
    """Rests of forty answers, where each takes seconds."""
    without(monkeypatch, "LONGEST_WAIT", 1e9)
    assert 0.1 > after_shedding(server)


@dataclass
class Slower(SlotLimit):
    """Two slots, and soon no more than one request every two seconds."""

    bucket: LeakyBucket = field(default_factory=lambda: LeakyBucket(0.5, 1))

    def offer(self, now: float) -> bool:
        return (now < 100 or self.bucket.offer(now)) and super().offer(now)


def test_when_one_at_a_time_is_too_much_the_rate_is_to_blame() -> None:
    """Less than half of what is sent in the first minute is refused, of thirty that fit."""
    scenario = Scenario(lambda: Slower(2), service=1.5, duration=160)
    assert 15 >= fmean(run(scenario, seed).refused(100, 160) for seed in SEEDS)


RISES = Scenario(lambda: LeakyBucket(100, 5, between(0, 1800, 0.5)), duration=1930, changes=(1800,))


@pytest.mark.parametrize("seed", [1, 2])
def test_a_limit_that_rises_is_found_in_two_minutes(seed: int) -> None:
    """It stood for half an hour, so that rests are the longest, and doubles."""
    assert 120.0 >= run(RISES, seed).regain(1800, horizon=125.0)


FALLS = Scenario(lambda: LeakyBucket(50, 5, between(40, math.inf, 0.5)), duration=640)


def test_a_limit_that_fell_for_good_is_left_in_peace() -> None:
    """Its return is hoped for during the first minutes only: then rests grow as everywhere."""
    assert 10 >= run(FALLS, 1).refused(340, 640)


def test_without_it_a_limit_that_fell_is_probed_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ceiling that is never forgotten costs a refusal every few seconds."""
    without(monkeypatch, "FORGET", 0.0)
    assert 40 <= run(FALLS, 1).refused(340, 640)


def test_without_it_a_limit_that_rises_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rests without end."""
    without(monkeypatch, "CALMEST", 1e9)
    assert 120.0 < run(RISES, 1).regain(1800, horizon=125.0)
