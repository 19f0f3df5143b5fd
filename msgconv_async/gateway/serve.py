"""Where the gateway listens, which clients may ask there, and how it stops."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from aiohttp import web
from aiohttp.hdrs import HOST

from msgconv_async import checks
from msgconv_async.client.access.domains import is_loopback_url
from msgconv_async.errors import ConfigurationError
from msgconv_async.gateway.answers import Refusal

GRACE = 25.0
"""Seconds in which requests in flight may end: below the 30 that Kubernetes gives a pod."""

PORT = 8080
_BACKLOG = 1024
_LAST_PORT = 65535


class Address(NamedTuple):
    """Where to listen.

    Attributes:
        host: An address or name; anything but loopback needs a token and TLS.
        port: The port; 0 picks a free one.
        unix: The path of a Unix socket, in place of host and port.
        tls: Certificate and key, PEM files.
    """

    host: str = "127.0.0.1"
    port: int = PORT
    unix: Path | None = None
    tls: tuple[Path, Path] | None = None

    def check(self, token: str | None) -> None:
        """Refuse an address where a stranger could ask, or overhear.

        Raises:
            ConfigurationError: The address is not loopback, and there is no token or no TLS.
        """
        checks.whole("--port", self.port, 0, _LAST_PORT)
        if self.unix is not None or is_loopback_url(_url("http", self.host, self.port)):
            return
        lacking = [
            option
            for option, given in (
                ("--token-env", token is not None),
                ("--tls-cert and --tls-key", self.tls is not None),
            )
            if not given
        ]
        if lacking:
            raise ConfigurationError(
                f"--host={self.host} can be reached from other machines, so that anybody could ask"
                f" about the accounts: give {' and '.join(lacking)}, or listen on 127.0.0.1"
            )


@asynccontextmanager
async def serving(app: web.Application, place: Address, grace: float = GRACE) -> AsyncIterator[str]:
    """Serve while inside; yields the URL. On leaving, requests have `grace` seconds to end.

    Raises:
        ConfigurationError: The place is taken, or the certificate cannot be used.
    """
    checks.number("--grace", grace, "0 seconds or more, and finite")
    context = None if place.tls is None else _context(*place.tls)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=grace)
    await runner.setup()
    try:
        if place.unix is None:
            yield await _listen(runner, place, context)
        else:
            with _bound(place.unix) as bound:
                await web.SockSite(runner, bound, ssl_context=context, backlog=_BACKLOG).start()
                yield f"unix:{place.unix}"
    finally:
        await runner.cleanup()


@web.middleware
async def for_this_machine(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Refuse what was sent to another name than this machine's own, where nothing else protects.

    A page in a browser can let its own name lead here (DNS rebinding): to the browser the gateway
    is then of the page's site, and the page may read its answers.
    """
    if HOST in request.headers and not is_loopback_url(f"http://{request.host}"):
        reason = (
            "where no token is asked for (msgconv gateway --token-env), only requests to a loopback"
            f" address are answered, not to {request.host[:64]}"
        )
        return Refusal(403, "host", reason).response()
    return await handler(request)


def stop_signal() -> asyncio.Event:
    """Return an event that SIGINT (Ctrl-C) or SIGTERM sets; a second signal ends at once."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop(number: int) -> None:
        stopped.set()
        loop.remove_signal_handler(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):  # on Windows
            loop.add_signal_handler(number, stop, number)
    return stopped


async def _listen(runner: web.AppRunner, place: Address, context: ssl.SSLContext | None) -> str:
    site = web.TCPSite(runner, place.host, place.port, ssl_context=context, backlog=_BACKLOG)
    try:
        await site.start()
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {place.host}:{place.port}: {_reason(error)}: choose another --port"
        ) from None
    return _url("http" if context is None else "https", place.host, runner.addresses[0][1])


@contextmanager
def _bound(path: Path) -> Iterator[socket.socket]:
    """Bind a Unix socket that only this user may connect to; remove it in the end."""
    if path.exists() and not path.is_socket():
        raise ConfigurationError(f"cannot listen on {path}: it is a file or folder, and no socket")
    bound = socket.socket(socket.AF_UNIX)
    mask = os.umask(0o177)  # set before it is made, so that no other user connects first
    try:
        _remove_stale(path)
        bound.bind(str(path))
    except OSError as error:
        bound.close()
        raise ConfigurationError(
            f"cannot listen on {path}: {error.strerror or str(error)}"
        ) from None
    finally:
        os.umask(mask)
    try:
        yield bound
    finally:
        path.unlink(missing_ok=True)


def _remove_stale(path: Path) -> None:
    """Remove a socket that a killed gateway left behind, and nothing else."""
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()


def _context(certificate: Path, key: Path) -> ssl.SSLContext:
    for option, path in (("--tls-cert", certificate), ("--tls-key", key)):
        if not path.is_file():
            raise ConfigurationError(f"{option}={path} cannot be used: No such file")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:  # SSLError is one
        raise ConfigurationError(
            f"--tls-cert={certificate} and --tls-key={key} cannot be used:"
            f" {error.strerror or str(error)}"
        ) from None
    return context


def _reason(error: OSError) -> str:
    """Return the system's words alone: asyncio adds the address to them, in words of its own."""
    return os.strerror(error.errno).lower() if error.errno else str(error)


def _url(scheme: str, host: str, port: int) -> str:
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
