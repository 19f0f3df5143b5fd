"""Cancellation at any await leaves nothing behind: no slot, no token, no task, no connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import anyio
import pytest
from aiohttp import web

from msgconv_async import Account, ConversationReport, ConversationSession, DeadlineExceeded
from tests.client.support import (
    BEARER,
    CLIENT,
    EVEN,
    QUERY,
    USER,
    World,
    answering,
    client_tasks,
    liveperson,
    now,
    serving,
    turns,
)

pytestmark = pytest.mark.looptime

ONE = 1
"""Connections that the session may have: a call that leaves one in use leaves none for the next."""


class Scene:
    """One call against all that a call can meet, with nothing known beforehand.

    Attributes:
        world: The hosts.
        session: The session, new.
        account: Whom to ask.
    """

    def __init__(self, world: World, session: ConversationSession, account: Account) -> None:
        self.world = world
        self.session = session
        self.account = account

    async def call(self) -> ConversationReport:
        """Look up, log in, queue, fail once, wait, ask again."""
        return await self.session.fetch(self.account, QUERY, timeout=None)

    async def assert_nothing_is_left(self) -> None:
        """Check that the call has left no trace, and that the next one works."""
        pacer = self.session.pacer(self.account)
        assert (0, 0) == (pacer.in_flight, pacer.waiting)
        assert set() == client_tasks() - {"Logins._keep_alive"}
        self.world.delay = 0.0
        self.world.sandbox._service.failures.clear()
        async with asyncio.timeout(3):
            assert isinstance(await self.call(), ConversationReport)
        assert (0, 0) == (pacer.in_flight, pacer.waiting)
        assert set() == client_tasks() - {"Logins._keep_alive"}


@asynccontextmanager
async def scene(
    credentials: Any = CLIENT, *, failures: int = 0, queue: bool = True, delay: float = 0.0
) -> AsyncIterator[Scene]:
    """Set up a world in which a call has to look up, to log in, to queue and to ask."""
    async with liveperson(limit=ONE) as world:
        world.delay = delay
        if failures:
            world.sandbox.fail_next(times=failures)
        async with ConversationSession(coalesce=False, http=world.http, retry=EVEN) as session:
            account = Account(world.sandbox.account_ids[0], credentials)
            if queue:  # a token of the bucket is taken: the call has to wait for the next one
                async with session.pacer(account).turn():
                    pass
            yield Scene(world, session, account)
        assert set() == client_tasks()


class Suspensions:
    """Runs a coroutine, counts where it waits, and cancels it at one of these places.

    Args:
        coroutine: What to run.
        at: Where to cancel, counted from 1; 0 for nowhere.
        late: Cancel when what it waits for has come, rather than before: it was granted, and has
            not resumed.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, Any], at: int, *, late: bool) -> None:
        self._coroutine = coroutine
        self._at = at
        self._late = late
        self.count = 0

    def __await__(self) -> Generator[Any, Any, Any]:
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        running = self._coroutine.__await__()
        value, error = None, None
        while True:
            try:
                awaited = running.send(value) if error is None else running.throw(error)
            except StopIteration as done:
                return done.value
            self.count += 1
            if self.count == self._at:
                if self._late and asyncio.isfuture(awaited):
                    awaited.add_done_callback(lambda _: task.cancel())
                else:
                    loop.call_soon(task.cancel)
            try:
                value, error = (yield awaited), None
            except BaseException as thrown:  # noqa: BLE001 - passed on
                value, error = None, thrown


async def run(at: int, make: Callable[[], Any], *, late: bool) -> tuple[int, bool]:
    """Cancel a call at one place where it waits; return how many it passed, and if it was over."""
    async with make() as here:
        suspensions = Suspensions(here.call(), at, late=late)

        async def main() -> None:
            await suspensions

        task = asyncio.create_task(main())
        await asyncio.wait([task])
        if task.cancelled():
            await here.assert_nothing_is_left()
        else:
            task.result()
        return suspensions.count, not task.cancelled()


SCENES: dict[str, Callable[[], Any]] = {
    "a call that knows nothing": scene,
    "a user's login": lambda: scene(USER),
    "a failure": lambda: scene(failures=2),
}


@pytest.mark.parametrize("late", [False, True], ids=["waiting", "granted"])
@pytest.mark.parametrize("name", SCENES)
async def test_at_every_await(name: str, *, late: bool) -> None:
    """Wherever a call waits, it may be cancelled there, before and after what it waits for came."""
    places, over = await run(0, SCENES[name], late=late)
    assert over
    assert 5 < places

    for at in range(1, places + 1):
        _, over = await run(at, SCENES[name], late=late)
        assert not over, f"the call was not cancelled at its await {at} of {places}"


@pytest.mark.parametrize("credentials", [CLIENT, USER], ids=["token", "login"])
async def test_at_every_turn_of_the_loop(credentials: Any) -> None:
    """However far look-up, login and request have come, and whatever is ready at that moment."""
    step = 3

    async def cancelled_after(count: int) -> bool:
        async with scene(credentials, queue=False) as here:
            task = asyncio.create_task(here.call())
            await turns(count)
            task.cancel()
            await asyncio.wait([task])
            if task.cancelled():
                await here.assert_nothing_is_left()
            return task.cancelled()

    count = 0
    while await cancelled_after(count):
        count += step
    assert 10 * step < count


INSTANTS = [each / 4 for each in range(1, 28)]
"""Seconds. Two look-ups, a login and two requests take one each, and 5 lie between the two: these
instants fall on every change, before it and after it."""


async def cancel(call: Callable[[], Awaitable[Any]], seconds: float) -> bool:
    task = asyncio.ensure_future(call())
    await asyncio.sleep(seconds)
    task.cancel()
    await asyncio.wait([task])
    return task.cancelled()


async def move_on(call: Callable[[], Awaitable[Any]], seconds: float) -> bool:
    with anyio.move_on_after(seconds) as scope:
        await call()
    return scope.cancelled_caught


async def time_out(call: Callable[[], Awaitable[Any]], seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await call()
    except TimeoutError:
        return True
    return False


async def leave_a_group(call: Callable[[], Awaitable[Any]], seconds: float) -> bool:
    done = False

    async def run() -> None:
        nonlocal done
        await call()
        done = True

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await anyio.sleep(seconds)
        group.cancel_scope.cancel()
    return not done


@pytest.mark.parametrize("way", [cancel, move_on, time_out, leave_a_group])
async def test_at_many_instants(
    way: Callable[[Callable[[], Awaitable[Any]], float], Awaitable[bool]],
) -> None:
    """By a task, a cancel scope, a timeout or a group: in the time that each part takes."""
    for seconds in INSTANTS:
        async with scene(delay=1, failures=1) as here:
            began = now()

            assert await way(here.call, seconds)

            assert now() - began == pytest.approx(seconds, abs=0.01)
            await here.assert_nothing_is_left()


async def test_by_its_own_timeout_at_many_instants() -> None:
    """The timeout of a call cleans up as any cancellation does."""
    for seconds in INSTANTS:
        async with scene(delay=1, failures=9) as here:
            began = now()
            with pytest.raises(Exception, match=here.account.id) as caught:
                await here.session.fetch(here.account, QUERY, timeout=seconds)

            at_once = not isinstance(caught.value, DeadlineExceeded)
            assert now() - began <= seconds + 0.01
            assert at_once or now() - began == pytest.approx(seconds, abs=0.01)
            await here.assert_nothing_is_left()


async def test_one_of_many_who_share_a_login() -> None:
    """Cancelling any of the callers, at any time, neither stops nor repeats the others' login."""
    for seconds in INSTANTS[:16]:
        for number in range(3):
            async with scene(delay=1, queue=False) as here:
                calls = [asyncio.create_task(here.call()) for _ in range(3)]
                await asyncio.sleep(seconds)
                calls[number].cancel()

                await asyncio.wait(calls)

                assert calls[number].cancelled()
                assert [False, False] == [
                    each.cancelled() for each in calls if each is not calls[number]
                ]
                assert ["leDataReporting", "sentinel"] == here.world.lookups()
                assert 1 == here.world.sandbox.tokens[here.account.id]
                await here.assert_nothing_is_left()


async def test_all_who_share_a_login_at_once() -> None:
    """When everybody leaves, the shared login ends with them, in the same moment."""
    for seconds in INSTANTS[:16]:
        async with scene(delay=1, queue=False) as here:
            calls = [asyncio.create_task(here.call()) for _ in range(3)]
            await asyncio.sleep(seconds)
            for call in calls:
                call.cancel()

            await asyncio.wait(calls)

            assert set() == client_tasks()
            await here.assert_nothing_is_left()


async def test_who_comes_while_a_login_is_being_broken_off_gets_one_of_its_own() -> None:
    """A newcomer never inherits the cancellation of those who left."""
    for seconds in INSTANTS[:12]:
        for later in range(6):
            async with scene(delay=1, queue=False) as here:
                first = asyncio.create_task(here.call())
                await asyncio.sleep(seconds)
                first.cancel()
                await turns(later)
                second = asyncio.create_task(here.call())

                assert isinstance(await second, ConversationReport)
                await asyncio.wait([first])
                assert first.cancelled()


async def test_while_the_body_is_read() -> None:
    """A connection on which half an answer came is closed, and gives its place to the next."""
    halves = 0

    async def half(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal halves
        halves += 1
        if halves > 1:
            return await answering()(request)
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"{")
        await asyncio.sleep(3600)
        return response

    async with (
        serving(half) as url,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=ONE)) as http,
        ConversationSession(coalesce=False, http=http, base_url=url) as session,
    ):
        who = Account("1", BEARER)
        with anyio.move_on_after(5) as scope:
            await session.fetch(who, QUERY)

        assert scope.cancelled_caught
        assert 1 == halves
        assert (0, 0) == (session.pacer(who).in_flight, session.pacer(who).waiting)
        async with asyncio.timeout(3):
            await session.fetch(who, QUERY)


async def test_a_queue_loses_nobody() -> None:
    """Cancelling every other one of a queue lets the rest through, in their order and no later."""
    async with scene(queue=False) as here:
        await here.call()
        order: list[int] = []

        async def numbered(number: int) -> None:
            await here.call()
            order.append(number)

        calls = [asyncio.create_task(numbered(number)) for number in range(20)]
        await turns()
        for call in calls[1::2]:
            call.cancel()
        await asyncio.wait(calls)

        assert list(range(0, 20, 2)) == order
        await here.assert_nothing_is_left()
