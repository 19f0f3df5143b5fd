"""Decides which limit a refusal is blamed on: the rate, or the requests in flight.

The two refuse in different circumstances. The company of a request is the number of requests in
flight with it. A limit of n requests in flight refuses the request that would be number n + 1,
every time, and accepts none in such company. A limit on the rate refuses in any company, but only
when the pace was high. So each refusal is compared with the recent starts that were accepted, by
its company and by its pace. The rarer of the two is to blame.

Both are ranked by Laplace's rule of succession, and the logarithm of the two ranks' ratio is the
evidence of this refusal. Evidence adds up over refusals, within bounds.
"""

from __future__ import annotations

import math
from typing import Final

from msgconv_async.pacing.recent import FEW, LOOK_BACK, RecentStarts, Start
from msgconv_async.pacing.schedule import Knob

SURE: Final = math.log(LOOK_BACK)  # the most evidence there is: that of one clear refusal
DOUBT: Final = -SURE / 2  # the rate is to blame, until a clear refusal shows otherwise
OWN: Final = 1 / (FEW + 2)  # the highest of a few: our own probes count as no rarer than that


class Attribution:
    """The evidence of all refusals so far.

    Args:
        only: The knob that is always to blame, since the other one is fixed; None for either.
    """

    __slots__ = ("_evidence", "_only")

    def __init__(self, only: Knob | None) -> None:
        self._evidence = DOUBT  # above zero: the requests in flight are to blame
        self._only = only

    @property
    def suspect(self) -> Knob:
        """The knob that is to blame."""
        if self._only is not None:
            return self._only
        return "rate" if self._evidence < 0 else "concurrency"

    def believe(self, knob: Knob) -> None:
        """Begin with a suspect that was found before."""
        self._evidence = DOUBT if knob == "rate" else -DOUBT

    def weigh(self, evidence: float) -> None:
        """Add the evidence of one refusal."""
        self._evidence = min(max(self._evidence + evidence, -SURE), SURE)

    def refused_alone(self) -> None:
        """Take note that even one request at a time was refused, and not for the first time.

        There are no fewer requests in flight than one, but there is always a slower pace.
        """
        self._evidence = min(self._evidence, DOUBT)


def evidence(
    recent: RecentStarts, refused: Start, now: float, company: int, steered: Knob | None
) -> float:
    """Return how much rarer a refusal's company was than its pace, as a logarithm.

    The pace is the level of a bucket that is drained as fast as requests were accepted.

    Args:
        recent: The last starts.
        refused: The start that was refused.
        now: When it was known, in monotonic seconds.
        company: The requests that were in flight when it was refused, itself included.
        steered: The knob that was steered; our own probes make its rank look rare.

    Returns:
        Above 0 it blames the requests in flight, below 0 the rate; 0.0 if nothing is known.
    """
    before = recent.before(refused)
    accepted = [start for start in before if not start.refused]
    if not accepted:
        return 0.0
    drained = len(accepted) / max(refused.at - before[0].at, 0.001)
    fill, at = 0.0, before[0].at
    fills = []
    for start in accepted:
        fill = max(0.0, fill - drained * (start.at - at)) + 1.0
        at = start.at
        fills.append(fill)
    pace = _rank(max(0.0, fill - drained * (refused.at - at)) + 1.0, fills)
    if steered == "rate":
        pace = max(pace, OWN)
    trip = now - refused.at
    companies = [max(1, recent.left(start, start.at + trip)) for start in accepted]
    return math.log(pace / _rank(company, companies))


def _rank(value: float, others: list[float] | list[int]) -> float:
    """Return the share of the others that are higher, by Laplace's rule; equal ones count half."""
    higher = sum((other > value) + 0.5 * (other == value) for other in others)
    return (higher + 1) / (len(others) + 2)
