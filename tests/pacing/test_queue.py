"""The queue: order, one timer, re-planning, cancellation."""

import asyncio
import math
import tracemalloc
from collections.abc import Awaitable, Callable
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from msgconv_async.pacing.concurrency import ConcurrencyLimit
from msgconv_async.pacing.queue import Queue
from msgconv_async.pacing.schedule import CATCH_UP, Schedule
from msgconv_async.pacing.token_bucket import TokenBucket
from tests.pacing.virtual import run_virtual, virtual_loop


def queue_of(bucket: TokenBucket | None = None, slots: ConcurrencyLimit | None = None) -> Queue:
    """A queue of its own; what is not given does not hold anybody up."""
    return Queue(Schedule(bucket or TokenBucket(1e9, 1e9), slots or ConcurrencyLimit()))


async def _starts(queue: Queue, arrivals: list[float]) -> list[tuple[float, int]]:
    """When each of the callers who come at these instants started, and as which it came."""
    loop = asyncio.get_running_loop()
    numbers = count()
    starts: list[tuple[float, int]] = []

    async def caller(arrival: float) -> None:
        await asyncio.sleep(arrival)
        number = next(numbers)
        await queue.acquire()
        starts.append((loop.time(), number))

    await asyncio.gather(*map(caller, arrivals))
    return starts


@given(
    rate=st.floats(0.1, 2000),
    burst=st.floats(1, 20),
    arrivals=st.lists(st.floats(0, 5), min_size=1, max_size=60),
)
@settings(deadline=None, max_examples=60)
def test_no_window_holds_more_than_burst_and_rate_allow(
    rate: float, burst: float, arrivals: list[float]
) -> None:
    """In any window of length T there are at most burst + rate * T starts, from the first on."""
    times = [at for at, _ in run_virtual(_starts(queue_of(TokenBucket(rate, burst)), arrivals))]
    for first in range(len(times)):
        for last in range(first, len(times)):
            allowed = burst + rate * (times[last] - times[first])
            assert last - first + 1 <= allowed + 1e-4


@given(arrivals=st.lists(st.floats(0, 3), min_size=1, max_size=40))
@settings(deadline=None, max_examples=30)
def test_first_come_first_served(arrivals: list[float]) -> None:
    """Callers start in the order in which they came, also against those who need not wait."""
    starts = run_virtual(_starts(queue_of(TokenBucket(10, 3)), arrivals))
    assert list(range(len(arrivals))) == [number for _, number in starts]


def test_who_comes_again_is_before_all_who_had_no_turn() -> None:
    """In the order in which they came again; and it is told so."""

    async def main() -> tuple[list[str], float, float]:
        queue, started = queue_of(TokenBucket(10, 1)), []

        async def caller(name: str, *, again: bool) -> None:
            await queue.acquire(again=again)
            started.append(name)

        async with asyncio.TaskGroup() as group:
            for name in "abcd":
                group.create_task(caller(name, again=False))
            await asyncio.sleep(0.05)
            for name in "AB":
                group.create_task(caller(name, again=True))
            await asyncio.sleep(0)
            newcomer, once_more = queue.eta(["rate"]), queue.eta(["rate"], again=True)
        return started, newcomer, once_more

    started, newcomer, once_more = run_virtual(main())
    assert list("aABbcd") == started
    assert 0.55 == pytest.approx(newcomer, abs=0.01)
    assert 0.25 == pytest.approx(once_more, abs=0.01)


def test_a_bucket_without_burst_is_perfectly_even() -> None:
    """With the default burst the starts are one interval apart, the first at once."""
    starts = run_virtual(_starts(queue_of(TokenBucket(4)), [0.0] * 5))
    assert pytest.approx([at for at, _ in starts], abs=1e-6) == [0, 0.25, 0.5, 0.75, 1.0]


def test_a_rest_saves_up_the_burst_and_no_more() -> None:
    """After a long rest exactly the burst starts at once."""
    starts = run_virtual(_starts(queue_of(TokenBucket(1, 3)), [0.0] * 3 + [1000.0] * 5))
    assert pytest.approx([at for at, _ in starts], abs=1e-6) == [
        0,
        0,
        0,
        1000,
        1000,
        1000,
        1001,
        1002,
    ]


@pytest.mark.parametrize(("rate", "waiters"), [(200, 100), (1000, 500), (2000, 1000)])
async def test_late_timers_cost_no_rate(rate: int, waiters: int) -> None:
    """On a real event loop, whose timers are late, the rate asked for is the rate delivered.

    A machine that holds the process up for longer than CATCH_UP costs rate, so it has three tries.
    """
    delivered: list[float] = []
    while rate != pytest.approx(max(delivered, default=0.0), rel=0.03) and len(delivered) < 3:
        starts = await _starts(queue_of(TokenBucket(rate)), [0.0] * waiters)
        delivered.append((waiters - 1) / (starts[-1][0] - starts[0][0]))
    assert rate == pytest.approx(max(delivered), rel=0.03)


async def test_a_stalled_loop_ends_in_no_more_than_the_catch_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After half a second of standing still, only CATCH_UP's worth starts at once."""
    loop, queue = asyncio.get_running_loop(), queue_of(TokenBucket(1000))
    tasks = [asyncio.create_task(queue.acquire()) for _ in range(200)]
    await asyncio.sleep(0)
    before, clock = queue.waiting, loop.time
    monkeypatch.setattr(loop, "time", lambda: clock() + 0.5)
    queue.replan()
    at_once = before - queue.waiting
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert at_once == pytest.approx(1000 * CATCH_UP, abs=2)


def _after(seconds: float, change: Callable[[Queue], None]) -> Callable[[Queue], Awaitable[None]]:
    async def act(queue: Queue) -> None:
        await asyncio.sleep(seconds)
        change(queue)

    return act


def _rate(rate: float) -> Callable[[Queue], None]:
    def change(queue: Queue) -> None:
        queue._schedule.bucket.change(asyncio.get_running_loop().time(), rate)
        queue.replan()

    return change


def _pause(until: float) -> Callable[[Queue], None]:
    def change(queue: Queue) -> None:
        queue._schedule.paused_until = until
        queue.replan()

    return change


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_rate(10.0), [0, 0.55, 0.65, 0.75]),
        (_rate(0.5), [0, 1.5, 3.5, 5.5]),
        (_pause(3.0), [0, 3, 4, 5]),
    ],
    ids=["faster", "slower", "pause"],
)
def test_a_change_is_felt_by_who_waits(
    change: Callable[[Queue], None], expected: list[float]
) -> None:
    """A new rate or a pause holds at once; what was gained before it was gained at the old rate."""

    async def main() -> list[float]:
        queue = queue_of(TokenBucket(1.0))
        starts, _ = await asyncio.gather(_starts(queue, [0.0] * 4), _after(0.5, change)(queue))
        return [at for at, _ in starts]

    assert expected == pytest.approx(run_virtual(main()), abs=1e-6)


def test_a_pause_can_be_taken_back() -> None:
    """Laying an earlier end over a pause lets the queue go on."""

    async def main() -> float:
        queue = queue_of()
        _pause(100.0)(queue)
        starts, _ = await asyncio.gather(
            _starts(queue, [0.0]), _after(2.0, _pause(-math.inf))(queue)
        )
        return starts[0][0]

    assert run_virtual(main()) == pytest.approx(2.0)


def test_a_cancelled_waiter_gives_its_place_to_the_next() -> None:
    """Who leaves the queue costs those behind nothing."""

    async def main() -> float:
        queue = queue_of(TokenBucket(1.0))
        await queue.acquire()
        leaver = asyncio.create_task(queue.acquire())
        stayer = asyncio.create_task(queue.acquire())
        await asyncio.sleep(0.5)
        leaver.cancel()
        await stayer
        return asyncio.get_running_loop().time()

    assert run_virtual(main()) == pytest.approx(1.0)


def test_who_is_cancelled_between_grant_and_start_gives_it_back() -> None:
    """A token granted to a task that is cancelled before it resumes goes to the next at once."""

    async def main() -> tuple[float, int]:
        queue = queue_of(TokenBucket(1.0), slots := ConcurrencyLimit(1))
        await queue.acquire()
        loser = asyncio.create_task(queue.acquire())
        winner = asyncio.create_task(queue.acquire())
        await asyncio.sleep(5)
        slots.finished(1.0)
        queue.replan()
        loser.cancel()
        await winner
        return asyncio.get_running_loop().time(), slots.in_flight

    at, in_flight = run_virtual(main())
    assert at == pytest.approx(5.0)
    assert in_flight == 1


def test_a_newcomer_does_not_overtake_who_was_granted() -> None:
    """Between a grant and its resumption, a caller who could start at once still goes second."""

    async def main() -> list[str]:
        queue, order = queue_of(bucket := TokenBucket(1.0, 2.0)), []

        async def caller(name: str) -> None:
            await queue.acquire()
            order.append(name)

        await queue.acquire()
        await queue.acquire()
        first = asyncio.create_task(caller("first"))
        await asyncio.sleep(0.5)
        bucket.give_back()
        bucket.give_back()
        queue.replan()
        await asyncio.gather(caller("second"), first)
        return order

    assert run_virtual(main()) == ["first", "second"]


def test_it_says_what_held_a_start_up() -> None:
    """Whoever learns from outcomes must know what was in the way: nothing, tokens or slots."""

    async def main() -> list[str | None]:
        queue = queue_of(TokenBucket(1.0), slots := ConcurrencyLimit(2))
        held: list[str | None] = [await queue.acquire(), await queue.acquire()]
        third = asyncio.create_task(queue.acquire())
        await asyncio.sleep(10)
        slots.finished(1.0)
        queue.replan()
        held.append(await third)
        return held

    assert run_virtual(main()) == [None, "rate", "concurrency"]


@pytest.mark.parametrize("ahead", [0, 1, 7])
def test_eta_tells_when_a_newcomer_would_start(ahead: int) -> None:
    """With only a rate in the way, the estimate is exact."""

    async def main() -> tuple[float, float]:
        queue = queue_of(TokenBucket(2.0))
        tasks = [asyncio.create_task(queue.acquire()) for _ in range(ahead)]
        await asyncio.sleep(0.01)
        eta = queue.eta(["rate"])
        before = asyncio.get_running_loop().time()
        await queue.acquire()
        await asyncio.gather(*tasks)
        return eta, asyncio.get_running_loop().time() - before

    eta, waited = run_virtual(main())
    assert eta == pytest.approx(waited, abs=1e-6)


def test_eta_counts_the_rounds_of_full_slots() -> None:
    """With four slots held for 2 seconds each, the ninth in the queue waits for two rounds."""

    async def main() -> float:
        queue = queue_of(slots=(slots := ConcurrencyLimit(4)))

        async def work() -> None:
            await queue.acquire()
            await asyncio.sleep(2)
            slots.finished(2.0)
            queue.replan()

        for _ in range(20):
            await work()
        tasks = [asyncio.create_task(work()) for _ in range(12)]
        await asyncio.sleep(0.001)
        eta = queue.eta(["concurrency"])
        await asyncio.gather(*tasks)
        return eta

    assert 2.0 <= run_virtual(main()) <= 6.0


async def test_a_waiter_is_small_and_they_share_one_timer() -> None:
    """Ten thousand waiters cost under 1 KiB each beside their tasks, and one timer in all."""

    async def weight(wait: Callable[[], Awaitable[object]]) -> float:
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        tasks = [asyncio.ensure_future(wait()) for _ in range(10_000)]
        await asyncio.sleep(0)
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return (after - before) / len(tasks)

    queue = queue_of(TokenBucket(0.001))
    await queue.acquire()
    forever: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    task_alone = await weight(lambda: asyncio.shield(forever))
    forever.cancel()
    assert await weight(queue.acquire) - task_alone < 1024
    assert len(asyncio.get_running_loop()._scheduled) <= 1  # type: ignore[attr-defined]


class QueueMachine(RuleBasedStateMachine):
    """Anything may happen in any order; no start, slot or place in the queue may be lost."""

    def __init__(self) -> None:
        super().__init__()
        self.context = virtual_loop()
        self.loop = self.context.__enter__()
        self.slots = ConcurrencyLimit(2)
        self.schedule = Schedule(TokenBucket(5.0, 2.0), self.slots)
        self.queue = Queue(self.schedule)
        self.waiting: list[tuple[int, asyncio.Task[None]]] = []
        self.holding: list[int] = []
        self.again: set[int] = set()
        self.started: list[int] = []
        self.number = 0

    def _run(self, seconds: float = 0.0) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))
        self.waiting = [(n, task) for n, task in self.waiting if not task.done()]

    def _in_loop(self, act: Callable[[], None]) -> None:
        async def run() -> None:
            act()
            self.queue.replan()

        self.loop.run_until_complete(run())
        self._run()

    @rule(callers=st.integers(1, 4), again=st.booleans())
    def come(self, callers: int, *, again: bool) -> None:
        async def caller(number: int) -> None:
            await self.queue.acquire(again=again)
            self.started.append(number)
            self.holding.append(number)

        for _ in range(callers):
            self.number += 1
            self.again |= {self.number} if again else set()
            self.waiting.append((self.number, self.loop.create_task(caller(self.number))))
        self._run()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        _, task = data.draw(st.sampled_from(self.waiting))
        task.cancel()
        self._run()

    @precondition(lambda self: self.waiting and self.holding)
    @rule()
    def give_up_just_when_granted(self) -> None:
        """The slot goes to the head of the queue, who is cancelled before it resumes."""
        self.holding.pop()
        head = min(self.waiting, key=lambda each: (each[0] not in self.again, each[0]))[1]

        def act() -> None:
            self.slots.finished(0.1)
            self.queue.replan()
            head.cancel()

        self._in_loop(act)

    @precondition(lambda self: self.holding)
    @rule()
    def finish(self) -> None:
        self.holding.pop()
        self._in_loop(lambda: self.slots.finished(0.1))

    @rule(capacity=st.integers(1, 5))
    def resize(self, capacity: int) -> None:
        def act() -> None:
            self.slots.capacity = capacity

        self._in_loop(act)

    @rule(rate=st.floats(0.5, 100))
    def retune(self, rate: float) -> None:
        self._in_loop(lambda: self.schedule.bucket.change(self.loop.time(), rate))

    @rule(seconds=st.floats(0, 3))
    def pause(self, seconds: float) -> None:
        def act() -> None:
            self.schedule.paused_until = self.loop.time() + seconds

        self._in_loop(act)

    @rule(seconds=st.floats(0, 2))
    def wait(self, seconds: float) -> None:
        self._run(seconds)

    @invariant()
    def starts_are_in_order(self) -> None:
        for kind in (self.again, set(self.started) - self.again):
            numbers = [number for number in self.started if number in kind]
            assert sorted(numbers) == numbers

    @invariant()
    def every_slot_is_accounted_for(self) -> None:
        assert self.slots.in_flight == len(self.holding)
        assert self.queue.waiting == len(self.waiting)

    def teardown(self) -> None:
        """In the end everybody who still waits gets through."""
        try:
            for _ in range(1000):
                if not self.waiting:
                    break
                if self.holding:
                    self.finish()
                self._run(2.0)
            assert self.waiting == []
            assert self.queue._timer is None
        finally:
            self.context.__exit__(None, None, None)


TestQueue = QueueMachine.TestCase
TestQueue.settings = settings(deadline=None, max_examples=60, stateful_step_count=30)
