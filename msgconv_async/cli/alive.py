"""What a command that goes on tells of itself: in a status file, and over HTTP."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from anyio.from_thread import start_blocking_portal

from msgconv_async import checks
from msgconv_async.cli.console import complain
from msgconv_async.errors import ConfigurationError
from msgconv_async.export.files import WholeFile
from msgconv_async.pacing.pacer import Pacer

if TYPE_CHECKING:
    from aiohttp import web
    from prometheus_client.core import Metric

_LAST_PORT = 65535
_GRACE = 1.0
"""Seconds in which a scrape may end when the command does."""


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """What a round of collecting came to.

    Attributes:
        ended: When it ended.
        seconds: How long it took.
        accounts: How many accounts were to be read.
        failed: How many of them failed.
        rows: Rows that were stored.
        requests: Requests for metrics that were sent, repeated ones among them.
        throttled: Those that were answered 429.
        retried: Those that repeated another.
        error: Why nothing was stored, or None.
    """

    ended: datetime
    seconds: float
    accounts: int
    failed: int
    rows: int
    requests: int
    throttled: int
    retried: int
    error: str | None = None


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """How a command is.

    Attributes:
        command: The command.
        pid: Its process.
        started: When it began.
        updated: When this was written.
        healthy: Whether it got on lately. A service that fails does not make it unhealthy.
        accounts: How many accounts it has.
        failing: How many of them failed when they were asked last.
        rows: Rows stored, or buckets shown, since it began.
        failures: Failures of accounts since it began.
        lag: Seconds since that account was read whose last time is the longest ago.
        requests: Requests for metrics that were sent since it began.
        throttled: Those that were answered 429.
        round: The last round, or None.
    """

    command: str
    pid: int
    started: datetime
    updated: datetime
    healthy: bool
    accounts: int
    failing: int
    rows: int
    failures: int
    lag: float
    requests: int
    throttled: int
    round: Round | None = None


@dataclass(frozen=True)
class Telling:
    """Where a command tells of itself; by default nowhere.

    Args:
        file: The status file.
        port: The port of ``/metrics`` and ``/healthz``; 0 picks a free one.
    """

    file: Path | None = None
    port: int | None = None

    def __post_init__(self) -> None:
        if self.port is not None:
            checks.whole("--metrics-port", self.port, 0, _LAST_PORT)


class Life:
    """Keeps how a command is, and tells it.

    Args:
        command: The command.
        telling: Where to tell it.
        patience: For how long nothing may come before it counts as stuck.
    """

    def __init__(self, command: str, telling: Telling, patience: timedelta) -> None:
        self.command = command
        self.pacers: Mapping[str, Pacer] = {}
        self.rows = self.failures = self.rounds = 0
        self._telling = telling
        self._patience = patience.total_seconds()
        self._started = datetime.now(UTC)
        self._moved = time.monotonic()
        self._read_at: dict[str, float] = {}
        self._failing: set[str] = set()
        self._round: Round | None = None
        self._told = ""

    def has(self, account_ids: Iterable[str]) -> None:
        """Say which accounts there are from now on."""
        now, before = time.monotonic(), self._read_at
        self._read_at = {id_: before.get(id_, now) for id_ in account_ids}
        self._failing &= self._read_at.keys()

    def read(self, account_id: str, rows: int = 0) -> None:
        """Take note that an account was read."""
        self._moved = time.monotonic()
        if account_id in self._read_at:
            self._read_at[account_id] = self._moved
        self._failing.discard(account_id)
        self.rows += rows

    def failed(self, account_id: str) -> None:
        """Take note that an account failed."""
        self._moved = time.monotonic()
        self._failing.add(account_id)
        self.failures += 1

    def ended(self, round_: Round) -> None:
        """Take note that a round ended, well or not."""
        self._moved = time.monotonic()
        self._round = round_
        self.rounds += 1
        self.rows += round_.rows

    def status(self) -> Status:
        """Return how the command is now."""
        now, pacers = time.monotonic(), list(self.pacers.values())
        return Status(
            command=self.command,
            pid=os.getpid(),
            started=self._started,
            updated=datetime.now(UTC),
            healthy=now - self._moved <= self._patience,
            accounts=len(self._read_at),
            failing=len(self._failing),
            rows=self.rows,
            failures=self.failures,
            lag=round(now - min(list(self._read_at.values()), default=now), 1),
            requests=sum(pacer.sent for pacer in pacers),
            throttled=sum(pacer.throttled for pacer in pacers),
            round=self._round,
        )

    def save(self) -> None:
        """Write the status file, whole, in the place of the last one; what hinders that is said."""
        try:
            self._save()
        except ConfigurationError as error:
            told = str(error)
        except OSError as error:
            told = f"--status-file={self._telling.file}: {error.strerror}"
        else:
            told = ""
        if told and told != self._told:
            complain(told, "error")
        self._told = told

    def _save(self) -> None:
        if (path := self._telling.file) is None:
            return
        try:
            with WholeFile(path) as file:
                file.stream.write(msgspec.json.encode(self.status()) + b"\n")
                file.commit()
        except ConfigurationError as error:
            raise ConfigurationError(f"--status-file={error}") from None

    @contextmanager
    def told(self) -> Iterator[None]:
        """Tell it while inside, from a thread; see `telling`."""
        self._save()
        if self._telling.port is None:
            yield
            return
        with (
            start_blocking_portal() as portal,
            portal.wrap_async_context_manager(self._serving(self._telling.port)),
        ):
            yield

    @asynccontextmanager
    async def telling(self) -> AsyncIterator[None]:
        """Tell it while inside, in this event loop.

        Raises:
            ConfigurationError: The status file cannot be written, or the port is taken.
        """
        self._save()
        if self._telling.port is None:
            yield
            return
        async with self._serving(self._telling.port):
            yield

    @asynccontextmanager
    async def _serving(self, port: int) -> AsyncIterator[None]:
        from msgconv_async.gateway.serve import Address, serving  # noqa: PLC0415 - an extra

        try:
            async with serving(self._application(), Address(port=port), _GRACE) as url:
                complain(f"metrics at {url}/metrics, health at {url}/healthz")
                yield
        except ConfigurationError as error:
            raise ConfigurationError(str(error).replace("--port", "--metrics-port")) from None

    def _application(self) -> web.Application:
        from aiohttp import web  # noqa: PLC0415
        from prometheus_client import (  # noqa: PLC0415 - an extra
            CollectorRegistry,
            generate_latest,
        )

        from msgconv_async.gateway.metrics import (  # noqa: PLC0415 - an extra
            CONTENT_TYPE,
            PacerCollector,
        )
        from msgconv_async.gateway.serve import for_this_machine  # noqa: PLC0415

        prefix = f"msgconv_{self.command}"
        registry = CollectorRegistry()
        registry.register(_OfLife(prefix, self))
        paced = PacerCollector(
            prefix, lambda: [(id_, pacer.stats()) for id_, pacer in list(self.pacers.items())]
        )
        registry.register(paced)

        async def metrics(_: web.Request) -> web.Response:
            return web.Response(
                body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE}
            )

        async def health(_: web.Request) -> web.Response:
            status = self.status()
            return web.Response(
                body=msgspec.json.encode(status),
                status=200 if status.healthy else 503,
                content_type="application/json",
            )

        app = web.Application(middlewares=[for_this_machine])
        app.add_routes([web.get("/metrics", metrics), web.get("/healthz", health)])
        return app


class _OfLife:
    """The figures of a command, for Prometheus."""

    def __init__(self, prefix: str, life: Life) -> None:
        self._prefix = prefix
        self._life = life

    def describe(self) -> Iterable[Metric]:
        """Name no family before the first scrape."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield each figure."""
        from prometheus_client.core import (  # noqa: PLC0415 - an extra
            CounterMetricFamily,
            GaugeMetricFamily,
        )

        life, status = self._life, self._life.status()
        counters = {
            "rows": ("Rows stored, or buckets shown.", status.rows),
            "failures": ("Failures of accounts.", status.failures),
        }
        gauges = {
            "accounts": ("Accounts that are followed.", status.accounts),
            "accounts_failing": ("Accounts that failed the last time.", status.failing),
            "lag_seconds": ("Seconds since the account was read that waits longest.", status.lag),
        }
        if (last := status.round) is not None:
            counters["rounds"] = ("Rounds that ended, well or not.", life.rounds)
            gauges |= {
                "last_round_timestamp_seconds": ("When it ended.", last.ended.timestamp()),
                "last_round_duration_seconds": ("How long it took.", last.seconds),
                "last_round_rows": ("Rows that it stored.", last.rows),
                "last_round_accounts_failed": ("Accounts that failed in it.", last.failed),
                "last_round_stored": ("1 if its rows were stored.", float(last.error is None)),
            }
        for name, (text, value) in counters.items():
            yield CounterMetricFamily(f"{self._prefix}_{name}", text, value=value)
        for name, (text, number) in gauges.items():
            yield GaugeMetricFamily(f"{self._prefix}_{name}", text, value=number)
