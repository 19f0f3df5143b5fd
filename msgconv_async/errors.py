"""Everything this library raises on purpose: one tree, so that one ``except`` can hold it."""

from __future__ import annotations

from typing import Any


class MsgConvError(Exception):
    """The root of every error that this library raises on purpose.

    All of them pickle, so they can cross a process pool, and none of them carries a secret.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(cls: type[MsgConvError], args: tuple[Any, ...], state: dict[str, Any]) -> MsgConvError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class InvalidQuery(MsgConvError, ValueError):
    """A question that the server would refuse. It is never sent.

    Attributes:
        parameter: The API's name of the parameter at fault, such as ``"interval"``.
        value: The value that was given.
    """

    def __init__(self, parameter: str, value: object, rule: str) -> None:
        self.parameter = parameter
        self.value = value
        super().__init__(f"{parameter}={_short(value)}: {rule}")


class ConfigurationError(MsgConvError, ValueError):
    """An account, a host, credentials or a setting that cannot work. Nothing was sent."""


class SessionUnusable(MsgConvError, RuntimeError):
    """The session is closed, was never entered, or belongs to another event loop."""


class ApiError(MsgConvError):
    """The service answered with a status that is not success.

    Attributes:
        status: The HTTP status code.
        account_id: The account that was asked about.
        excerpt: The beginning of the response body, one line, secrets blanked out.
    """

    def __init__(self, message: str, *, status: int, account_id: str, excerpt: str = "") -> None:
        self.status = status
        self.account_id = account_id
        self.excerpt = excerpt
        text = f"account {account_id}: {message} (HTTP {status})"
        super().__init__(f"{text}: {excerpt}" if excerpt else text)


class BadRequest(ApiError):
    """400: the service found the question or its body wrong. Asking again will not help."""


class Unauthorized(ApiError):
    """401, 403, or 451 at login: the account is unknown or the credentials are not accepted."""


class RateLimited(ApiError):
    """429, still, after every retry that the policy and the timeout allow.

    Attributes:
        retry_after: Seconds that the service asked for in its last answer, or None.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 429,
        account_id: str,
        excerpt: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, status=status, account_id=account_id, excerpt=excerpt)
        self.retry_after = retry_after


class ServerError(ApiError):
    """5xx, still, after every retry that the policy and the timeout allow."""


class UnexpectedResponse(MsgConvError):
    """The service answered 200 with something the API does not describe.

    Attributes:
        where: Where in the document, as a JSON path such as
            ``$.metricsByIntervals[3].metricsData.metricsTotals``, or a byte offset; empty if the
            fault is not in one place (a body over the size limit).
        account_id: The account that was asked about; empty where only bytes were decoded.
    """

    def __init__(self, message: str, *, where: str = "", account_id: str = "") -> None:
        self.where = where
        self.account_id = account_id
        text = f"account {account_id}: {message}" if account_id else message
        super().__init__(f"{text} (at {where})" if where else text)


class ConnectionFailed(MsgConvError):
    """The service could not be reached, or the connection broke before the answer was whole.

    Attributes:
        account_id: The account that was asked about.
    """

    def __init__(self, message: str, *, account_id: str) -> None:
        self.account_id = account_id
        super().__init__(f"account {account_id}: {message}")


class DeadlineExceeded(MsgConvError, TimeoutError):
    """The call's timeout ran out, or the next wait would have overrun it.

    Attributes:
        account_id: The account that was asked about.
        timeout: The call's timeout, in seconds.
    """

    def __init__(self, message: str, *, account_id: str, timeout: float) -> None:
        self.account_id = account_id
        self.timeout = timeout
        super().__init__(f"account {account_id}: {message} (timeout {timeout:g} s)")


def _short(value: object, limit: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
