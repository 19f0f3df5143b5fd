from __future__ import annotations

import pytest

from msgconv_async.cli.console import complain
from msgconv_async.cli.progress import Progress


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_elsewhere_than_in_a_terminal_lines_tell_now_and_then_how_far_it_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every ten seconds at the most: what is done, the pace, the time left; then the sum."""
    clock = Clock()
    with Progress(2000, clock=clock) as progress:
        for number in range(2000):
            clock.now += 0.0125
            progress.done(rows=10, failed=number < 3)
    complain(progress.summary())
    out, err = capsys.readouterr()
    assert "" == out
    assert [
        "msgconv: 800 of 2,000 accounts (3 failed), 8,000 rows, 80.0 accounts/s, 15.0s left",
        "msgconv: 1,600 of 2,000 accounts (3 failed), 16,000 rows, 80.0 accounts/s, 5.0s left",
        "msgconv: 1,997 of 2,000 accounts (3 failed), 20,000 rows in 25.0s",
    ] == err.splitlines()


def test_a_short_job_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """What it came to."""
    clock = Clock()
    with Progress(1, clock=clock) as progress:
        clock.now += 0.5
        progress.done(rows=1)
    assert ("", "") == capsys.readouterr()
    assert "1 of 1 account, 1 row in 0.5s" == progress.summary()
