"""The accounts file: the accounts and their credentials. It is TOML, and holds no secret.

    [credentials.main]
    kind = "client"
    client_id = "reporting"
    client_secret_env = "REPORTING_SECRET"

    [[accounts]]
    id = "12345678"
    credentials = "main"
    host = "va.data.example.net"

A key that ends in ``_env`` names the environment variable that holds the secret, so the file can be
shown, kept and reviewed. One that ends in ``_file`` takes its place, as ``client_secret_file``, and
names a file that holds nothing else: from the root on, or as ``$CREDENTIALS_DIRECTORY/name``, where
systemd puts it. That file is read again at each login, so the secret can be replaced while a
program runs. ``host`` may be left out, and several accounts may share credentials.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Never

from msgconv_async import checks
from msgconv_async.client.access.account import Account
from msgconv_async.client.access.credentials import (
    ApiKey,
    BearerToken,
    ClientCredentials,
    Credentials,
    Reference,
    UserLogin,
)
from msgconv_async.client.access.domains import check_host
from msgconv_async.client.access.secret_files import (
    SECRET_PATH,
    is_secret_path,
    read_secret_file,
)
from msgconv_async.client.access.toml_lines import KeyPath, lines
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


def read_accounts(
    path: str | os.PathLike[str], environment: Mapping[str, str] = os.environ
) -> list[Account]:
    """Read an accounts file.

    Credentials are of the kinds ``client`` (``client_id``, ``client_secret_env``), ``user``
    (``username``, ``password_env``), ``bearer`` (``token_env``) and ``api_key`` (``app_key``,
    ``app_secret_env``, ``access_token_env``, ``access_token_secret_env``). Each ``_env`` names an
    environment variable; in its place ``_file`` names a file, which is read again at each login, or
    when a request was refused.

    Args:
        path: The file.
        environment: The environment variables that hold the secrets.

    Returns:
        Its accounts, in the order of the file.

    Raises:
        ConfigurationError: The file cannot be read or has a mistake. The message names the mistake
            and its line, and shows nothing that may be a secret.
    """
    checks.path("path", path)
    checks.instance("environment", environment, Mapping, "a mapping, such as os.environ")
    try:
        # With a byte order mark or without: editors on Windows write one.
        text = Path(path).read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(f"{path}, line {line}: this is not UTF-8") from None
    return _File(str(path), text, environment).accounts()


def read_secret(variable: str, environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the secret that an environment variable holds; None if there is none.

    Raises:
        ConfigurationError: The secret ends in a line end, as text from a file often does. The
            service would refuse it without saying why.
    """
    secret = environment.get(variable)
    if secret and secret[-1] in "\r\n":
        raise ConfigurationError(
            f"the environment variable {variable} ends in a line end, which no secret does"
        )
    return secret or None


def credentials_of(
    reference: Reference, environment: Mapping[str, str] = os.environ
) -> Credentials:
    """Read secrets once more, such as on another machine, where `Credentials` had them from.

    Raises:
        ConfigurationError: A variable is not set here, or holds what is no secret.
    """
    make, _ = _KINDS[reference["kind"]]
    given = {_name(key): _value(key, reference[key], environment) for key in _keys(reference)}
    return make(**given).referring(reference)


def _keys(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the keys that credentials need: for each secret, where it is."""
    _, keys = _KINDS[entry["kind"]]
    return tuple(file if (file := _in_file(key)) in entry else key for key in keys)


def _name(key: str) -> str:
    return key.removesuffix("_env").removesuffix("_file")


def _in_file(key: str) -> str:
    """Return the key that may stand in the place of one: a secret's file, instead of a variable."""
    return f"{_name(key)}_file" if key.endswith("_env") else key


def _value(key: str, given: Any, environment: Mapping[str, str]) -> str:
    """Return what a key of credentials says, or the secret that it names.

    Raises:
        ConfigurationError: It says nothing, or there is no secret of that name.
    """
    if not isinstance(given, str) or not given:
        raise ConfigurationError(f"{key} must be a string that is not empty")
    if key.endswith("_file"):
        if not is_secret_path(given):  # what stands here may be the secret itself
            raise ConfigurationError(f"{key} must be {SECRET_PATH}")
        return read_secret_file(given)
    if not key.endswith("_env"):
        return given
    if not _VARIABLE.fullmatch(given):  # what stands here may be the secret itself
        raise ConfigurationError(
            f"{key} must be the name of an environment variable, of capitals, digits and '_'"
        )
    secret = read_secret(given, environment)
    if secret is None:
        raise ConfigurationError(f"the environment variable {given} is not set, or empty")
    return secret


class _File:
    """A file being read; it knows the line of each mistake."""

    def __init__(self, name: str, text: str, environment: Mapping[str, str]) -> None:
        self._name = name
        self._text = text
        self._environment = environment
        try:
            self._document = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            found = _SYNTAX.fullmatch(str(error))
            line = (found and found["line"]) or len(text.rstrip().split("\n"))
            what = found["what"] if found else "this is not TOML"
            raise ConfigurationError(f"{name}, line {line}: {what}") from None
        except (ValueError, RecursionError):  # a number of thousands of digits, a tower of arrays
            raise ConfigurationError(
                f"{name}: a value in it is too long, or nested too deeply"
            ) from None

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
        for key in _KINDS[kind][1]:
            if key in entry and (other := _in_file(key)) != key and other in entry:
                self._refuse((*path, other), f"{key} and {other} are both given: keep one of them")
        keys = _keys(entry)
        self._check(path, entry, ("kind", *keys))
        for key in keys:
            try:
                _value(key, entry[key], self._environment)
            except ConfigurationError as error:
                self._refuse((*path, key), str(error))
        try:
            return credentials_of(entry, self._environment)
        except ConfigurationError as error:
            self._refuse(path, str(error))

    def _account(
        self, path: KeyPath, entry: Any, credentials: Mapping[str, Credentials]
    ) -> Account:
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
        self, path: KeyPath, entry: Any, keys: Collection[str], optional: Collection[str] = ()
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
                    f" and name that as {key}_env, or into a file of its own, and name that as"
                    f" {key}_file",
                )
            known = ", ".join([*keys, *optional])
            self._refuse((*path, key), f"{key} is not known here; known are {known}")
        for key in keys:
            if key not in entry:
                either = f", or {_in_file(key)}," if _in_file(key) != key else ""
                self._refuse(path, f"{key}{either} is missing")

    def _refuse(self, path: KeyPath, why: str) -> Never:
        raise ConfigurationError(f"{self._name}, line {self._line(path)}: {why}") from None

    def _line(self, path: KeyPath) -> int:
        """Find the line of a table or key; if it has none, the line of the table that holds it."""
        found = lines(self._text)
        while path and path not in found:
            path = path[:-1]
        return found.get(path, 1)
