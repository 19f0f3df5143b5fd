"""What a session tells while it works: the events of ``ConversationSession(on_event=...)``.

A call begins and ends. In between, unless it shares another call's request or gets an answer that
was kept, it makes attempts; after one that failed it may wait and make another. No event holds a
secret. An error in it is a copy: without a traceback, whose frames hold what signed the request.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Literal, TypeAlias

import msgspec

from msgconv_async.errors import MsgConvError

_LOG = logging.getLogger("msgconv_async")

Source: TypeAlias = Literal["fetched", "shared", "hit"]
"""Where an answer comes from: a request of the call's own, another call's, or what was kept."""

Purpose: TypeAlias = Literal["question", "login", "lookup"]
"""What a request is for: the metrics; a token or a user's session; an account's host."""


class CallBegan(msgspec.Struct, frozen=True):
    """A call began: a `fetch`, or one question of `fetch_many` or `follow`.

    The event comes in the task of the call, and so does the `CallEnded` that follows it.

    Attributes:
        account_id: The account that is asked about.
    """

    account_id: str


class Attempt(msgspec.Struct, frozen=True):
    """A request was made, and is over.

    Attributes:
        account_id: The account that it is about.
        purpose: What it was for.
        number: 1 for the first request, 2 for the one that repeats it, and so on.
        method: The HTTP method.
        host: The host that was asked.
        port: Its port.
        queued: Seconds that it waited for its turn before it was sent.
        seconds: Seconds from sending it until its answer was whole, or until it failed.
        status: The HTTP status; None if there was none.
        error: What went wrong, or None.
        cancelled: Whether it was broken off: nobody waited any more, or a call's time ran out.
    """

    account_id: str
    purpose: Purpose
    number: int
    method: str
    host: str
    port: int
    queued: float
    seconds: float
    status: int | None = None
    error: MsgConvError | None = None
    cancelled: bool = False


class Retry(msgspec.Struct, frozen=True):
    """An attempt failed, and another one will follow.

    Attributes:
        account_id: The account that it is about.
        number: The number of the attempt that failed.
        error: How it failed.
        wait: Seconds until the next one may be made; its turn may come later.
    """

    account_id: str
    number: int
    error: MsgConvError
    wait: float


class CallEnded(msgspec.Struct, frozen=True):
    """A call is over.

    Attributes:
        account_id: The account that was asked about.
        seconds: Seconds that the call took: queue, login, requests and waits.
        source: Where its answer comes from.
        error: What went wrong, or None.
        cancelled: Whether the caller gave up.
    """

    account_id: str
    seconds: float
    source: Source = "fetched"
    error: MsgConvError | None = None
    cancelled: bool = False


Event: TypeAlias = CallBegan | Attempt | Retry | CallEnded

Emit: TypeAlias = Callable[[Event], None]


def emitter(on_event: Callable[[Event], object]) -> Emit:
    """Return a function that hands events on, and lets no exception of the receiver out.

    The first exception is logged with its traceback; the later ones would say the same.
    """
    logged = False

    def emit(event: Event) -> None:
        nonlocal logged
        try:
            on_event(event)
        except Exception:  # noqa: BLE001 - whatever a receiver raises, a call goes on
            if not logged:
                logged = True
                _LOG.exception("on_event raised an exception; this is logged once only")

    return emit


def is_asynchronous(function: object) -> bool:
    """Tell whether calling a function would only make a coroutine."""
    call = getattr(function, "__call__", None)  # noqa: B004 - of an object that may be called
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)
