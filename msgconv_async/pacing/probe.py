"""The estimated ceiling of a limit, and the curve along which it is probed.

The value of the steered knob is

    ceiling + reach * (x - 1)^3

`ceiling` is where the limit refused last. `x` starts at 0 and grows with each answer to a request
that the knob had held back. Below 1 the knob rests just under the ceiling, which it approaches ever
more slowly; above 1 it probes, ever faster, until it is refused. The curve is that of CUBIC (RFC
9438). There the clock is the time; here it is the answers, of which a rest takes 40.

A rest is longer, and the reach shorter, the more often the ceiling was found in the same place. The
`calm` is the factor. A limit that fell far below an earlier place is likely to return, so its rests
stay short until that place is forgotten.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from msgconv_async.pacing.recent import FEW, REST, Start
from msgconv_async.pacing.schedule import Knob

REST_SECONDS: Final = 1.5  # seconds: the least rest; with less, every short window is probed
CALMEST: Final = 8.0  # most that rests grow by, so that a limit that rose is found
REACH: Final = 0.27  # of the curve: at 50/s, 4 % under the ceiling at x = 0, 4 % over at x = 2
MOVED: Final = 0.3  # a ceiling is another one when it differs by more than this share
FORGET: Final = 0.04  # share of the way down forgotten a probe: 20 probes for a limit that halved
LATELY: Final = 4  # refusals that show how many share the limit: shares change as clients come
LONGEST_WAIT: Final = 30.0  # seconds: the longest pause, and, far below what stood, 40 answers


class Found(NamedTuple):
    """The places where a limit was found so far.

    Attributes:
        knob: The knob that was steered last; None before the first refusal.
        place: Where a probe, or a move of the limit, last found the ceiling.
        calm: The factor by which rests have grown: 1, 2, 4 or 8. It doubles when the limit is found
            in the same place. It is a half until the limit was found a second time.
        stood_rate: The highest rate at which it was found twice, slowly forgotten; 0.0 for none.
        stood_slots: The same of the requests in flight.
    """

    knob: Knob | None = None
    place: float = 0.0
    calm: float = 0.5
    stood_rate: float = 0.0
    stood_slots: float = 0.0

    def fell(self, ceiling: float) -> bool:
        """Tell whether a ceiling is far below one that stood: limits that fell tend to return."""
        stood = self.stood_slots if self.knob == "concurrency" else self.stood_rate
        return ceiling < (1.0 - MOVED) * stood


_NOTHING = Found()


class Probe:
    """The curve of the knob that is steered.

    Attributes:
        found: Where the limit was found so far.
        ceiling: Where it is believed to be now: starts per second, or requests in flight.
        speed: Answers per second when the curve began.
        x: Rests since then: below 1 it rests, from 1 on it probes.
        reach: How far below the ceiling the curve begins.
        window: Seconds: the least rest, once a quota for a long window was met; 0.0 for none.
    """

    __slots__ = ("_judged", "_shared", "_step", "ceiling", "found", "reach", "speed", "window", "x")

    def __init__(self) -> None:
        self.found = _NOTHING
        self.ceiling = 0.0
        self.speed = 0.0
        self.x = 0.0
        self.reach = 0.0
        self.window = 0.0
        self._step = 0.0  # what an answer adds to x
        self._shared = 0.0  # share of refusals that came at rest, from others' probes
        self._judged = 0

    def value(self) -> float:
        """Return where the knob is now."""
        beyond = self.x - 1.0  # below 0 during a rest
        return self.ceiling + self.reach * beyond * beyond * beyond

    def advance(self) -> None:
        """Take note of an answer to a request that the knob had held back."""
        self.x += self._step

    def refused(self, start: Start, *, early: bool, new: bool) -> None:
        """Note whose probe caused a refusal: this shows how many clients share the limit.

        Args:
            start: The start that was refused; of a few in a row, the first one counts.
            early: Whether it was refused in a rest, and so by another client's probe.
            new: Whether the knob was not steered before, and so did not rest.
        """
        if not new and start.seq > self._judged + FEW:
            self._shared += (early - self._shared) / LATELY
        self._judged = start.seq

    def rest(
        self, knob: Knob, place: float, ceiling: float, speed: float, *, new: bool, early: bool
    ) -> None:
        """Begin a curve, with a rest, under a ceiling that was found.

        Args:
            knob: The knob that is steered.
            place: Where the limit was found.
            ceiling: The same, within the caller's bounds.
            speed: Answers per second there.
            new: Whether the knob was not steered before.
            early: Whether it was refused in a rest.
        """
        found = self.found._replace(knob=knob)
        slack = max(MOVED * found.place, 1.0 if knob == "concurrency" else 0.0)
        if new or abs(place - found.place) > slack:
            found = found._replace(place=place, calm=0.5)
        elif early:
            found = found._replace(calm=max(1.0, found.calm))
        else:
            calm = 1.0 if found.fell(place) else min(2.0 * found.calm, CALMEST)
            rate, slots = (speed, place) if knob == "concurrency" else (place, 0.0)
            found = Found(
                knob, place, calm, _stood(found.stood_rate, rate), _stood(found.stood_slots, slots)
            )
        self.found = found
        self.ceiling = ceiling
        self.speed = ceiling if knob == "rate" else speed
        self.x = 0.0
        self.shape()

    def resume(self, before: Found) -> None:
        """Go back to what was found before an outage: an outage shows no place of a limit.

        If the rate was steered, the limit may be found in the same place again.
        """
        found = self.found if before.knob != "rate" else before
        self.found = Found("rate", found.place, found.calm, before.stood_rate, before.stood_slots)

    def shape(self) -> None:
        """Draw the curve, as calm as it is: call it when `window` has changed.

        The reach grows by the square root, so small clients gain relatively more, and the shares of
        one limit become equal over time. In the long run, one in n refusals of each of n clients
        comes from its own probe. With rests n times as long, all clients together probe as often as
        one alone. After an overload few requests are answered, and 40 answers would take as long as
        the overload did. So time bounds the rest where the limit may return, and twice that time
        bounds it where no limit was ever found twice.
        """
        found = self.found
        self.reach = REACH * math.sqrt(self.ceiling) / max(1.0, found.calm)
        clients = 1.0 / max(1.0 - self._shared, 1.0 / CALMEST)
        seconds = REST_SECONDS * found.calm * clients
        answers = REST * found.calm
        if found.fell(self.ceiling):
            answers = min(answers, LONGEST_WAIT * self.speed)
        elif not found.stood_rate and not found.stood_slots:
            answers = min(answers, 2.0 * LONGEST_WAIT * self.speed)
        self._step = 1.0 / max(answers, max(seconds, self.window) * self.speed)


def _stood(before: float, value: float) -> float:
    """Return the highest place that was found twice, moved a little towards a lower new one."""
    return max(value, before + (value - before) * FORGET) if value else before
