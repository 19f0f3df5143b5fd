"""An account: its id, its credentials and its host."""

import re
from dataclasses import KW_ONLY, dataclass

from msgconv_async.client.access.credentials import Credentials
from msgconv_async.client.access.domains import check_host
from msgconv_async.errors import ConfigurationError, short

_ACCOUNT_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class Account:
    """One LivePerson account: an id, its credentials, and its host if that is known.

    It pickles, secrets included, for process pools. No other serialiser writes it.

    Args:
        id: The account (site) id, such as ``"12345678"``.
        credentials: `ClientCredentials`, `UserLogin`, `BearerToken` or `ApiKey`.
        host: The host of its ``leDataReporting`` service, such as ``"va.data.example.net"`` or
            ``"va.data.example.net:8443"``. None, the default, asks the Domain API once, and again
            when that host stops serving the account.

    Raises:
        ConfigurationError: The id or the host cannot stand in a URL as it is.
    """

    id: str
    credentials: Credentials
    _: KW_ONLY
    host: str | None = None

    def __post_init__(self) -> None:
        given: object = self.id
        if not isinstance(given, str) or not _ACCOUNT_ID.fullmatch(given):
            raise ConfigurationError(
                f"account id {short(given)} is not one: it must be a string of letters, digits,"
                " '-' and '_', such as '12345678'"
            )
        credentials: object = self.credentials
        if not isinstance(credentials, Credentials):
            raise ConfigurationError(
                f"account {self.id}: credentials must be ClientCredentials, UserLogin, BearerToken"
                f" or ApiKey, not {type(credentials).__name__}"
            )
        if self.host is not None:
            check_host(self.host, f"account {self.id}: host")
