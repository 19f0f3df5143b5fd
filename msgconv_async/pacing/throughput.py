"""Measures what a limit let through, between moments at which it was known to be full.

A bucket that refuses is full. Until it refuses again it lets through exactly its rate. So the count
starts at a full moment (the first answer after refusals), and at the next refusal the starts
accepted since, divided by the time, are the rate of the bucket.

This is a measurement only if demand did not pause in between: in a pause, the bucket runs empty.
"""

from __future__ import annotations

from msgconv_async.pacing.recent import FEW, Start


class Throughput:
    """Counts the requests accepted since a mark.

    Attributes:
        seq: Number of the start at the mark: earlier ones say nothing any more.
        at: When the mark was, in monotonic seconds.
        full: Whether the mark was a full moment, and demand did not pause since.
        after_outage: Whether the mark is the end of an outage, or the first start of all.
        steady: Whether the limit has not evidently moved since the mark.
        refused: Refusals so far.
    """

    __slots__ = ("_refused_before", "after_outage", "at", "full", "refused", "seq", "steady")

    def __init__(self) -> None:
        self.seq = 0
        self.at = 0.0
        self.full = False
        self.after_outage = True
        self.steady = False
        self.refused = 0
        self._refused_before = 0

    def mark(self, seq: int, at: float, *, full: bool, after_outage: bool) -> None:
        """Count from a start, and from an instant, on."""
        self.seq = seq
        self.at = at
        self.full = full
        self.after_outage = after_outage
        self._refused_before = self.refused

    def accepted(self, start: Start) -> int:
        """Return how many starts were accepted from the mark up to this one."""
        return max(0, start.seq - self.seq - (self.refused - self._refused_before))

    def ceiling(self, refused: Start, speed: float) -> float:
        """Return the rate of a limit that just refused, in starts per second.

        If the limit moved since the mark, the result is the mean of what was accepted and of the
        speed just before.

        Args:
            refused: The start that was refused.
            speed: The rate to assume where nothing was measured.
        """
        accepted = self.accepted(refused)
        if not self.full or accepted < FEW:
            return speed
        measured = accepted / max(refused.at - self.at, 0.001)
        if self.steady:
            return measured
        # It rose meanwhile, or the bucket ran empty.
        return (measured + speed) / 2 if measured < speed else speed
