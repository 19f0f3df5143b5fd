"""``msgconv doctor``: checks what is needed to ask accounts, and says what to mend."""

from __future__ import annotations

import os
import ssl
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from statistics import median

import anyio
from yarl import URL

from msgconv_async.cli.console import FAILED, OK, SOME_FAILED
from msgconv_async.cli.failures import SAID
from msgconv_async.cli.parameters import AccessOptions
from msgconv_async.cli.streams import visible
from msgconv_async.client.access.account import Account
from msgconv_async.client.access.domains import is_loopback_url, parse_origin
from msgconv_async.client.http.proxies import name_of, proxies_of
from msgconv_async.client.http.retry import RetryPolicy
from msgconv_async.client.session import ConversationSession
from msgconv_async.errors import (
    ApiError,
    ConfigurationError,
    ConnectionFailed,
    DeadlineExceeded,
    MsgConvError,
    RateLimited,
    ServerError,
    Unauthorized,
    UnexpectedResponse,
)
from msgconv_async.protocol.query import ConversationQuery

_AT_ONCE = 20
"""Accounts that are asked at the same time."""

_SKEW = timedelta(seconds=30)
"""The difference of clocks that is worth a word. Following copes with it; logs mislead."""

_KINDS = {
    "ClientCredentials": "OAuth 2.0 client credentials",
    "UserLogin": "a user's login",
    "BearerToken": "a bearer token",
    "ApiKey": "an OAuth 1.0 key, which LivePerson ended on 2026-05-31",
}
_ANYWHERE = URL("https://api.liveperson.net")

_MENDING: tuple[tuple[type[MsgConvError], str], ...] = (
    (
        Unauthorized,
        "check the account's id, and that these credentials are of this account and may read it",
    ),
    (
        RateLimited,
        "something else uses up the account's limit: ask less there, or let msgconv gateway share",
    ),
    (ServerError, "the service is out of order: try again later"),
    (
        ApiError,
        "check --base-url and MSGCONV_BASE_URL: is it LivePerson that answers there?",
    ),
    (ConnectionFailed, "check the network, the firewall, and HTTPS_PROXY"),
    (DeadlineExceeded, "the way or the service is slow: try again with a longer --timeout"),
    (UnexpectedResponse, "something else than LivePerson answered: check --base-url and proxies"),
)


def mending(error: MsgConvError, base_url: str | None = None) -> str:
    """Return what to do about an error; nothing if its own sentence says that.

    Args:
        error: What went wrong.
        base_url: The server that was asked; None if that was LivePerson.
    """
    if isinstance(error, ConnectionFailed):
        if not error.repeatable:  # a certificate, or a proxy that refuses
            return ""
        if base_url and is_loopback_url(base_url):
            return "is the server running there?"
    return next((what for kind, what in _MENDING if isinstance(error, kind)), "")


@dataclass
class Doctor:
    """Checks, and writes what it finds to stdout.

    Args:
        access: The accounts, the server and the credentials.
        ids: The ids of the accounts, if no file names them.
        timeout: Seconds for each account.
    """

    access: AccessOptions
    ids: Sequence[str]
    timeout: float
    _errors: list[MsgConvError] = field(default_factory=list)
    _seconds: list[float] = field(default_factory=list)
    _skews: list[timedelta] = field(default_factory=list)

    async def run(self) -> int:
        """Check one thing after the other, and return the exit code.

        All that can be checked here is, before anything is asked.
        """
        accounts = self._accounts()
        checked = (_server(self.access.base_url), _proxy(), _authorities())
        if accounts is None or not all(checked):
            return FAILED
        session = ConversationSession(base_url=self.access.base_url, retry=RetryPolicy(waits=()))
        await self._ask(session, accounts)
        return self._found(len(accounts))

    def _accounts(self) -> Sequence[Account] | None:
        """Check the accounts and their credentials; None: they are wrong."""
        try:
            accounts, note = self.access.named(self.ids)
        except ConfigurationError as error:
            _wrong("accounts", str(error))
            return None
        kinds = Counter(type(account.credentials).__name__ for account in accounts)
        named = ", ".join(f"{count:,} with {_KINDS[kind]}" for kind, count in kinds.items())
        where = "" if self.access.accounts is None else f" in {self.access.accounts}"
        _well("accounts", f"{len(accounts):,}{where}: {named}{f'; {note}' if note else ''}")
        return accounts

    async def _ask(self, session: ConversationSession, accounts: Sequence[Account]) -> None:
        slots = anyio.CapacityLimiter(_AT_ONCE)

        async def ask(account: Account) -> None:
            async with slots:
                began, before = anyio.current_time(), datetime.now(UTC)
                try:
                    shared = await session.fetch_shared(
                        account, ConversationQuery(5), timeout=self.timeout
                    )
                except MsgConvError as error:
                    self._errors.append(error)
                    return
                self._seconds.append(anyio.current_time() - began)
                self._skews.append(_apart(shared.at, before, datetime.now(UTC)))

        async with session, anyio.create_task_group() as group:
            for account in accounts:
                group.start_soon(ask, account)

    def _found(self, accounts: int) -> int:
        told = Counter[str]()
        for error in self._errors:
            kind = mending(error, self.access.base_url)
            told[kind] += 1
            if told[kind] <= SAID:
                _wrong("account", str(error), kind)
        for kind, count in told.items():
            if count > SAID:
                _wrong("account", f"and {count - SAID:,} more accounts", kind)
        code = OK if not self._errors else SOME_FAILED if self._seconds else FAILED
        if self._seconds:
            each = f"{median(self._seconds):.1f} s each"
            _well("answers", f"{len(self._seconds):,} of {accounts:,} accounts, {each}")
            skew = sorted(self._skews)[len(self._skews) // 2]
            if abs(skew) <= _SKEW:
                _well("clock", "agrees with the service's")
            else:
                side = "behind" if skew > timedelta() else "ahead of"
                what = f"{abs(skew).total_seconds():,.0f} s {side} the service's"
                code = _wrong("clock", what, "set this machine's clock, by NTP for example")
        return code


def _server(base_url: str | None) -> bool:
    """Check the server that is to be asked, and tell whether it is right."""
    if base_url:
        try:
            parse_origin(base_url)
        except ConfigurationError as error:
            return not _wrong("server", str(error))
    return _well("server", base_url or "LivePerson, each account's own hosts from the Domain API")


def _proxy() -> bool:
    """Check the proxy that the environment names."""
    try:
        proxy = proxies_of().of(_ANYWHERE)
    except ConfigurationError as error:
        return not _wrong("proxy", str(error))
    return _well("proxy", "none" if proxy is None else f"{name_of(proxy)}, by HTTPS_PROXY")


def _authorities() -> bool:
    """Check the file of certificate authorities that the environment names, if it names one."""
    path = os.environ.get("SSL_CERT_FILE")
    if not path or os.environ.get("SSL_CERT_DIR"):  # that folder may hold what the file lacks
        return True
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError:
        why = "which holds no certificate in PEM"
    except OSError as error:
        why = f"which cannot be read: {error.strerror}"
    else:
        return _well("certificates", f"their authorities are those of {path}, by SSL_CERT_FILE")
    return not _wrong("certificates", f"SSL_CERT_FILE is {path}, {why}")


def _apart(theirs: datetime, earliest: datetime, latest: datetime) -> timedelta:
    """Return how far a clock is ahead of ours; below zero, behind."""
    if earliest <= theirs <= latest:
        return timedelta()
    return theirs - (latest if theirs > latest else earliest)


def _well(what: str, found: str) -> bool:
    print(f"ok     {what}: {visible(found)}", flush=True)  # noqa: T201 - a command does
    return True


def _wrong(what: str, found: str, mend: str = "") -> int:
    print(f"WRONG  {what}: {visible(found)}", flush=True)  # noqa: T201 - a command does
    if mend:
        print(f"       to mend: {mend}", flush=True)  # noqa: T201 - a command does
    return FAILED
