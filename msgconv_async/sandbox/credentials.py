"""Access: tokens, sessions and signed requests, each for one account until it expires.

Every account accepts the same credentials, those named here. The forms are LivePerson's: Sentinel's
OAuth 2.0 client credentials, the Login Service API's user login, and OAuth 1.0 (RFC 5849).
"""

from __future__ import annotations

import importlib
import secrets
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from types import SimpleNamespace
from urllib.parse import urlsplit

import msgspec

from msgconv_async.sandbox.parameters import MalformedRequest

CLIENT_ID = "sandbox-client"
CLIENT_SECRET = "sandbox-secret"  # noqa: S105
USERNAME = "sandbox-user"
PASSWORD = "sandbox-password"  # noqa: S105
APP_KEY = "sandbox-key"
APP_SECRET = "sandbox-key-secret"  # noqa: S105
ACCESS_TOKEN = "sandbox-token"  # noqa: S105
ACCESS_TOKEN_SECRET = "sandbox-token-secret"  # noqa: S105

SESSION_LIFETIME = timedelta(hours=8)
"""How long a login lasts without a refresh: the "28800000" milliseconds of LivePerson's answer."""

_SIGNED_BY = {
    "oauth_consumer_key": APP_KEY,
    "oauth_token": ACCESS_TOKEN,
    "oauth_signature_method": "HMAC-SHA1",
}
_SECRETS = SimpleNamespace(client_secret=APP_SECRET, resource_owner_secret=ACCESS_TOKEN_SECRET)
_NONCES_KEPT = 10_000


class Refused(Exception):
    """A request that is answered 401; the text says why."""


class Grant(msgspec.Struct):
    """The rights of a bearer: one account, until it expires."""

    account_id: str
    expires: datetime


class Session(msgspec.Struct, frozen=True):
    """A user's login: the id in the cookie, the csrf that must come with it, and the bearer."""

    id: str
    csrf: str
    bearer: str


class CredentialStore:
    """Gives out bearers and checks the credentials of requests.

    Args:
        clock: The sandbox's time, by which bearers expire.
        token_lifetime: How long an OAuth 2.0 token is valid.
    """

    def __init__(self, clock: Callable[[], datetime], token_lifetime: timedelta) -> None:
        self.token_lifetime = token_lifetime
        self._clock = clock
        self._grants: dict[str, Grant] = {}
        self._sessions: dict[str, Session] = {}
        self._nonces: dict[tuple[str, str], None] = {}

    def token(self, account_id: str, form: Mapping[str, object]) -> str:
        """Return a new token for the form of a client credentials request.

        Raises:
            MalformedRequest: The form asks for another kind of grant.
            Refused: The client id or its secret is wrong.
        """
        if form.get("grant_type") != "client_credentials":
            raise MalformedRequest("grant_type must be client_credentials")
        if (form.get("client_id"), form.get("client_secret")) != (CLIENT_ID, CLIENT_SECRET):
            raise Refused("the client id or its secret is wrong")
        return self._grant(account_id, self.token_lifetime)

    def login(self, account_id: str, body: Mapping[str, object]) -> Session:
        """Return a new session for the body of a login request.

        Raises:
            MalformedRequest: The name or the password is missing.
            Refused: The name or the password is wrong.
        """
        username, password = body.get("username"), body.get("password")
        if not (isinstance(username, str) and isinstance(password, str)):
            raise MalformedRequest("username and password are required, as strings")
        if (username, password) != (USERNAME, PASSWORD):
            raise Refused("the username or the password is wrong")
        bearer = self._grant(account_id, SESSION_LIFETIME)
        session = Session(secrets.token_hex(16), secrets.token_hex(32), bearer)
        self._sessions[session.id] = session
        return session

    def refresh(self, account_id: str, cookie: str | None, csrf: object) -> Session:
        """Give a session its whole lifetime again.

        Raises:
            Refused: The session is not known or has expired, or the csrf is not its own.
        """
        session = self._session(account_id, cookie, csrf)
        self._grants[session.bearer].expires = self._clock() + SESSION_LIFETIME
        return session

    def logout(self, account_id: str, cookie: str | None, csrf: object) -> None:
        """End a session.

        Raises:
            Refused: The session is not known or has expired, or the csrf is not its own.
        """
        session = self._session(account_id, cookie, csrf)
        del self._grants[session.bearer], self._sessions[session.id]

    def check(self, account_id: str, method: str, url: str, authorization: str) -> None:
        """Check the Authorization header of a request: a bearer, or an OAuth 1.0 signature.

        Raises:
            Refused: The header gives no access.
        """
        kind, _, value = authorization.partition(" ")
        match kind.lower():
            case "bearer":
                self._check_bearer(account_id, value.strip())
            case "oauth":
                self._check_signature(method, url, authorization)
            case _:
                raise Refused("the Authorization header must be a Bearer token or OAuth 1.0")

    def _grant(self, account_id: str, lifetime: timedelta) -> str:
        self._forget_expired()
        bearer = secrets.token_urlsafe(32)
        self._grants[bearer] = Grant(account_id, self._clock() + lifetime)
        return bearer

    def _forget_expired(self) -> None:
        now = self._clock()
        self._grants = {
            bearer: grant for bearer, grant in self._grants.items() if now < grant.expires
        }
        self._sessions = {
            session.id: session
            for session in self._sessions.values()
            if session.bearer in self._grants
        }

    def _check_bearer(self, account_id: str, bearer: str) -> None:
        grant = self._grants.get(bearer)
        if grant is None or grant.account_id != account_id:
            raise Refused("the token was not issued for this account")
        if self._clock() >= grant.expires:
            raise Refused("the token has expired")

    def _session(self, account_id: str, cookie: str | None, csrf: object) -> Session:
        session = self._sessions.get(cookie or "")
        if session is None:
            raise Refused("the session cookie is missing or of no session")
        if csrf != session.csrf:
            raise Refused("the csrf is not the session's")
        self._check_bearer(account_id, session.bearer)
        return session

    def _check_signature(self, method: str, url: str, authorization: str) -> None:
        try:
            rfc5849 = importlib.import_module("oauthlib.oauth1.rfc5849.signature")
        except ImportError:
            raise Refused("OAuth 1.0 is not checked here: oauthlib is not installed") from None
        try:
            everything = rfc5849.collect_parameters(
                urlsplit(url).query,
                headers={"Authorization": authorization},
                exclude_oauth_signature=False,
            )
            signed = [(name, value) for name, value in everything if name != "oauth_signature"]
            base = rfc5849.signature_base_string(
                method, rfc5849.base_string_uri(url), rfc5849.normalize_parameters(signed)
            )
            signature = rfc5849.sign_hmac_sha1_with_client(base, _SECRETS)
        except ValueError as error:  # of the header, the Host or the query
            raise Refused(f"the OAuth 1.0 signature cannot be checked: {error}") from None
        sent = dict(everything)
        for name, value in _SIGNED_BY.items():
            if sent.get(name) != value:
                raise Refused(f"{name} must be {value}")
        # The time itself is not judged: the sandbox's clock may be set, the client's is real.
        once = (sent.get("oauth_timestamp", ""), sent.get("oauth_nonce", ""))
        if not (once[0].isdecimal() and once[1]):
            raise Refused("oauth_timestamp and oauth_nonce are required")
        if sent.get("oauth_signature") != signature:
            raise Refused("the OAuth 1.0 signature is wrong")
        if once in self._nonces:
            raise Refused("the OAuth 1.0 nonce was used before")
        self._nonces[once] = None
        if len(self._nonces) > _NONCES_KEPT:
            del self._nonces[next(iter(self._nonces))]
