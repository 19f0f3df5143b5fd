"""A real Chromium, driven over its DevTools protocol: no network but loopback."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

PATIENCE = 30.0
"""Seconds that anything may take to be seen."""

_OPTIONS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync
    --disable-background-networking --disable-component-update --disable-dev-shm-usage
    --proxy-server=127.0.0.1:9 --proxy-bypass-list=127.0.0.1 --remote-debugging-port=0"""


class Tab:
    """A tab of the browser.

    Attributes:
        problems: What was logged as an error or a warning, or thrown.
        requested: The address of each request.
    """

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.problems: list[str] = []
        self.requested: list[str] = []

    async def listen(self) -> None:
        """Take what the browser says, until it hangs up."""
        async for message in self._socket:
            said = json.loads(message.data)
            if (answer := self._answers.pop(said.get("id", 0), None)) is not None:
                answer.set_result(said)
            else:
                self._take(said.get("method", ""), said.get("params", {}))

    def _take(self, method: str, said: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.requested.append(said["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.problems.append(str(said["exceptionDetails"]))
        elif method == "Log.entryAdded" and said["entry"]["level"] in {"error", "warning"}:
            self.problems.append(str(said["entry"]))
        elif method == "Runtime.consoleAPICalled" and said["type"] in {"error", "warning"}:
            self.problems.append(str(said["args"]))

    async def call(self, method: str, **given: Any) -> dict[str, Any]:
        """Have the browser do something; return what came of it."""
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": given})
        said = await asyncio.wait_for(answer, PATIENCE)
        assert "error" not in said, said
        result: dict[str, Any] = said["result"]
        return result

    async def value(self, expression: str) -> Any:
        """Return the value of an expression of JavaScript."""
        said = await self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in said, said
        return said["result"].get("value")

    async def until(
        self, expression: str, holds: Callable[[Any], bool] = bool, patience: float = PATIENCE
    ) -> Any:
        """Wait until the value of an expression is as it should be; return it."""
        value: Any = None
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while not holds(value := await self.value(expression)):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        assert holds(value), f"{expression} is {value!r}; problems: {self.problems}"
        return value

    async def open(self, url: str) -> None:
        """Go to an address, and wait until the page is loaded."""
        await self.call("Page.navigate", url=url)
        await self.until(f"document.readyState === 'complete' && location.href.startsWith({url!r})")

    async def look(self, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Make the window of this size, and have the reader prefer dark or light."""
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 500,
        )
        scheme = "dark" if dark else "light"
        await self.call(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )

    async def picture(self, file: Path) -> bytes:
        """Take a picture of what is seen."""
        await asyncio.sleep(0.3)  # until it is drawn
        taken = base64.b64decode((await self.call("Page.captureScreenshot"))["data"])
        await asyncio.to_thread(file.write_bytes, taken)
        return taken

    async def press(self, key: str, text: str = "") -> None:
        """Press a key."""
        code = {"Tab": 9, "Enter": 13}.get(key, 0)
        for kind in ("keyDown", "keyUp"):
            await self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                windowsVirtualKeyCode=code,
                **({"text": text} if text and kind == "keyDown" else {}),
            )


@asynccontextmanager
async def browsing(folder: Path) -> AsyncIterator[Tab]:
    """Run a browser; yields its tab. The test is skipped where there is none."""
    browser = shutil.which("chromium")
    if browser is None:
        if os.environ.get("CI_REQUIRE_SERVERS") == "1":
            pytest.fail("there is no chromium to look at the page with")
        pytest.skip("there is no chromium to look at the page with")
    profile = folder / "profile"
    process = await asyncio.create_subprocess_exec(
        browser,
        *_OPTIONS.split(),
        f"--user-data-dir={profile}",
        "about:blank",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        port = await _port(profile / "DevToolsActivePort")
        async with aiohttp.ClientSession() as http, _tab(http, port) as tab:
            yield tab
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 10)
        except TimeoutError:
            process.kill()
            await process.wait()


@asynccontextmanager
async def _tab(http: aiohttp.ClientSession, port: int) -> AsyncIterator[Tab]:
    async with http.get(f"http://127.0.0.1:{port}/json/list") as response:
        [target, *_] = [tab for tab in await response.json() if tab["type"] == "page"]
    async with http.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
        tab = Tab(socket)
        listening = asyncio.create_task(tab.listen())
        try:
            for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"):
                await tab.call(f"{domain}.enable")
            yield tab
        finally:
            listening.cancel()
            await asyncio.wait([listening])


async def _port(file: Path) -> int:
    def read() -> list[str]:
        return file.read_text().split() if file.exists() else []

    async with asyncio.timeout(PATIENCE):
        while len(lines := await asyncio.to_thread(read)) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return int(lines[0])
