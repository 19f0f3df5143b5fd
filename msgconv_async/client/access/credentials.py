"""The four kinds of credentials, and what each looks like on the wire.

LivePerson's documentation: Sentinel's OAuth 2.0 client credentials, the Login Service API for
users, and OAuth 1.0 API keys (RFC 5849, HMAC-SHA1), which LivePerson ended on 2026-05-31 and which
old accounts and private clouds still use.
"""

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import FrozenInstanceError
from typing import Any, ClassVar, NoReturn, Self, TypeAlias, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit

import msgspec

from msgconv_async.client.access.domains import AGENT_LOGIN, SENTINEL
from msgconv_async.client.access.secret_files import read_secret_file
from msgconv_async.client.http.transport import JSON, Answer
from msgconv_async.errors import ConfigurationError, UnexpectedResponse
from msgconv_async.protocol.query import HttpRequest

Reference: TypeAlias = Mapping[str, str]
"""An entry of an accounts file: a kind of credentials, their values, and where each secret is."""

_D = TypeVar("_D")
_HEADER_SAFE = re.compile(r"[\x21-\x7e]+", re.ASCII)
_SURROGATE = re.compile("[\ud800-\udfff]")
_TEXT_PROTOCOL = 2
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class Login(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a login.

    Attributes:
        bearer: Stands in the Authorization header.
        lifetime: Seconds until it expires. Infinity where the service did not say: it is then used
            until a request is refused.
        csrf: Sent with `cookies` in a refresh or a logout; empty for a login that has neither.
        cookies: The cookies of the session.
    """

    bearer: str
    lifetime: float
    csrf: str = ""
    cookies: Mapping[str, str] = {}

    def __repr__(self) -> str:
        return f"<Login for {self.lifetime:g} s>"


class _Kept:
    """What all credentials have in common: values that do not change, and that are not shown.

    They are no dataclasses: msgspec, orjson and others write a dataclass out, with its secrets, as
    part of the object that holds it. `pickle` and `copy` work, for process pools, so a pickle holds
    the secret. A library that writes text by way of pickle's second protocol (as PyYAML does) is
    refused.

    Attributes:
        reference: The entry of the accounts file that they were read from. It says where the
            secrets are, and holds none. None: they were given in a program.
    """

    __slots__ = ("reference",)
    __match_args__: ClassVar[tuple[str, ...]]
    reference: Reference | None
    _shown: ClassVar[tuple[str, ...]] = ()
    """The names of the values that are no secrets."""
    values_of: ClassVar[Callable[[Any], Any]]
    """Reads all of them. Each request hashes its account several times."""

    def __init_subclass__(cls) -> None:
        if cls.__slots__:
            cls.values_of = operator.attrgetter(*cls.__match_args__)

    def _set(self, **values: object) -> None:
        """Check the values, and set them once and for all."""
        for name, value in values.items():
            if not _is_text(value):
                raise ConfigurationError(
                    f"{type(self).__name__}: {name} is empty, or not a string of characters"
                )
            if not _is_trimmed(value):
                raise ConfigurationError(
                    f"{type(self).__name__}: {name} begins or ends with white space or holds a line"
                    " end, such as the one at the end of a file: pass it without"
                )
            object.__setattr__(self, name, value)
        object.__setattr__(self, "reference", None)

    def referring(self, reference: Reference | None) -> Self:
        """Return a copy that knows where its secrets are."""
        copy = type(self)(*self._values())
        object.__setattr__(copy, "reference", reference)
        return copy

    def current(self) -> Self:
        """Return them with the secrets that their files hold now; themselves if that is the same.

        Raises:
            ConfigurationError: A file cannot be read, or holds no secret.
        """
        where = self.reference or {}
        files = {name: path for name in self.__match_args__ if (path := where.get(f"{name}_file"))}
        if not files:
            return self
        changed = self.__replace__(**{name: read_secret_file(files[name]) for name in files})
        return self if changed == self else changed.referring(where)

    def _values(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self.__match_args__)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> NoReturn:
        raise FrozenInstanceError(f"cannot delete field {name!r}")

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._shown)
        return f"{type(self).__qualname__}({shown})"

    def __eq__(self, other: object) -> bool:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return bool(type(self).values_of(self) == type(self).values_of(other))

    def __hash__(self) -> int:
        return hash(type(self).values_of(self))

    def __getstate__(self) -> NoReturn:
        raise TypeError(f"{type(self).__name__} holds a secret: its state is not handed out")

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        if protocol <= _TEXT_PROTOCOL:
            raise TypeError(
                f"{type(self).__name__} holds a secret: it pickles, with a protocol above"
                f" {_TEXT_PROTOCOL}, and is not written in any other way"
            )
        return _again, (type(self), self._values(), self.reference)

    def __replace__(self, **changes: Any) -> Self:
        """Return a copy with other values, as `copy.replace` (Python 3.13) asks for."""
        return type(self)(**dict(zip(self.__match_args__, self._values(), strict=True)) | changes)


def _again(kind: type[_Kept], values: tuple[Any, ...], reference: Reference | None) -> _Kept:
    return kind(*values).referring(reference)


class RequestCredentials(_Kept):
    """Credentials that give the headers of each request without a login.

    Neither this class nor `LoginCredentials` is an ABC: each request asks which of them it has.
    """

    __slots__ = ()

    def secrets(self) -> tuple[str, ...]:
        """Return the values that must never be shown."""
        raise NotImplementedError

    def headers(self, request: HttpRequest) -> dict[str, str]:
        """Return the headers that authorize this request."""
        raise NotImplementedError


class LoginCredentials(_Kept):
    """Credentials that a service trades for a bearer that expires."""

    __slots__ = ()

    service: ClassVar[str]
    """The name of that service."""

    def secrets(self) -> tuple[str, ...]:
        """Return the values that must never be shown."""
        raise NotImplementedError

    def login(self, origin: str, account_id: str) -> tuple[HttpRequest, Mapping[str, str]]:
        """Return the request that logs in, and its headers."""
        raise NotImplementedError

    def parse(self, answer: Answer, account_id: str) -> Login:
        """Read the answer to the login request.

        Raises:
            UnexpectedResponse: The answer is not the document that LivePerson describes.
        """
        raise NotImplementedError


class ClientCredentials(LoginCredentials):
    """OAuth 2.0 client credentials, traded at Sentinel for a bearer token: the normal way.

    Args:
        client_id: The application's id.
        client_secret: Its secret.

    Raises:
        ConfigurationError: One of them is empty, begins or ends with white space, or holds a line
            end.
    """

    __slots__ = ("client_id", "client_secret")
    __match_args__ = ("client_id", "client_secret")
    _shown = ("client_id",)
    client_id: str
    client_secret: str
    service: ClassVar[str] = SENTINEL

    def __init__(self, client_id: str, client_secret: str) -> None:
        self._set(client_id=client_id, client_secret=client_secret)

    def secrets(self) -> tuple[str, ...]:
        """Return the values that must never be shown."""
        return (self.client_secret,)

    def login(self, origin: str, account_id: str) -> tuple[HttpRequest, Mapping[str, str]]:
        """Return the token request."""
        form = urlencode(
            {
                "grant_type": "client_credentials",
                "client_id": self.client_id,
                "client_secret": self.client_secret,
            }
        )
        url = f"{origin}/sentinel/api/v2/account/{account_id}/app/token"
        return HttpRequest("POST", url, form.encode()), _FORM

    def parse(self, answer: Answer, account_id: str) -> Login:
        """Read the token."""
        token = _decoded(_TOKEN, answer, account_id)
        return Login(
            bearer=_safe_bearer(token.access_token, account_id),
            lifetime=_lifetime(token.expires_in, "expires_in", account_id),
        )


class UserLogin(LoginCredentials):
    """A user's name and password, traded at the agent login service for a session.

    The session is kept alive while its account is asked at least every twenty minutes. It is logged
    out after that, when it is replaced, or when the `ConversationSession` closes.

    Args:
        username: The login name.
        password: The password.

    Raises:
        ConfigurationError: One of them is empty, begins or ends with white space, or holds a line
            end.
    """

    __slots__ = ("password", "username")
    __match_args__ = ("username", "password")
    _shown = ("username",)
    username: str
    password: str
    service: ClassVar[str] = AGENT_LOGIN

    def __init__(self, username: str, password: str) -> None:
        self._set(username=username, password=password)

    def secrets(self) -> tuple[str, ...]:
        """Return the values that must never be shown."""
        return (self.password,)

    def login(self, origin: str, account_id: str) -> tuple[HttpRequest, Mapping[str, str]]:
        """Return the login request."""
        body = msgspec.json.encode({"username": self.username, "password": self.password})
        url = f"{origin}/api/account/{account_id}/login?v=1.3"
        return HttpRequest("POST", url, body), JSON

    def parse(self, answer: Answer, account_id: str) -> Login:
        """Read the session; its lifetime is sent as milliseconds, in a string."""
        session = _decoded(_SESSION, answer, account_id)
        return Login(
            bearer=_safe_bearer(session.bearer, account_id),
            lifetime=_lifetime(session.session_ttl, "sessionTTl", account_id) / 1000,
            csrf=session.csrf,
            cookies=answer.cookies,
        )


class BearerToken(RequestCredentials):
    """A bearer token that you already have, and renew yourself.

    Args:
        token: The token, without the word "Bearer".

    Raises:
        ConfigurationError: It is empty, or holds a character that cannot stand in a header.
    """

    __slots__ = ("token",)
    __match_args__ = ("token",)
    token: str

    def __init__(self, token: str) -> None:
        given: object = token
        if not isinstance(given, str) or not _HEADER_SAFE.fullmatch(given):
            raise ConfigurationError(
                "BearerToken: the token is empty or holds a space, a line end or another character"
                " that cannot stand in a header; pass the bare token"
            )
        self._set(token=token)

    def secrets(self) -> tuple[str, ...]:
        """Return the values that must never be shown."""
        return (self.token,)

    def headers(self, request: HttpRequest) -> dict[str, str]:  # noqa: ARG002
        """Return the Authorization header."""
        return bearer(self.token)


class ApiKey(RequestCredentials):
    """An OAuth 1.0 API key; needs the extra ``oauth1``.

    Args:
        app_key: The application's key.
        app_secret: Its secret.
        access_token: The access token.
        access_token_secret: Its secret.

    Raises:
        ConfigurationError: One of them is empty, begins or ends with white space, or holds a line
            end; or the extra is not installed.
    """

    __slots__ = ("access_token", "access_token_secret", "app_key", "app_secret")
    __match_args__ = ("app_key", "app_secret", "access_token", "access_token_secret")
    _shown = ("app_key",)
    app_key: str
    app_secret: str
    access_token: str
    access_token_secret: str

    def __init__(
        self, app_key: str, app_secret: str, access_token: str, access_token_secret: str
    ) -> None:
        self._set(
            app_key=app_key,
            app_secret=app_secret,
            access_token=access_token,
            access_token_secret=access_token_secret,
        )
        try:
            import oauthlib.oauth1  # noqa: F401, PLC0415 - an extra, asked for before it is used
        except ImportError:
            raise ConfigurationError("ApiKey needs oauthlib: pip install 'oauthlib>=3.2'") from None

    def secrets(self) -> tuple[str, ...]:
        """Return the values that must never be shown."""
        return (self.app_secret, self.access_token, self.access_token_secret)

    def headers(self, request: HttpRequest) -> dict[str, str]:
        """Return the Authorization header, signed anew for each request."""
        # Step by step, since Client.sign writes the access token into oauthlib's debug log.
        from oauthlib.common import generate_nonce, generate_timestamp  # noqa: PLC0415 - an extra
        from oauthlib.oauth1 import Client  # noqa: PLC0415
        from oauthlib.oauth1.rfc5849 import parameters, signature  # noqa: PLC0415

        client = Client(self.app_key, self.app_secret, self.access_token, self.access_token_secret)
        given: Any = [
            ("oauth_nonce", generate_nonce()),
            ("oauth_timestamp", generate_timestamp()),
            ("oauth_version", "1.0"),
            ("oauth_signature_method", "HMAC-SHA1"),
            ("oauth_consumer_key", self.app_key),
            ("oauth_token", self.access_token),
        ]
        base = signature.signature_base_string(
            request.method,
            signature.base_string_uri(request.url),
            signature.normalize_parameters(parse_qsl(urlsplit(request.url).query) + given),
        )
        signed = signature.sign_hmac_sha1_with_client(base, client)
        prepared: Any = parameters
        return dict(prepared.prepare_headers([*given, ("oauth_signature", signed)]))


Credentials = RequestCredentials | LoginCredentials
"""The credentials of an account: one of the four classes above.

They are hashable, show no secret, and cannot be written as JSON, MessagePack or YAML. They pickle,
for process pools: a pickle of an account holds its secrets.
"""


def bearer(token: str) -> dict[str, str]:
    """Return the header that carries a bearer token (RFC 6750)."""
    return {"Authorization": f"Bearer {token}"}


_Number: TypeAlias = float | str | None
"""A number as services send it: bare, in a string, or null."""


class _Token(msgspec.Struct):
    access_token: str
    expires_in: _Number = None


class _Session(msgspec.Struct, rename={"session_ttl": "sessionTTl"}):
    bearer: str
    csrf: str
    session_ttl: _Number = 8 * 3600 * 1000.0


_TOKEN = msgspec.json.Decoder(_Token)
_SESSION = msgspec.json.Decoder(_Session)


def _decoded(decoder: msgspec.json.Decoder[_D], answer: Answer, account_id: str) -> _D:
    try:
        return decoder.decode(answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UnexpectedResponse(f"login: {error}", account_id=account_id) from None


def _lifetime(told: _Number, name: str, account_id: str) -> float:
    """Return the lifetime of a login, in the unit of the answer; infinity if it has none.

    Null, 0 and less tell nothing: a bearer that was given out is meant to be used.
    """
    try:
        lifetime = float(told or 0)
    except ValueError:
        lifetime = math.nan
    if math.isnan(lifetime):
        raise UnexpectedResponse(
            "login: it is not a number", where=f"$.{name}", account_id=account_id
        )
    return lifetime if lifetime > 0 else math.inf


def _safe_bearer(token: str, account_id: str) -> str:
    if not _HEADER_SAFE.fullmatch(token):
        raise UnexpectedResponse(
            "login: the token holds what cannot stand in a header", account_id=account_id
        )
    return token


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != "" and not _SURROGATE.search(value)


def _is_trimmed(value: Any) -> bool:
    return value == value.strip() and len(value.splitlines()) == 1
