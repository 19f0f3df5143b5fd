"""Keeps what was learnt about each account's limit in a small file over restarts.

    {"version": 1, "accounts": {"12345678": {"limited_by": "rate", "limit": 49.8, ...}}}

The state is written whole to a file beside it, which then replaces it. So the file is whole even if
the gateway is killed at any moment. If it cannot be read or written, the log says so and the
gateway goes on: the accounts then begin cold. A file of another kind is never overwritten.
"""

from __future__ import annotations

import logging
import math
import os
import threading
from collections.abc import Mapping
from pathlib import Path

import msgspec

from msgconv_async.pacing.adaptive import Belief

VERSION = 1

_WRITING = threading.Lock()  # the last save, at the end, waits for one that is under way

_LOG = logging.getLogger("msgconv_async")


class _State(msgspec.Struct):
    version: int
    accounts: dict[str, Belief]


def load(path: Path) -> dict[str, Belief] | None:
    """Return the content of a file, by account; nothing if it is missing, empty or out of reach.

    Returns:
        None if a gateway of this version did not write the file: it must not be overwritten.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        _LOG.warning("%s cannot be read (%s): every account begins cold", path, error.strerror)
        return {}
    if not content.strip():
        return {}
    try:
        state = msgspec.json.decode(content, type=_State)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        state = None
    if state is None or state.version != VERSION:
        _LOG.warning(
            "%s is not what a gateway of this version wrote: every account begins cold, and the"
            " file stays as it is. Remove it, or name another, to keep what is learnt",
            path,
        )
        return None
    return {name: belief for name, belief in state.accounts.items() if _is_sane(belief)}


def save(path: Path, accounts: Mapping[str, Belief]) -> bool:
    """Write what was learnt; tell whether that was possible."""
    beside = path.with_name(f"{path.name}.new")
    try:
        with _WRITING:
            opened = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(opened, "wb") as file:
                file.write(encoded(accounts))
            beside.replace(path)
    except OSError as error:
        _LOG.warning("%s cannot be written: %s", path, error.strerror)
        return False
    return True


def encoded(accounts: Mapping[str, Belief]) -> bytes:
    """Return the content of the file."""
    return msgspec.json.encode(_State(VERSION, dict(accounts)))


def _is_sane(belief: Belief) -> bool:
    numbers = (belief.limit, belief.speed, belief.concurrency, belief.calm)
    return all(0 < number < math.inf for number in numbers)
