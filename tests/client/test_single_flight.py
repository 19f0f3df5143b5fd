"""What is shared: one piece of work for all who ask for it at the same time."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

import pytest

from msgconv_async import ConnectionFailed, MsgConvError
from msgconv_async.client.http.deadlines import Deadline
from msgconv_async.client.http.single_flight import SingleFlight
from tests.client.support import client_tasks, turns

pytestmark = pytest.mark.looptime


class Until(NamedTuple):
    at: float
    timeout: float = 1.0

    @property
    def ends(self) -> float:
        return self.at

    def failed(self, error: MsgConvError) -> None:
        raise AssertionError

    def sent(self, at: float | None) -> None:
        """Nothing hangs on it here."""


def working(seconds: float, outcome: str) -> Callable[[Deadline], Coroutine[Any, Any, str]]:
    async def work(_: Deadline) -> str:
        await asyncio.sleep(seconds)
        if outcome == "failure":
            raise MsgConvError("it went wrong")
        return outcome

    return work


async def test_the_work_is_done_once_for_each_key() -> None:
    """Those who ask for the same share it; who asks for another does not."""
    flights = SingleFlight[str]()
    begun: list[str] = []

    async def join(key: str) -> str:
        async def work(until: Deadline) -> str:
            begun.append(key)
            return await working(1, key)(until)

        return await flights.join(key, work, Until(9))

    assert ["a", "b", "a", "a"] == await asyncio.gather(*map(join, ["a", "b", "a", "a"]))
    assert ["a", "b"] == begun
    assert "a" == await join("a")
    assert ["a", "b", "a"] == begun


async def test_the_deadline_of_the_work_is_that_of_the_most_patient() -> None:
    """It moves as they come and go."""
    flights = SingleFlight[None]()
    seen: list[float] = []

    async def work(until: Deadline) -> None:
        for _ in range(3):
            await asyncio.sleep(1)
            seen.append(until.at)

    waiting = [
        asyncio.create_task(flights.join("key", work, Until(at))) for at in (20.0, 50.0, 10.0)
    ]
    await asyncio.sleep(1.5)
    waiting[1].cancel()
    await asyncio.wait(waiting)

    assert [50, 20, 20] == seen


@pytest.mark.parametrize("outcome", ["success", "failure"])
async def test_who_leaves_in_the_moment_it_lands_leaves_nothing(outcome: str) -> None:
    """Neither a task nor an error that nobody fetched."""
    flights = SingleFlight[str]()
    waiting = asyncio.create_task(flights.join("key", working(1, outcome), Until(9)))
    await turns(2)
    flights._flights["key"].task.add_done_callback(lambda _: waiting.cancel())

    await asyncio.wait([waiting])

    assert waiting.cancelled()
    assert set() == client_tasks()
    assert {} == flights._flights


async def test_what_is_not_ours_is_raised_as_it_is() -> None:
    """A fault of the program itself is not hidden."""
    flights = SingleFlight[None]()

    async def work(_: Deadline) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await flights.join("key", work, Until(9))


async def test_each_who_waited_has_an_error_of_its_own() -> None:
    """A traceback or a note that one of them adds is not seen by the others."""
    flights = SingleFlight[str]()
    errors = await asyncio.gather(
        *(flights.join("key", working(1, "failure"), Until(9)) for _ in range(3)),
        return_exceptions=True,
    )

    assert ["it went wrong"] * 3 == [str(error) for error in errors]
    assert 3 == len({id(error) for error in errors})


async def test_nobody_joins_what_may_be_lost() -> None:
    """The next ones share another, and what that returns is given to those before as well."""
    flights = SingleFlight[int]()
    begun = 0

    async def work(until: Deadline) -> int:
        nonlocal begun
        begun += 1
        mine = begun
        until.sent(asyncio.get_running_loop().time())
        await asyncio.sleep(9 if mine == 1 else 0.5)
        until.sent(None)
        return mine

    async def join(after: float) -> int:
        await asyncio.sleep(after)
        return await flights.join("key", work, Until(99))

    began = asyncio.get_running_loop().time()
    assert [2, 2, 2, 2, 3] == await asyncio.gather(*map(join, [0, 0.9, 1.1, 1.4, 2]))
    assert 2.5 == pytest.approx(asyncio.get_running_loop().time() - began, abs=0.1)
    assert {} == flights._flights


async def test_what_waits_for_its_next_try_is_joined_however_old_it_is() -> None:
    """Nothing of it is out: to begin anew would be to ask sooner than was agreed."""
    flights = SingleFlight[str]()

    async def work(until: Deadline) -> str:
        until.sent(asyncio.get_running_loop().time())
        await asyncio.sleep(0.5)
        until.sent(None)
        await asyncio.sleep(9)
        return "one"

    async def another(_: Deadline) -> str:
        raise AssertionError

    first = asyncio.create_task(flights.join("key", work, Until(99)))
    await asyncio.sleep(8)

    assert "one" == await flights.join("key", another, Until(99))
    await first


async def test_what_hangs_on_a_lost_login_may_be_lost_itself() -> None:
    """Who waits through another's work is told of its request, also when coming later."""
    logins, questions = SingleFlight[str](), SingleFlight[str]()
    begun: list[str] = []

    async def login(until: Deadline) -> str:
        begun.append("login")
        until.sent(asyncio.get_running_loop().time())
        await asyncio.sleep(9)
        return "login"

    async def question(until: Deadline) -> str:
        begun.append("question")
        return await logins.join("key", login, until)

    async def ask(after: float) -> str:
        await asyncio.sleep(after)
        return await questions.join("key", question, Until(99))

    await asyncio.gather(*map(ask, [0, 0.5, 1.5]))

    assert ["question", "login"] * 2 == begun


async def test_what_is_over_is_not_remembered_while_nothing_is_answered() -> None:
    """An outage of an hour leaves no more behind than one of a minute."""
    flights = SingleFlight[int]()
    most = 0

    async def work(until: Deadline) -> int:
        until.sent(asyncio.get_running_loop().time())
        await asyncio.sleep(5)
        raise ConnectionFailed("no answer", account_id="1")

    async def join() -> None:
        with pytest.raises(ConnectionFailed):
            await flights.join("key", work, Until(99))

    async with asyncio.TaskGroup() as group:
        for _ in range(60):
            group.create_task(join())
            await asyncio.sleep(1)
            linked, flight = 0, flights._flights.get("key")
            while flight is not None:
                linked, flight = linked + 1, flight.before
            most = max(most, linked)
    assert most <= 7
