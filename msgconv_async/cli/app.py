"""The commands: what may be given to each, and who carries it out."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter, Token

from msgconv_async import __version__
from msgconv_async.cli import OK, USAGE, complain
from msgconv_async.cli.output import Format
from msgconv_async.cli.show import Screen
from msgconv_async.client.account import Account
from msgconv_async.client.session import TIMEOUT, ConversationSession
from msgconv_async.errors import ConfigurationError, InvalidQuery
from msgconv_async.protocol.query import ConversationQuery

app = App(
    name="msgconv",
    help=(
        "LivePerson's Messaging Conversation metrics.\n\n"
        "Results go to stdout, progress and logs to stderr."
        " Exit codes: 0 all well, 1 something failed, 2 the command line was wrong."
    ),
    version=__version__,
    result_action="return_value",
)


def _whole(_type: object, tokens: Sequence[Token]) -> int:
    """Read a number as it was written: 7.5 minutes are not 8."""
    try:
        return int(tokens[0].value)
    except ValueError:
        raise ValueError(f"{tokens[0].value!r} is not a whole number") from None


_Whole = Annotated[int, Parameter(converter=_whole)]
_WholeOrNone = Annotated[int | None, Parameter(converter=_whole)]
_OPTIONS = {"skill_ids": "--skills", "agent_ids": "--agents", "group_ids": "--groups"}
_Ids = Annotated[str | None, Parameter(allow_leading_hyphen=True)]  # -1 is a skill


async def run(arguments: Sequence[str]) -> int:
    """Run a command line and return its exit code."""
    if (task := asyncio.current_task()) is not None:
        with suppress(NotImplementedError):  # on Windows
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        code: int | None = await app.run_async(
            list(arguments), console=Screen(), exit_on_error=False, print_error=False
        )
    except CycloptsError as error:
        command = " ".join(["msgconv", *(error.command_chain or ())])
        complain(f"{' '.join(str(error).split()).rstrip('.')} (see {command} --help)")
        return USAGE
    except InvalidQuery as error:
        option = _OPTIONS.get(error.parameter, f"--{error.parameter}")
        complain(str(error).replace(error.parameter, option, 1))
        return USAGE
    except ConfigurationError as error:
        complain(str(error))
        return USAGE
    return code or OK


@app.command
async def demo() -> int:
    """Ask a local server of 50 accounts for a day each, and show what comes of it.

    Needs no LivePerson account and no network; takes some seconds.
    """
    from msgconv_async.cli import demo  # noqa: PLC0415 - each command loads what it needs

    return await demo.run()


@app.command
async def sandbox(
    *,
    port: _Whole = 0,
    accounts: _WholeOrNone = None,
    seed: _Whole = 0,
    events: Path | None = None,
    concurrency: _WholeOrNone = None,
    rate: float | None = None,
    burst: _Whole = 0,
    latency: float = 0.0,
    retry_after: float | None = None,
) -> int:
    """Run LivePerson's API as a local server, until Ctrl-C.

    Prints one line, "listening on http://127.0.0.1:PORT", once it accepts connections. Its
    accounts are numbered from 10000001.

    Parameters
    ----------
    port
        The port to listen on; 0 picks a free one.
    accounts
        How many accounts there are; 1 if not given.
    seed
        Another seed, other conversations.
    events
        A file of resolved conversations to answer from, one JSON object a line, in place of
        synthetic ones. It brings its own accounts.
    concurrency
        Answer 429 to more than this many requests of one account at once.
    rate
        Answer 429 to more than this many requests of one account per second.
    burst
        Requests that may come ahead of the rate.
    latency
        Seconds that an answer takes at least.
    retry_after
        Seconds that a 429 asks to wait, in a Retry-After header.
    """
    from msgconv_async.cli import serve  # noqa: PLC0415
    from msgconv_async.sandbox import Sandbox  # noqa: PLC0415

    if events is not None and accounts is not None:
        raise ConfigurationError("--accounts and --events: the file brings its own accounts")
    return await serve.run(
        Sandbox(
            accounts=1 if accounts is None else accounts,
            seed=seed,
            events=events,
            concurrency=concurrency,
            rate=rate,
            burst=burst,
            latency=latency,
            retry_after=retry_after,
            port=port,
        )
    )


@app.command
async def fetch(
    account: tuple[str, ...],
    /,
    *,
    timeframe: _Whole,
    interval: _WholeOrNone = None,
    skills: _Ids = None,
    agents: _Ids = None,
    groups: _Ids = None,
    base_url: Annotated[str | None, Parameter(env_var="MSGCONV_BASE_URL")] = None,
    client_id: Annotated[str | None, Parameter(env_var="MSGCONV_CLIENT_ID")] = None,
    username: Annotated[str | None, Parameter(env_var="MSGCONV_USERNAME")] = None,
    format: Format = "table",  # noqa: A002 - it names the option
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    timeout: float = TIMEOUT,
    verbose: Annotated[bool, Parameter(name=["--verbose", "-v"], negative="")] = False,
) -> int:
    """Ask accounts for their metrics.

    Secrets come from the environment only: MSGCONV_CLIENT_SECRET, MSGCONV_TOKEN or
    MSGCONV_PASSWORD. A local server that is asked without any is taken for "msgconv sandbox".

    Parameters
    ----------
    account
        The account ids.
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
    base_url
        The origin of every service, such as http://127.0.0.1:8080; without it, LivePerson's own.
    client_id
        The client id of OAuth 2.0 client credentials.
    username
        The name of a user to log in as.
    format
        table: the main figures, to read. csv: every figure; the first column names a row's table,
        and a key that this table lacks is an empty cell. ndjson: the same, one JSON object a line.
        json: the service's document, byte for byte; of several accounts, one object that holds
        each document under its account id.
    output
        Write to this file, all at once when everything is there, rather than to stdout.
    timeout
        Seconds for each account: queue, login, waits and retries.
    verbose
        Tell on stderr of every throttled request as well, not of failures alone.
    """
    from msgconv_async.cli.credentials import find  # noqa: PLC0415
    from msgconv_async.cli.fetch import Fetch, log_to_stderr  # noqa: PLC0415

    if not 0 < timeout < float("inf"):
        raise ConfigurationError(f"--timeout={timeout:g}: it must be above 0 seconds")
    query = ConversationQuery(
        timeframe,
        interval=interval,
        skill_ids=_ids(skills),
        agent_ids=_ids(agents),
        group_ids=_ids(groups),
    )
    session = ConversationSession(base_url=base_url)
    credentials, note = find(client_id, username, base_url)
    accounts = [Account(each, credentials) for each in dict.fromkeys(account)]
    log_to_stderr(logging.INFO if verbose else logging.WARNING)
    command = Fetch(accounts, query, timeout=timeout, format=format, note=note)
    return await command.run(session, output)


@app.command
async def watch(
    account: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    /,
    *,
    accounts: Path | None = None,
    base_url: Annotated[str | None, Parameter(env_var="MSGCONV_BASE_URL")] = None,
    client_id: Annotated[str | None, Parameter(env_var="MSGCONV_CLIENT_ID")] = None,
    username: Annotated[str | None, Parameter(env_var="MSGCONV_USERNAME")] = None,
) -> int:
    """Follow accounts, and show each five-minute bucket as it closes, until Ctrl-C.

    In a terminal, a table that is redrawn in place; elsewhere a line for each closed bucket.
    Secrets come from the environment only, as for "msgconv fetch", or as the accounts file says.

    Parameters
    ----------
    account
        The account ids.
    accounts
        A file of accounts and how each is let in, such as accounts.toml, in their place.
    base_url
        The origin of every service, such as http://127.0.0.1:8080; without it, LivePerson's own.
    client_id
        The client id of OAuth 2.0 client credentials.
    username
        The name of a user to log in as.
    """
    from msgconv_async.cli.watch import Watch  # noqa: PLC0415

    session = ConversationSession(base_url=base_url)
    return await Watch(_named(account, accounts, client_id, username, base_url)).run(session)


@app.command
def collect(
    account: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    /,
    *,
    accounts: Path | None = None,
    destination: str = "duckdb",
    dataset: str = "conversations",
    every: timedelta | None = None,
    once: Annotated[bool, Parameter(negative="")] = False,
    skills: _Ids = "all",
    agents: _Ids = "all",
    groups: _Ids = None,
    base_url: Annotated[str | None, Parameter(env_var="MSGCONV_BASE_URL")] = None,
    client_id: Annotated[str | None, Parameter(env_var="MSGCONV_CLIENT_ID")] = None,
    username: Annotated[str | None, Parameter(env_var="MSGCONV_USERNAME")] = None,
) -> int:
    """Keep every closed five-minute bucket of accounts in a database, until Ctrl-C.

    Fills the tables account_metrics, skill_metrics, agent_metrics and skill_agent_metrics, each
    bucket exactly once, whatever is killed in between; the first round begins 24 hours back. What
    the API forgot before it was read is a row of collection_gaps, and a warning.

    Parameters
    ----------
    account
        The account ids.
    accounts
        A file of accounts and how each is let in, such as accounts.toml, in their place.
    destination
        Any of dlt's: duckdb or duckdb:FILE (msgconv.duckdb if not given), filesystem:FOLDER for
        Parquet files, postgres, and more. Where that is and how it lets in, the environment says,
        such as DESTINATION__POSTGRES__CREDENTIALS=postgresql://user:password@host/database.
    dataset
        The name of the schema, or of the folder, that holds the tables.
    every
        From one round to the next, such as 1h; 5m if not given.
    once
        One round, then end: for cron and its like. Exits with 1 if an account failed.
    skills
        Skills to tell apart: ids such as 4,15,3; all; or none.
    agents
        Agents to tell apart: ids, all, or none.
    groups
        Count only agents of these groups: ids, or all.
    base_url
        The origin of every service, such as http://127.0.0.1:8080; without it, LivePerson's own.
    client_id
        The client id of OAuth 2.0 client credentials.
    username
        The name of a user to log in as.
    """
    from msgconv_async.cli.collect import Collect  # noqa: PLC0415
    from msgconv_async.cli.fetch import log_to_stderr  # noqa: PLC0415
    from msgconv_async.export.destination import Store, set_defaults  # noqa: PLC0415
    from msgconv_async.export.destination import destination as find  # noqa: PLC0415

    if once and every is not None:
        raise ConfigurationError("--every and --once: give one of the two")
    named = _named(account, accounts, client_id, username, base_url)
    set_defaults()
    command = Collect(
        Store(find(destination), dataset),
        named,
        every=None if once else every or timedelta(minutes=5),
        skills=_ids_or_none(skills),
        agents=_ids_or_none(agents),
        groups=_ids(groups),
    )
    log_to_stderr(logging.WARNING)
    return command.run(partial(ConversationSession, base_url=base_url))


def _named(
    account: tuple[str, ...],
    file: Path | None,
    client_id: str | None,
    username: str | None,
    base_url: str | None,
) -> Sequence[Account]:
    """Return the accounts given on the command line, or in a file."""
    from msgconv_async.cli.credentials import find  # noqa: PLC0415
    from msgconv_async.client.accounts import read_accounts  # noqa: PLC0415

    if (file is None) == (not account):
        raise ConfigurationError("name accounts, or a file of them with --accounts: one of the two")
    if file is not None:
        return read_accounts(file)
    credentials, note = find(client_id, username, base_url)
    if note:
        complain(note)
    return [Account(each, credentials) for each in dict.fromkeys(account)]


def _ids_or_none(given: str | None) -> str | list[str] | None:
    return None if given == "none" else _ids(given)


@app.command
def report(
    *,
    destination: str = "duckdb",
    dataset: str = "conversations",
    days: _Whole = 7,
    html: Path | None = None,
) -> int:
    """Show what "msgconv collect" has collected, by day (UTC) and skill.

    Who resolved how many conversations, and their average handling time. Days that were not
    collected whole are marked. In a terminal there are charts as well.

    Parameters
    ----------
    destination
        Where the history is, as for "msgconv collect".
    dataset
        The name of the schema, or of the folder, that holds the tables.
    days
        How many days, up to the newest that was collected.
    html
        Write a page with charts to this file instead; it needs no network to be read.
    """
    from msgconv_async.cli.report import Report  # noqa: PLC0415
    from msgconv_async.export.destination import Store, set_defaults  # noqa: PLC0415
    from msgconv_async.export.destination import destination as find  # noqa: PLC0415

    if days < 1:
        raise ConfigurationError(f"--days={days}: it must be 1 or more")
    set_defaults()
    return Report(Store(find(destination), dataset), days).run(html)


def _ids(given: str | None) -> str | list[str] | None:
    return given if given in {None, "all"} else [each.strip() for each in str(given).split(",")]
