"""When a request that failed is asked again.

LivePerson's retry policy: after 429 at least 1 second, 5 for a login or a token; after 5xx three
retries, 5, 10 and 15 seconds later; any other 4xx never. ``Retry-After`` (RFC 9110, section
10.2.3) wins where it asks for longer. Every request here only reads, so each may be repeated.
"""

import asyncio
import functools
import logging
import math
import random
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Protocol, TypeVar

from msgconv_async.errors import (
    ApiError,
    ConfigurationError,
    ConnectionFailed,
    MsgConvError,
    RateLimited,
    ServerError,
)

T = TypeVar("T")
E = TypeVar("E", bound=MsgConvError)

Repeatable = RateLimited | ServerError | ConnectionFailed
"""What a later try may not meet again."""

_LOG = logging.getLogger("msgconv_async")
_SECONDS = re.compile(r"[0-9]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how late a failed request is repeated.

    Nothing here outlives the call's timeout: when the next wait would overrun it, the call fails
    at once with the error at hand.

    Args:
        waits: Seconds before each retry after a 5xx or a broken connection; as many retries as
            there are waits.
        throttle_wait: The least seconds before a request answered 429 is repeated. These retries
            are not counted; the timeout bounds them.
        login_throttle_wait: The same for a login or a token request.
        retry_after_ceiling: Seconds. A ``Retry-After`` above it ends the call at once, rather
            than in a sleep that looks like a hang.
        jitter: Each wait is lengthened by a random share of itself, up to this one, so that
            clients that failed together do not return together. A wait is never shortened.

    Raises:
        ConfigurationError: A value is negative or not a number.
    """

    _: KW_ONLY
    waits: Sequence[float] = (5.0, 10.0, 15.0)
    throttle_wait: float = 1.0
    login_throttle_wait: float = 5.0
    retry_after_ceiling: float = 120.0
    jitter: float = 0.1

    def __post_init__(self) -> None:
        waits: object = self.waits
        if not isinstance(waits, Iterable) or isinstance(waits, str):
            raise ConfigurationError(f"RetryPolicy: waits={waits!r}: give a list of seconds")
        object.__setattr__(self, "waits", tuple(waits))
        named = {name: getattr(self, name) for name in _SETTINGS}
        for name, value in [*named.items(), *(("waits", wait) for wait in self.waits)]:
            if not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise ConfigurationError(
                    f"RetryPolicy: {name} has {value!r}: it must be a number, 0 or more"
                )

    def lengthened(self, seconds: float) -> float:
        """Return a wait with its jitter added."""
        return seconds * (1.0 + self.jitter * random.random())  # noqa: S311 - no secret


_SETTINGS = ("throttle_wait", "login_throttle_wait", "retry_after_ceiling", "jitter")


class Deadline(Protocol):
    """The instant of the event loop's clock by which a call must be over; it may move."""

    @property
    def at(self) -> float:
        """Seconds of the event loop's clock, or infinity."""

    @property
    def timeout(self) -> float:
        """Seconds that the call was given, or infinity."""

    def failed(self, error: MsgConvError) -> None:
        """Take note of a try that failed, to be named should the time run out."""


class Retries:
    """How long to wait before the next try of one request.

    Args:
        policy: How often and how late.
        deadline: No wait is begun that would overrun it.
        throttle_wait: The least seconds to wait after 429.
        eta: Tells how many seconds from now the next exchange could be made at the earliest.
    """

    def __init__(
        self,
        policy: RetryPolicy,
        deadline: Deadline,
        throttle_wait: float,
        eta: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._policy = policy
        self._deadline = deadline
        self._throttle_wait = throttle_wait
        self._eta = eta
        self._waits = iter(policy.waits)

    def wait_after(self, error: Repeatable) -> float:
        """Return the seconds to wait after a try that failed.

        Raises:
            MsgConvError: The error itself, when it may not be repeated or not in time.
        """
        policy, throttled = self._policy, isinstance(error, RateLimited)
        asked = (error.retry_after or 0.0) if isinstance(error, ApiError) else 0.0
        least = self._throttle_wait if throttled else next(self._waits, None)
        if least is None or (isinstance(error, ConnectionFailed) and not error.repeatable):
            raise error
        if asked > policy.retry_after_ceiling:
            raise _explained(
                error,
                f"it asks to wait {asked:g} s, more than the policy's"
                f" {policy.retry_after_ceiling:g} s",
            ) from None
        wait = max(policy.lengthened(least), asked)
        begins = max(wait, self._eta())
        if asyncio.get_running_loop().time() + begins >= self._deadline.at:
            raise _explained(
                error, f"another try in {begins:.1f} s would be past the timeout"
            ) from None
        level = logging.INFO if throttled else logging.WARNING
        _LOG.log(level, "%s; again in %.1f s", error, wait)
        self._deadline.failed(error)
        return wait


async def retrying(send: Callable[[], Awaitable[T]], retries: Retries) -> T:
    """Send, and send again as the policy and the deadline allow.

    Args:
        send: Makes one exchange.
        retries: Tells when to make another.

    Returns:
        What `send` returned.

    Raises:
        ApiError: The last one, when it may not be repeated or not in time.
        ConnectionFailed: Likewise.
    """
    while True:
        try:
            return await send()
        except (RateLimited, ServerError, ConnectionFailed) as error:
            wait = retries.wait_after(error)
        await asyncio.sleep(wait)


def _explained(error: E, why: str) -> E:
    """Add to an error why it is the last one."""
    error.args = (f"{error.args[0]}; {why}",)
    return error


def parse_retry_after(value: str | None, now: datetime) -> float | None:
    """Read a ``Retry-After`` header.

    Args:
        value: The header: whole seconds or an HTTP date in any of RFC 9110's three forms.
        now: The instant that a date is counted from, aware: the answer's own ``Date`` where it
            has one, so that a wrong clock on either side does not matter.

    Returns:
        Seconds from now, 0 or more (a date gone by is 0, a number beyond all floats is infinity);
        None where the header is absent or makes no sense, which includes negative numbers.
    """
    text = (value or "").strip()
    if _SECONDS.fullmatch(text):
        return float(text)
    date = parse_http_date(text)
    return None if date is None else max(0.0, (date - now).total_seconds())


@functools.lru_cache(maxsize=16)  # a busy client reads the same second's date again and again
def parse_http_date(value: str | None) -> datetime | None:
    """Read an HTTP date (RFC 9110, section 5.6.7).

    Returns:
        The instant, in UTC; None if it is none, or lies outside the years 1 to 9999.
    """
    try:
        date = parsedate_to_datetime(value or "")
        return date.replace(tzinfo=UTC) if date.tzinfo is None else date.astimezone(UTC)
    except Exception:  # noqa: BLE001 - what this parser raises is not told, and it is a stranger's
        return None
