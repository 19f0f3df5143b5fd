"""The proxy that a request takes, as the environment says: ``HTTPS_PROXY`` and ``NO_PROXY``.

aiohttp reads them only with ``trust_env=True`` (aio-libs/aiohttp#10682). That would read ``.netrc``
as well, and send what stands there in place of an account's credentials; and it takes a thread for
each request.

``HTTP_PROXY`` is about plain http, which goes to loopback addresses only, and these never take a
proxy.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping

from yarl import URL

from msgconv_async.client.http.hosts import is_address, is_loopback
from msgconv_async.errors import ConfigurationError

_RIGHT = (
    "give it as http://host:port, or http://name:password@host:port with special characters"
    " percent-encoded"
)


class Proxies:
    """Knows which hosts are reached through the proxy.

    Args:
        proxy: The proxy; its user and password are sent to it alone. None: there is none.
        exempt: What ``NO_PROXY`` says: hosts, the ends of their names, networks such as
            ``10.0.0.0/8``, or ``*``, with commas between them.
    """

    def __init__(self, proxy: URL | None = None, exempt: str = "") -> None:
        self._proxy = proxy
        self._exempt = re.split(r"[,\s]+", exempt.strip().lower())

    def of(self, url: URL) -> URL | None:
        """Return the proxy that a request to a URL takes, or None."""
        if self._proxy is None:
            return None
        host, port = (url.host or "").lower(), str(url.port)
        if is_loopback(host) or any(_covers(entry, host, port) for entry in self._exempt):
            return None
        return self._proxy


def proxies_of(environment: Mapping[str, str] = os.environ) -> Proxies:
    """Return the proxies that environment variables name, in small letters or in capitals.

    Raises:
        ConfigurationError: ``HTTPS_PROXY`` is not the address of a proxy. The message does not
            repeat it, since a password may stand in it.
    """
    given = _variable("https_proxy", environment)
    proxy = _parse(given) if given else None
    return Proxies(proxy, _variable("no_proxy", environment))


def name_of(proxy: URL) -> str:
    """Return a proxy's host and port, without its credentials."""
    return f"{proxy.host}:{proxy.port}"


def _variable(name: str, environment: Mapping[str, str]) -> str:
    """Return a variable; one in small letters wins, even if it is empty, as with other programs."""
    return environment.get(name, environment.get(name.upper(), "")).strip()


def _parse(text: str) -> URL:
    text = text if "://" in text else f"http://{text}"
    kind = text.partition("://")[0].lower()
    if kind.isalnum() and kind not in {"http", "https"}:
        raise ConfigurationError(
            f"HTTPS_PROXY names a proxy of the kind {kind!r}, which is not supported: {_RIGHT}"
        )
    try:
        proxy = URL(text)
        good = proxy.host and proxy.port and proxy.path == "/" and not proxy.query_string
    except ValueError:
        good = False
    if not good:
        raise ConfigurationError(f"HTTPS_PROXY is not the address of a proxy: {_RIGHT}")
    return proxy


def _covers(entry: str, host: str, port: str) -> bool:
    """Tell whether one entry of ``NO_PROXY`` is about a host."""
    if entry == "*":
        return True
    if is_address(host):
        try:
            return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            pass  # it is a name, or has a port
    name, _, only = entry.partition(":")
    name = name.lstrip("*.")
    return bool(name) and only in {"", port} and f".{host}".endswith(f".{name}")
