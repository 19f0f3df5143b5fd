"""The exceptions that this library raises on purpose. All of them derive from `MsgConvError`."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import Any


class MsgConvError(Exception):
    """The root of every error that this library raises on purpose.

    All of them pickle, so they can cross a process pool. They carry no secret.
    """

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)

    def __copy__(self) -> MsgConvError:
        """Return a copy without traceback and causes, which hold the frames of a request.

        Other libraries, tblib among them, let `copyreg` keep both for any exception.
        """
        return _rebuild(type(self), self.args, self.__dict__)


def _rebuild(cls: type[MsgConvError], args: tuple[Any, ...], state: dict[str, Any]) -> MsgConvError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class InvalidQuery(MsgConvError, ValueError):
    """A question that the server would refuse. It is never sent.

    Attributes:
        parameter: The parameter of `ConversationQuery` at fault, such as ``"skill_ids"``.
        value: The value that was given; after pickling, its text if it does not pickle.
    """

    def __init__(self, parameter: str, value: object, rule: str) -> None:
        self.parameter = parameter
        self.value = value
        super().__init__(f"{parameter}={short(value)}: {rule}")

    def __reduce__(self) -> tuple[Any, ...]:
        rebuild, (kind, args, state) = super().__reduce__()
        try:
            pickle.dumps(self.value)
        except (pickle.PicklingError, AttributeError, TypeError):
            state = state | {"value": short(self.value)}
        return rebuild, (kind, args, state)


class ConfigurationError(MsgConvError, ValueError):
    """An account, a host, credentials or a setting that cannot work. Nothing was sent."""


class SessionUnusable(MsgConvError, RuntimeError):
    """The session is closed, was never entered, or belongs to another event loop."""


class ApiError(MsgConvError):
    """The service answered with a status that is not success.

    Attributes:
        status: The HTTP status code.
        account_id: The account that was asked about.
        excerpt: The beginning of the response body, on one line, without invisible characters.
            Secrets are blanked out. It is ``"***"`` alone where too much of a secret was in it.
        retry_after: Seconds that the service asked to wait in its last answer, or None.
        request_id: The name that the service, or a proxy before it, gave the request: what its
            support asks for. Empty if it sent none.
        headers: The response's headers that help its support, by their names in small letters: ids,
            ``date``, ``server``, ``via``, and those about limits. No others, and no secret.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        account_id: str,
        excerpt: str = "",
        retry_after: float | None = None,
        request_id: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status = status
        self.account_id = account_id
        self.excerpt = excerpt
        self.retry_after = retry_after
        self.request_id = request_id
        self.headers = dict(headers or {})
        known = f", request {request_id}" if request_id else ""
        text = f"account {account_id}: {message} (HTTP {status}{known})"
        super().__init__(f"{text}: {excerpt}" if excerpt else text)


class BadRequest(ApiError):
    """400: the service found the question or its body wrong. Asking again will not help."""


class Unauthorized(ApiError):
    """401, 403, or a refused login (400, 451): unknown account, or credentials not accepted."""


class RateLimited(ApiError):
    """429 after every retry that the timeout allows, or a demand to wait unreasonably long.

    Also 503 of a gateway whose queue for the account stays too long.
    """


class ServerError(ApiError):
    """5xx after every retry that the policy and the timeout allow."""


class UnexpectedResponse(MsgConvError):
    """The service answered 200 with something the API does not describe.

    Attributes:
        where: The place in the document: a JSON path such as
            ``$.metricsByIntervals[3].metricsData.metricsTotals``, or a byte offset. Empty if the
            fault is not in one place (a body over the size limit).
        account_id: The account that was asked about; empty where only bytes were decoded.
    """

    def __init__(self, message: str, *, where: str = "", account_id: str = "") -> None:
        self.where = where
        self.account_id = account_id
        super().__init__(message)

    def __str__(self) -> str:
        """Return what happened, to which account, and where."""
        account = f"account {self.account_id}: " if self.account_id else ""
        return f"{account}{self.args[0]}{f' (at {self.where})' if self.where else ''}"


class ConnectionFailed(MsgConvError):
    """The service could not be reached, or the connection broke before the answer was whole.

    Attributes:
        account_id: The account that was asked about.
        repeatable: Whether a later try may succeed. False if the cause is no outage, such as a
            certificate that is not accepted.
    """

    def __init__(self, message: str, *, account_id: str, repeatable: bool = True) -> None:
        self.account_id = account_id
        self.repeatable = repeatable
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


def short(value: object, limit: int = 60) -> str:
    """Write a value for an error's text, cut to a number of characters."""
    try:
        text = repr(value)
    except ValueError:  # an int of more digits than Python prints
        text = f"<{type(value).__name__} too long to print>"
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
