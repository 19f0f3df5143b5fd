import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, ClassVar, TypeAlias

import anyio
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from msgconv_async import (
    Account,
    BearerToken,
    ConfigurationError,
    ConversationSession,
    Outcome,
    RetryPolicy,
    ServerError,
    SessionUnusable,
    Unauthorized,
)
from msgconv_async.client.many.fan_out import _Outcomes
from msgconv_async.sandbox import Sandbox
from tests.client.support import BEARER, QUERY, account, client_tasks, now, turns

pytestmark = pytest.mark.looptime

Fault: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse | None]]


def everybody(sandbox: Sandbox) -> list[Account]:
    return [account(sandbox, number) for number in range(len(sandbox.account_ids))]


class Slow:
    """A fault that holds each metrics request for as many seconds as its account's last digits.

    Attributes:
        running: How many it holds now.
        most: How many it held at once, at the most.
    """

    def __init__(self, unit: float = 1.0) -> None:
        self.unit = unit
        self.running = 0
        self.most = 0

    async def __call__(self, request: web.Request) -> web.StreamResponse | None:
        if request.path.endswith("/msgconversation"):
            self.running += 1
            self.most = max(self.most, self.running)
            try:
                await asyncio.sleep(self.unit * int(request.match_info["account"][-3:]))
            finally:
                self.running -= 1
        return None


async def test_outcomes_come_as_they_complete() -> None:
    """The quickest account's first, each with its account and its report."""
    async with Sandbox(accounts=4, fault=Slow()) as sandbox:
        async with ConversationSession(base_url=sandbox.url) as session:
            accounts = everybody(sandbox)[::-1]
            seen: list[tuple[Account, int]] = []

            async with session.fetch_many(accounts, QUERY) as outcomes:
                async for outcome in outcomes:
                    assert outcome.report is not None
                    assert outcome.error is None
                    seen.append((outcome.account, round(now())))

    assert list(zip(accounts[::-1], [1, 2, 3, 4], strict=True)) == seen


async def test_a_failure_stays_with_its_account() -> None:
    """One account that fails, and one that is unknown, take nothing from the others."""
    async with Sandbox(accounts=3) as sandbox:
        sandbox.fail_next(account_id=sandbox.account_ids[1])
        policy = RetryPolicy(waits=())
        async with ConversationSession(base_url=sandbox.url, retry=policy) as session:
            accounts = [*everybody(sandbox), Account("99999999", BEARER)]
            async with session.fetch_many(accounts, QUERY) as outcomes:
                found = {outcome.account.id: outcome async for outcome in outcomes}

    assert [None, ServerError, None, Unauthorized] == [
        type(found[each.id].error) if found[each.id].error else None for each in accounts
    ]
    assert [True, False, True, False] == [found[each.id].report is not None for each in accounts]


async def test_each_account_has_the_whole_timeout() -> None:
    """What is too slow fails by its own clock, however long the whole takes."""
    async with Sandbox(accounts=5, fault=Slow()) as sandbox:
        async with ConversationSession(base_url=sandbox.url) as session:
            async with session.fetch_many(
                everybody(sandbox), QUERY, timeout=3.5, max_in_flight=1
            ) as outcomes:
                found = [type(each.error).__name__ async for each in outcomes]

    assert ["NoneType"] * 3 + ["DeadlineExceeded"] * 2 == found


async def test_an_account_given_twice_is_asked_twice() -> None:
    """Nothing is merged."""
    async with Sandbox() as sandbox, ConversationSession(base_url=sandbox.url) as session:
        async with session.fetch_many([account(sandbox)] * 2, QUERY) as outcomes:
            assert 2 == len([each async for each in outcomes])

        assert 2 == sandbox.requests[sandbox.account_ids[0]]


async def test_no_accounts_are_no_outcomes() -> None:
    """An empty iterable ends at once."""
    async with ConversationSession(base_url="http://localhost") as session:
        async with session.fetch_many([], QUERY) as outcomes:
            assert [] == [each async for each in outcomes]


@pytest.mark.parametrize("bound", [1, 3])
async def test_no_more_are_asked_at_once_than_allowed(bound: int) -> None:
    """max_in_flight bounds what runs, and is used."""
    slow = Slow(0.1)
    async with Sandbox(accounts=9, fault=slow) as sandbox:
        async with ConversationSession(base_url=sandbox.url) as session:
            async with session.fetch_many(
                everybody(sandbox), QUERY, max_in_flight=bound
            ) as outcomes:
                assert 9 == len([each async for each in outcomes])

    assert bound == slow.most


def throttling(seconds: float) -> Fault:
    """Answer 429 and ask to come back in a second, for so long."""
    until = now() + seconds

    async def fault(request: web.Request) -> web.StreamResponse | None:
        if now() < until:
            return web.Response(status=429, headers={"Retry-After": "1"})
        return None

    return fault


def stalling(seconds: float) -> Fault:
    """Take so long over each request."""

    async def fault(request: web.Request) -> web.StreamResponse | None:
        await asyncio.sleep(seconds)
        return None

    return fault


async def arrivals(trouble: Fault | None, times: int, bound: int) -> dict[str, list[float]]:
    """Ask the last account, which is in trouble, before all others; return when outcomes came."""
    slow = Slow(0.1)

    async def fault(request: web.Request) -> web.StreamResponse | None:
        if trouble and request.path.endswith(f"/{troubled.id}/msgconversation"):
            return await trouble(request)
        return await slow(request)

    async with Sandbox(accounts=12, fault=fault) as sandbox:
        policy = RetryPolicy(jitter=0, attempt_timeout=None)
        async with ConversationSession(base_url=sandbox.url, retry=policy) as session:
            *others, troubled = everybody(sandbox)
            asked = [*([troubled] * times if trouble else []), *(others * times)]
            came: dict[str, list[float]] = {each.id: [] for each in asked}
            began = now()
            async with session.fetch_many(asked, QUERY, max_in_flight=bound) as outcomes:
                async for outcome in outcomes:
                    assert outcome.report is not None
                    came[outcome.account.id].append(now() - began)
    return came


@pytest.mark.parametrize(
    ("trouble", "lasts"),
    [(lambda: stalling(30), 30), (lambda: throttling(20), 20)],
    ids=["a slow answer", "throttling"],
)
async def test_an_account_in_trouble_holds_up_no_other(
    trouble: Callable[[], Fault], lasts: float
) -> None:
    """What comes of the others comes at the same instants as without it."""
    alone = await arrivals(None, 4, 100)

    beside = await arrivals(trouble(), 4, 100)

    *_, (_, troubled) = sorted(beside.items())
    assert lasts <= troubled[0]
    for account_id, instants in alone.items():
        assert instants == pytest.approx(beside[account_id], abs=0.02)
        assert 3 > instants[-1]


@pytest.mark.parametrize("trouble", [stalling, throttling])
async def test_an_account_in_trouble_takes_one_place(trouble: Callable[[float], Fault]) -> None:
    """Of few places it has its own, and the others are as quick as with one place less."""
    alone = await arrivals(None, 1, 2)

    beside = await arrivals(trouble(30), 1, 3)

    for account_id, instants in alone.items():
        assert instants == pytest.approx(beside[account_id], abs=0.02)


class Names(AbstractResolver):
    """Finds every name on this machine, and notes which were looked up."""

    asked: ClassVar[list[str]] = []

    def __init__(self, **_: object) -> None:
        """Take what aiohttp's own takes."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked.append(host)
        await asyncio.sleep(0.1)
        return [
            ResolveResult(
                hostname=host,
                host="127.0.0.1",
                port=port,
                family=socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
        ]

    async def close(self) -> None:
        """Nothing is open."""


async def test_rounds_share_connections_and_a_look_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Round after round the same connections are used, and the name is looked up once."""
    monkeypatch.setattr("aiohttp.connector.DefaultResolver", Names)
    monkeypatch.setattr(Names, "asked", [])
    peers: Counter[object] = Counter()

    async def note(request: web.Request) -> None:
        assert request.transport is not None
        peers[request.transport.get_extra_info("peername")] += 1

    async with Sandbox(accounts=30, latency=1, fault=note) as sandbox:
        origin = sandbox.url.replace("127.0.0.1", "localhost")
        async with ConversationSession(base_url=origin) as session:
            for _ in range(4):
                async with session.fetch_many(everybody(sandbox), QUERY) as outcomes:
                    assert 30 == len([each async for each in outcomes if each.report])
                assert 30 == len(peers)
                await asyncio.sleep(10)

    assert 30 * 5 == peers.total()  # a login each, and four rounds
    assert ["localhost"] == Names.asked


class Drawn:
    """An endless supply of accounts, lazily made, that counts."""

    def __init__(self) -> None:
        self.count = 0
        self.closed = False

    def now(self) -> Iterator[Account]:
        while True:
            self.count += 1
            yield Account(f"{self.count}", BEARER)

    async def later(self) -> AsyncIterator[Account]:
        try:
            while True:
                self.count += 1
                await asyncio.sleep(0.001)
                yield Account(f"{self.count}", BEARER)
        finally:
            self.closed = True


@pytest.mark.parametrize("way", ["now", "later"])
async def test_accounts_are_drawn_as_fast_as_outcomes_are_taken(way: str) -> None:
    """An endless iterable is fine: what is ahead is bounded by max_in_flight."""
    drawn = Drawn()
    async with Sandbox() as sandbox, ConversationSession(base_url=sandbox.url) as session:
        async with session.fetch_many(getattr(drawn, way)(), QUERY, max_in_flight=5) as outcomes:
            for taken in range(1, 11):
                outcome = await anext(outcomes)
                assert isinstance(outcome.error, Unauthorized)
                await asyncio.sleep(10)
                assert taken + 5 == drawn.count

        assert client_tasks() == set()


async def test_leaving_early_cancels_what_runs() -> None:
    """After break nothing is asked any more, nothing holds a slot, nothing is left."""
    slow = Slow(100)
    async with Sandbox(accounts=4, fault=slow) as sandbox:
        slow.unit = 0
        patient = RetryPolicy(attempt_timeout=None)
        async with ConversationSession(base_url=sandbox.url, retry=patient) as session:
            accounts = everybody(sandbox)
            async with session.fetch_many(accounts[:1], QUERY) as outcomes:
                await anext(outcomes)
            slow.unit = 100
            async with session.fetch_many(accounts, QUERY) as outcomes:
                await asyncio.sleep(50)
                assert 4 == slow.running

            assert client_tasks() == set()
            assert [0] * 4 == [session.pacer(each).in_flight for each in accounts]
            await asyncio.sleep(0.1)
            assert 0 == slow.running
            assert now() < 60


async def test_after_a_break_the_rest_may_still_be_taken() -> None:
    """Inside the context one may stop and go on."""
    async with Sandbox(accounts=4) as sandbox:
        async with ConversationSession(base_url=sandbox.url) as session:
            async with session.fetch_many(everybody(sandbox), QUERY) as outcomes:
                async for _ in outcomes:
                    break
                assert 3 == len([each async for each in outcomes])


async def test_many_may_take() -> None:
    """Every outcome goes to one of the tasks that take them, and all of these come to an end."""
    async with Sandbox(accounts=4, fault=Slow()) as sandbox:
        async with ConversationSession(base_url=sandbox.url) as session:
            async with session.fetch_many(everybody(sandbox), QUERY) as outcomes:

                async def take() -> list[str]:
                    return [each.account.id async for each in outcomes]

                taken = await asyncio.gather(*(take() for _ in range(3)))

    assert sandbox.account_ids == tuple(sorted(each for one in taken for each in one))


async def test_who_still_waits_when_the_context_is_left_comes_to_an_end() -> None:
    """No taker waits for ever."""
    async with Sandbox(latency=60) as sandbox, ConversationSession(base_url=sandbox.url) as session:
        async with session.fetch_many(everybody(sandbox), QUERY) as outcomes:
            taker = asyncio.create_task(anext(outcomes, None))
            await asyncio.sleep(1)

        assert await taker is None
        assert [] == [each async for each in outcomes]


async def test_what_nobody_took_is_gone_when_the_context_is_left() -> None:
    """Neither handed out later nor held."""
    async with Sandbox(accounts=3) as sandbox, ConversationSession(base_url=sandbox.url) as session:
        async with session.fetch_many(everybody(sandbox), QUERY) as outcomes:
            await anext(outcomes)
            await asyncio.sleep(1)

        assert [] == [each async for each in outcomes]
        assert client_tasks() == set()


@pytest.mark.parametrize("others", [0, 1])
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_taker_who_gives_up_takes_nothing_along(moment: str, others: int) -> None:
    """An outcome that was on its way to who is cancelled goes to the next one."""
    outcomes = _Outcomes()
    outcome = Outcome(Account("1", BEARER), QUERY)
    taker, *waiting = (asyncio.create_task(anext(outcomes, None)) for _ in range(1 + others))
    await turns()
    if moment == "before":
        taker.cancel()
    offer = asyncio.create_task(outcomes.offer(outcome))
    if moment == "after":
        await asyncio.sleep(0)
        taker.cancel()
    await asyncio.wait([taker])

    assert taker.cancelled()
    assert outcome is await (waiting[0] if waiting else anext(outcomes))
    await offer


async def test_waiting_in_vain_leaves_nothing() -> None:
    """Who looks now and then whether something came is not remembered each time."""
    outcomes = _Outcomes()
    for _ in range(10):
        with anyio.move_on_after(1):
            await anext(outcomes)

    assert 0 == len(outcomes._takers)


class MineError(Exception):
    pass


@pytest.mark.parametrize("kind", [MineError, KeyError, SystemExit, StopAsyncIteration])
async def test_what_the_caller_raises_comes_out_as_itself(kind: type[BaseException]) -> None:
    """The very object, with its own cause and context, and no ExceptionGroup."""
    error = kind("mine")
    async with Sandbox(accounts=4, latency=60) as sandbox:
        async with ConversationSession(base_url=sandbox.url) as session:

            async def body() -> None:
                async with session.fetch_many(everybody(sandbox), QUERY):
                    await asyncio.sleep(1)
                    try:
                        int("before")
                    except ValueError:
                        raise error  # noqa: B904 - its context is what is looked at

            with pytest.raises(kind) as caught:
                await body()
            assert client_tasks() == set()

    assert error is caught.value
    assert error.__cause__ is None
    assert isinstance(error.__context__, ValueError)
    assert not error.__suppress_context__


async def test_a_group_that_the_caller_raises_comes_out_as_it_is() -> None:
    """One layer is taken off, and no more."""
    error = ExceptionGroup("mine", [MineError(), KeyError()])
    async with ConversationSession(base_url="http://localhost") as session:
        with pytest.raises(ExceptionGroup) as caught:
            async with session.fetch_many([], QUERY):
                raise error

    assert error is caught.value


async def test_an_iterable_that_fails_ends_the_whole() -> None:
    """What the caller's own iterable raises is the caller's."""

    def accounts() -> Iterator[Account]:
        yield Account("1", BEARER)
        raise MineError

    async with Sandbox() as sandbox, ConversationSession(base_url=sandbox.url) as session:

        async def collect() -> None:
            async with session.fetch_many(accounts(), QUERY) as outcomes:
                async for _ in outcomes:
                    pass

        with pytest.raises(MineError):
            await collect()
        assert client_tasks() == set()


async def test_cancellation_from_outside_goes_through() -> None:
    """A caller that is cancelled, by a task or a scope, leaves nothing running."""
    slow = Slow(100)
    async with Sandbox(accounts=4, fault=slow) as sandbox:
        async with ConversationSession(base_url=sandbox.url) as session:

            async def collect() -> None:
                async with session.fetch_many(everybody(sandbox), QUERY, timeout=None) as outcomes:
                    async for _ in outcomes:
                        pass

            task = asyncio.create_task(collect())
            await asyncio.sleep(10)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert client_tasks() == set()

            with anyio.move_on_after(10) as scope:
                await collect()
            assert scope.cancelled_caught
            assert client_tasks() == set()

            with pytest.raises(TimeoutError):
                async with asyncio.timeout(10):
                    await collect()
            assert client_tasks() == set()


async def test_closing_the_session_ends_what_many_ask() -> None:
    """Each account that was still asked has its error; the iteration ends."""
    async with Sandbox(accounts=3, latency=60) as sandbox:
        session = ConversationSession(base_url=sandbox.url)
        async with session, session.fetch_many(everybody(sandbox), QUERY) as outcomes:
            await asyncio.sleep(1)
            await session.close()
            errors = [type(each.error) async for each in outcomes]

    assert [SessionUnusable] * 3 == errors


@pytest.mark.parametrize("bound", [0, -1])
async def test_a_bound_that_lets_nothing_through_is_refused(bound: int) -> None:
    """At least one must be in flight."""
    async with ConversationSession(base_url="http://localhost") as session:
        with pytest.raises(ConfigurationError, match="max_in_flight"):
            session.fetch_many([], QUERY, max_in_flight=bound)


def test_an_outcome_is_a_value() -> None:
    """Equal outcomes are equal, and cannot be changed."""
    outcome: Any = Outcome(Account("1", BEARER), QUERY)

    assert Outcome(Account("1", BEARER), QUERY) == outcome
    with pytest.raises(AttributeError):
        outcome.error = None


async def test_an_unforeseen_exception_stays_with_its_account(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fifty accounts, one of which breaks something of ours: the others have their reports."""

    class Broken(BearerToken):
        def headers(self, _: object) -> dict[str, str]:
            raise OverflowError("a secret-token is too large")

    async with (
        Sandbox(accounts=50) as sandbox,
        ConversationSession(base_url=sandbox.url) as session,
    ):
        *others, last = everybody(sandbox)
        broken = Account(last.id, Broken("secret-token"))
        async with session.fetch_many([broken, *others], QUERY) as outcomes:
            found = [outcome async for outcome in outcomes]

    failed = [outcome for outcome in found if outcome.error]
    assert [broken.id] == [outcome.account.id for outcome in failed]
    error = failed[0].error
    assert f"account {broken.id}: an unforeseen OverflowError" in str(error)
    assert "secret-token" not in str(error)
    assert (None, None) == (error.__cause__, error.__context__)  # type: ignore[union-attr]
    logged = [record for record in caplog.records if record.levelname == "ERROR"]
    assert ["msgconv_async"] == [record.name for record in logged]
    assert logged[0].exc_info is not None
    assert logged[0].exc_info[0] is OverflowError
