from __future__ import annotations

import pytest

from msgconv_async.cli.figures import duration


@pytest.mark.parametrize(
    ("milliseconds", "shown"),
    [
        (0, "0.0s"),
        (1000.4, "1.0s"),
        (59_949, "59.9s"),
        (59_951, "1m 00s"),
        (754_000, "12m 34s"),
        (3_599_700, "1h 00m"),
        (3_720_000, "1h 02m"),
        (-1, "-0.0s"),
        (None, ""),
    ],
)
def test_a_handling_time_is_written_for_readers(milliseconds: float | None, shown: str) -> None:
    """No second is written as 60, and what is not known is left empty."""
    assert shown == duration(milliseconds)
