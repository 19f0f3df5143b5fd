"""Notices a PostgreSQL server that no longer answers; libpq alone would wait without end.

A server that is stopped, or a machine that is suspended, leaves its connections open. The kernel
still acknowledges what is sent, so keepalives and ``tcp_user_timeout`` notice nothing, and libpq
has no limit on how long it waits for an answer. A limit on a statement would not be right either,
since some take long. So the server is asked for another connection from time to time. If it grants
none, the open connections are shut down, and the code that waits on them fails.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg2

EVERY = 30.0
"""Seconds from one attempt to connect to the next."""

PATIENCE = 15
"""Seconds that a server has to grant a connection."""

ATTEMPTS = 2
"""Attempts in a row that must have failed."""


@contextmanager
def watched(address: str, *, every: float = EVERY, patience: int = PATIENCE) -> Iterator[None]:
    """Shut down all connections made inside once the server answers no more.

    Args:
        address: The address of the server.
        every: Seconds from one attempt to the next.
        patience: Seconds until an attempt has failed.
    """
    connect, connections = psycopg2.connect, list[Any]()
    over = threading.Event()

    def noted(*arguments: Any, **settings: Any) -> Any:
        connection = connect(*arguments, **settings)
        connections.append(connection)
        return connection

    def watch() -> None:
        missed = 0
        while missed < ATTEMPTS:
            if over.wait(every):
                return
            missed = 0 if _answers(connect, address, patience) else missed + 1
        for connection in connections:
            _shut_down(connection)

    # dlt makes its connections itself, and offers no hook for that.
    psycopg2.connect = noted
    threading.Thread(target=watch, daemon=True, name="msgconv watchdog").start()
    try:
        yield
    finally:
        psycopg2.connect = connect
        over.set()


def _answers(connect: Any, address: str, patience: int) -> bool:
    """Tell whether a server answers a new connection at all; a refusal is an answer."""
    began = time.monotonic()
    try:
        connect(address, connect_timeout=patience).close()
    except psycopg2.Error:
        return time.monotonic() - began < 0.9 * patience
    return True


def _shut_down(connection: Any) -> None:
    with suppress(psycopg2.Error, OSError):
        descriptor = os.dup(connection.fileno())
        with socket.socket(fileno=descriptor) as shared:
            shared.shutdown(socket.SHUT_RDWR)
