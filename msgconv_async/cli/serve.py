"""``msgconv sandbox``: runs the local server until a signal stops it."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress

from msgconv_async.cli.console import OK, complain
from msgconv_async.sandbox import CLIENT_ID, CLIENT_SECRET, Sandbox


async def run(sandbox: Sandbox) -> int:
    """Serve until SIGINT (Ctrl-C) or SIGTERM."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):  # on Windows
            loop.add_signal_handler(number, stopped.set)
    async with sandbox:
        first, *_, last = sandbox.account_ids * 2
        among = first if first == last else f"{first} to {last}"
        print(f"listening on {sandbox.url}", flush=True)  # noqa: T201
        complain(f"accounts {among}; client id {CLIENT_ID}, secret {CLIENT_SECRET}; Ctrl-C stops")
        await stopped.wait()
    return OK
