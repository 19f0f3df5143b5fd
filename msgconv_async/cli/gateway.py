"""``msgconv gateway``: one process that owns the pace of some accounts, until it is stopped."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from msgconv_async import checks
from msgconv_async.cli.console import OK, complain
from msgconv_async.cli.failures import log_to_stderr
from msgconv_async.client.access.account import Account
from msgconv_async.client.access.domains import is_loopback_url
from msgconv_async.errors import ConfigurationError
from msgconv_async.gateway import gateway
from msgconv_async.gateway.serve import PORT, Address, for_this_machine, serving, stop_signal
from msgconv_async.names import Names


def token(variable: str | None, environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the token that a variable holds.

    Raises:
        ConfigurationError: The variable is not set, or empty.
    """
    if variable is None:
        return None
    if not (held := environment.get(variable, "").strip()):
        raise ConfigurationError(
            f"--token-env={variable}: the environment variable is not set, or empty"
        )
    return held


def place(
    host: str, port: int | None, unix: Path | None, cert: Path | None, key: Path | None
) -> Address:
    """Return the address to listen on.

    Raises:
        ConfigurationError: The options do not go together.
    """
    if unix is not None and port is not None:
        raise ConfigurationError("--port and --unix: give one of the two")
    if (cert is None) != (key is None):
        raise ConfigurationError("--tls-cert and --tls-key: give both, or none")
    tls = None if cert is None or key is None else (cert, key)
    return Address(host, PORT if port is None else port, unix, tls)


async def run(
    accounts: Sequence[Account],
    note: str,
    place: Address,
    *,
    base_url: str | None,
    fresh_for: float,
    max_wait: float,
    token: str | None,
    state: Path | None,
    page: bool,
    names: Names,
    grace: float,
) -> int:
    """Serve until SIGINT (Ctrl-C) or SIGTERM."""
    place.check(token)
    # Named as on the command line; `gateway` would name its own arguments.
    checks.number("--fresh-for", fresh_for, "0 seconds or more, and finite")
    checks.number("--max-wait", max_wait, "above 0 seconds, and finite", above=True)
    if base_url is not None and _is_own(place, base_url):
        raise ConfigurationError(
            f"--base-url={base_url} is the gateway's own address: it would ask itself. Is"
            " MSGCONV_BASE_URL set, which is for its clients?"
        )
    app = gateway(
        accounts,
        base_url=base_url,
        fresh_for=fresh_for,
        max_wait=max_wait,
        token=token,
        state=state,
        page=page,
        names=names,
    )
    if token is None and place.unix is None:
        app.middlewares.append(for_this_machine)
    log_to_stderr(logging.WARNING)
    stopped = stop_signal()
    async with serving(app, place, grace) as url:
        print(f"listening on {url}", flush=True)  # noqa: T201 - it is what a command does
        if note:
            complain(note)
        await stopped.wait()
    return OK


def _is_own(place: Address, base_url: str) -> bool:
    """Tell whether a base URL leads to where the gateway listens itself."""
    if place.unix is not None:
        return False
    parts = urlsplit(base_url)
    same = parts.hostname == place.host or (
        is_loopback_url(base_url) and is_loopback_url(f"http://{place.host}")
    )
    return same and parts.port == place.port
