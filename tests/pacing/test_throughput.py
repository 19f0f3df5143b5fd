"""What a limit let through, between moments at which it was known to be full."""

import pytest

from msgconv_async.pacing.recent import Start
from msgconv_async.pacing.throughput import Throughput


def _measured(*, full: bool = True, steady: bool = True) -> Throughput:
    throughput = Throughput()
    throughput.mark(10, 100.0, full=full, after_outage=False)
    throughput.steady = steady
    return throughput


def _start(seq: int, at: float) -> Start:
    return Start(at, seq, 1, "rate")


def test_accepted_by_time_is_the_rate_of_a_bucket_that_was_full_and_is_full_again() -> None:
    """51 starts in ten seconds, of which the last was refused."""
    throughput = _measured()
    throughput.refused += 1
    assert 5.0 == throughput.ceiling(_start(61, 110.0), 9.0)


def test_refusals_before_the_mark_do_not_count() -> None:
    throughput = Throughput()
    throughput.refused += 7
    throughput.mark(10, 100.0, full=True, after_outage=False)
    throughput.refused += 1
    assert 49 == throughput.accepted(_start(60, 110.0))


def test_nothing_is_measured_from_a_moment_that_was_not_full() -> None:
    assert 9.0 == _measured(full=False).ceiling(_start(61, 110.0), 9.0)


def test_a_few_starts_measure_nothing() -> None:
    assert 9.0 == _measured().ceiling(_start(15, 110.0), 9.0)


@pytest.mark.parametrize(("speed", "ceiling"), [(9.0, 7.0), (3.0, 3.0)])
def test_of_a_limit_that_moved_it_tells_half_and_never_more_than_the_speed(
    speed: float, ceiling: float
) -> None:
    throughput = _measured(steady=False)
    throughput.refused += 1
    assert ceiling == throughput.ceiling(_start(61, 110.0), speed)
