"""What is held of the matrix: one client that asks for less than the limit, and no stray refusals.

`python -m benchmarks pacing --matrix` plays all of it, and names where the goal is missed.
"""

from __future__ import annotations

import pytest

from tests.pacing.matrix import LIMITS, Cell, compare

HELD = [(limit, bunch) for limit in LIMITS for bunch in (1, 5)]
HELD.remove(("bucket 20/s", 5))  # a timer a millisecond late is a refusal there


@pytest.mark.parametrize(("limit", "bunch"), HELD)
def test_pacing_is_no_worse_than_none(limit: str, bunch: int) -> None:
    """As many calls are answered in time, and they wait no longer."""
    cell = Cell(1, limit, 0.2, bunch, 0.5, 0.0)
    compared = compare(cell, seed=102)
    assert not compared.worse(cell.demand), compared


def test_of_what_is_asked_beyond_a_limit_as_much_is_answered() -> None:
    """Three times of it, each call with ten seconds, and with far fewer refusals."""
    cell = Cell(1, "bucket 20/s, burst 5", 3.0, 1, 0.5, 0.0)
    compared = compare(cell, seed=102)
    assert not compared.worse(cell.demand), compared
    assert compared.ours.refused < compared.naive.refused / 10


def test_what_is_judged_can_be_missed() -> None:
    """Two clients on a bucket without any burst are still worse off than without pacers."""
    cell = Cell(2, "bucket 20/s", 0.9, 1, 0.5, 0.0)
    assert "answered" == compare(cell, seed=102).worse(cell.demand)
