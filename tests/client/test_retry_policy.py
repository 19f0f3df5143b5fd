import math
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msgconv_async import ConfigurationError, RetryPolicy
from msgconv_async.client.http.retry import parse_http_date, parse_retry_after

NOW = datetime(1994, 11, 6, 8, 49, 7, tzinfo=UTC)
DATES = [
    "Sun, 06 Nov 1994 08:49:37 GMT",
    "Sunday, 06-Nov-94 08:49:37 GMT",
    "Sun Nov  6 08:49:37 1994",
]
"""One instant in the three forms of RFC 9110, section 5.6.7, by its own example."""


def test_the_default_policy_is_the_service_s_own() -> None:
    """5, 10 and 15 seconds after a failure; 1 after a 429, and 5 where it was a login."""
    policy = RetryPolicy()

    assert (5, 10, 15) == policy.waits
    assert 1 == policy.throttle_wait
    assert 5 == policy.login_throttle_wait
    assert 120 == policy.retry_after_ceiling
    assert 20 == policy.attempt_timeout


@pytest.mark.parametrize("wrong", [-1, math.nan, math.inf, "5", None])
@pytest.mark.parametrize(
    "name", ["throttle_wait", "login_throttle_wait", "retry_after_ceiling", "jitter"]
)
def test_a_policy_that_cannot_work_is_refused(name: str, wrong: Any) -> None:
    """Negative, endless or no number: the setting is named."""
    with pytest.raises(ConfigurationError, match=name):
        RetryPolicy(**{name: wrong})
    with pytest.raises(ConfigurationError, match="waits"):
        RetryPolicy(waits=[1, wrong])


@pytest.mark.parametrize("wrong", [0, -1, math.nan, "5"])
def test_a_time_for_one_try_that_is_none_is_refused(wrong: Any) -> None:
    """Above 0 seconds, or None for no limit."""
    with pytest.raises(ConfigurationError, match="attempt_timeout"):
        RetryPolicy(attempt_timeout=wrong)
    assert RetryPolicy(attempt_timeout=None).attempt_timeout is None


def test_a_policy_is_a_value() -> None:
    """It is hashable, and does not change with the list it was made from."""
    waits = [1.0, 2.0]
    policy = RetryPolicy(waits=waits)
    waits.append(3.0)

    assert hash(RetryPolicy(waits=(1, 2))) == hash(policy)
    assert RetryPolicy(waits=(1, 2)) == policy


@given(st.floats(0, 1e6), st.floats(0, 10))
def test_jitter_lengthens_a_wait_and_never_shortens_it(seconds: float, jitter: float) -> None:
    """A wait lies between itself and itself plus the share that jitter allows."""
    wait = RetryPolicy(jitter=jitter).lengthened(seconds)

    assert seconds <= wait <= seconds * (1 + jitter) * (1 + 1e-9)


def test_jitter_differs() -> None:
    """Clients that failed together do not come back together."""
    policy = RetryPolicy()

    assert 1 < len({policy.lengthened(5) for _ in range(10)})


@pytest.mark.parametrize("value", ["0", "1", " 30 ", "0030", "120", "86400"])
def test_retry_after_in_seconds(value: str) -> None:
    """Whole seconds are seconds."""
    assert int(value) == parse_retry_after(value, NOW)


@pytest.mark.parametrize("value", DATES)
def test_retry_after_as_a_date(value: str) -> None:
    """All three forms of an HTTP date are counted from the server's own time."""
    assert datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC) == parse_http_date(value)
    assert 30 == parse_retry_after(value, NOW)


@pytest.mark.parametrize("value", DATES)
def test_a_date_gone_by_asks_for_no_wait(value: str) -> None:
    """A date is never counted backwards."""
    assert 0 == parse_retry_after(value, NOW.replace(hour=9))


def test_a_wait_beyond_all_numbers_is_long_and_not_garbage() -> None:
    """However many digits: it asks for longer than any ceiling."""
    assert 1e18 < (parse_retry_after("9" * 30, NOW) or 0)
    assert math.inf == parse_retry_after("9" * 4000, NOW)


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        " ",
        "soon",
        "-1",
        "-30",
        "+30",
        "1.5",
        "1e3",
        "0x10",
        "٣",
        "3 s",
        "30, 60",
        "nan",
        "inf",
        "Sun, 99 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 25:49:37 GMT",
        "Sun, 06 Nov 10000 08:49:37 GMT",
        "06 Nov",
    ],
)
def test_garbage_and_negatives_are_ignored(value: str | None) -> None:
    """What RFC 9110 does not describe says nothing."""
    assert parse_retry_after(value, NOW) is None


OFFSETS = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
HEADERS = (
    st.text()
    | st.from_regex(r"\A[0-9]+\Z")
    | st.datetimes(timezones=OFFSETS | st.just(UTC)).map(format_datetime)
)


@given(HEADERS)
def test_no_header_breaks_the_parser(value: str) -> None:
    """Whatever is sent, the answer is a number of seconds, 0 or more, or None."""
    seconds = parse_retry_after(value, NOW)

    assert seconds is None or 0 <= seconds


@given(HEADERS)
def test_a_date_is_an_instant_that_can_be_reckoned_with(value: str) -> None:
    """In UTC, where it lies at an end of the calendar as well; or it is none."""
    date = parse_http_date(value)

    assert date is None or timedelta(0) == date.utcoffset()


@given(st.integers(0, 98 * 365 * 86400).map(lambda seconds: datetime.fromtimestamp(seconds, UTC)))
def test_every_form_of_a_date_is_understood(at: datetime) -> None:
    """A date says the same in all three forms."""
    day, month = at.strftime("%A"), at.strftime("%b")
    forms = [
        f"{day[:3]}, {at:%d} {month} {at:%Y %H:%M:%S} GMT",
        f"{day}, {at:%d}-{month}-{at:%y %H:%M:%S} GMT",
        f"{day[:3]} {month} {at.day:2} {at:%H:%M:%S %Y}",
    ]

    assert [at] * 3 == [parse_http_date(form) for form in forms]
