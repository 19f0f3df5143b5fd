"""The origin of a service: one for all services, or the one that the Domain API names.

LivePerson's Domain API: ``GET https://api.liveperson.net/api/account/{account}/service/{service}/
baseURI.json?version=1.0`` answers ``{"service": ..., "account": ..., "baseURI": "va.data..."}``.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
from sys import intern
from urllib.parse import urlsplit

import msgspec

from msgconv_async import checks
from msgconv_async.client.http.deadlines import Deadline
from msgconv_async.client.http.exchanges import Exchanges
from msgconv_async.client.http.hosts import is_address, is_loopback
from msgconv_async.client.http.retry import (
    Failed,
    Retries,
    RetryPolicy,
    RetryQuota,
    retrying,
)
from msgconv_async.client.http.single_flight import SingleFlight
from msgconv_async.client.http.transport import SMALL_BODY
from msgconv_async.errors import (
    ApiError,
    ConfigurationError,
    ConnectionFailed,
    UnexpectedResponse,
)
from msgconv_async.protocol.query import HttpRequest

DOMAIN_API = "https://api.liveperson.net"

REPORTING = "leDataReporting"
"""The service that answers the metrics; the names are case sensitive."""
SENTINEL = "sentinel"
"""The service that issues OAuth 2.0 tokens."""
AGENT_LOGIN = "agentVep"
"""The service that logs users in."""

LOOK_AGAIN = 60.0
"""Seconds at least between two look-ups of one account's service because its host failed."""

LOOK_AGAIN_WITHIN = 5.0
"""Seconds that such a look-up may take: while the Domain API is down, the known host is used."""

_GONE = frozenset({401, 404, 410, 421, 503})
"""Statuses that a host may answer for an account that has moved; redirects count as well."""
_REDIRECTS = range(300, 400)

_LOG = logging.getLogger("msgconv_async")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST = re.compile(rf"(?P<name>{_LABEL}(?:\.{_LABEL})*)(?::(?P<port>[0-9]{{1,5}}))?", re.ASCII)
_IPV6 = re.compile(r"\[[0-9A-Fa-f:.]+\](?::[0-9]{1,5})?", re.ASCII)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
_LONGEST_NAME = 253
_HIGHEST_PORT = 65535


class _BaseUri(msgspec.Struct, rename={"base_uri": "baseURI"}):
    base_uri: str


_BASE_URI = msgspec.json.Decoder(_BaseUri)


class Domains:
    """Finds the origin of an account's services; the Domain API is asked once for each.

    An account may move to another data centre. A host that stops serving the account is looked up
    again, no more often than `LOOK_AGAIN` allows. It stays in use unless the answer names another.

    Args:
        exchanges: Makes the requests.
        policy: When to ask again.
        quota: Pays for retries.
        origin: The origin of all services, if they share one.
    """

    def __init__(
        self, exchanges: Exchanges, policy: RetryPolicy, quota: RetryQuota, origin: str | None
    ) -> None:
        self._exchanges = exchanges
        self._policy = policy
        self._quota = quota
        self._origin = origin
        self._known: dict[tuple[str, str], str] = {}
        self._looked_again: dict[tuple[str, str], float] = {}
        self._flights = SingleFlight[str]()

    def known(self, account_id: str, service: str, host: str | None = None) -> str | None:
        """Return the origin, such as ``"https://va.data.example.net"``, of a service.

        Args:
            account_id: The account.
            service: One of the names above.
            host: The host of the service, if the caller knows it.

        Returns:
            The origin; None if it has to be asked for.
        """
        if self._origin is not None:
            return self._origin
        return self._known.get((account_id, service)) if host is None else f"https://{host}"

    async def find(self, account_id: str, service: str, deadline: Deadline) -> str:
        """Ask for the origin of a service.

        Raises:
            ApiError: The Domain API refused; 401 is an unknown account.
            UnexpectedResponse: It named something that is not a host.
            ConnectionFailed: It could not be reached.
        """

        async def ask(until: Deadline) -> str:
            retries = Retries(
                *(self._policy, self._quota, until, self._policy.throttle_wait),
                emit=self._exchanges.emit,
            )
            return await retrying(
                lambda: self._ask(account_id, service, until, retries.number), retries
            )

        key = (account_id, service)
        host = await self._flights.join(key, ask, deadline)
        return self._learn(key, host)

    async def moved(
        self,
        account_id: str,
        service: str,
        origin: str,
        failure: Failed,
        deadline: Deadline,
        *,
        host: str | None = None,
    ) -> str | None:
        """Return the new origin of a service, if a move is why a request to it failed.

        Args:
            account_id: The account.
            service: One of the names above.
            origin: The origin that the request went to.
            failure: How it failed.
            deadline: The caller's deadline.
            host: The host of the service, if the caller gave one: that is never looked up.

        Returns:
            The new origin; None if it is the same, or the Domain API gives none.
        """
        if self._origin is not None or host is not None or not _may_have_moved(failure):
            return None
        key = (account_id, service)
        if (known := self._known.get(key)) is not None and known != origin:
            return known  # another call found out meanwhile
        now = asyncio.get_running_loop().time()
        if key not in self._flights:
            if now - self._looked_again.get(key, -math.inf) < LOOK_AGAIN:
                return None
            self._looked_again[key] = now
        try:
            async with asyncio.timeout(LOOK_AGAIN_WITHIN):
                found = await self._flights.join(
                    key, lambda until: self._ask(account_id, service, until), deadline
                )
        except (ApiError, ConnectionFailed, UnexpectedResponse, TimeoutError) as error:
            _LOG.info("account %s: %s is still asked; %r", account_id, origin, error)
            return None
        if (new := self._learn(key, found)) == origin:
            return None
        _LOG.warning("account %s: %s moved from %s to %s", account_id, service, origin, new)
        return new

    def _learn(self, key: tuple[str, str], host: str) -> str:
        origin = self._known[key] = intern(f"https://{host}")  # many accounts share a few hosts
        return origin

    async def _ask(self, account_id: str, service: str, deadline: Deadline, number: int = 1) -> str:
        url = f"{DOMAIN_API}/api/account/{account_id}/service/{service}/baseURI.json?version=1.0"
        answer = await self._exchanges.send(
            HttpRequest("GET", url),
            {},
            account_id,
            deadline=deadline,
            purpose="lookup",
            limit=SMALL_BODY,
            number=number,
        )
        return parse_base_uri(answer.body, account_id)


def _may_have_moved(failure: Failed) -> bool:
    return isinstance(failure, ConnectionFailed) or (
        failure.status in _GONE or failure.status in _REDIRECTS
    )


def check_host(host: object, what: str) -> None:
    """Refuse a value that is not a bare host name with an optional port.

    Raises:
        ConfigurationError: It has a path, userinfo, a scheme or a control character, or no name.
    """
    if not _is_host(host):
        raise ConfigurationError(
            f"{what} {_showable(host)} is not a bare host name with an optional port, such as"
            " 'va.data.example.net'"
        )


def parse_base_uri(body: bytes, account_id: str) -> str:
    """Return the host that a Domain API answer names.

    Credentials are sent to that host, so it must be a bare host name with an optional port, and no
    address. A forged answer must not lead into the network of this machine.

    Raises:
        UnexpectedResponse: It is not, or the answer is not the document described.
    """
    try:
        host = _BASE_URI.decode(body).base_uri
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UnexpectedResponse(f"Domain API: {error}", account_id=account_id) from None
    if not _is_host(host):
        raise UnexpectedResponse(
            f"Domain API: baseURI {host[:80]!r} is not a bare host name with an optional port",
            where="$.baseURI",
            account_id=account_id,
        )
    if _is_local_or_numeric(host):
        raise UnexpectedResponse(
            f"Domain API: baseURI {host[:80]!r} is an address or this machine, not the name of a"
            " LivePerson host",
            where="$.baseURI",
            account_id=account_id,
        )
    return host


def parse_origin(url: str) -> str:
    """Check a ``base_url`` and return its origin, without a trailing slash.

    Raises:
        ConfigurationError: It is more than scheme, host and port, or plain http to a host that is
            not loopback.
    """
    checks.instance("base_url", url, str, "a string")
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        good = (
            parts.scheme in {"http", "https"}
            and parts.path in {"", "/"}
            and not (parts.query or parts.fragment or "@" in parts.netloc)
            and (_is_host(parts.netloc) or (is_address(host) and _IPV6.fullmatch(parts.netloc)))
            and parts.port != 0
        )
    except ValueError:
        good = False
    if not good:
        raise ConfigurationError(
            f"base_url {_showable(url)} is not an origin: give scheme, host and port"
            " alone, such as 'http://127.0.0.1:8080'"
        )
    if parts.scheme == "http" and not is_loopback(host):
        raise ConfigurationError(
            f"base_url {_showable(url)} would send credentials over plain http: use https, or a"
            " loopback address"
        )
    return f"{parts.scheme}://{parts.netloc}"


def is_loopback_url(url: str) -> bool:
    """Tell whether a URL stays on this machine."""
    try:
        return is_loopback(urlsplit(url).hostname or "")
    except ValueError:  # it is no URL
        return False


def _is_host(host: object) -> bool:
    match = _HOST.fullmatch(host) if isinstance(host, str) else None
    return (
        match is not None
        and len(match["name"]) <= _LONGEST_NAME
        and (match["port"] is None or 0 < int(match["port"]) <= _HIGHEST_PORT)
    )


def _is_local_or_numeric(host: str) -> bool:
    """Tell whether a host is this machine by name, or an address in any form resolvers read.

    A name whose last label is a number is an address: 127.1, 2130706433, 0x7f000001 (WHATWG URL,
    "ends in a number checker").
    """
    last = host.partition(":")[0].lower().rpartition(".")[2]
    return last == "localhost" or _NUMBER.fullmatch(last) is not None


def _showable(given: object) -> str:
    """Return a URL or a host fit to show: no password before an @, no token after a ?."""
    if not isinstance(given, str):
        return repr(given)
    shown = re.sub(r"^(\w+:/*)?.*@", r"\1…@", given, flags=re.DOTALL)
    return repr(re.sub(r"\?.*", "?…", shown, flags=re.DOTALL))
