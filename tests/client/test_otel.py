"""Spans and metrics, as OpenTelemetry's own in-memory exporters see them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode, get_current_span

from msgconv_async import (
    Account,
    ConversationQuery,
    ConversationSession,
    DeadlineExceeded,
    Pacer,
    RetryPolicy,
    ServerError,
)
from msgconv_async.otel import OpenTelemetry
from msgconv_async.sandbox import Sandbox
from tests.client.support import BEARER, EVEN, QUERY, account, answering, serving

pytestmark = pytest.mark.looptime

WHO = Account("12345678", BEARER)


class Telemetry:
    """Providers of its own, and what came to them."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.meters = MeterProvider(metric_readers=[self._reader])
        self.hook = OpenTelemetry(tracer_provider=self.tracers, meter_provider=self.meters)

    def spans(self) -> list[ReadableSpan]:
        return [each for each in self._exporter.get_finished_spans() if each.name == "msgconv call"]

    def points(self, name: str) -> list[tuple[Mapping[str, Any], Any]]:
        """Return the attributes of a metric's points, and each point."""
        data: Any = self._reader.get_metrics_data()
        return [
            (dict(point.attributes), point)
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    telemetry = Telemetry()
    yield telemetry
    telemetry.tracers.shutdown()
    telemetry.meters.shutdown()


def events(span: ReadableSpan) -> list[tuple[str, Any]]:
    return [(each.name, each.attributes) for each in span.events]


async def test_a_call_is_a_span_with_its_attempts_and_retries(telemetry: Telemetry) -> None:
    """In order, with what the conventions call them."""
    async with Sandbox(accounts=1) as sandbox:
        who = account(sandbox)
        async with ConversationSession(
            base_url=sandbox.url, retry=EVEN, on_event=telemetry.hook
        ) as session:
            await session.fetch(who, QUERY)
            sandbox.fail_next(503)
            await session.fetch(who, ConversationQuery(120))

    first, second = telemetry.spans()
    assert {"msgconv.account.id": who.id, "msgconv.source": "fetched"} == first.attributes
    assert ["login", "question"] == [told["msgconv.purpose"] for _, told in events(first)]
    (_, failed), (kind, waits), (_, good) = events(second)
    assert ("retry", "ServerError", 5.0) == (kind, waits["error.type"], waits["msgconv.wait"])
    assert (503, "503") == (failed["http.response.status_code"], failed["error.type"])
    assert (200, 1) == (good["http.response.status_code"], good["http.request.resend_count"])
    assert "error.type" not in good
    assert ("GET", "127.0.0.1") == (good["http.request.method"], good["server.address"])
    assert StatusCode.UNSET == second.status.status_code


async def test_a_call_is_a_child_of_what_called_it_and_leaves_nothing_behind(
    telemetry: Telemetry,
) -> None:
    """Calls at once keep to their own spans, though one makes the request for both."""
    async with serving(answering()) as url:
        async with ConversationSession(base_url=url, on_event=telemetry.hook) as session:
            with telemetry.tracers.get_tracer("test").start_as_current_span("page") as page:
                await asyncio.gather(session.fetch(WHO, QUERY), session.fetch(WHO, QUERY))
                await session.fetch(WHO, QUERY)
                assert page is get_current_span()

    spans = telemetry.spans()
    assert {page.get_span_context().span_id} == {
        each.parent and each.parent.span_id for each in spans
    }
    told = sorted(
        (str((each.attributes or {})["msgconv.source"]), len(each.events)) for each in spans
    )
    assert [("fetched", 1), ("fetched", 1), ("shared", 0)] == told


async def test_a_failure_is_the_span_s(telemetry: Telemetry) -> None:
    """An error by its name and its text; a caller that gave up is no error."""
    release = asyncio.Event()

    async def slow(_: Any) -> Any:
        await release.wait()

    never = RetryPolicy(waits=())
    async with serving(answering(b"no", 500)) as url:
        async with ConversationSession(
            base_url=url, retry=never, on_event=telemetry.hook
        ) as session:
            with pytest.raises(ServerError):
                await session.fetch(WHO, QUERY)
    async with serving(slow) as url:
        async with ConversationSession(base_url=url, on_event=telemetry.hook) as session:
            with pytest.raises(DeadlineExceeded):
                await session.fetch(WHO, QUERY, timeout=2)
            call = asyncio.create_task(session.fetch(WHO, QUERY))
            await asyncio.sleep(1)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)

    failed, late, given_up = telemetry.spans()
    assert "ServerError" == (failed.attributes or {})["error.type"]
    assert (StatusCode.ERROR, True) == (
        failed.status.status_code,
        "HTTP 500" in (failed.status.description or ""),
    )
    assert "DeadlineExceeded" == (late.attributes or {})["error.type"]
    assert "cancelled" == (given_up.attributes or {})["error.type"]
    assert StatusCode.UNSET == given_up.status.status_code
    assert ["cancelled"] == [told["error.type"] for _, told in events(given_up)]


async def test_metrics_tell_requests_queueing_retries_and_sharing(telemetry: Telemetry) -> None:
    """By host, status and error, and by no account."""
    async with Sandbox(accounts=1) as sandbox:
        who = account(sandbox)
        port = int(sandbox.url.rpartition(":")[2])
        async with ConversationSession(
            base_url=sandbox.url,
            retry=EVEN,
            pacer=lambda: Pacer(rate=0.5, concurrency=9),
            on_event=telemetry.hook,
        ) as session:
            queries = [ConversationQuery(minutes) for minutes in (60, 60, 120)]
            await asyncio.gather(*(session.fetch(who, query) for query in queries))
            sandbox.fail_next(503)
            await session.fetch(who, ConversationQuery(180))
            assert [0] == [
                point.value for _, point in telemetry.points("msgconv.client.active_calls")
            ]

    requests = telemetry.points("http.client.request.duration")
    host = {"server.address": "127.0.0.1", "server.port": port}
    assert [
        (host | {"http.request.method": "GET", "http.response.status_code": 200}, 3),
        (
            host
            | {
                "http.request.method": "GET",
                "http.response.status_code": 503,
                "error.type": "503",
            },
            1,
        ),
        (host | {"http.request.method": "POST", "http.response.status_code": 200}, 1),
    ] == sorted(
        ((attributes, point.count) for attributes, point in requests),
        key=lambda each: (each[0]["http.request.method"], each[0]["http.response.status_code"]),
    )
    [(_, queued)] = telemetry.points("msgconv.client.queue.duration")
    assert (4, True) == (queued.count, queued.sum > 1.9)
    [(why, retried)] = telemetry.points("msgconv.client.retries")
    assert ({"error.type": "ServerError"}, 1) == (why, retried.value)
    calls = telemetry.points("msgconv.client.call.duration")
    assert {"fetched": 3, "shared": 1} == {
        attributes["msgconv.source"]: point.count for attributes, point in calls
    }
    everything = [each for each, _ in [*requests, *calls]]
    assert who.id not in str(everything)


def test_without_the_extra_it_says_what_to_install() -> None:
    """When it is imported; nothing else needs it."""
    program = "import sys; sys.modules['opentelemetry'] = None; import msgconv_async.otel"
    done = subprocess.run(  # noqa: S603 - the interpreter that runs the tests
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert "needs opentelemetry-api: pip install 'msgconv-async[otel]'" in done.stderr
