"""Where less is asked than the limit allows, pacing does no worse than none.

This is the part of the matrix that holds for every seed. `python -m benchmarks pacing --matrix`
plays all of it, and names the rest.
"""

from __future__ import annotations

import pytest

from tests.pacing.matrix import LIMITS, Cell, compare

BURSTLESS = ("bucket 20/s", "bucket 5/s")
LIGHT = [
    *((1, limit, demand) for limit in LIMITS for demand in (0.2, 0.5) if limit != "1 slot"),
    *((2, limit, 0.2) for limit in LIMITS if limit not in BURSTLESS),
    *((2, "bucket 20/s, burst 5", 0.5), (2, "bucket 20/s, burst 20", 0.5)),
    *((2, "20 slots", 0.5), (2, "20 in each second", 0.5)),
]


@pytest.mark.parametrize("bunch", [1, 5])
@pytest.mark.parametrize(("clients", "limit", "demand"), LIGHT)
def test_pacing_is_never_worse_than_none(
    clients: int, limit: str, demand: float, bunch: int
) -> None:
    """As many calls are answered in time, and they wait no longer; one in a hundred is a stray."""
    cell = Cell(clients, limit, demand, bunch, 0.5, 0.01)
    compared = compare(cell, seed=102)
    assert not compared.worse(demand), compared


def test_what_the_matrix_judges_can_be_missed() -> None:
    """Two clients on a bucket without any burst are still worse off than without pacers."""
    cell = Cell(2, "bucket 20/s", 0.9, 1, 0.5, 0.0)
    assert "answered" == compare(cell, seed=102).worse(cell.demand)
