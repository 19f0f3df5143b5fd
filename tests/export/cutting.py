"""A proxy before a PostgreSQL server that cuts every connection at one point of a conversation."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from threading import Lock, Thread
from typing import BinaryIO, TypeAlias
from urllib.parse import urlsplit, urlunsplit

NEVER = 0

_Pump: TypeAlias = Callable[[socket.socket, socket.socket], None]

_ANSWERED = b"ZG"
"""What the server sends last: ReadyForQuery, and CopyInResponse, which waits for rows.

What it sends before, such as rows, belongs to the same answer: the server has done what it was
asked by then, and the client does not know it until the last one is there.
"""


class Cutting:
    """Passes messages on, and counts them: all of the client's, and the end of each answer.

    See https://www.postgresql.org/docs/current/protocol-message-formats.html.

    Args:
        address: The server.
    """

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        self._server = (parts.hostname, parts.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        place = f"{parts.username}:{parts.password}@127.0.0.1:{self._listener.getsockname()[1]}"
        plain = "sslmode=disable&gssencmode=disable"
        self.address = urlunsplit(parts._replace(netloc=place, query=plain))
        self._lock = Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[Thread] = []
        self._at = NEVER
        self.seen: list[str] = []
        """What was counted: of a request its kind and first word, of an answer its kind."""

    def cut(self, at: int) -> None:
        """Count from nought again, and cut once, at the message of this number; the first is 1."""
        with self._lock:
            self._at, self.seen = at, []

    @contextmanager
    def running(self) -> Iterator[None]:
        accepting = Thread(target=self._accept)
        accepting.start()
        try:
            yield
        finally:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            accepting.join()
            with self._lock:
                self._close_all()
            for thread in self._threads:
                thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._server)
            for each in (client, server):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._open |= {client, server}
            for pump in (self._requests, self._answers):
                thread = Thread(target=self._pump, args=(pump, client, server))
                thread.start()
                self._threads.append(thread)

    def _pump(self, pump: _Pump, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError, EOFError):
            pump(client, server)
        with self._lock:
            for each in (client, server):
                self._close(each)

    def _requests(self, client: socket.socket, server: socket.socket) -> None:
        with client.makefile("rb") as requests:
            for number in count():
                kind = _read(requests, 1) if number else b""  # the first has none
                size = _read(requests, 4)
                message = kind + size + _read(requests, int.from_bytes(size) - 4)
                self._count(
                    f"{kind.decode()} {_first_word(message)}" if kind == b"Q" else kind.decode()
                )
                server.sendall(message)

    def _answers(self, client: socket.socket, server: socket.socket) -> None:
        with server.makefile("rb") as answers:
            while True:
                kind, size = _read(answers, 1), _read(answers, 4)
                message = kind + size + _read(answers, int.from_bytes(size) - 4)
                if kind in _ANSWERED:
                    self._count(kind.decode())
                client.sendall(message)

    def _count(self, message: str) -> None:
        with self._lock:
            self.seen.append(message)
            if len(self.seen) == self._at:
                self._close_all()
                raise EOFError

    def _close_all(self) -> None:
        for each in list(self._open):
            self._close(each)

    def _close(self, each: socket.socket) -> None:
        if each in self._open:
            self._open.remove(each)
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


def _read(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise EOFError
    return data


def _first_word(query: bytes) -> str:
    return query[5:].rstrip(b"\0").split()[0].decode()
