"""A proxy as companies have them: it makes tunnels, refuses, or reads what passes."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class ConnectProxy:
    """Leads every tunnel to one port of this machine, whatever name was asked for.

    Attributes:
        url: Its address.
        tunnels: The hosts and ports that it was asked for, in order.
        heads: What it was sent, in order.
        refusal: What it answers instead of making a tunnel, if anything.
    """

    def __init__(self, port: int) -> None:
        self.url = ""
        self.tunnels: list[str] = []
        self.heads: list[str] = []
        self.refusal = b""
        self._port = port

    @property
    def name(self) -> str:
        return self.url.partition("://")[2]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.readexactly(1)
        if first == b"\x16":  # a handshake of TLS, which it does not speak
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            writer.close()
            return
        head = (first + await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        asked = re.match(r"CONNECT (\S+) HTTP/1.1\r\n", head)
        assert asked is not None, head
        self.tunnels.append(asked[1])
        if self.refusal:
            writer.write(self.refusal)
            await writer.drain()
            writer.close()
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(_pass_on(reader, far_writer), _pass_on(far_reader, writer))


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError, ssl.SSLError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()
    with suppress(ConnectionError, ssl.SSLError):
        await writer.wait_closed()


@asynccontextmanager
async def connect_proxy(
    port: int, tls: ssl.SSLContext | None = None
) -> AsyncIterator[ConnectProxy]:
    """Run one that leads to a port."""
    proxy = ConnectProxy(port)
    serving: set[asyncio.Task[None]] = set()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(proxy.serve(reader, writer))
        serving.add(task)
        task.add_done_callback(serving.discard)

    async with await asyncio.start_server(begin, "127.0.0.1", 0, ssl=tls) as server:
        here = server.sockets[0].getsockname()[1]
        proxy.url = f"{'https' if tls else 'http'}://localhost:{here}"
        yield proxy
        await asyncio.wait_for(asyncio.gather(*serving), 5)  # both ends of a tunnel are closed
