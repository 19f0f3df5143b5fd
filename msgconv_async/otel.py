"""Calls as spans and metrics of OpenTelemetry: extra ``otel``.

    session = ConversationSession(on_event=OpenTelemetry())

A call is a span; its attempts and retries are events of it. Metrics follow the semantic conventions
for HTTP clients (``http.client.request.duration``), and add what they know nothing of: the wait for
a turn, retries, and calls that share a request. Account ids stand in spans only: as an attribute of
metrics, each would make a time series of its own.
"""

from __future__ import annotations

from contextvars import ContextVar, Token
from typing import NamedTuple

from msgconv_async import checks
from msgconv_async.errors import ConfigurationError, MsgConvError
from msgconv_async.events import Attempt, CallBegan, CallEnded, Event, Retry
from msgconv_async.version import __version__

try:
    from opentelemetry import context, metrics, trace
    from opentelemetry.util.types import AttributeValue
except ImportError:
    raise ConfigurationError(
        "msgconv_async.otel needs opentelemetry-api: pip install 'msgconv-async[otel]'"
    ) from None

_NAME = "msgconv_async"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
"""The buckets that the conventions give for the duration of a request."""
_LONG_SECONDS = (*_SECONDS, 15, 30, 60, 120, 300)
_CLIENT_ERROR = 400


class _Call(NamedTuple):
    """The call that is under way in a context."""

    span: trace.Span
    token: Token[context.Context]


class OpenTelemetry:
    """Takes the events of sessions: give it as ``on_event``. Several sessions may share one.

    Args:
        tracer_provider: Where spans go; None takes the global one.
        meter_provider: Where metrics go; None takes the global one.

    Raises:
        ConfigurationError: A provider is something else.
    """

    def __init__(
        self,
        *,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
    ) -> None:
        for name, given, kind in (
            ("tracer_provider", tracer_provider, trace.TracerProvider),
            ("meter_provider", meter_provider, metrics.MeterProvider),
        ):
            if given is not None:
                checks.instance(name, given, kind, f"a {kind.__name__} of OpenTelemetry, or None")
        self._tracer = trace.get_tracer(_NAME, __version__, tracer_provider)
        meter = metrics.get_meter(_NAME, __version__, meter_provider)
        # A request may run in a task of its own, for several calls. The task inherits the context
        # of the call that it began with.
        self._call = ContextVar[_Call | None]("msgconv_async.call", default=None)
        self._requests = meter.create_histogram(
            "http.client.request.duration",
            "s",
            "Duration of HTTP client requests.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._queued = meter.create_histogram(
            "msgconv.client.queue.duration",
            "s",
            "How long requests waited for their account's turn.",
            explicit_bucket_boundaries_advisory=_LONG_SECONDS,
        )
        self._calls = meter.create_histogram(
            "msgconv.client.call.duration",
            "s",
            "Duration of calls, with queue, login, requests and waits.",
            explicit_bucket_boundaries_advisory=_LONG_SECONDS,
        )
        self._active = meter.create_up_down_counter(
            "msgconv.client.active_calls", "{call}", "Calls under way."
        )
        self._retries = meter.create_counter(
            "msgconv.client.retries",
            "{retry}",
            "Attempts that failed and were followed by another.",
        )

    def __call__(self, event: Event) -> None:
        """Take note of an event."""
        match event:
            case CallBegan():
                self._began(event)
            case Attempt():
                self._attempted(event)
            case Retry():
                self._repeats(event)
            case CallEnded():
                self._ended(event)

    def _began(self, event: CallBegan) -> None:
        span = self._tracer.start_span(
            "msgconv call", attributes={"msgconv.account.id": event.account_id}
        )
        token = context.attach(trace.set_span_in_context(span))
        self._call.set(_Call(span, token))
        self._active.add(1)

    def _attempted(self, event: Attempt) -> None:
        known: dict[str, AttributeValue] = {
            "http.request.method": event.method,
            "server.address": event.host,
            "server.port": event.port,
        }
        if event.status is not None:
            known["http.response.status_code"] = event.status
        if kind := _kind_of_failure(event):
            known["error.type"] = kind
        self._requests.record(event.seconds, known)
        if event.purpose == "question":
            self._queued.record(event.queued, {"server.address": event.host})
        if call := self._recording():
            known |= {
                "msgconv.purpose": event.purpose,
                "msgconv.queued": event.queued,
                "msgconv.duration": event.seconds,
            }
            if event.number > 1:
                known["http.request.resend_count"] = event.number - 1
            call.span.add_event("attempt", known)

    def _repeats(self, event: Retry) -> None:
        kind = _name(event.error)
        self._retries.add(1, {"error.type": kind})
        if call := self._recording():
            told: dict[str, AttributeValue] = {
                "error.type": kind,
                "msgconv.wait": event.wait,
                "msgconv.number": event.number,
            }
            call.span.add_event("retry", told)

    def _recording(self) -> _Call | None:
        """Return the call that a request is made for, if it is still under way."""
        call = self._call.get()
        return call if call is not None and call.span.is_recording() else None

    def _ended(self, event: CallEnded) -> None:
        self._active.add(-1)
        known: dict[str, AttributeValue] = {"msgconv.source": event.source}
        if event.cancelled:
            known["error.type"] = "cancelled"
        elif event.error is not None:
            known["error.type"] = _name(event.error)
        self._calls.record(event.seconds, known)
        if (call := self._call.get()) is None:
            return
        self._call.set(None)
        call.span.set_attributes(known)
        if event.error is not None:
            call.span.set_status(trace.Status(trace.StatusCode.ERROR, str(event.error)))
        context.detach(call.token)
        call.span.end()


def _kind_of_failure(event: Attempt) -> str:
    """Return the conventions' ``error.type``: the status, or the name of the error."""
    if event.cancelled:
        return "cancelled"
    if event.status is not None and event.status >= _CLIENT_ERROR:
        return str(event.status)
    return _name(event.error) if event.error is not None else ""


def _name(error: MsgConvError) -> str:
    return type(error).__name__
