"""Finds a limit that nobody published, from outcomes alone, and stays just under it.

It needs no number from the caller. It is pure logic: it has no clock, waits for nothing and does no
I/O. It learns from answers, which the limit let through, and from refusals (429). Failures and
latency say nothing about a limit.

It holds two knobs: `rate`, starts per second, and `concurrency`, requests in flight. The one that
refusals are blamed on (`attribution`) is steered, by the formula

    ceiling + reach * (x - 1)^3

where `ceiling` is the place of the last refusal and `x` grows with answers (`probe`). The other
knob is kept loose, about twice as high as what is used, so that it holds nothing back.

What moves it from one state to the next:

=========  ==============================  ========================================================
State      What it does                    What ends it
=========  ==============================  ========================================================
cold       Each answer to a request that   The first refusal: refused.
           had to wait raises the knobs,   A belief from another time (`believe`): resting.
           to twice what is used at most.  A gateway that paces (`open`) raises both knobs to their
                                           upper bounds; it stays cold.
resting    The steered knob lies under     x reaches 1: probing. That takes 40 answers, or more if
           the ceiling and approaches it.  the rest is a calm one. Where few answers come after a
                                           fall, those of half a minute do, or of a minute.
                                           A refusal, by another client's probe: it gives way by
                                           7 % and is refused.
probing    The steered knob rises above    A refusal: refused. There is the ceiling now; found in
           the ceiling, ever faster.       the same place as before, it makes the next rest longer.
refused    The knob was lowered. Answers   The answer to a later start: resting.
           and refusals of requests that   A third start refused in a row: outage.
           were sent before still arrive.
outage     Nothing starts until            The pause is over, and one start goes first: returning.
           Retry-After, or for a third of
           the time since the first
           refusal.
returning  One start went first. The       A refusal: outage. An answer: resting. A failure tells
           others follow when it is        nothing, and the next outcome decides.
           answered, or when its head      If accepted starts were counted from the end of another
           start of 1.5 s at most is       outage, or from the first start of all, this may be a
           over.                           quota: see `_refusals_ended`.
=========  ==============================  ========================================================

The place of the ceiling: a limit on requests in flight that refused the nth request allows n - 1. A
limit on the rate has let through exactly its rate since it last refused (`throughput`).

Sources: CUBIC, RFC 9438 (the curve; here its clock counts answers, not seconds); AIMD, Chiu and
Jain 1989 (why giving way makes shares equal); Laplace's rule of succession (how rare a rank is);
nginx limit_req and limit_conn; RFC 6585 (429 and Retry-After).
"""

from __future__ import annotations

import math
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from msgconv_async import checks
from msgconv_async.pacing.attribution import Attribution, evidence
from msgconv_async.pacing.probe import LONGEST_WAIT, MOVED, Found, Probe
from msgconv_async.pacing.recent import FEW, REST, RecentStarts, Start
from msgconv_async.pacing.refusals import Refusals
from msgconv_async.pacing.schedule import Knob
from msgconv_async.pacing.throughput import Throughput

START_RATE: Final = 20.0  # starts per second, and slots, when cold: few enough for any server
FAST: Final = 100.0  # starts per second: most that a round trip adds; more uses a quota up
LOOSE: Final = 2.0  # the loose knob is at most so many times as high as what is used
GIVE: Final = 0.07  # share given way when refused at rest: makes room for smaller clients
WINDOW_REST: Final = 0.25  # of the time between two long outages: the least rest, up to 30 s

RATES: Final = (0.05, 10_000.0)
"""Starts per second: the bounds of a rate for which the caller gives none."""
SLOTS: Final = (1, 1000)
"""Requests in flight: the bounds of a concurrency for which the caller gives none."""

State: TypeAlias = Literal["cold", "resting", "probing", "refused", "outage", "returning"]


class Belief(NamedTuple):
    """The knowledge about a limit.

    Attributes:
        limited_by: Which of the two knobs follows the limit.
        limit: Where it was found: starts per second, or requests at once.
        speed: Answers per second there.
        concurrency: Requests at once that were allowed.
        calm: The factor by which rests had grown: 1, 2, 4 or 8. It doubles when the limit is found
            in the same place again.
    """

    limited_by: Knob
    limit: float
    speed: float
    concurrency: int
    calm: float = 1.0


class AdaptiveLimit:
    """Steers a rate and a concurrency towards a server's unpublished limit.

    Args:
        rate: The least and the most starts per second; equal bounds fix the rate.
        concurrency: The least and the most requests in flight; equal bounds fix it.

    Attributes:
        rate: Starts per second now allowed.
        concurrency: Requests in flight now allowed.
        paused_until: Monotonic seconds before which nothing should start (-inf: not paused).
        steered: Which of the two knobs follows the limit; None until something is refused.

    Raises:
        ConfigurationError: A lower bound is not above 0 (of concurrency: below 1) or exceeds its
            upper bound, or they are no two numbers.
    """

    __slots__ = (
        "_attribution",
        "_cut_at",
        "_cut_seq",
        "_probe",
        "_rate_bounds",
        "_recent",
        "_refusals",
        "_slot_bounds",
        "_slots",
        "_throughput",
        "concurrency",
        "paused_until",
        "rate",
        "steered",
    )

    def __init__(
        self, *, rate: tuple[float, float] = RATES, concurrency: tuple[int, int] = SLOTS
    ) -> None:
        _check("rate", rate, (int, float), "finite number above 0")
        _check("concurrency", concurrency, int, "whole number, at least 1")
        self._rate_bounds = rate
        self._slot_bounds = concurrency
        self.rate = self._clamp("rate", START_RATE)
        self._slots = self._clamp("concurrency", START_RATE)
        self.concurrency = int(self._slots)
        self.paused_until = -math.inf
        self.steered: Knob | None = None
        only: Knob | None = None
        if concurrency[0] == concurrency[1]:
            only = "rate"
        elif rate[0] == rate[1]:
            only = "concurrency"
        self._recent = RecentStarts()
        self._attribution = Attribution(only)
        self._throughput = Throughput()
        self._probe = Probe()
        self._refusals = Refusals()
        self._cut_seq = 0  # starts up to this one say nothing about the present curve
        self._cut_at = -math.inf

    @property
    def state(self) -> State:
        """The present state: one of those in the table at the head of this module."""
        if self._refusals.is_returning:
            return "returning"
        if self._refusals.is_outage:
            return "outage"
        if self._refusals.count:
            return "refused"
        if self.steered is None:
            return "cold"
        return "resting" if self._probe.x < 1.0 else "probing"

    def belief(self) -> Belief | None:
        """Return what was learnt, for another pacer to begin with; None before a refusal."""
        if self.steered is None:
            return None
        probe = self._probe
        return Belief(self.steered, probe.ceiling, probe.speed, self.concurrency, probe.found.calm)

    def believe(self, belief: Belief) -> None:
        """Begin with earlier knowledge: with a rest just under the limit, as after a refusal there.

        If the limit has moved since, the new one is found as after any move.
        """
        self.steered = belief.limited_by
        self._attribution.believe(belief.limited_by)
        if belief.limited_by == "rate":
            self._keep_slots_loose(belief.concurrency)
        else:
            self.rate = self._clamp("rate", max(START_RATE, LOOSE * belief.speed))
        # The rest that begins here counts as a find in the same place, and doubles the calm.
        self._probe.found = Found(belief.limited_by, belief.limit, belief.calm / 2.0)
        self._rest(belief.limit, belief.speed, new=False, early=False)

    def open(self) -> None:
        """Allow all that the bounds allow, unless a request was refused: a gateway paces."""
        if self.steered is None:
            self.rate = self._rate_bounds[1]
            self._keep_slots_loose(self._slot_bounds[1])

    def known(self) -> tuple[Knob, ...]:
        """Return the knobs whose value is known: the fixed ones, or both after a refusal."""
        if self.steered is not None:
            return "rate", "concurrency"
        bounds: dict[Knob, tuple[float, float]] = {
            "rate": self._rate_bounds,
            "concurrency": self._slot_bounds,
        }
        return tuple(knob for knob, (low, high) in bounds.items() if low == high)

    # ------------------------------------------------------------------ what happens

    def started(self, now: float, in_flight: int, held: Knob | None) -> Start:
        """Take note of the start of a request. It may pause the others: see `paused_until`.

        Args:
            now: Monotonic seconds.
            in_flight: Requests in flight, this one included.
            held: The knob that this request last had to wait for; None if it never waited.

        Returns:
            The start, to hand back with the outcome.
        """
        start = self._recent.add(now, in_flight, held)
        if start.seq == 1:
            self._throughput.mark(0, now, full=False, after_outage=True)
        if self._refusals.count:
            if head_start := self._refusals.take_head_start():
                self.paused_until = max(self.paused_until, now + head_start)
        elif held is None and self._recent.demand_paused(self.paused_until, self.rate):
            self._throughput.full = False
        return start

    def answered(self, start: Start, now: float) -> None:
        """Take note of an answer (2xx, or any other that the limit let through)."""
        self._recent.end(now)
        if self._refusals.count and start.seq > self._refusals.last.seq:
            self._refusals_ended(start, now)
        held = start.held
        if held is None:
            return
        if held == self.steered:
            if start.seq > self._cut_seq:
                self._probe.advance()
                self._apply()
            return
        cold = self.steered is None
        if cold or held == "rate":
            # Never far beyond what is used: demand that comes in bunches must not raise it.
            used = self._recent.pace(start.seq)
            if not used or self.rate < LOOSE * used:
                grown = self.rate + min(self.rate, FAST) / start.in_flight
                self.rate = self._clamp("rate", grown)
        if held == "concurrency" or (cold and self._slots < LOOSE * start.in_flight):
            self._keep_slots_loose(self._slots * (1.0 + LOOSE / start.in_flight))

    def neutral(self, start: Start, now: float) -> None:  # noqa: ARG002 - one form for all outcomes
        """Take note of an outcome that says nothing about the limit (5xx, timeout, cancelled)."""
        self._recent.end(now)

    def throttled(self, start: Start, now: float, retry_after: float | None) -> None:
        """Take note of a refusal (429).

        Args:
            start: What `started` returned.
            now: Monotonic seconds.
            retry_after: Seconds the server asked for, None if it did not.
        """
        company = self._recent.company(start, now)
        self._recent.end(now)
        self._throughput.refused += 1
        start.refused = True
        if start.seq <= self._throughput.seq:
            return
        pause = self._refusals.add(
            start, self._recent, now, max(0.0, retry_after or 0.0), self._probe.found
        )
        self.paused_until = max(self.paused_until, pause)
        if start.at < self._cut_at + (now - start.at):
            return  # the same news: a full bucket is full for another round trip
        self._cut_at = now
        new = self._blame(start, now, company)
        early = not new and self._probe.x < 1.0
        self._probe.refused(start, early=early, new=new)
        speed = self._recent.speed_before(self._refusals.first.seq) or self.rate / 2
        if self.steered == "concurrency":
            self._rest(max(1, company - 1) * (1.0 - GIVE * early), speed, new=new, early=early)
            self.rate = self._clamp("rate", max(START_RATE, LOOSE * speed))
        elif new or not self._refusals.is_outage:
            self._rest_below_rate(start, speed, new=new, early=early)

    # ------------------------------------------------------------------ what follows from it

    def _blame(self, start: Start, now: float, company: int) -> bool:
        """Choose the knob to steer; tell whether it is another one than before."""
        if self._refusals.count == 1:
            self._attribution.weigh(evidence(self._recent, start, now, company, self.steered))
        elif company <= 1:
            self._attribution.refused_alone()
        before, self.steered = self.steered, self._attribution.suspect
        return self.steered != before

    def _rest_below_rate(self, start: Start, speed: float, *, new: bool, early: bool) -> None:
        """Begin a rest under the rate that the limit let through.

        It is never less than half of the present rate, which is also used if nothing was measured.
        """
        self._throughput.steady = not new and self.rate <= (1.0 + MOVED) * self._probe.ceiling
        ceiling = min(speed, self.rate)
        if not early:
            ceiling = self._throughput.ceiling(start, ceiling)
        ceiling *= 1.0 - GIVE * early
        used = self._recent.most_in_flight()
        self._keep_slots_loose(used if used > start.in_flight else start.in_flight - 1)
        self._rest(max(ceiling, self.rate / 2), speed, new=new, early=early)

    def _refusals_ended(self, start: Start, now: float) -> None:
        """Take the first answer after refusals as a full moment, from which throughput counts.

        After an outage, that moment is when the limit let requests through again. The requests
        accepted from there to the end of the next outage are exactly its quota; so are those from
        the first start of all to the end of the first outage. But an outage after an answered time
        may be an incident, which shows no quota. In that case the time for which the outage made us
        wait does not count either.
        """
        probe, throughput = self._probe, self._throughput
        ended = self._refusals.end(start)
        self.paused_until = min(self.paused_until, now)
        accepted = throughput.accepted(start)
        elapsed = ended.turned - throughput.at
        long = ended.seconds * probe.speed > REST
        exact = throughput.full and (throughput.steady or long)
        second = throughput.after_outage
        at = ended.turned if second else start.at
        throughput.mark(start.seq, at, full=True, after_outage=ended.outage)
        if not ended.outage and probe.found.calm < 1.0:
            probe.window = 0.0  # found elsewhere, and no quota: the window was another limit's
            probe.shape()
        if not ended.outage or accepted < FEW or elapsed <= 0:
            return
        mostly = ended.seconds > elapsed / 2
        if (mostly or long) and not second:
            return  # one alone may be an incident
        if not mostly and not exact:
            return
        if mostly and self._rate_bounds[0] < self._rate_bounds[1]:
            self.steered = "rate"  # a quota of requests was used up: slots would have become free
        if self.steered == "rate":
            probe.resume(ended.before)
            self._rest(accepted / elapsed, accepted / elapsed, new=False, early=False)
            if long:
                probe.window = min(elapsed * WINDOW_REST, LONGEST_WAIT)
                probe.shape()

    # ------------------------------------------------------------------ the knobs

    def _rest(self, ceiling: float, speed: float, *, new: bool, early: bool) -> None:
        """Begin a rest under a ceiling: see `Probe.rest`."""
        knob = self.steered or "rate"
        allowed = self._clamp(knob, ceiling)
        self._probe.rest(knob, ceiling, allowed, speed, new=new, early=early)
        self._cut_seq = self._recent.seq
        self._apply()

    def _apply(self) -> None:
        value = self._probe.value()
        if self.steered == "concurrency":
            self.concurrency = int(self._clamp("concurrency", value + 0.5))
            return
        low, high = self._rate_bounds
        self.rate = low if value < low else min(value, high)

    def _keep_slots_loose(self, value: float) -> None:
        self._slots = self._clamp("concurrency", value)
        self.concurrency = int(self._slots)

    def _clamp(self, knob: Knob, value: float) -> float:
        low, high = self._rate_bounds if knob == "rate" else self._slot_bounds
        return min(max(value, low), high)


def _check(name: str, bounds: tuple[Any, ...], number: type | tuple[type, ...], right: str) -> None:
    pair = len(bounds) == 2  # noqa: PLR2004 - a lower one and an upper one
    fits = all(isinstance(bound, number) and not isinstance(bound, bool) for bound in bounds)
    if not pair or not fits or not 0 < bounds[0] <= bounds[1] <= checks.LARGE:
        given = bounds[0] if pair and bounds[0] is bounds[1] else bounds
        raise checks.refused(name, given, f"a {right}, or a pair of bounds, the lower one first")
