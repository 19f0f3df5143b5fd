"""The last starts of one account: the requests in flight and the accepted ones among them.

If a server refuses at once, the requests in flight at a refusal are known exactly. They are those
in flight when the refused request started, without those that were answered before its refusal
arrived, since a refusal takes as long to arrive as an answer that was sent just before it. A server
that is slow to refuse makes this inexact.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

from msgconv_async.pacing.schedule import Knob

REST: Final = 40  # answers in a rest: a probe ends after two rests, 1 in 80 is about 1 %
FEW: Final = 8  # fewer starts than this measure nothing
LOOK_BACK: Final = 2 * REST  # starts that a refused one is compared with: back to the last probe
PAST: Final = 120.0  # seconds without a request after which earlier starts say nothing


class Start:
    """One request's start, kept by the pacer until its outcome is known."""

    __slots__ = ("at", "held", "in_flight", "refused", "seq")

    def __init__(self, at: float, seq: int, in_flight: int, held: Knob | None) -> None:
        self.at = at
        self.seq = seq
        self.in_flight = in_flight
        self.held = held
        self.refused = False

    @property
    def ended(self) -> int:
        """Requests that were over when it started."""
        return self.seq - self.in_flight


class RecentStarts:
    """The last 80 to 160 starts and ends, in order.

    After two minutes without a request they are forgotten. So an account that is asked now and
    then, such as a followed one, holds few of them. Otherwise memory would grow for half a day with
    thousands of such accounts.

    Attributes:
        seq: Number of the last start: the first is 1.
    """

    __slots__ = ("_ended", "_ends", "_last", "seq")

    def __init__(self) -> None:
        self.seq = 0
        self._last: list[Start] = []
        self._ended = 0
        self._ends: list[float] = []

    def add(self, now: float, in_flight: int, held: Knob | None) -> Start:
        """Take note of a start; see `AdaptiveLimit.started`."""
        self.seq += 1
        start = Start(now, self.seq, in_flight, held)
        last = self._last
        if last and in_flight <= 1 and now - last[-1].at > PAST:
            last.clear()
            self._ends.clear()
        last.append(start)
        if len(last) == 2 * LOOK_BACK:
            del last[:LOOK_BACK]
        return start

    def end(self, now: float) -> None:
        """Take note that a request is over."""
        self._ended += 1
        ends = self._ends
        ends.append(now)
        if len(ends) == 2 * LOOK_BACK:
            del ends[:LOOK_BACK]

    def _index(self, seq: int) -> int:
        return seq - self.seq + len(self._last) - 1

    def demand_paused(self, resumed: float, rate: float) -> bool:
        """Tell whether demand is below the limit, after a start that nothing held back.

        It is below if the start before was not held back either, or if the limit would have let
        eight more start since then, or since a pause of ours was over.

        Args:
            resumed: When our last pause was over, in monotonic seconds.
            rate: Starts per second that are allowed.
        """
        if len(self._last) < 2:  # noqa: PLR2004 - the last one and the one before
            return True
        before, last = self._last[-2:]
        return before.held is None or last.at - max(before.at, resumed) > FEW / rate

    def pace(self, seq: int) -> float:
        """Return the starts per second over the last few up to this one; 0.0 if not known."""
        here = max(self._index(seq), min(FEW, len(self._last) - 1))
        if here < FEW:
            return 0.0
        return FEW / max(self._last[here].at - self._last[here - FEW].at, 0.001)

    def speed_before(self, seq: int) -> float:
        """Return the requests accepted per second just before a start; 0.0 if that is not known."""
        here = self._index(seq)
        if len(self._last) < self.seq:  # some are forgotten: the oldest of the rest say as much
            here = max(here, 2 * FEW + 1)
        before = self._last[max(0, here - 1 - 2 * FEW) : here]
        if len(before) < FEW:
            return 0.0
        accepted = sum(not start.refused for start in before[1:])
        return accepted / max(before[-1].at - before[0].at, 0.001)

    def before(self, start: Start) -> list[Start]:
        """The recent starts before this one, oldest first; none if this one is forgotten itself."""
        here = self._index(start.seq)
        return self._last[max(0, here - LOOK_BACK) : max(0, here)]

    def most_in_flight(self) -> int:
        """Return the most requests in flight at a recent start that was not refused; at least 1."""
        recent = self._last[-LOOK_BACK:]
        return max((start.in_flight for start in recent if not start.refused), default=1)

    def first_of_run(self, last: Start) -> Start | None:
        """Return the first of the starts refused in a row up to this one; None if forgotten."""
        here = self._index(last.seq)
        while here > 0 and self._last[here - 1].refused:
            here -= 1
        return self._last[here] if here > 0 else None

    def company(self, refused: Start, now: float) -> int:
        """Return the requests in flight when one was refused, itself included.

        If a refusal arrives so late that all of them are over, only their number at its start is
        known.

        Args:
            refused: The start that was refused.
            now: When the refusal arrived, in monotonic seconds.
        """
        left = self.left(refused, now)
        return left if left > 0 else refused.in_flight

    def left(self, start: Start, when: float) -> int:
        """Return the requests in flight at a start, less those that were over by an instant."""
        ended = self._ended - len(self._ends) + bisect_right(self._ends, when)
        return start.in_flight - (ended - start.ended)
