"""What holds for every test: it leaves no task running and nothing open."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from unittest.mock import Mock

import aiohttp
import pytest
from aioresponses import aioresponses
from hypothesis import HealthCheck, settings

# Else looptime asks for a loop around every plain test, and on Python 3.11 that makes one which
# nobody closes.
asyncio.set_event_loop(None)

# A machine that is busy is no fault of the code under test.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("long", settings.get_profile("any machine"), max_examples=20_000)
settings.load_profile("any machine")

_TURNS = 10
"""Turns of the event loop in which what was cancelled may come to its end."""


@pytest.hookimpl(optionalhook=True)  # without pytest-xdist, one process runs all tests
def pytest_xdist_auto_num_workers() -> int:
    """Return what ``-n auto`` means: tests wait for processes and disks a third of their time."""
    return (os.cpu_count() or 1) * 3 // 2


def collect() -> None:
    """Collect what is garbage; set aside what is not, so that the next time is quick."""
    gc.collect()
    gc.freeze()


def pytest_collection_finish() -> None:
    """Set aside what exists before the first test."""
    collect()


def pytest_unconfigure() -> None:
    """Give back what was set aside, or DuckDB calls it leaked when the interpreter ends."""
    gc.unfreeze()
    gc.collect()


@pytest.fixture(autouse=True)
def nothing_is_left_behind(request: pytest.FixtureRequest) -> None:
    """Fail an asynchronous test that leaves a task, something open, or an error unheard."""
    if request.node.get_closest_marker("asyncio"):
        request.getfixturevalue("_nothing_is_left_behind")


@pytest.fixture
async def _nothing_is_left_behind() -> AsyncIterator[None]:
    reported: list[str] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: reported.append(str(context))
    )
    yield
    running = asyncio.all_tasks() - {asyncio.current_task()}
    for _ in range(_TURNS):
        await asyncio.sleep(0)
    # Virtual time ends with the test: who slept in it may wake now, and is left all the same.
    left = {task for task in running if not task.cancelled()}
    collect()  # an unclosed socket or session warns as it goes, and warnings are errors
    if left:
        pytest.fail(f"the test left tasks behind: {left}")
    if reported:
        pytest.fail(f"the event loop had to report: {reported}")


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the developer's environment out, and let every terminal be the same one."""
    for name in ("MSGCONV_BASE_URL", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


class _Response(aiohttp.ClientResponse):
    """The response that aioresponses 0.7.9 makes, plus what aiohttp 3.14 wants.

    See https://github.com/pnuckowski/aioresponses/issues/289.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"stream_writer": Mock(output_size=0), **kwargs})


@pytest.fixture
def answers() -> Iterator[Callable[..., None]]:
    """Return a function that says how the next request to a URL is answered, by no server."""
    with aioresponses() as mocked:

        def add(url: Any, **answer: Any) -> None:
            mocked.get(url, response_class=_Response, **answer)

        yield add
