"""The commands: their parameters, and the modules that carry them out."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, CycloptsError, MissingArgumentError, Parameter, UnknownOptionError

from msgconv_async import __version__, checks
from msgconv_async.cli.console import EXIT_CODES, OK, USAGE, complain, write_lines
from msgconv_async.cli.output import Format, ReportFormat
from msgconv_async.cli.parameters import (
    AccessOptions,
    IdsOption,
    LifeOptions,
    LogOptions,
    NamesFile,
    QueryOptions,
    ShardOrNone,
    StoreOptions,
    Switch,
    Time,
    Whole,
    WholeOrNone,
    Zone,
    ids,
)
from msgconv_async.cli.show import Screen
from msgconv_async.errors import ConfigurationError, InvalidQuery
from msgconv_async.export.files import FileFormat
from msgconv_async.export.rows import By
from msgconv_async.names import NOBODY
from msgconv_async.protocol.query import MIN_INTERVAL

if TYPE_CHECKING:
    from msgconv_async.cli.asking import Asking
    from msgconv_async.client.session import ConversationSession


def _examples(*lines: str) -> str:
    """Return the end of a command's help."""
    return "\n".join(["Examples:", "", "```sh", *lines, "```"])


app = App(
    name="msgconv",
    help=(
        "LivePerson's Messaging Conversation metrics.\n\n"
        "Results go to stdout, progress and logs to stderr."
        f" Exit codes: {', '.join(f'{code} {meaning}' for code, meaning in EXIT_CODES.items())}."
    ),
    help_epilogue=_examples("msgconv demo", "msgconv help fetch"),
    version=__version__,
    version_flags=["--version", "-V"],
    result_action="return_value",
)
app.register_install_completion_command(
    help="Let the shell complete commands and options: zsh, bash, fish or PowerShell.",
    help_epilogue=_examples(
        "msgconv --install-completion", "msgconv --install-completion --shell zsh"
    ),
)


_OPTIONS = {"skill_ids": "--skills", "agent_ids": "--agents", "group_ids": "--groups"}
_Accounts = Annotated[tuple[str, ...], Parameter(negative="", show_default=False)]
_SECRETS = {
    "--client-secret": "MSGCONV_CLIENT_SECRET",
    "--token": "MSGCONV_TOKEN",
    "--password": "MSGCONV_PASSWORD",
}
"""What stands in no command line, and the variable that holds it. With ``_FILE`` at its end, it
names a file that holds the secret."""
_NOBODY = AccessOptions()
_HERE = StoreOptions()
_PLAIN = LogOptions()
_UNTOLD = LifeOptions()


async def run(arguments: Sequence[str]) -> int:
    """Run a command line and return its exit code."""
    write_lines()
    if (task := asyncio.current_task()) is not None:
        with suppress(NotImplementedError):  # on Windows
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        code: int | None = await app.run_async(
            list(arguments), console=Screen(), exit_on_error=False, print_error=False
        )
    except CycloptsError as error:
        command = " ".join(["msgconv", *(error.command_chain or ())])
        complain(f"{_mistake(error, arguments)} (see {command} --help)")
        return USAGE
    except InvalidQuery as error:
        option = _OPTIONS.get(error.parameter, f"--{error.parameter}")
        complain(str(error).replace(error.parameter, option, 1), "error")
        return USAGE
    except ConfigurationError as error:
        complain(str(error), "error")
        return USAGE
    return code or OK


def _mistake(error: CycloptsError, arguments: Sequence[str]) -> str:
    """Say what was wrong with a command line."""
    if isinstance(error, MissingArgumentError):
        name = error.argument.name if error.argument is not None else "an option"
        given = any(argument.partition("=")[0] == name for argument in arguments)
        return f"{name} {'has no value' if given else 'is missing'}"
    if isinstance(error, UnknownOptionError):
        name = (error.token.keyword or error.token.value).partition("=")[0]
        variable = _SECRETS.get(name.removesuffix("-file"))
        if variable and "gateway" not in (error.command_chain or ()):
            if name.endswith("-file"):
                return f"{name}: there is no such option: set {variable}_FILE in the environment"
            return (
                f"{name}: a secret stands in no command line, where every user of the machine can"
                f" read it: set {variable} in the environment"
            )
    return " ".join(str(error).split()).rstrip(".")


@app.command(name="help", help_epilogue=_examples("msgconv help", "msgconv help collect"))
def help_(command: str | None = None, /) -> None:
    """Show what there is, or the help of a command.

    Parameters
    ----------
    command
        The command.
    """
    if command is not None and command not in app:
        raise ConfigurationError(f"there is no command {command!r}: msgconv help names them all")
    app.help_print([] if command is None else [command], console=Screen())


@app.command(
    help_epilogue=_examples(
        "msgconv demo",
        "msgconv demo --web --port 8000",
    )
)
async def demo(*, web: Switch = False, port: WholeOrNone = None) -> int:
    """Ask a local server of 50 accounts for a day each, and show the results.

    It needs no LivePerson account and no network, and takes some seconds.

    Parameters
    ----------
    web
        Show the gateway's live page of these accounts instead, in a browser, until Ctrl-C. Prints
        one line, "listening on http://127.0.0.1:PORT". Needs the extra "gateway".
    port
        The port of that page; a free one if not given.
    """
    from msgconv_async.cli import demo  # noqa: PLC0415 - each command loads what it needs

    if not web:
        if port is not None:
            raise ConfigurationError("--port: it is the port of the page that --web shows")
        return await demo.run()
    from msgconv_async.cli import demo_web  # noqa: PLC0415

    return await demo_web.run(0 if port is None else port)


@app.command(
    help_epilogue=_examples(
        "msgconv sandbox --port 8080 --accounts 3",
        "msgconv sandbox --accounts 50 --concurrency 6 --latency 0.5",
    )
)
async def sandbox(
    *,
    port: Whole = 0,
    accounts: WholeOrNone = None,
    seed: Whole = 0,
    events: Path | None = None,
    concurrency: WholeOrNone = None,
    rate: float | None = None,
    burst: Whole = 0,
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
        Another seed makes other conversations.
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


@app.command(
    help_epilogue=_examples(
        "msgconv gateway --accounts accounts.toml --state limits.json",
        "msgconv gateway 12345678 --unix /run/msgconv/gateway.sock",
    )
)
async def gateway(
    account: _Accounts = (),
    /,
    *,
    access: AccessOptions = _NOBODY,
    host: str = "127.0.0.1",
    port: WholeOrNone = None,
    unix: Path | None = None,
    fresh_for: float = 0.0,
    max_wait: float = 15.0,
    token_env: str | None = None,
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
    state: Path | None = None,
    no_page: Switch = False,
    names: NamesFile = NOBODY,
    grace: float = 25.0,
    log: LogOptions = _PLAIN,
) -> int:
    """Own the pace of accounts for any number of clients, which ask it as if it were LivePerson.

    Prints one line, "listening on http://HOST:PORT", once it accepts connections. Clients need it
    as their base URL, and no LivePerson credential. Needs the extra "gateway". The accounts'
    secrets come from the environment only, as for "msgconv fetch", or as the accounts file says.

    Parameters
    ----------
    account
        The account ids.
    host
        The address to listen on. Any but loopback needs --token-env, --tls-cert and --tls-key.
    port
        The port to listen on, 8080 if not given; 0 picks a free one.
    unix
        Listen on a Unix socket at this path instead, which only the same user can open.
    fresh_for
        Seconds for which an answer may be given again, never across a five-minute edge.
    max_wait
        Seconds. A question whose turn would come later is answered 503 at once.
    token_env
        The environment variable that holds the token which clients must send.
    tls_cert
        The certificate, a PEM file.
    tls_key
        Its key, a PEM file.
    state
        A file that keeps what was learnt about the accounts' limits over restarts.
    no_page
        Do not serve the live page at /. While somebody looks at it, it sends two requests of every
        account each five minutes; otherwise none.
    names
        A file of names that the live page shows beside the ids of accounts, skills and agents:
        names.toml or names.csv.
    grace
        Seconds in which requests in flight may end after SIGTERM.
    """
    from msgconv_async.cli import gateway  # noqa: PLC0415

    log.begin(dated=True)
    accounts, note = access.named(account)
    return await gateway.run(
        accounts,
        note,
        gateway.place(host, port, unix, tls_cert, tls_key),
        base_url=access.base_url,
        fresh_for=fresh_for,
        max_wait=max_wait,
        token=gateway.token(token_env),
        state=state,
        page=not no_page,
        names=names,
        grace=grace,
    )


@app.command(
    help_epilogue=_examples(
        "msgconv doctor --accounts accounts.toml",
        "msgconv doctor 12345678 --timeout 60",
    )
)
async def doctor(
    account: _Accounts = (),
    /,
    *,
    access: AccessOptions = _NOBODY,
    timeout: float = 20.0,
) -> int:
    """Check whether accounts can be asked, and say what to mend.

    It checks the accounts file, the credentials, the proxy and the clock, and asks each account one
    question, which goes through its host and its login. It shows no secret. Exits with 1 if
    something is wrong, and with 3 if that is some of the accounts only.

    Parameters
    ----------
    account
        The account ids.
    timeout
        Seconds for each account.
    """
    from msgconv_async.cli.doctor import Doctor  # noqa: PLC0415

    checks.number("--timeout", timeout, "above 0 seconds, and finite", above=True)
    return await Doctor(access, account, timeout).run()


@app.command(
    help_epilogue=_examples(
        "msgconv fetch 12345678 --timeframe 60 --skills all",
        "msgconv fetch --accounts accounts.toml --timeframe 60 --format csv -o hour.csv",
    )
)
async def fetch(
    account: _Accounts = (),
    /,
    *,
    question: QueryOptions,
    access: AccessOptions = _NOBODY,
    format: Format = "table",  # noqa: A002 - it names the option
    complete_only: Switch = False,
    log: LogOptions = _PLAIN,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
) -> int:
    """Ask accounts for their metrics.

    Secrets come from the environment only: MSGCONV_CLIENT_SECRET, MSGCONV_TOKEN or
    MSGCONV_PASSWORD. Without any of them, a local server is asked with the sandbox's credentials.

    Parameters
    ----------
    account
        The account ids.
    format
        table: the main figures, to read. csv: every figure; the first column names a row's table,
        and a key that this table lacks is an empty cell; the last one, complete, is false if the
        row's interval was still open. ndjson: the same, one JSON object a line.
        json: the service's document, byte for byte; for several accounts, one object that holds
        each document under its account id.
    complete_only
        Leave out intervals that were still open when asked; not for the format json.
    output
        Write to this file instead of stdout, all at once when everything is there.
    """
    from msgconv_async.cli.fetch import Fetch  # noqa: PLC0415

    log.begin()
    if complete_only and format == "json":
        raise ConfigurationError(
            "--complete-only: the format json is the service's own document, kept whole"
        )
    asking, session = _asking(account, question, access, complete_only=complete_only)
    return await Fetch(asking, format).run(session, output)


@app.command(
    help_epilogue=_examples(
        "msgconv watch 12345678 23456789",
        "msgconv watch --accounts accounts.toml",
    )
)
async def watch(
    account: _Accounts = (),
    /,
    *,
    access: AccessOptions = _NOBODY,
    names: NamesFile = NOBODY,
    life: LifeOptions = _UNTOLD,
    log: LogOptions = _PLAIN,
) -> int:
    """Follow accounts, and show each five-minute bucket as it closes, until Ctrl-C.

    A terminal shows a table that is redrawn in place; any other output gets a line for each closed
    bucket. Secrets come from the environment only, as for "msgconv fetch", or as the accounts file
    says.

    Parameters
    ----------
    account
        The account ids.
    names
        A file of names to show beside the accounts' ids: names.toml or names.csv.
    """
    from msgconv_async.cli.watch import Watch  # noqa: PLC0415

    log.begin(dated=True)
    accounts, note = access.named(account)
    watching = Watch(accounts, note, file=access.accounts, telling=life.telling(), names=names)
    return await watching.run(access.session())


@app.command(
    help_epilogue=_examples(
        "msgconv export --accounts accounts.toml --timeframe 1440 --interval 5 -o day/",
        "msgconv export 12345678 --timeframe 60 --skills all --format csv -o hour/",
    )
)
async def export(
    account: _Accounts = (),
    /,
    *,
    question: QueryOptions,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    access: AccessOptions = _NOBODY,
    format: FileFormat = "parquet",  # noqa: A002 - it names the option
    complete_only: Switch = False,
    roll_up: WholeOrNone = None,
    log: LogOptions = _PLAIN,
) -> int:
    """Write accounts' metrics to a folder: one file for each table that was asked for.

    Without --skills and --agents, it asks for account totals, account_metrics. The last column,
    complete, is false in a row whose interval was still open when it was asked for. A file is there
    whole or not at all, and replaces one of the same name. An account that fails is reported on
    stderr; the others are written. Secrets come from the environment only, as for "msgconv fetch",
    or as the accounts file says.

    Parameters
    ----------
    account
        The account ids.
    output
        The folder; made if it is missing.
    format
        Parquet needs the extra "arrow"; csv and ndjson do not.
    complete_only
        Leave out intervals that were still open when asked.
    roll_up
        Add five minutes up to periods of so many: 60 for hours, 1440 for days of UTC. Averages are
        made of the sums. A period that is not covered whole is not complete.
    """
    from msgconv_async.cli.export import Export  # noqa: PLC0415

    log.begin()
    if roll_up is not None:
        question = _rolled(question, roll_up)
    asking, session = _asking(
        account, question, access, complete_only=complete_only, roll_up=roll_up
    )
    return await Export(asking, format).run(session, output)


@app.command(
    help_epilogue=_examples(
        "msgconv collect --accounts accounts.toml",
        "msgconv collect 12345678 --destination postgres --once",
    )
)
def collect(
    account: _Accounts = (),
    /,
    *,
    access: AccessOptions = _NOBODY,
    place: StoreOptions = _HERE,
    every: Time = None,
    once: Switch = False,
    shard: ShardOrNone = None,
    skills: IdsOption = "all",
    agents: IdsOption = "all",
    groups: IdsOption = None,
    metrics: Switch = False,
    life: LifeOptions = _UNTOLD,
    log: LogOptions = _PLAIN,
) -> int:
    """Keep every closed five-minute bucket of accounts in a database, until Ctrl-C.

    Fills the tables account_metrics, skill_metrics, agent_metrics and skill_agent_metrics, each
    bucket exactly once, even if killed; the first round begins 24 hours back. Time that the API
    forgot before it was read is a row of collection_gaps, and a warning. Secrets come from the
    environment only, as for "msgconv fetch", or as the accounts file says. That file is read again
    at SIGHUP.

    Parameters
    ----------
    account
        The account ids.
    every
        The time from one round to the next, 5m to 12h, such as 30m or 1h; 5m if not given.
    once
        End after one round, such as for cron. Exits with 3 if some accounts failed, and with 4 if
        another collector is at work.
    shard
        Take only the accounts that are dealt to one of several collectors, such as 2/8 for the
        second of eight; all of them write the same tables.
    skills
        Skills to tell apart: ids such as 4,15,3; all; or none.
    agents
        Agents to tell apart: ids, all, or none.
    groups
        Count only agents of these groups: ids, or all.
    metrics
        Write a line of JSON to stdout after each round: seconds, accounts, rows, requests, and how
        many of these were throttled.
    """
    from msgconv_async.cli.collect import Collect  # noqa: PLC0415

    log.begin(dated=True)
    if once and every is not None:
        raise ConfigurationError("--every and --once: give one of the two")
    accounts, note = access.named(account)
    command = Collect(
        place.store(shard),
        accounts,
        shard=shard,
        every=None if once else timedelta(minutes=5) if every is None else every,
        skills=ids(skills),
        agents=ids(agents),
        groups=ids(groups),
        note=note,
        file=access.accounts,
        telling=life.telling(),
        metrics=metrics,
    )
    return command.run(access.session)


@app.command(
    help_epilogue=_examples(
        "msgconv report --days 30 --html report.html",
        "msgconv report 12345678 --by agent --hourly --days 1",
    )
)
def report(
    account: _Accounts = (),
    /,
    *,
    place: StoreOptions = _HERE,
    days: Whole = 7,
    by: By | None = None,
    hourly: Switch = False,
    tz: Zone = UTC,
    names: NamesFile = NOBODY,
    format: ReportFormat | None = None,  # noqa: A002 - it names the option
    html: Path | None = None,
) -> int:
    """Show what "msgconv collect" has collected, by day.

    It shows how many conversations agents, consumers and the system resolved, and their average
    handling time: of one account by skill, of several by account. Days that were not collected
    whole are marked. In a terminal there are charts as well.

    Parameters
    ----------
    account
        The account ids; all that were collected if none is given.
    days
        How many days, up to the newest that was collected.
    by
        What to tell apart: accounts, or within each account its skills or agents. The same skill id
        in two accounts is never added up.
    hourly
        Show hours instead of days, by the clock: the hour that comes twice, where clocks are put
        back, is one row.
    tz
        The time zone of the days, such as Europe/Berlin; UTC if not given. Where clocks are put
        back, a day has 25 hours, and with --hourly two of them are one row.
    names
        A file of names to show beside the ids of accounts, skills and agents: names.toml or
        names.csv.
    format
        table, if not given: to read, with sums. csv and json: only what is told apart, a row or an
        object each, without sums; with --names, each id is followed by its name, account_name and
        skill_name or agent_name, empty or null if it has none.
    html
        Write a page with charts to this file instead; it needs no network to be read.
    """
    from msgconv_async.cli.report import Report  # noqa: PLC0415

    checks.whole("--days", days, 1)
    if html is not None and (format or hourly):
        raise ConfigurationError(
            f"{'--format' if format else '--hourly'} and --html: give one of the two"
        )
    return Report(
        place.store(),
        days,
        accounts=account,
        by=by,
        hourly=hourly,
        zone=tz,
        names=names,
        format=format or "table",
    ).run(html)


def _asking(
    account: Sequence[str],
    question: QueryOptions,
    access: AccessOptions,
    *,
    complete_only: bool,
    roll_up: int | None = None,
) -> tuple[Asking, ConversationSession]:
    """Return the accounts and the question of a command, and a session for it, not entered yet."""
    from msgconv_async.cli.asking import Asking  # noqa: PLC0415

    query, session = question.query(), access.session()
    accounts, note = access.named(account)
    asking = Asking(
        accounts,
        query,
        timeout=question.timeout,
        note=note,
        complete_only=complete_only,
        roll_up=roll_up,
    )
    return asking, session


def _rolled(question: QueryOptions, minutes: int) -> QueryOptions:
    """Return the question whose answers are added up to periods of so many minutes."""
    from msgconv_async.export import roll_up  # noqa: PLC0415

    if question.interval not in {None, MIN_INTERVAL}:
        raise ConfigurationError("--roll-up and --interval: it adds up intervals of 5 minutes")
    try:
        roll_up((), minutes)
    except ConfigurationError as error:
        raise ConfigurationError(str(error).replace("minutes", "--roll-up", 1)) from None
    return replace(question, interval=MIN_INTERVAL)
