"""When a request that failed is asked again.

LivePerson's retry policy: after 429 at least 1 second, 5 for a login or a token; after 5xx three
retries, 5, 10 and 15 seconds later; any other 4xx never. ``Retry-After`` (RFC 9110, section
10.2.3) wins where it asks for longer. Every request here only reads, so each may be repeated.

A rule that is right for one request is too much when all requests fail: three retries of each are
four times the traffic, for a service that is down. So a `RetryQuota` pays for retries. All calls of
a session share it, and answers fill it again, as in the AWS SDKs.
"""

import asyncio
import copy
import functools
import logging
import math
import random
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import KW_ONLY, dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeAlias, TypeVar

from msgconv_async import checks
from msgconv_async.client.http.deadlines import Deadline
from msgconv_async.errors import (
    ApiError,
    ConnectionFailed,
    MsgConvError,
    RateLimited,
    ServerError,
)
from msgconv_async.events import Emit, Retry

T = TypeVar("T")
E = TypeVar("E", bound=MsgConvError)

Failed: TypeAlias = ApiError | ConnectionFailed
"""The ways in which an exchange fails."""

Repeatable = RateLimited | ServerError | ConnectionFailed
"""Failures that a later try may not meet again."""

_LOG = logging.getLogger("msgconv_async")
_SECONDS = re.compile(r"[0-9]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how late a failed request is repeated.

    The call's timeout bounds everything here: when the next wait would overrun it, the call fails
    at once with the last error. The call also fails at once when too many retries of the session
    led to nothing lately: in an outage they are only more load.

    Args:
        waits: Seconds before each retry after a 5xx or a broken connection; as many retries as
            there are waits.
        throttle_wait: The least seconds before a request answered 429 is repeated. These retries
            are not counted. The timeout bounds them; so does the session's quota of retries, unless
            the account goes on answering other requests.
        login_throttle_wait: The same for a login or a token request.
        retry_after_ceiling: Seconds. A ``Retry-After`` above it ends the call at once, rather
            than in a sleep that looks like a hang.
        jitter: Each wait is lengthened by a random share of itself, up to this one, so that
            clients that failed together do not return together. A wait is never shortened.
        attempt_timeout: Seconds that one exchange (a question, a login or a look-up of a host) may
            take, from sending the request until its answer is whole. A longer one is broken off and
            counts as a broken connection. Answers take seconds. The default leaves them several
            times that, and still lets a call of a minute try twice. A lost request holds the
            account's slot for this time. None sets no limit but the call's timeout.

    Raises:
        ConfigurationError: A value is negative or not a number; ``attempt_timeout`` is 0.
    """

    _: KW_ONLY
    waits: Sequence[float] = (5.0, 10.0, 15.0)
    throttle_wait: float = 1.0
    login_throttle_wait: float = 5.0
    retry_after_ceiling: float = 120.0
    jitter: float = 0.1
    attempt_timeout: float | None = 20.0

    def __post_init__(self) -> None:
        waits: object = self.waits
        if not isinstance(waits, Iterable) or isinstance(waits, _NO_LIST):
            raise checks.refused("RetryPolicy: waits", waits, "a list of seconds, such as [5, 10]")
        object.__setattr__(self, "waits", tuple(waits))
        named = {name: getattr(self, name) for name in _SETTINGS}
        for name, value in [*named.items(), *(("waits", wait) for wait in self.waits)]:
            checks.number(f"RetryPolicy: {name}", value, "a number, 0 or more")
        if self.attempt_timeout is not None:
            checks.number(
                "RetryPolicy: attempt_timeout",
                self.attempt_timeout,
                "above 0 seconds, or None",
                above=True,
                most=math.inf,
            )

    def lengthened(self, seconds: float) -> float:
        """Return a wait with its jitter added."""
        return seconds * (1.0 + self.jitter * random.random())  # noqa: S311 - no secret


_NO_LIST = (str, bytes, bytearray, memoryview, Mapping, AbstractSet)
"""Iterables that are no list of seconds: texts, and what has no order."""

_SETTINGS = ("throttle_wait", "login_throttle_wait", "retry_after_ceiling", "jitter")


class RetryQuota:
    """A budget of tokens that all calls of a session share: retries cost some, answers earn some.

    The scheme is that of the AWS SDKs (their "standard" mode), and so are its numbers: a call that
    is answered in the end gets its price back, and an answer at the first try earns a little. So a
    fault that passes costs nothing, and retries go on even if one request in six fails for good. If
    every request fails, `FULL` pays for the first retry of a hundred requests, and then there are
    no retries.

    Two things differ. A request's second retry costs twice as much as its first, the third and all
    later ones three times: the more retries have failed, the less another is worth, and an outage
    spends the tokens on requests that had no retry yet. A retry after no answer in time costs no
    more than another: it holds up only its own account.
    """

    FULL = 500
    """The most tokens, and the number at the start."""
    PRICE = 5
    """Tokens that a request's first retry costs."""
    DEAREST = 3
    """The first retry of a request at the highest price, which is this many times `PRICE`."""
    EARNED = 1
    """Tokens that an answer at the first try earns."""

    def __init__(self) -> None:
        self.tokens = self.FULL

    def spend(self, tokens: int) -> bool:
        """Pay, if that is possible; tell whether it was."""
        if self.tokens < tokens:
            return False
        self.tokens -= tokens
        return True

    def answered(self, spent: int) -> None:
        """Take note that a request was answered, and of what was spent on it."""
        self.tokens = min(self.FULL, self.tokens + (spent or self.EARNED))


class Retries:
    """Whether and when one request is tried again.

    Args:
        policy: How often and how late.
        quota: Pays for it.
        deadline: No wait is begun that would overrun it.
        throttle_wait: The least seconds to wait after 429.
        eta: Returns in how many seconds the next exchange could be made at the earliest.
        emit: Takes the events; None if nobody listens.

    Attributes:
        number: The number of the attempt that is made now, or was made last.
    """

    def __init__(
        self,
        policy: RetryPolicy,
        quota: RetryQuota,
        deadline: Deadline,
        throttle_wait: float,
        *,
        eta: Callable[[], float] = lambda: 0.0,
        emit: Emit | None = None,
    ) -> None:
        self.number = 1
        self._emit = emit
        self._policy = policy
        self._quota = quota
        self._deadline = deadline
        self._throttle_wait = throttle_wait
        self._eta = eta
        self._waits = iter(policy.waits)
        self._paid = self._spent = 0

    async def wait_after(self, error: Repeatable, *, free: bool = False) -> None:
        """Wait until the failed request may be tried again.

        Args:
            error: How it failed.
            free: Whether another try costs nothing of the quota.

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
        if not free:
            self.pay_after(error)
        level = logging.INFO if throttled else logging.WARNING
        _LOG.log(level, "%s; again in %.1f s", error, wait)
        self._deadline.failed(error)
        self.repeats(error, wait)
        await asyncio.sleep(wait)

    def repeats(self, error: Failed, wait: float = 0.0) -> None:
        """Count another attempt, and tell of it."""
        if self._emit is not None:
            self._emit(Retry(error.account_id, self.number, copy.copy(error), wait))
        self.number += 1

    def pay_after(self, error: Failed) -> None:
        """Pay for another try.

        Raises:
            MsgConvError: The error itself, when the quota is used up.
        """
        price = min(self._paid + 1, RetryQuota.DEAREST) * RetryQuota.PRICE
        if not self._quota.spend(price):
            raise _explained(
                error, "not tried again: too many retries of this session led to nothing lately"
            ) from None
        self._paid += 1
        self._spent += price

    def answered(self) -> None:
        """Take note that the request was answered."""
        self._quota.answered(self._spent)


async def retrying(send: Callable[[], Awaitable[T]], retries: Retries) -> T:
    """Send, and send again as the policy, the quota and the deadline allow.

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
            answer = await send()
        except (RateLimited, ServerError, ConnectionFailed) as error:
            failure = error
        else:
            retries.answered()
            return answer
        await retries.wait_after(failure)


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
        The instant, in UTC; None if the value is no date, or outside the years 1 to 9999.
    """
    try:
        date = parsedate_to_datetime(value or "")
        return date.replace(tzinfo=UTC) if date.tzinfo is None else date.astimezone(UTC)
    except Exception:  # noqa: BLE001 - the parser's errors are undocumented
        return None
