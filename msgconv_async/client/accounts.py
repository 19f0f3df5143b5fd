"""The accounts file: which accounts, and how each is let in. TOML, and without a secret.

    [credentials.main]
    kind = "client"
    client_id = "reporting"
    client_secret_env = "REPORTING_SECRET"

    [[accounts]]
    id = "12345678"
    credentials = "main"
    host = "va.data.example.net"

A key that ends in ``_env`` names the environment variable that holds the secret, so the file can be
shown, kept and reviewed. ``host`` may be left out, and several accounts may share credentials.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Never, TypeAlias

from msgconv_async.client.account import Account
from msgconv_async.client.auth import (
    ApiKey,
    BearerToken,
    ClientCredentials,
    Credentials,
    UserLogin,
)
from msgconv_async.client.domains import check_host
from msgconv_async.errors import ConfigurationError

_KINDS: dict[str, tuple[type[Credentials], tuple[str, ...]]] = {
    "client": (ClientCredentials, ("client_id", "client_secret_env")),
    "user": (UserLogin, ("username", "password_env")),
    "bearer": (BearerToken, ("token_env",)),
    "api_key": (
        ApiKey,
        ("app_key", "app_secret_env", "access_token_env", "access_token_secret_env"),
    ),
}
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
_SYNTAX = re.compile(r"(?P<what>.*) \(at (?:line (?P<line>\d+), column \d+|end of document)\)")

_Path: TypeAlias = tuple[str | int, ...]


def read_accounts(
    path: str | os.PathLike[str], environment: Mapping[str, str] = os.environ
) -> list[Account]:
    """Read an accounts file.

    Credentials are of the kinds ``client`` (``client_id``, ``client_secret_env``), ``user``
    (``username``, ``password_env``), ``bearer`` (``token_env``) and ``api_key`` (``app_key``,
    ``app_secret_env``, ``access_token_env``, ``access_token_secret_env``).

    Args:
        path: The file.
        environment: Where the secrets are.

    Returns:
        Its accounts, in the order of the file.

    Raises:
        ConfigurationError: The file cannot be read, or there is a mistake in it: says which, and
            in which line, without showing what may be a secret.
    """
    try:
        text = Path(path).read_bytes().decode().replace("\r\n", "\n")
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(f"{path}, line {line}: this is not UTF-8") from None
    return _File(str(path), text, environment).accounts()


class _File:
    """A file being read; it knows where to point at."""

    def __init__(self, name: str, text: str, environment: Mapping[str, str]) -> None:
        self._name = name
        self._lines = text.split("\n")
        self._environment = environment
        try:
            self._document = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            found = _SYNTAX.fullmatch(str(error))
            line = (found and found["line"]) or len(text.rstrip().split("\n"))
            what = found["what"] if found else "this is not TOML"
            raise ConfigurationError(f"{name}, line {line}: {what}") from None

    def accounts(self) -> list[Account]:
        self._check((), self._document, ("accounts",), ("credentials",))
        named = self._document.get("credentials", {})
        if not isinstance(named, dict):
            self._refuse(("credentials",), "credentials are tables, such as [credentials.main]")
        credentials = {name: self._credentials(name, entry) for name, entry in named.items()}
        entries = self._document["accounts"]
        if not isinstance(entries, list) or not entries:
            self._refuse(("accounts",), "accounts are tables, each headed [[accounts]]")
        accounts: dict[str, Account] = {}
        for number, entry in enumerate(entries):
            account = self._account(("accounts", number), entry, credentials)
            if account.id in accounts:
                self._refuse(("accounts", number, "id"), f"account {account.id} is given twice")
            accounts[account.id] = account
        return list(accounts.values())

    def _credentials(self, name: str, entry: Any) -> Credentials:
        path = ("credentials", name)
        kind = entry.get("kind") if isinstance(entry, dict) else None
        if not isinstance(kind, str) or kind not in _KINDS:
            at = (*path, "kind") if kind is not None else path
            self._refuse(at, f"credentials {name}: kind must be one of {', '.join(_KINDS)}")
        make, keys = _KINDS[kind]
        self._check(path, entry, ("kind", *keys))
        given = {
            key.removesuffix("_env"): self._value((*path, key), entry[key], key) for key in keys
        }
        try:
            return make(**given)
        except ConfigurationError as error:
            self._refuse(path, str(error))

    def _value(self, path: _Path, given: Any, key: str) -> str:
        if not isinstance(given, str) or not given:
            self._refuse(path, f"{key} must be a string that is not empty")
        if not key.endswith("_env"):
            return given
        if not _VARIABLE.fullmatch(given):  # what stands here may be the secret itself
            self._refuse(
                path,
                f"{key} must be the name of an environment variable, of capitals, digits and '_'",
            )
        if not self._environment.get(given):
            self._refuse(path, f"the environment variable {given} is not set, or empty")
        return self._environment[given]

    def _account(self, path: _Path, entry: Any, credentials: Mapping[str, Credentials]) -> Account:
        self._check(path, entry, ("id", "credentials"), ("host",))
        name, host = entry["credentials"], entry.get("host")
        if not isinstance(name, str) or name not in credentials:
            self._refuse((*path, "credentials"), f"there is no [credentials.{name}]")
        at = "host"
        try:
            if host is not None:
                check_host(host, "host")
            at = "id"
            return Account(entry["id"], credentials[name], host=host)
        except ConfigurationError as error:
            self._refuse((*path, at), str(error))

    def _check(
        self, path: _Path, entry: Any, keys: Collection[str], optional: Collection[str] = ()
    ) -> None:
        """Refuse a table that lacks a key, or has one that is not known."""
        if not isinstance(entry, dict):
            self._refuse(path, "a table is expected here")
        for key in entry:
            if key in keys or key in optional:
                continue
            if f"{key}_env" in keys:
                self._refuse(
                    (*path, key),
                    f"a secret does not belong in this file: put it into an environment variable,"
                    f" and name that as {key}_env",
                )
            known = ", ".join([*keys, *optional])
            self._refuse((*path, key), f"{key} is not known here; known are {known}")
        for key in keys:
            if key not in entry:
                self._refuse(path, f"{key} is missing")

    def _refuse(self, path: _Path, why: str) -> Never:
        raise ConfigurationError(f"{self._name}, line {self._line(path)}: {why}") from None

    def _line(self, path: _Path) -> int:
        """Find the line by which the table or key at a path has come into the document.

        tomllib keeps no lines. But with its first lines alone a file says less, and the fewest that
        say a thing end where it stands; that holds for every way to write TOML.
        """
        low, high = 0, len(self._lines)
        while low + 1 < high:
            middle = (low + high) // 2
            # In the midst of a value of several lines, the lines so far are no document.
            end, told = next(
                (end, told)
                for end in range(middle, len(self._lines) + 1)
                if (told := self._told(end)) is not None
            )
            low, high = (low, middle) if _holds(told, path) else (end, high)
        return high

    def _told(self, end: int) -> dict[str, Any] | None:
        try:
            return tomllib.loads("\n".join(self._lines[:end]))
        except tomllib.TOMLDecodeError:
            return None


def _holds(value: Any, path: _Path) -> bool:
    for step in path:
        if isinstance(step, int):
            if not isinstance(value, list) or len(value) <= step:
                return False
        elif not isinstance(value, dict) or step not in value:
            return False
        value = value[step]
    return True
