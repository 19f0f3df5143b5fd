"""Finds the credentials of a command: names from options, secrets from the environment or files.

A command line can be read by every user of the machine (``ps``) and stays in the shell's history,
so there is no option for a secret. A variable that ends in ``_FILE`` names the file that holds one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from msgconv_async.client.access.accounts_file import credentials_of, read_secret
from msgconv_async.client.access.credentials import ClientCredentials, Credentials
from msgconv_async.client.access.domains import is_loopback_url
from msgconv_async.client.access.secret_files import (
    SECRET_PATH,
    is_secret_path,
    read_secret_file,
)
from msgconv_async.errors import ConfigurationError

_CLIENT_SECRET, _TOKEN, _PASSWORD = (
    f"MSGCONV_{name}" for name in ("CLIENT_SECRET", "TOKEN", "PASSWORD")
)
_CLIENT_ID, _USERNAME = "MSGCONV_CLIENT_ID or --client-id", "MSGCONV_USERNAME or --username"
_WAYS = (
    "set MSGCONV_CLIENT_ID and MSGCONV_CLIENT_SECRET, or MSGCONV_TOKEN,"
    " or MSGCONV_USERNAME and MSGCONV_PASSWORD; a variable that ends in _FILE, such as"
    " MSGCONV_CLIENT_SECRET_FILE, names the file of a secret"
)

T = TypeVar("T")


def find(
    client_id: str | None,
    username: str | None,
    base_url: str | None,
    environment: Mapping[str, str] = os.environ,
) -> tuple[Credentials, str]:
    """Return the credentials given, and a note on their source if the user should know it.

    Args:
        client_id: The client id given, if any.
        username: The user name given, if any.
        base_url: The origin that they will be sent to, if known; a local sandbox has its own.
        environment: The environment variables that hold the secrets, or name their files.

    Raises:
        ConfigurationError: There are none, more than one kind, or one of a pair is missing.
    """
    secret, token, password = (
        _place(key, variable, environment)
        for key, variable in (
            ("client_secret", _CLIENT_SECRET),
            ("token", _TOKEN),
            ("password", _PASSWORD),
        )
    )
    given = {
        "client credentials": client_id or secret,
        "a token": token,
        "a user's login": username or password,
    }
    kinds = [kind for kind, part in given.items() if part]
    if len(kinds) > 1:
        raise ConfigurationError(f"more than one way to log in is given: {' and '.join(kinds)}")
    if token:
        with _naming(_source(_TOKEN, token)):
            return credentials_of({"kind": "bearer"} | token, environment), ""
    if client_id or secret:
        half = {"kind": "client", "client_id": _half(_CLIENT_ID, client_id)}
        secret = _half(_CLIENT_SECRET, secret)
        with _naming(f"{_CLIENT_ID}, {_source(_CLIENT_SECRET, secret)}"):
            return credentials_of(half | secret, environment), ""
    if username or password:
        half = {"kind": "user", "username": _half(_USERNAME, username)}
        password = _half(_PASSWORD, password)
        with _naming(f"{_USERNAME}, {_source(_PASSWORD, password)}"):
            return credentials_of(half | password, environment), ""
    if base_url and is_loopback_url(base_url):
        from msgconv_async.sandbox import CLIENT_ID, CLIENT_SECRET  # noqa: PLC0415 - a server

        return ClientCredentials(CLIENT_ID, CLIENT_SECRET), (
            f"no credentials given for a server on this machine: using the sandbox's ({CLIENT_ID})"
        )
    raise ConfigurationError(f"no credentials: {_WAYS}")


def _place(key: str, variable: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Tell where a secret is, as an accounts file does; nothing if it is not given."""
    in_file = f"{variable}_FILE"
    file = environment.get(in_file)
    if read_secret(variable, environment) is not None:
        if file:
            raise ConfigurationError(f"{variable} and {in_file} are both set: keep one of them")
        return {f"{key}_env": variable}
    if not file:
        return {}
    if not is_secret_path(file):  # what stands here may be the secret itself
        raise ConfigurationError(f"{in_file} must be {SECRET_PATH}")
    with _naming(in_file):  # an error later would name both halves
        read_secret_file(file)
    return {f"{key}_file": file}


def _source(variable: str, place: Mapping[str, str]) -> str:
    """Return the variable that says a secret, or names its file."""
    return variable if variable in place.values() else f"{variable}_FILE"


@contextmanager
def _naming(variable: str) -> Iterator[None]:
    """Let an error name the variable that it is about."""
    try:
        yield
    except ConfigurationError as error:
        raise ConfigurationError(f"{variable}: {error}") from None


def _half(name: str, value: T | None) -> T:
    if not value:
        raise ConfigurationError(f"{name} is missing: it takes both halves to log in")
    return value
