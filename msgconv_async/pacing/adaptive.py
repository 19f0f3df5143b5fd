"""Finds a limit that nobody published, from outcomes alone, and stays just under it.

What it promises: no number is needed from the caller; pure logic (no clock, no waiting, no I/O);
a microsecond or two a request. It learns from 2xx and 429; errors and latency say nothing.

In ten lines:

1.  Each answer to a request that waited raises `rate` and `concurrency`, some twofold a round trip,
2.  until a refusal. Then one of them is steered, and the other kept out of its way.
3.  Refused as the nth in flight: the ceiling is n - 1. Else accepted / time between refusals tells.
4.  Value = ceiling + reach * (x - 1)^3, x in rests of 40 answers: below 1 a rest, above it a probe.
5.  A probe refused where the last one was: rests grow twofold, up to 8 times, as the reach shrinks.
6.  Not so far below a ceiling that stood: there 30 s do for 40 answers, until it is forgotten.
7.  Refused during a rest, by others' probes: give way 7 %; n clients rest n times the seconds.
8.  Which one is steered: that which was the rarer when refused, such company or such a pace.
9.  Three refused in a row: everything is. Wait for Retry-After, or for a third of the time so far;
10. then one goes first. From one such outage to the next, accepted / time tells a steered rate.

Sources: CUBIC, RFC 9438 (the curve; here its clock counts answers, not seconds); AIMD, Chiu and
Jain 1989 (why giving way makes shares equal); Laplace's rule of succession (how rare a rank is);
nginx limit_req, limit_conn; RFC 6585.
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

from msgconv_async.pacing.schedule import Knob
from msgconv_async.pacing.starts import FEW, LOOK_BACK, REST, Start, Starts

START_RATE: Final = 20.0  # starts per second, and slots, when cold: few enough to offend nobody
FAST: Final = 100.0  # starts per second: most that a round trip adds, or a quota is gone at once
LOOSE: Final = 2.0  # what is not steered grows up to so many times what is used, and is cut to it
REST_SECONDS: Final = 1.5  # seconds: the least rest, or each of many short windows is probed
CALMEST: Final = 8.0  # most that rests grow by: a limit that rose is to be found some time
REACH: Final = 0.27  # of the curve: at 50/s, 4 % under the ceiling at x = 0, 4 % over at x = 2
MOVED: Final = 0.3  # a ceiling is another one when it differs by more than this share
FORGET: Final = 0.04  # of the way down from a ceiling that fell: one that halved, in 20 probes
LATELY: Final = 4  # refusals that tell how many share the limit: shares change as clients come
GIVE: Final = 0.07  # share given way when refused at rest: makes room for smaller clients
OUTAGE: Final = 3  # starts refused in a row that mean: everything is refused
LONGEST_WAIT: Final = 30.0  # seconds: the longest pause, and, far below what stood, 40 answers
WINDOW_REST: Final = 0.25  # of the time between two long outages: the least rest, up to 30 s
SURE: Final = math.log(LOOK_BACK)  # most that a knob is believed in: as one clear refusal tells
DOUBT: Final = -SURE / 2  # the rate is believed in, until a clear refusal tells otherwise


class Belief(NamedTuple):
    """What was learnt about a limit.

    Attributes:
        limited_by: Which of the two follows the limit.
        limit: Where it was found: starts per second, or requests at once.
        speed: Answers per second there.
        concurrency: Requests at once that were allowed.
        calm: What rests had grown by: 1, 2, 4 or 8, the more often it was found there.
    """

    limited_by: Knob
    limit: float
    speed: float
    concurrency: int
    calm: float = 1.0


_NOBODY = Start(-math.inf, 0, 0, None)


class AdaptiveLimit:
    """Steers a rate and a concurrency towards a server's unpublished limit.

    Args:
        rate: The least and the most starts per second; equal bounds fix the rate.
        concurrency: The least and the most requests in flight; equal bounds fix it.

    Attributes:
        rate: Starts per second now allowed.
        concurrency: Requests in flight now allowed.
        paused_until: Monotonic seconds before which nothing should start (-inf: not paused).
        steered: Which of the two follows the limit; None until something is refused.

    Raises:
        ValueError: When a lower bound is not above 0 (of concurrency: below 1) or exceeds its
            upper bound.
    """

    __slots__ = (
        "_before_run",
        "_belief",
        "_calm",
        "_ceiling",
        "_cut_at",
        "_cut_seq",
        "_first",
        "_full",
        "_head_start",
        "_judged",
        "_last",
        "_mark",
        "_place",
        "_rate_bounds",
        "_reach",
        "_refused",
        "_refused_until",
        "_run",
        "_shared",
        "_since_outage",
        "_slot_bounds",
        "_slots",
        "_speed",
        "_starts",
        "_steady",
        "_step",
        "_stood",
        "_window",
        "_x",
        "concurrency",
        "paused_until",
        "rate",
        "steered",
    )

    def __init__(
        self,
        *,
        rate: tuple[float, float] = (0.05, 10_000.0),
        concurrency: tuple[int, int] = (1, 1000),
    ) -> None:
        _check("rate", rate, (int, float), "finite number above 0")
        _check("concurrency", concurrency, int, "whole number, at least 1")
        self._rate_bounds = rate
        self._slot_bounds = concurrency
        self.rate = self._clamp("rate", START_RATE)
        self.concurrency = int(self._clamp("concurrency", START_RATE))
        self.paused_until = -math.inf
        self._starts = Starts()
        self._slots = float(self.concurrency)
        self.steered: Knob | None = None
        self._belief = DOUBT  # above zero: the slots are to blame
        # The curve: x advances by step with each answer to a request that the steered knob held.
        self._ceiling = 0.0
        self._reach = 0.0
        self._x = 0.0
        self._step = 0.0
        self._speed = 0.0  # answers per second when it began
        self._place = 0.0  # where a probe, or a move, last found it
        self._calm = 0.5  # rests grow by this: 1, 2, 4 ... each time it is found in the same place
        self._stood: dict[Knob, float] = {}  # the highest at which a knob was found twice
        self._window = 0.0  # seconds: least rest, once a long window was met
        self._shared = 0.0  # share of refusals that came at rest
        # The moment from which accepted / elapsed counts.
        self._refused = 0
        self._mark = (0, 0.0, 0)  # seq, time and refusals then
        self._full = False  # the mark was a full moment, and demand did not pause since
        self._steady = False  # the limit has not evidently moved since the mark
        self._since_outage = True  # the mark ended one, or is the first start of all
        # Refusals: the last cut, and the starts refused in a row.
        self._cut_seq = 0  # starts up to this one say nothing new
        self._cut_at = -math.inf
        self._judged = 0
        self._run = 0
        self._before_run: tuple[Knob | None, float, float, dict[Knob, float]] = None, 0.0, 0.5, {}
        self._first = self._last = _NOBODY
        self._refused_until = -math.inf  # the last of them, or the end of its Retry-After
        self._head_start = 0.0  # seconds: the first after an outage goes so long before the others

    def belief(self) -> Belief | None:
        """Return what was learnt, to begin from another time; None while nothing was refused."""
        if self.steered is None:
            return None
        return Belief(self.steered, self._ceiling, self._speed, self.concurrency, self._calm)

    def believe(self, belief: Belief) -> None:
        """Begin from what was learnt before: with a rest just under it, as after a refusal there.

        If it is wrong by now, it is unlearnt as a limit that moved.
        """
        self.steered = belief.limited_by
        self._belief = DOUBT if belief.limited_by == "rate" else -DOUBT
        if belief.limited_by == "rate":
            self._keep_slots_loose(belief.concurrency)
        else:
            self.rate = self._clamp("rate", max(START_RATE, LOOSE * belief.speed))
        self._place, self._calm = belief.limit, belief.calm / 2.0  # which the cut doubles
        self._cut(belief.limit, belief.speed, new=False, early=False)

    def open(self) -> None:
        """Allow what the bounds allow, unless something was refused: others keep to the limit."""
        if self.steered is None:
            self.rate = self._rate_bounds[1]
            self._keep_slots_loose(self._slot_bounds[1])

    def known(self) -> tuple[Knob, ...]:
        """Return the knobs whose value means anything: fixed, or something was refused already."""
        if self.steered is not None:
            return "rate", "concurrency"
        bounds: dict[Knob, tuple[float, float]] = {
            "rate": self._rate_bounds,
            "concurrency": self._slot_bounds,
        }
        return tuple(knob for knob, (low, high) in bounds.items() if low == high)

    def started(self, now: float, in_flight: int, held: Knob | None) -> Start:
        """Notes the start of a request. It may pause the others: see `paused_until`.

        Args:
            now: Monotonic seconds.
            in_flight: Requests in flight, this one included.
            held: What this request last had to wait for, None if it never waited.

        Returns:
            What to hand back with the outcome.
        """
        start = self._starts.add(now, in_flight, held)
        if start.seq == 1:
            self._mark = (0, now, 0)
        if held is None and not self._run:
            self._full &= not self._starts.demand_paused(self.paused_until, self.rate)
        if self._head_start:
            self.paused_until = max(self.paused_until, now + self._head_start)
            self._head_start = 0.0
        return start

    def answered(self, start: Start, now: float) -> None:
        """Notes an answer (2xx, or any other that the limit let through)."""
        self._starts.end(now)
        if self._run and start.seq > self._last.seq:
            self._refusals_ended(start, now)
        held = start.held
        if held is None:
            return
        if held == self.steered:
            if start.seq > self._cut_seq:
                self._x += self._step
                self._apply()
            return
        cold = self.steered is None
        if cold or held == "rate":
            # Never far beyond what is used: demand that comes in bunches must not raise it.
            used = self._starts.pace(start.seq)
            if not used or self.rate < LOOSE * used:
                grown = self.rate + min(self.rate, FAST) / start.in_flight
                self.rate = self._clamp("rate", grown)
        if held == "concurrency" or (cold and self._slots < LOOSE * start.in_flight):
            self._keep_slots_loose(self._slots * (1.0 + LOOSE / start.in_flight))

    def neutral(self, start: Start, now: float) -> None:  # noqa: ARG002 - one form for all outcomes
        """Notes an outcome that says nothing about the limit (5xx, timeout, cancelled)."""
        self._starts.end(now)

    def throttled(self, start: Start, now: float, retry_after: float | None) -> None:
        """Notes a refusal (429).

        Args:
            start: What `started` returned.
            now: Monotonic seconds.
            retry_after: Seconds the server asked for, None if it did not.
        """
        retry_after = max(0.0, retry_after or 0.0)
        company = self._starts.company(start, now)
        self._starts.end(now)
        self._refused += 1
        start.refused = True
        if start.seq <= self._mark[0]:
            return
        self._lengthen_run(start, now, retry_after)
        if start.at < self._cut_at + (now - start.at):
            return  # one piece of news: a bucket that was full is full for another round trip
        self._cut_at = now
        new = self._choose_knob(start, now, company)
        early = not new and self._x < 1.0
        if not new and start.seq > self._judged + FEW:
            self._shared += (early - self._shared) / LATELY
        self._judged = start.seq
        speed = self._starts.speed_before(self._first.seq) or self.rate / 2
        if self.steered == "concurrency":
            self._cut(max(1, company - 1) * (1.0 - GIVE * early), speed, new=new, early=early)
            self.rate = self._clamp("rate", max(START_RATE, LOOSE * speed))
        elif self._run < OUTAGE or new:
            self._cut_rate(start, speed, new=new, early=early)

    def _lengthen_run(self, start: Start, now: float, retry_after: float) -> None:
        """Notes one more start refused in a row, in any order; a pause if everything is."""
        if start.seq > self._last.seq:
            self._last, self._refused_until = start, start.at
        if retry_after:
            self._refused_until = max(self._refused_until, now + retry_after)
        if not self._run:
            self._before_run = self.steered, self._place, self._calm, dict(self._stood)
        first = self._starts.first_of_run(self._last)
        if first or not self._run:
            self._first = first or start
        self._run = max(1, self._last.seq - self._first.seq + 1)
        if self._run >= OUTAGE:
            wait = retry_after or min((now - self._first.at) / OUTAGE, LONGEST_WAIT)
            self.paused_until = max(self.paused_until, now + wait)
            self._head_start = min(2.0 * (now - start.at), REST_SECONDS)  # refused, it takes half

    # ------------------------------------------------------------------ which knob

    def _choose_knob(self, start: Start, now: float, company: int) -> bool:
        """Whether the steered knob changed with this refusal."""
        old = self.steered
        if self._run == 1:
            belief = self._belief + self._starts.testimony(start, now, company, old)
            self._belief = min(max(belief, -SURE), SURE)
        if company <= 1 and self._run > 1:  # there are no fewer slots than one, only a slower pace
            self._belief = min(self._belief, DOUBT)
        knob: Knob = "rate" if self._belief < 0 else "concurrency"
        if self._slot_bounds[0] == self._slot_bounds[1]:
            knob = "rate"
        elif self._rate_bounds[0] == self._rate_bounds[1]:
            knob = "concurrency"
        self.steered = knob
        return knob != old

    # ------------------------------------------------------------------ where the ceiling is

    def _accepted(self, start: Start) -> int:
        seq, _, refused = self._mark
        return max(0, start.seq - seq - (self._refused - refused))

    def _cut_rate(self, start: Start, speed: float, *, new: bool, early: bool) -> None:
        """At a refusal a bucket is full, so what it let through since it was full is its rate.

        Where the limit moved meanwhile, that is half the truth, and the speed just before is the
        other. Never less than half the rate, which is also what is left if nothing was measured.
        """
        accepted = self._accepted(start)
        self._steady = not new and self.rate <= (1.0 + MOVED) * self._ceiling
        ceiling = min(speed, self.rate)
        if self._full and not early and accepted >= FEW:
            lately = accepted / max(start.at - self._mark[1], 0.001)
            if self._steady:
                ceiling = lately
            elif lately < ceiling:
                ceiling = (lately + ceiling) / 2  # it rose meanwhile, or the bucket ran empty
        ceiling *= 1.0 - GIVE * early
        used = self._starts.most_in_flight()
        self._keep_slots_loose(used if used > start.in_flight else start.in_flight - 1)
        self._cut(max(ceiling, self.rate / 2), speed, new=new, early=early)

    def _cut(self, ceiling: float, speed: float, *, new: bool, early: bool) -> None:
        """Takes a new ceiling, and the calm that it deserves, and begins a rest."""
        knob = self.steered or "rate"
        slack = max(MOVED * self._place, 1.0 if knob == "concurrency" else 0.0)
        if new or abs(ceiling - self._place) > slack:
            self._place, self._calm = ceiling, 0.5
        elif early:
            self._calm = max(1.0, self._calm)
        else:
            self._place = ceiling
            self._calm = 1.0 if self._fell(ceiling) else min(2.0 * self._calm, CALMEST)
            self._stand(knob, ceiling)
            if knob == "concurrency":
                self._stand("rate", speed)
        self._ceiling = self._clamp(knob, ceiling)
        self._speed = self._ceiling if knob == "rate" else speed
        self._x = 0.0
        self._cut_seq = self._starts.seq
        self._shape()
        self._apply()

    def _stand(self, knob: Knob, value: float) -> None:
        """Notes how high a knob got that was found twice; with slots, the rate as well."""
        stood = self._stood.get(knob, 0.0)
        self._stood[knob] = max(value, stood + (value - stood) * FORGET)

    def _fell(self, ceiling: float) -> bool:
        """Whether it is far below one that stood: limits that fell tend to return."""
        return ceiling < (1.0 - MOVED) * self._stood.get(self.steered or "rate", 0.0)

    def _shape(self) -> None:
        """Draws the curve, as calm as it is.

        Reach goes by the square root, so that small clients gain relatively more and the shares
        of one limit drift together. In the long run, each of n clients meets its own probes in one
        refusal of n; with n times its seconds, all of them together probe as often as one alone.
        After an overload few are answered, and 40 of them would take as long as the overload did:
        so time bounds them where the limit may return, or, twice as long, where none ever stood.
        """
        self._reach = REACH * math.sqrt(self._ceiling) / max(1.0, self._calm)
        clients = 1.0 / max(1.0 - self._shared, 1.0 / CALMEST)
        seconds = REST_SECONDS * self._calm * clients
        answers = REST * self._calm
        if self._fell(self._ceiling):
            answers = min(answers, LONGEST_WAIT * self._speed)
        elif not self._stood:
            answers = min(answers, 2.0 * LONGEST_WAIT * self._speed)
        self._step = 1.0 / max(answers, max(seconds, self._window) * self._speed)

    def _refusals_ended(self, start: Start, now: float) -> None:
        """The first answer after refusals: a full moment, from which accepted / elapsed counts.

        After an outage that moment is when the window turned, and the limit from there to the end
        of the next one is exact. But one alone may be an incident, which tells no quota; nor does
        the time count then for which it made us wait.
        """
        refused_for = start.at - self._first.at
        turned = (min(self._refused_until, start.at) + start.at) / 2  # the window, in between
        elapsed = turned - self._mark[1]
        accepted = self._accepted(start)
        outage = self._run >= OUTAGE
        long = refused_for * self._speed > REST
        exact = self._full and (self._steady or long)
        self.paused_until = min(self.paused_until, now)
        self._head_start = 0.0
        self._run = 0
        since_outage, self._since_outage = self._since_outage, outage
        self._mark = (start.seq, turned if since_outage else start.at, self._refused)
        self._full = True
        if not outage and self._calm < 1.0:
            self._window = 0.0  # found elsewhere, and no quota: it was that of another limit
            self._shape()
        if not outage or accepted < FEW or elapsed <= 0:
            return
        mostly = refused_for > elapsed / 2
        if (mostly or long) and not since_outage:
            return  # one alone may be an incident: it tells no quota
        if mostly:
            if self._rate_bounds[0] < self._rate_bounds[1]:
                self.steered = "rate"  # a quota of requests, used up: slots would have come free
        elif not exact:
            return
        if self.steered == "rate":
            knob, place, calm, self._stood = self._before_run
            if knob == "rate":  # is the quota the same again?
                self._place, self._calm = place, calm
            self._cut(accepted / elapsed, accepted / elapsed, new=False, early=False)
            if long:
                self._window = min(elapsed * WINDOW_REST, LONGEST_WAIT)
                self._shape()

    # ------------------------------------------------------------------ the knobs

    def _apply(self) -> None:
        beyond = self._x - 1.0  # below 0 during a rest
        value = self._ceiling + self._reach * beyond * beyond * beyond
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
    fits = all(isinstance(each, number) and not isinstance(each, bool) for each in bounds)
    if not pair or not fits or not 0 < bounds[0] <= bounds[1] < math.inf:
        given = bounds[0] if pair and bounds[0] is bounds[1] else bounds
        raise ValueError(
            f"{name} is {given!r}: it must be a {right}, or a pair of bounds, the lower one first"
        )
