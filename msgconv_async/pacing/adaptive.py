"""Finds a limit that nobody published, from outcomes alone, and stays just under it.

What it promises: no number is needed from the caller; pure logic (no clock, no waiting, no I/O);
a microsecond or two a request. It learns from 2xx and 429; errors and latency say nothing.

The rules:

1. Two knobs: `rate` (starts per second) and `concurrency` (requests in flight). One is steered, at
   first the rate; the other is kept loose, and grows whenever it holds a request all the same.
2. Cold start: each answer to a request that had to wait raises what held it, the rate twofold and
   the concurrency threefold a round trip; never far beyond what is used.
3. A refusal marks the ceiling. In flight it is exact: n refused, so n - 1. For a rate: at each
   refusal a bucket is full, so what was accepted between two of them, over the time, IS the rate.
4. Below the ceiling a rest, above it a probe, on one cubic curve: ceiling + r * (x - 1)^3, where
   x counts the answers since the refusal in rests. The reach r grows with the square root of the
   ceiling, so that small clients gain relatively more and shares of one limit drift together.
5. Every probe costs a refusal, so a rest is at least 40 answers, and twice as long each time that
   a probe finds the ceiling again, with half the reach; but not where others share it, nor below a
   ceiling that stood before, because limits that fell tend to return.
6. Refused before x = 1, not by a probe of ours: the limit is shared, or fell. Give way a little.
7. Which knob: how rare was such company in flight, among recent starts, and how rare such a pace?
   The logarithm of the one over the other adds to a belief; its sign chooses the knob.
8. Three starts refused in a row: nothing starts for as long as Retry-After says, else for half the
   time that the refusals have lasted. From the end of one such outage to the end of the next,
   accepted / elapsed is the rate, however long the server's window; and a rest is as long.

Sources: CUBIC, RFC 9438 (the curve; here its clock counts answers, not seconds); AIMD, Chiu and
Jain 1989 (why giving way makes shares equal); nginx limit_req, limit_conn; RFC 6585.
"""

from __future__ import annotations

import math
from typing import Final, Literal

Knob = Literal["rate", "concurrency"]
"""What can hold a request back: starts per second, or requests in flight."""

START_RATE: Final = 10.0  # starts per second when cold: few enough to offend nobody
START_SLOTS: Final = 16  # requests in flight when cold: answers of 1.5 s leave START_RATE its say
GENTLE: Final = 4  # requests in flight: with fewer, an answer raises by no more than with so many
LOOSE: Final = 2.0  # what is not steered is kept, or grows, this far from what is used
REST: Final = 40.0  # answers in a rest: a probe ends after two rests, and 1 in 80 is about 1 %
REST_SECONDS: Final = 1.5  # ... and at least this long, or each of many short windows is probed
SHARED_SECONDS: Final = 7.0  # a rest where others share the limit: one for all, to gain alike
CALMEST: Final = 16.0  # longest rest, in first ones: a limit that rose is to be found some time
REACH: Final = 0.28  # of the curve: at 50/s, 4 % under the ceiling at x = 0, 4 % over at x = 2
MOVED: Final = 0.3  # a ceiling is another one when it differs by more than this share
GIVE: Final = 0.06  # share given way when refused at rest: makes room for smaller clients
FEW: Final = 8  # fewer starts than this measure nothing
LOOK_BACK: Final = 64  # starts that a refused one is compared with; up to twice as many are kept
OUTAGE: Final = 3  # starts refused in a row that mean: everything is refused
LONG: Final = 1.0  # seconds: an outage longer than this is tried one start at a time
SURE: Final = 3.0  # most that the belief in a knob can be: two or three refusals turn it
OWN: Final = 0.15  # a pace that our own probe raised counts as no rarer than this


class Start:
    """One request's start, kept by the pacer until its outcome is known."""

    __slots__ = ("at", "held", "in_flight", "refused", "seq")

    def __init__(self, at: float, seq: int, in_flight: int, held: Knob | None) -> None:
        self.at = at
        self.seq = seq
        self.in_flight = in_flight
        self.held = held
        self.refused = False


class AdaptiveLimit:
    """Steers a rate and a concurrency towards a server's unpublished limit.

    Args:
        rate: The least and the most starts per second; equal bounds fix the rate.
        concurrency: The least and the most requests in flight; equal bounds fix it.

    Attributes:
        rate: Starts per second now allowed.
        concurrency: Requests in flight now allowed.
        paused_until: Monotonic seconds before which nothing should start (-inf: not paused).

    Raises:
        ValueError: When a lower bound is not above 0 or exceeds its upper bound.
    """

    def __init__(
        self,
        *,
        rate: tuple[float, float] = (0.05, 10_000.0),
        concurrency: tuple[int, int] = (1, 1000),
    ) -> None:
        _check("rate", rate)
        _check("concurrency", concurrency)
        self._rate_bounds = rate
        self._slot_bounds = concurrency
        self.rate = self._clamp("rate", START_RATE)
        self.concurrency = int(self._clamp("concurrency", START_SLOTS))
        self.paused_until = -math.inf
        self._slots = float(self.concurrency)
        self._steered: Knob | None = None  # None until something is refused
        # The curve: x advances by step with each answer to a request that the steered knob held.
        self._ceiling = 0.0
        self._reach = 0.0
        self._x = 0.0
        self._step = 0.0
        self._place = 0.0  # where a probe, or a move, last found it
        self._calm = 0.5  # rests grow by this: 1.0 once it is found twice in the same place
        self._stood: dict[Knob, float] = {"rate": 0.0, "concurrency": 0.0}  # the highest that did
        self._window = 0.0  # seconds: least rest, once a long window was met
        # The last starts, and the moment from which accepted / elapsed counts.
        self._seq = 0
        self._recent: list[Start] = []  # the last 64 to 128, in order
        self._refused = 0
        self._mark = (0, 0.0, 0)  # seq, time and refusals then
        self._full = False  # the mark was a full moment, and demand never paused since
        self._steady = False  # the limit has not evidently moved since the mark
        self._cut_seq = 0  # starts up to this one say nothing new
        self._bad_seq = 0
        self._run = 0
        self._first = Start(0.0, 0, 0, None)  # of the starts refused in a row
        self._judged = 0
        self._belief = -SURE / 2  # above zero: the slots are to blame
        self._rate_before = 0.0  # the rate to return to after a long outage; 0.0: there is none
        self._shared = 0.0  # share of refusals that came at rest

    @property
    def found(self) -> bool:
        """Whether the rate means anything: it is fixed, or something was refused already."""
        low, high = self._rate_bounds
        return low == high or self._steered is not None

    def started(self, now: float, in_flight: int, held: Knob | None) -> Start:
        """Notes the start of a request.

        Args:
            now: Monotonic seconds.
            in_flight: Requests in flight, this one included.
            held: What this request last had to wait for, None if it never waited.

        Returns:
            What to hand back with the outcome.
        """
        self._seq = seq = self._seq + 1
        if seq == 1:
            self._mark = (0, now, 0)
        start = Start(now, seq, in_flight, held)
        recent = self._recent
        if held is None and not self._run and recent and recent[-1].held is None:
            self._full = False  # one alone may have waited for the end of a pause
        recent.append(start)
        if len(recent) == 2 * LOOK_BACK:
            del recent[:LOOK_BACK]
        return start

    def answered(self, start: Start, now: float) -> None:  # noqa: ARG002 - one form for all outcomes
        """Notes an answer (2xx, or any other that the limit let through)."""
        if self._run and start.seq > self._bad_seq:
            self._refusals_ended(start)
        held = start.held
        if held is None:
            return
        if held == self._steered:
            if start.seq > self._cut_seq:
                self._x += self._step
                self._apply()
        elif held == "rate":
            # Never far beyond what is used: demand that comes in bunches must not raise it.
            oldest = min(self._recent[0].seq + FEW, self._seq)
            used = self._pace(max(start.seq, oldest))
            if not used or self.rate - START_RATE < LOOSE * used:
                grown = self.rate * (1.0 + 1.0 / max(start.in_flight, GENTLE))
                self.rate = self._clamp("rate", grown)
        else:
            grown = self._slots * (1.0 + LOOSE / max(start.in_flight, GENTLE))
            self._slots = self._clamp("concurrency", grown)
            self.concurrency = int(self._slots)

    def neutral(self, start: Start, now: float) -> None:
        """Notes an outcome that says nothing about the limit (5xx, timeout, cancelled)."""

    def throttled(self, start: Start, now: float, retry_after: float | None) -> None:
        """Notes a refusal (429).

        Args:
            start: What `started` returned.
            now: Monotonic seconds.
            retry_after: Seconds the server asked for, None if it did not.
        """
        seq = start.seq
        self._refused += 1
        start.refused = True
        if seq <= self._mark[0]:
            return
        self._lengthen_run(start)
        if self._run >= OUTAGE:
            lasted = now - self._first.at
            wait = retry_after or lasted / 2
            self.paused_until = max(self.paused_until, now + wait)
            if lasted > LONG:  # one start at a time, when the pause is over
                self._rate_before = self._rate_before or self.rate
                self.rate = self._clamp("rate", 1.0 / wait)
        if seq <= self._cut_seq:
            return
        new = self._choose_knob(start)
        early = not new and self._x < 1.0
        if not new and seq > self._judged + FEW:
            self._shared += (early - self._shared) / 4
        self._judged = seq
        speed = self._speed_before(self._first.seq)
        if self._steered == "concurrency":
            ceiling = (start.in_flight - 1) * (1.0 - GIVE * early)
            self._cut(ceiling, speed, new=new, early=early)
            if not self._rate_before:
                self.rate = self._clamp("rate", max(START_RATE, LOOSE * speed))
        elif self._run < OUTAGE or new:
            self._cut_rate(start, speed, new=new, early=early)

    def _lengthen_run(self, start: Start) -> None:
        """Finds the first of the starts refused in a row; refusals arrive in any order."""
        self._bad_seq = max(start.seq, self._bad_seq)
        first = self._index(self._bad_seq)
        while first > 0 and self._recent[first - 1].refused:
            first -= 1
        if first > 0 or not self._run:
            self._first = self._recent[first] if first >= 0 else start
        self._run = max(1, self._bad_seq - self._first.seq + 1)

    # ------------------------------------------------------------------ which knob

    def _choose_knob(self, start: Start) -> bool:
        """Whether the steered knob changed with this refusal."""
        old = self._steered
        if old and self._run == 1:
            belief = self._belief + self._testimony(start)
            self._belief = min(max(belief, -SURE), SURE)
        few = self._run >= OUTAGE and 2 * start.in_flight <= self._first.in_flight
        if start.in_flight == 1 or few:
            self._belief = -SURE / 2  # no limit on requests in flight refuses so few
        knob: Knob = "rate" if self._belief < 0 else "concurrency"
        if self._slot_bounds[0] == self._slot_bounds[1]:
            knob = "rate"
        elif self._rate_bounds[0] == self._rate_bounds[1]:
            knob = "concurrency"
        self._steered = knob
        return knob != old

    def _index(self, seq: int) -> int:
        return seq - self._seq + len(self._recent) - 1

    def _pace(self, seq: int) -> float:
        """Starts per second over the last few up to this one; 0.0: not known."""
        recent, here = self._recent, self._index(seq)
        before = here - FEW
        return FEW / max(recent[here].at - recent[before].at, 0.001) if before >= 0 else 0.0

    def _testimony(self, start: Start) -> float:
        """How much rarer its company in flight was than its pace, as a logarithm."""
        recent, here = self._recent, self._index(start.seq)
        oldest = max(FEW, here - LOOK_BACK)
        before = [each for each in recent[oldest : max(here, 0)] if not each.refused]
        if len(before) < FEW:
            return 0.0
        pace = self._pace(start.seq)
        faster = company = len(before) / LOOK_BACK
        for each in before:
            its = self._pace(each.seq)
            faster += (its > pace) + 0.5 * (its == pace)
            more = each.in_flight - start.in_flight
            company += (more > 0) + 0.5 * (more == 0)
        if self._steered == "rate" and self._x >= 1.0:
            faster = max(faster, OWN * len(before))
        return math.log(faster / company)

    # ------------------------------------------------------------------ where the ceiling is

    def _accepted(self, start: Start) -> int:
        seq, _, refused = self._mark
        return max(0, start.seq - seq - (self._refused - refused))

    def _speed_before(self, first: int) -> float:
        """Accepted per second just before the start numbered `first`."""
        here = self._index(first)
        if here < 0:  # no longer remembered: the oldest that are tell as much
            here = 2 * FEW + 1
        before = self._recent[max(0, here - 1 - 2 * FEW) : here]
        if len(before) < FEW:
            return self.rate
        good = sum(not each.refused for each in before[1:])
        return good / max(before[-1].at - before[0].at, 0.001)

    def _cut_rate(self, start: Start, speed: float, *, new: bool, early: bool) -> None:
        accepted = self._accepted(start)
        self._steady = not new and self.rate <= (1.0 + MOVED) * self._ceiling
        if self._steady and not early and self._full and accepted >= FEW:
            ceiling = accepted / max(start.at - self._mark[1], 0.001)
        else:
            ceiling = min(speed, self.rate) * (1.0 - GIVE * early)
        lately = self._recent[-LOOK_BACK:]
        used = max((each.in_flight for each in lately if not each.refused), default=1)
        used = used if used > start.in_flight else start.in_flight - 1
        self._slots = self._clamp("concurrency", used)
        self.concurrency = int(self._slots)
        self._cut(max(ceiling, self.rate / 2), speed, new=new, early=early)

    def _cut(self, ceiling: float, speed: float, *, new: bool, early: bool) -> None:
        """Takes a new ceiling, and the calm that it deserves."""
        knob = self._steered or "rate"
        slack = max(MOVED * self._place, 1.0 if knob == "concurrency" else 0.0)
        if new or abs(ceiling - self._place) > slack:
            self._place, self._calm = ceiling, 0.5
        elif early:
            self._calm = max(self._calm, 1.0)
        else:
            self._place = ceiling
            fell = ceiling < (1.0 - MOVED) * self._stood[knob]
            longer = self._calm * max(1.0, 2.0 - 4.0 * self._shared)
            self._calm = 1.0 if fell else min(max(longer, 1.0), CALMEST)
            self._stood[knob] = max(self._stood[knob], ceiling)
        self._begin_rest(ceiling, speed)

    def _begin_rest(self, ceiling: float, speed: float) -> None:
        self._ceiling = self._clamp(self._steered or "rate", ceiling)
        self._reach = REACH * math.sqrt(self._ceiling) / max(1.0, self._calm)
        if self._steered == "rate":
            speed = self._ceiling
        alone = max(REST, max(REST_SECONDS, self._window) * speed) * self._calm
        shared = max(self._window, self._shared * max(1.0, self._calm) * SHARED_SECONDS) * speed
        self._x = 0.0
        self._step = 1.0 / max(alone, shared)
        self._cut_seq = self._seq
        self._apply()

    def _refusals_ended(self, start: Start) -> None:
        """The first answer after refusals: from one such moment to the next the limit is exact."""
        refused_for = start.at - self._first.at
        elapsed = start.at - self._mark[1]
        accepted = self._accepted(start)
        outage = self._run >= OUTAGE
        exact = self._full and (self._steady or refused_for > LONG)
        if self._rate_before:
            self.rate, self._rate_before = self._rate_before, 0.0
            self.paused_until = -math.inf
        self._run = 0
        self._mark = (start.seq, start.at, self._refused)
        self._full = True
        if not outage or accepted < FEW:
            return
        if refused_for > elapsed / 2 and self._rate_bounds[0] < self._rate_bounds[1]:
            self._steered = "rate"  # a quota of requests, used up: slots would have come free
            self._belief = -SURE / 2
        elif not exact:
            return
        if self._steered == "rate":
            if refused_for > LONG:
                self._window = max(self._window, elapsed / 2)
            self._begin_rest(accepted / elapsed, accepted / elapsed)

    # ------------------------------------------------------------------ the knobs

    def _apply(self) -> None:
        beyond = self._x - 1.0
        value = self._ceiling + self._reach * beyond * beyond * beyond
        if self._steered == "concurrency":
            self.concurrency = int(self._clamp("concurrency", value + 0.5))
            return
        low, high = self._rate_bounds
        value = low if value < low else min(value, high)
        if not self._rate_before:
            self.rate = value

    def _clamp(self, knob: Knob, value: float) -> float:
        low, high = self._rate_bounds if knob == "rate" else self._slot_bounds
        return min(max(value, low), high)


def _check(name: str, bounds: tuple[float, float]) -> None:
    if not 0 < bounds[0] <= bounds[1] < math.inf:
        raise ValueError(
            f"{name} is {bounds!r}: it must be a lower and an upper bound, finite and above 0, "
            "the lower one first; equal bounds fix it"
        )
