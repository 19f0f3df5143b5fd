"""Virtual time for what must be exact: an event loop whose clock jumps to the next timer."""

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import looptime

T = TypeVar("T")


@contextmanager
def virtual_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A fresh loop at time 0, exact to the nanosecond."""
    loop: asyncio.AbstractEventLoop = looptime.new_event_loop(start=0.0, resolution=1e-9)
    try:
        yield loop
    finally:
        loop.close()


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in virtual time."""
    with virtual_loop() as loop:
        return loop.run_until_complete(main)
