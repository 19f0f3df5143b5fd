"""Parameters that several commands share."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, timedelta, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cyclopts import Parameter, Token

from msgconv_async.cli.alive import Telling
from msgconv_async.cli.console import LogFormat, write_lines
from msgconv_async.cli.failures import log_to_stderr
from msgconv_async.client.access.account import Account
from msgconv_async.client.session import TIMEOUT, ConversationSession
from msgconv_async.errors import ConfigurationError
from msgconv_async.names import Names, read_names
from msgconv_async.protocol.query import ConversationQuery

if TYPE_CHECKING:
    from msgconv_async.export.store import Store


def _whole(_type: object, tokens: Sequence[Token]) -> int:
    """Read a whole number; 7.5 is refused, not rounded."""
    try:
        return int(tokens[0].value)
    except ValueError:
        raise ValueError(f"{tokens[0].value!r} is not a whole number") from None


_TIME = re.compile(
    r"(?=\d)(?:(?P<hours>\d+)h)?(?:(?P<minutes>\d+)m)?(?:(?P<seconds>\d+)s)?", re.ASCII
)


def _time(_type: object, tokens: Sequence[Token]) -> timedelta:
    """Read a time such as 30m, 1h or 1h30m."""
    if re.fullmatch("[0-9]{1,4}", tokens[0].value):
        raise ValueError(f"{tokens[0].value!r} has no unit: for minutes, write {tokens[0].value}m")
    found = _TIME.fullmatch(tokens[0].value)
    try:
        return timedelta(**{unit: int(count or 0) for unit, count in found.groupdict().items()})  # type: ignore[union-attr]
    except (AttributeError, OverflowError, ValueError):
        raise ValueError(f"{tokens[0].value!r} is not a time such as 30m or 1h") from None


_SHARD = re.compile(r"(\d{1,9})/(\d{1,9})", re.ASCII)


def _shard(_type: object, tokens: Sequence[Token]) -> tuple[int, int]:
    """Read one of several shards, such as 2/8."""
    found = _SHARD.fullmatch(tokens[0].value)
    if found is None:
        raise ValueError(f"{tokens[0].value!r} is not a shard such as 2/8")
    return int(found[1]), int(found[2])


def _zone(_type: object, tokens: Sequence[Token]) -> tzinfo:
    """Read the name of a time zone, such as Europe/Berlin."""
    name = tokens[0].value
    try:
        return UTC if name.upper() == "UTC" else ZoneInfo(name)
    except (OSError, ValueError, ZoneInfoNotFoundError):  # OSError: of a folder, such as Europe
        raise ValueError(f"{name!r} is not the name of a time zone such as Europe/Berlin") from None


def _names(_type: object, tokens: Sequence[Token]) -> Names:
    """Read a file of names."""
    return read_names(tokens[0].value)


Whole = Annotated[int, Parameter(converter=_whole)]
WholeOrNone = Annotated[int | None, Parameter(converter=_whole)]
Time = Annotated[timedelta | None, Parameter(converter=_time)]
ShardOrNone = Annotated[
    tuple[int, int] | None, Parameter(converter=_shard, n_tokens=1, negative_iterable="")
]
IdsOption = Annotated[str | None, Parameter(allow_leading_hyphen=True)]  # -1 is a skill
Zone = Annotated[tzinfo, Parameter(converter=_zone, show_default=False)]
NamesFile = Annotated[
    Names, Parameter(name="--names", converter=_names, n_tokens=1, show_default=False)
]
Switch = Annotated[bool, Parameter(negative="")]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class AccessOptions:
    """The accounts to ask, the server to ask, and the credentials.

    Parameters
    ----------
    accounts
        A file of accounts and their credentials, such as accounts.toml, in place of account ids.
    base_url
        The origin of every service, such as http://127.0.0.1:8080; without it, LivePerson's own.
    client_id
        The client id of OAuth 2.0 client credentials.
    username
        The name of a user to log in as.
    """

    accounts: Path | None = None
    base_url: Annotated[str | None, Parameter(env_var="MSGCONV_BASE_URL")] = None
    client_id: Annotated[str | None, Parameter(env_var="MSGCONV_CLIENT_ID")] = None
    username: Annotated[str | None, Parameter(env_var="MSGCONV_USERNAME")] = None

    def named(self, ids: Sequence[str]) -> tuple[Sequence[Account], str]:
        """Return the accounts of these ids, or of the file, and a note on their credentials."""
        from msgconv_async.cli.credentials import find  # noqa: PLC0415
        from msgconv_async.client.access.accounts_file import read_accounts  # noqa: PLC0415

        if (self.accounts is None) == (not ids):
            raise ConfigurationError(
                "name accounts, or a file of them with --accounts: one of the two"
            )
        if self.accounts is not None:
            return read_accounts(self.accounts), ""
        credentials, note = find(self.client_id, self.username, self.base_url)
        return [Account(id_, credentials) for id_ in dict.fromkeys(ids)], note

    def session(self) -> ConversationSession:
        """Return a session, not entered yet."""
        return ConversationSession(base_url=self.base_url)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class LogOptions:
    """How to write to stderr.

    Parameters
    ----------
    log_format
        text, or json: each line on stderr is an object with time, level and message.
    """

    log_format: LogFormat = "text"

    def begin(self, *, dated: bool = False) -> None:
        """Write to stderr in this way; a command that goes on has dated lines."""
        write_lines(self.log_format, dated=dated)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class LifeOptions:
    """Where a command that goes on tells how it is.

    Parameters
    ----------
    status_file
        A file to keep how it is in, as JSON: the last round, rows, failures, lag. Replaced whole.
    metrics_port
        Serve /metrics, for Prometheus, and /healthz on this port of 127.0.0.1; 0 picks a free one.
        Needs the extra "gateway".
    """

    status_file: Path | None = None
    metrics_port: WholeOrNone = None

    def telling(self) -> Telling:
        """Return it as commands take it."""
        return Telling(self.status_file, self.metrics_port)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class QueryOptions:
    """The question, and its time limit.

    Parameters
    ----------
    timeframe
        Minutes back from now, 1 to 1440.
    interval
        Minutes per interval: a multiple of 5 that divides the time frame. Without it, the time
        frame is one interval.
    skills
        Group by these skills, and within each by agent: ids such as 4,15,3, or all.
    agents
        Group by these agents: ids, or all.
    groups
        Count only agents of these groups: ids, or all.
    timeout
        Seconds for each account: queue, login, waits and retries.
    verbose
        Report every throttled request on stderr as well, not only failures.
    """

    timeframe: Whole
    interval: WholeOrNone = None
    skills: IdsOption = None
    agents: IdsOption = None
    groups: IdsOption = None
    timeout: float = TIMEOUT
    verbose: Annotated[bool, Parameter(name=["--verbose", "-v"], negative="")] = False

    def query(self) -> ConversationQuery:
        """Return the query, and set how much of the library's log goes to stderr."""
        if not 0 < self.timeout < float("inf"):
            raise ConfigurationError(f"--timeout={self.timeout:g}: it must be above 0 seconds")
        log_to_stderr(logging.INFO if self.verbose else logging.WARNING)
        return ConversationQuery(
            self.timeframe,
            interval=self.interval,
            skill_ids=ids(self.skills),
            agent_ids=ids(self.agents),
            group_ids=ids(self.groups),
        )


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class StoreOptions:
    """The place of the collected tables.

    Parameters
    ----------
    destination
        Any of dlt's: duckdb or duckdb:FILE (msgconv.duckdb if not given), filesystem:FOLDER for
        Parquet files, postgres, and more. Its place and its credentials come from the environment,
        such as DESTINATION__POSTGRES__CREDENTIALS=postgresql://user:password@host/database.
    dataset
        The name of the schema, or of the folder, that holds the tables.
    """

    destination: str = "duckdb"
    dataset: str = "conversations"

    def store(self, shard: tuple[int, int] | None = None) -> Store:
        """Return the store, not opened yet, for one of several shards or for all there is."""
        from msgconv_async.export.destination import destination, set_defaults  # noqa: PLC0415
        from msgconv_async.export.store import Store  # noqa: PLC0415 - dlt takes a second

        set_defaults()
        return Store(destination(self.destination), self.dataset, shard=shard)


def ids(given: str | None) -> str | list[str] | None:
    """Return ids as a query takes them."""
    match given:
        case None | "none":
            return None
        case "all":
            return "all"
    return [id_.strip() for id_ in given.split(",")]
