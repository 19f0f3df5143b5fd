"""Whether the client can run for months: memory, descriptors, tasks, logins, and every bucket once.

Three processes. The sandbox serves; one in twenty of its answers is a fault, and now and then it is
killed and starts again, with every token forgotten. The client follows all accounts and asks them
all with ``fetch_many`` every two minutes. This process watches both, and compares what the client
handed out with the truth, which it works out from the sandbox's seed.

Time runs faster than real, for the client and for the sandbox alike: the event loops' clocks, and
so every wait, timeout, lifetime and bucket. Minutes and hours below are theirs, unless they are
called real. For the last quarter of an hour the sandbox is well, so that every account catches up.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import ctypes
import gc
import json
import os
import random
import selectors
import signal
import statistics
import sys
import time
import tracemalloc
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import msgspec
from aiohttp import web

from benchmarks.nginx import free_port
from msgconv_async import (
    Account,
    ApiKey,
    ClientCredentials,
    ClosedBucket,
    ConversationQuery,
    ConversationSession,
    Gap,
    Interval,
    UserLogin,
    decode_report,
)
from msgconv_async.client.access.credentials import Credentials

BUCKET = timedelta(minutes=5)
REACH = timedelta(minutes=30)  # how far before its start following begins
CALM = timedelta(minutes=15)  # without faults, at the end
LATEST = timedelta(minutes=8)  # a bucket that closed so long before the end must have come
ROUND = 120.0  # seconds from one `fetch_many` to the next
LIFETIME = 600.0  # seconds of a token
HUNG = 120.0  # seconds
DOWN = (5.0, 60.0)  # seconds that a restart takes
MIB = 1024 * 1024
MEMORY = 1.0  # MiB an hour, the goal
LOGINS = 1.2  # the most logins, in times what lifetimes, restarts and refusals explain
QUERY = ConversationQuery(30, interval=5, skill_ids="all")
ANOTHER = ConversationQuery(60, interval=5, skill_ids="all")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Settings(msgspec.Struct):
    """What all three processes know.

    Attributes:
        begun: When the run began, by CLOCK_MONOTONIC, which all processes share.
        start: What the time of day was then.
        calm: From when on there are no faults.
    """

    port: int
    accounts: int
    seed: int
    speed: float
    faults: float
    begun: float
    start: datetime
    calm: datetime
    trace: bool = False

    def now(self) -> datetime:
        """Return the time of day, which runs faster than real."""
        return self.start + timedelta(seconds=(time.monotonic() - self.begun) * self.speed)


class _Selector(selectors.DefaultSelector):
    """Waits a fraction of the time that it is told to."""

    speed = 1.0

    def select(self, timeout: float | None = None) -> Any:
        return super().select(None if timeout is None else timeout / self.speed)


class _Loop(asyncio.SelectorEventLoop):
    """An event loop whose clock runs faster than real."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        selector = _Selector()
        selector.speed = speed
        super().__init__(selector)

    def time(self) -> float:
        return super().time() * self._speed


def run(main: Coroutine[Any, Any, None], speed: float) -> None:
    """Run a coroutine in an event loop whose clock runs so many times faster than real."""
    with asyncio.Runner(loop_factory=lambda: _Loop(speed)) as runner:
        runner.run(main)


def digest(interval: Interval) -> str:
    """Tell the figures of a bucket apart from others."""
    figures = msgspec.json.encode(
        msgspec.to_builtins(interval.skills, str_keys=True), order="deterministic"
    )
    return blake2b(figures, digest_size=8).hexdigest()


def milliseconds(instant: datetime) -> int:
    """Return an instant as the wire has it."""
    return (instant - EPOCH) // timedelta(milliseconds=1)


def source(settings: Settings) -> Any:
    """Return what happened on the accounts."""
    from msgconv_async.sandbox import Synthetic  # noqa: PLC0415 - the client is to do without it

    return Synthetic(settings.seed, skills=3, agents=4, groups=1, conversations_per_day=600)


# -- The server ------------------------------------------------------------------------------------

_WRONG = (
    b'{"error": "overloaded"}',
    b"null",
    b"[]",
    b"",
    b'{"metricsByIntervals": []}',
    b'{"metricsTotals": {}}',
    (
        b'{"metricsByIntervals": [{"timestamp": 253402300500000,'
        b' "metricsData": {"skillsMetricsPerAgent": {}}}], "skillsMetricsPerAgent": {}}'
    ),
    b"<!doctype html><title>Sign in</title>",
)
"""Documents that come with a 200 and are no answer; one is dated in the year 9999."""

_CUT = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9000\r\n\r\n{"


class Faults:
    """One answer in so many is none, or a wrong one; the others are counted.

    Attributes:
        told: How many faults of each kind there were.
        logouts: How many logouts came.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._random = random.Random(time.monotonic_ns())
        self._kinds: dict[str, Callable[[web.Request], Coroutine[Any, Any, web.Response]]] = {
            "401": lambda _: self._status(401),
            "429": lambda _: self._status(429),
            "500": lambda _: self._status(500),
            "503": lambda _: self._status(503),
            "reset": self._reset,
            "cut": self._cut,
            "hung": self._hung,
            "wrong": self._wrong,
        }
        self.told = Counter[str]()
        self.logouts = 0

    async def __call__(self, request: web.Request) -> web.Response | None:
        """Answer in place of the sandbox, or leave it to that."""
        well = self._settings.now() >= self._settings.calm
        if not well and self._random.random() < self._settings.faults:
            kind = self._random.choice(list(self._kinds))
            self.told[kind] += 1
            return await self._kinds[kind](request)
        self.logouts += request.path.endswith("/logout")
        return None

    async def _status(self, status: int) -> web.Response:
        headers = {"Retry-After": "2"} if status == 429 else {}
        return web.Response(status=status, text="a fault", headers=headers)

    async def _reset(self, _: web.Request) -> web.Response:
        raise ConnectionResetError

    async def _cut(self, request: web.Request) -> web.Response:
        assert request.transport is not None  # noqa: S101 - for the type checker
        request.transport.write(_CUT)
        raise ConnectionResetError

    async def _hung(self, _: web.Request) -> web.Response:
        await asyncio.sleep(HUNG)
        raise ConnectionResetError

    async def _wrong(self, _: web.Request) -> web.Response:
        return web.Response(body=self._random.choice(_WRONG), content_type="application/json")


async def serve(settings: Settings) -> None:
    """Serve until killed."""
    from msgconv_async.sandbox import Sandbox  # noqa: PLC0415 - the client is to do without it

    faults = Faults(settings)
    users = {each.id for each in accounts(settings) if isinstance(each.credentials, UserLogin)}

    async def fault(request: web.Request) -> web.Response | None:
        if request.path != "/figures":
            return await faults(request)
        logged_in = sum(count for each, count in sandbox.tokens.items() if each in users)
        return web.json_response(
            {
                "requests": sandbox.requests.total(),
                "throttled": sandbox.throttled.total(),
                "logins": sandbox.tokens.total(),
                "sessions": logged_in - faults.logouts,
                "faults": faults.told,
            }
        )

    sandbox = Sandbox(
        accounts=settings.accounts,
        events=source(settings),
        clock=settings.now,
        concurrency=1,
        retry_after=1,
        latency=0.2,
        token_lifetime=LIFETIME,
        fault=fault,
        port=settings.port,
    )
    async with sandbox:
        await asyncio.Event().wait()


# -- The client ------------------------------------------------------------------------------------


def accounts(settings: Settings) -> list[Account]:
    """Return all accounts: eight in ten with OAuth 2.0, one a user's login, one OAuth 1.0."""
    kinds: list[Credentials] = [ClientCredentials("sandbox-client", "sandbox-secret")] * 8
    some: list[Credentials] = [
        *kinds,
        UserLogin("sandbox-user", "sandbox-password"),
        ApiKey("sandbox-key", "sandbox-key-secret", "sandbox-token", "sandbox-token-secret"),
    ]
    return [
        Account(str(10_000_001 + number), some[number % len(some)])
        for number in range(settings.accounts)
    ]


class _Mallinfo(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keep".split()  # noqa: E501, SIM905
    ]


def heap() -> tuple[float, float]:
    """Return the MiB that glibc's malloc has given out, and holds free; Python's arenas aside."""
    try:
        mallinfo2 = ctypes.CDLL(None).mallinfo2
    except AttributeError:
        return 0.0, 0.0
    mallinfo2.restype = _Mallinfo
    info = mallinfo2()
    return (info.uordblks + info.hblkhd) / MIB, info.fordblks / MIB


async def ask(settings: Settings) -> None:
    """Follow, and ask all in rounds, until SIGTERM; what comes is told on standard output."""
    everybody = accounts(settings)
    stopped = anyio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    url = f"http://127.0.0.1:{settings.port}"
    async with ConversationSession(base_url=url) as session, anyio.create_task_group() as group:
        group.start_soon(_following, session, everybody, settings)
        group.start_soon(_rounds, session, everybody)
        group.start_soon(_sampling, settings)
        await stopped.wait()
        group.cancel_scope.cancel()
    say("end")


def say(*words: object, flush: bool = False) -> None:
    """Tell the watching process one thing."""
    print(*words, flush=flush)


async def _following(
    session: ConversationSession, everybody: list[Account], settings: Settings
) -> None:
    since = settings.start - REACH
    async with session.follow(everybody, QUERY, since=since, clock=settings.now) as items:
        async for item in items:
            if isinstance(item, ClosedBucket):
                end = milliseconds(item.interval.end)
                kind = "revised" if item.revised else "bucket"
                say(kind, item.account.id, end, digest(item.interval))
            elif isinstance(item, Gap):
                say("gap", item.account.id, milliseconds(item.start), milliseconds(item.end))
            else:
                say("failure", type(item.error).__name__)


async def _rounds(session: ConversationSession, everybody: list[Account]) -> None:
    pairs = [(each, query) for each in everybody for query in (QUERY, ANOTHER)]
    while True:
        await anyio.sleep(ROUND)
        async with session.fetch_many(pairs) as outcomes:
            async for outcome in outcomes:
                if outcome.report is None:
                    say("outcome", type(outcome.error).__name__)
                    continue
                say("outcome", "report")
                for each in outcome.report.intervals[-3:]:
                    # One that closed as it was asked for may still gain a conversation.
                    if each.complete and outcome.report.intervals[-1].start > each.end:
                        say("seen", outcome.account.id, milliseconds(each.end), digest(each))


async def _sampling(settings: Settings) -> None:
    before: tracemalloc.Snapshot | None = None
    while True:
        used, free = heap()
        blocks = sys.getallocatedblocks()
        say("sample", len(asyncio.all_tasks()), blocks, used, free, flush=True)
        if settings.trace:
            before = _traced(before)
        await anyio.sleep(10 * settings.speed)


def _traced(before: tracemalloc.Snapshot | None) -> tracemalloc.Snapshot | None:
    """Tell on standard error what grew since the first snapshot, a minute after the start."""
    gc.collect()
    if not tracemalloc.is_tracing():
        tracemalloc.start(12)
        return None
    now = tracemalloc.take_snapshot().filter_traces(
        [tracemalloc.Filter(inclusive=False, filename_pattern=tracemalloc.__file__)]
    )
    if before is None:
        return now
    grown = now.compare_to(before, "lineno")[:12]
    print("--", *grown, sep="\n", file=sys.stderr, flush=True)
    kinds = Counter(type(each).__name__ for each in gc.get_objects())
    print(kinds.most_common(8), file=sys.stderr, flush=True)
    return before


# -- The watch -------------------------------------------------------------------------------------


class Sample(NamedTuple):
    """What was seen of the client at one time."""

    hours: float
    resident: float
    descriptors: int
    tasks: int
    blocks: int
    used: float
    free: float


class Watch:
    """Starts both processes, kills the one, and takes note of the other.

    Attributes:
        samples: Of the client, in order of time.
        handed: What came of each bucket, first to last, by account and end.
        revised: How many came again, changed.
        gaps: What was told as a gap.
        outcomes: What came of `fetch_many`, by kind.
        failures: What following told, by kind.
        figures: The sandbox's own counts, of all its lives together.
        restarts: How often it was killed.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._server: asyncio.subprocess.Process | None = None
        self._lives: list[dict[str, Any]] = []
        self._last: tuple[int, int, float, float] = (0, 0, 0.0, 0.0)
        self.samples: list[Sample] = []
        self.handed: defaultdict[tuple[str, int], list[str]] = defaultdict(list)
        self.seen: dict[tuple[str, int], set[str]] = defaultdict(set)
        self.revised = 0
        self.gaps: list[str] = []
        self.outcomes = Counter[str]()
        self.failures = Counter[str]()
        self.restarts = 0
        self.ended = False

    @property
    def figures(self) -> dict[str, Any]:
        """The sandbox's counts; its open user sessions are those of its last life."""
        total: dict[str, Any] = {
            name: sum(life.get(name, 0) for life in self._lives)
            for name in ("requests", "throttled", "logins")
        }
        faults = sum((Counter(life.get("faults", {})) for life in self._lives), Counter[str]())
        return {**total, "faults": faults, "sessions": self._lives[-1].get("sessions", 0)}

    async def run(self, end: datetime, restarts: int) -> None:
        """Watch until the time has come."""
        settings = self._settings
        await self._start()
        client = await self._process("--ask", stdout=asyncio.subprocess.PIPE)
        listening = asyncio.create_task(self._listen(client))
        span = (settings.calm - settings.now()) / (restarts + 1)
        kills = collections.deque(settings.start + span * (n + 1) for n in range(restarts))
        try:
            while settings.now() < end:
                await asyncio.sleep(min(10.0, (end - settings.now()) / timedelta(seconds=1)))
                await self._look()
                if client.returncode is not None:
                    return
                self._sample(client.pid)
                if kills and settings.now() >= kills[0]:
                    kills.popleft()
                    await self._restart()
        finally:
            with suppress(ProcessLookupError):
                client.terminate()
            await listening
            await client.wait()
            await self._stop()

    async def _process(self, role: str, **given: Any) -> asyncio.subprocess.Process:
        told = msgspec.json.encode(self._settings).decode()
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.soak", role, told, **given
        )

    async def _start(self) -> None:
        self._server = await self._process("--serve")
        self._lives.append({})
        for _ in range(200):
            await self._look()
            if self._lives[-1]:
                return
            await asyncio.sleep(0.05)
        raise RuntimeError("the sandbox does not answer")

    async def _stop(self) -> None:
        if self._server is not None:
            with suppress(ProcessLookupError):
                self._server.kill()
            await self._server.wait()

    async def _restart(self) -> None:
        await self._stop()
        self.restarts += 1
        await asyncio.sleep(random.uniform(*DOWN) / self._settings.speed)
        await self._start()

    async def _look(self) -> None:
        """Read the sandbox's counts, while it has some."""
        with suppress(OSError):
            self._lives[-1] = await asyncio.to_thread(self._ask_figures)

    def _ask_figures(self) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self._settings.port}/figures"
        with urllib.request.urlopen(url, timeout=5) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    async def _listen(self, client: asyncio.subprocess.Process) -> None:
        assert client.stdout is not None  # noqa: S101 - for the type checker
        async for line in client.stdout:
            kind, *words = line.decode().split()
            if kind in {"bucket", "revised"}:
                self.handed[words[0], int(words[1])].append(words[2])
                self.revised += kind == "revised"
            elif kind == "seen":
                self.seen[words[0], int(words[1])].add(words[2])
            elif kind == "gap":
                self.gaps.append(" ".join(words))
            elif kind == "failure":
                self.failures[words[0]] += 1
            elif kind == "outcome":
                self.outcomes[words[0]] += 1
            elif kind == "sample":
                self._last = int(words[0]), int(words[1]), float(words[2]), float(words[3])
            elif kind == "end":
                self.ended = True

    def _sample(self, pid: int) -> None:
        settings = self._settings
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        sample = Sample(
            (settings.now() - settings.start) / timedelta(hours=1),
            pages * os.sysconf("SC_PAGE_SIZE") / MIB,
            len(os.listdir(f"/proc/{pid}/fd")),  # noqa: PTH208 - it only counts
            *self._last,
        )
        self.samples.append(sample)
        if len(self.samples) % 6 == 1:
            print(
                f"{sample.hours:7.2f}{sample.resident:10.2f}{sample.descriptors:8}{sample.tasks:8}"
                f"{sample.blocks:10,}{sample.used:9.1f}{sample.free:8.1f}"
                f"{self.figures['logins']:9,}{len(self.handed):10,}",
                flush=True,
            )


def slope(samples: Sequence[Sample]) -> float:
    """Return how fast resident memory grows, in MiB an hour."""
    if len(samples) < 3:
        return float("nan")
    hours, resident = [each.hours for each in samples], [each.resident for each in samples]
    return statistics.linear_regression(hours, resident).slope


def truth(settings: Settings, account_id: str) -> Callable[[int], str]:
    """Return what tells the digest of an account's bucket by its end, from the seed alone."""
    from msgconv_async.sandbox.aggregate import Aggregates  # noqa: PLC0415 - as above
    from msgconv_async.sandbox.parameters import Parameters  # noqa: PLC0415

    aggregates, events = Aggregates(source(settings)), source(settings)
    question = Parameters.parse({"v": 1, "timeframe": 5, "interval": 5, "skillIds": "all"})

    def of(end: int) -> str:
        at = EPOCH + timedelta(milliseconds=end)
        # Asked on its edge, an answer holds this bucket alone.
        (interval,) = decode_report(aggregates.answer(account_id, question, at)).intervals
        assert interval.skills is not None  # noqa: S101
        happened = len(list(events(account_id, at - BUCKET, at)))
        told = interval.skills.totals.total_resolved_conversations
        assert interval.end == at, (interval.end, at)  # noqa: S101
        assert happened == told, (happened, told)  # noqa: S101
        return digest(interval)

    return of


class Compared(NamedTuple):
    """What was handed out beside the truth: how many buckets are due, and what is wrong."""

    due: int
    missing: int
    doubled: int
    unknown: int
    wrong: int
    seen: int
    seen_wrong: int


def compare(watch: Watch, settings: Settings, until: datetime) -> Compared:
    """Compare every bucket with the truth."""
    first = (settings.start - REACH - EPOCH) // BUCKET + 1
    last = (until - EPOCH) // BUCKET
    found: Counter[str] = Counter()
    by_account: defaultdict[str, list[int]] = defaultdict(list)
    seen_of: defaultdict[str, list[int]] = defaultdict(list)
    for account_id, end in watch.handed:
        by_account[account_id].append(end)
    for account_id, end in watch.seen:
        seen_of[account_id].append(end)
    size = BUCKET // timedelta(milliseconds=1)
    for each in accounts(settings):
        of = truth(settings, each.id)
        due = {number * size for number in range(first, last + 1)}
        came = set(by_account[each.id])
        found["due"] += len(due)
        found["missing"] += len(due - came)
        for end in sorted(came):
            digests = watch.handed[each.id, end]
            inside = first * size <= end <= milliseconds(settings.now())
            found["unknown"] += not inside
            found["doubled"] += len(digests) - 1
            found["wrong"] += inside and digests[-1] != of(end)
        for end in sorted(seen_of[each.id]):
            found["seen"] += 1
            found["seen_wrong"] += watch.seen[each.id, end] != {of(end)}
    return Compared(**{name: found[name] for name in Compared._fields})


def flat(samples: Sequence[Sample], name: str) -> tuple[str, str, bool]:
    """Return the least and the most of the first two thirds and of the last, and if neither grew.

    Connections are kept for a while after each burst, so their number goes up and down with what
    was asked just before a sample. A leak raises the least.
    """
    last = max(1, len(samples) // 3)
    values = [getattr(each, name) for each in samples]
    before, after = values[:-last] or values, values[-last:]
    held = min(after) <= min(before) * 1.1 + 5 and max(after) <= max(before) * 1.1 + 10
    return f"{min(before)} to {max(before)}", f"{min(after)} to {max(after)}", held


class Verdict(NamedTuple):
    """What was measured beside its goal, and whether that is met."""

    told: str
    met: bool


def judge(watch: Watch, settings: Settings, end: datetime) -> Iterator[Verdict]:
    """Tell each goal beside what was measured, and whether it is met."""
    warm = watch.samples[len(watch.samples) // 3 :]
    hours = warm[-1].hours - warm[0].hours if warm else 0.0
    growth = slope(warm)
    yield Verdict(
        f"resident memory: {growth:+.2f} MiB an hour over {hours:.2f} hours after warm-up"
        f" ({growth * settings.speed:+.1f} a real hour), goal < {MEMORY:g}",
        growth < MEMORY,
    )
    for name in ("descriptors", "tasks"):
        before, after, held = flat(warm, name)
        yield Verdict(
            f"{name}: {before} after warm-up, {after} in the last third, goal: flat", held
        )
    figures = watch.figures
    elapsed = (end - settings.start) / timedelta(seconds=1)
    refused = figures["faults"]["401"]
    lives = elapsed / LIFETIME + watch.restarts + 1
    explained = settings.accounts * 0.9 * lives + refused
    yield Verdict(
        f"logins: {figures['logins']:,}, goal <= {LOGINS:g} times the {explained:,.0f} that"
        " lifetimes, restarts and refusals explain",
        figures["logins"] <= LOGINS * explained,
    )
    users = settings.accounts / 10
    yield Verdict(
        f"user sessions open at the server: {figures['sessions']}, goal <= {users + 5:.0f}",
        figures["sessions"] <= users + 5,
    )
    compared = compare(watch, settings, end - LATEST)
    yield Verdict(
        f"buckets: {compared.due:,} due, {compared.missing:,} missing, {compared.doubled:,} came"
        f" again, {compared.wrong:,} wrong, {compared.unknown:,} that never were; goal: each once"
        " and right",
        not (compared.missing or compared.doubled or compared.wrong or compared.unknown),
    )
    yield Verdict(f"gaps: {len(watch.gaps)}, goal 0", not watch.gaps)
    yield Verdict(
        f"buckets in answers of fetch_many: {compared.seen:,} compared, {compared.seen_wrong:,}"
        " wrong, goal 0",
        compared.seen > 0 and compared.seen_wrong == 0,
    )
    yield Verdict("the client went on to the end, and left when it was told to", watch.ended)


def main(arguments: Sequence[str]) -> None:
    """Measure, and print each goal beside what was measured."""
    parser = argparse.ArgumentParser("python -m benchmarks soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30, help="real minutes")
    parser.add_argument("--accounts", type=int, default=500)
    parser.add_argument("--speed", type=float, default=6, help="times as fast as real")
    parser.add_argument("--faults", type=float, default=0.05, help="share of faults")
    parser.add_argument("--restarts", type=int, help="of the server; one each 15 minutes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trace", action="store_true", help="show allocations that grew")
    options = parser.parse_args(arguments)
    if not Path("/proc/self/statm").exists():
        print("/proc/self/statm: not there, so this part is skipped (it needs Linux)")
        return
    start = datetime.now(UTC)
    lasts = timedelta(minutes=options.minutes) * options.speed
    if lasts <= 2 * CALM:
        parser.error(f"{options.minutes:g} minutes at {options.speed:g} times are too short")
    settings = Settings(
        free_port(),
        options.accounts,
        options.seed,
        options.speed,
        options.faults,
        time.monotonic(),
        start,
        start + lasts - CALM,
        options.trace,
    )
    restarts = options.restarts
    if restarts is None:
        restarts = lasts // timedelta(minutes=15)
    print(
        f"{options.accounts} accounts, {lasts / timedelta(hours=1):.2f} hours in"
        f" {options.minutes:g} minutes, {options.faults:.0%} faults, {restarts} restarts\n\n"
        f"{'hours':>7}{'MiB':>10}{'open':>8}{'tasks':>8}{'blocks':>10}{'malloc':>9}{'free':>8}"
        f"{'logins':>9}{'buckets':>10}"
    )
    watch = Watch(settings)
    asyncio.run(watch.run(start + lasts, restarts))
    figures = watch.figures
    print(
        f"\nrequests {figures['requests']:,}, throttled {figures['throttled']:,},"
        f" faults {dict(figures['faults'])}"
        f"\nfetch_many {dict(watch.outcomes)}\nfollow: failures {dict(watch.failures)},"
        f" {watch.revised} buckets revised\n"
    )
    verdicts = list(judge(watch, settings, start + lasts))
    for told, met in verdicts:
        print(f"{told}  {'met' if met else 'MISSED'}")
    if not all(met for _, met in verdicts):
        sys.exit(1)


if __name__ == "__main__":
    role, told = sys.argv[1:]
    given = msgspec.json.decode(told, type=Settings)
    run(serve(given) if role == "--serve" else ask(given), given.speed)
