from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import IO

import pytest
from rich.console import Console

from msgconv_async import Account, BearerToken, ConversationMetrics, Interval, ServerError
from msgconv_async.cli.figures import average
from msgconv_async.cli.watch import AccountRow, _say, table
from msgconv_async.client.many.checkpoint import ClosedBucket, Failure, Gap
from msgconv_async.pacing.pacer import Pacer
from msgconv_async.protocol.buckets import BUCKET
from msgconv_async.sandbox import CLIENT_ID, CLIENT_SECRET
from tests.cli.conftest import Run, in_terminal, start

EIGHT = datetime(2026, 3, 4, 8, 0, tzinfo=UTC)
ACCOUNT = Account("71", BearerToken("x"))
CREDENTIALS = f"""
[credentials.main]
kind = "client"
client_id = "{CLIENT_ID}"
client_secret_env = "MAIN_SECRET"
"""


def accounts_file(directory: Path, *ids: str) -> Path:
    path = directory / "accounts.toml"
    entries = (f'[[accounts]]\nid = "{each}"\ncredentials = "main"\n' for each in ids)
    path.write_text(CREDENTIALS + "".join(entries))
    return path


@contextmanager
def watching(*arguments: object, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Watch while inside."""
    with start("watch", *arguments, **environment) as process:
        try:
            yield process
        finally:
            process.kill()


def lines(stream: IO[bytes] | None, count: int) -> list[str]:
    """Wait for so many lines."""
    assert stream is not None
    return [stream.readline().decode().rstrip("\n") for _ in range(count)]


def interrupt(process: subprocess.Popen[bytes]) -> tuple[int, list[str], list[str]]:
    """Press Ctrl-C; return the exit code, and what it still wrote and complained of."""
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=5)
    return process.returncode, out.decode().splitlines(), err.decode().splitlines()


def test_elsewhere_than_in_a_terminal_each_closed_bucket_is_a_line(sandbox: str) -> None:
    """Results on stdout, the rest on stderr; nothing of the open bucket; Ctrl-C ends it quietly."""
    with watching(71, 72, 404, "--base-url", sandbox) as process:
        told = lines(process.stdout, 2)
        err = lines(process.stderr, 3)
        ended = interrupt(process)

    assert (130, [], []) == ended
    assert [
        (
            "2026-03-04 08:05-08:10 UTC  71  2 resolved: 0 by agent, 1 by consumer, 1 by system;"
            " 31m 15s on average"
        ),
        "2026-03-04 08:05-08:10 UTC  72  0 resolved: 0 by agent, 0 by consumer, 0 by system",
    ] == sorted(told)
    assert "using the sandbox's" in err[0]
    assert "msgconv: Handling times are read as milliseconds" in err[1]
    assert "msgconv: account 404: the login was refused (HTTP 401)" in err[2]


@pytest.mark.parametrize("forced", ["FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"])
def test_nothing_is_redrawn_where_there_is_no_terminal(sandbox: str, forced: str) -> None:
    """Colour may be forced upon a log, a table that is redrawn may not."""
    with watching(71, "--base-url", sandbox, **{forced: "1"}) as process:
        [told] = lines(process.stdout, 1)
        ended = interrupt(process)
    assert (130, []) == ended[:2]
    assert told.startswith("2026-03-04 08:05-08:10 UTC  71  2 resolved")


def test_a_bucket_that_ends_at_midnight_is_told_with_both_days(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One that does not is told with one."""
    for begin in (EIGHT, EIGHT.replace(hour=23, minute=55)):
        _say(ClosedBucket(ACCOUNT, Interval(begin, begin + BUCKET, complete=True)))
    assert [
        "2026-03-04 08:00-08:05 UTC  71",
        "2026-03-04 23:55-2026-03-05 00:00 UTC  71",
    ] == [line.partition("71")[0] + "71" for line in capsys.readouterr().out.splitlines()]


def test_the_accounts_may_come_from_a_file(sandbox: str, tmp_path: Path) -> None:
    """With the credentials that it names."""
    path = accounts_file(tmp_path, "72", "71")
    given = ("--accounts", path, "--base-url", sandbox)
    with watching(*given, MAIN_SECRET=CLIENT_SECRET) as process:
        told = lines(process.stdout, 2)
        _, _, err = interrupt(process)

    assert {"71", "72"} == {each.split()[3] for each in told}
    assert 1 == len(err)


def test_a_reader_that_leaves_is_no_failure_to_talk_about(sandbox: str) -> None:
    """As with any other command."""
    read, write = os.pipe()
    os.close(read)
    with start("watch", 71, "--base-url", sandbox, stdout=write) as process:
        os.close(write)
        _, err = process.communicate(timeout=10)
    assert 141 == process.returncode
    assert all(line.startswith(b"msgconv: ") for line in err.splitlines())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "name accounts, or a file of them with --accounts: one of the two"),
        ((1, "--accounts", "FILE"), "one of the two"),
        (("--accounts", "/nope"), "/nope cannot be read: No such file"),
        (("--accounts", "FILE"), "accounts.toml, line 5: the environment variable MAIN_SECRET is"),
        ((71,), "no credentials: set MSGCONV_CLIENT_ID"),
    ],
)
def test_a_wrong_command_line_is_one_line_on_stderr(
    run: Run, tmp_path: Path, arguments: tuple[object, ...], said: str
) -> None:
    """The exit code is 2."""
    path = accounts_file(tmp_path, "71")
    done = run("watch", *(path if each == "FILE" else each for each in arguments))
    assert (2, "") == (done.code, done.out)
    [line] = done.err.splitlines()
    assert said in line


def test_in_a_terminal_the_table_is_drawn_again_in_its_place(sandbox: str) -> None:
    """It shows the figures, and leaves the terminal as it was."""
    with in_terminal("watch", 71, 72, "--base-url", sandbox) as terminal:
        shown = b""
        while b"31m 15s" not in shown or shown.count(b"Ctrl-C") < 3:
            shown += terminal.read()
        terminal.process.send_signal(signal.SIGINT)
        shown += terminal.read_all()
    assert 130 == terminal.process.returncode
    assert b"\x1b[1A" in shown  # up to where the table begins
    assert shown.rindex(b"\x1b[?25h") > shown.rindex(b"\x1b[?25l")  # the cursor is back
    assert b"Traceback" not in shown


def row(account_id: str, *counts: int | None, first: datetime = EIGHT) -> AccountRow:
    """Return an account's row of so many conversations each five minutes; None is a blank."""
    found = AccountRow(account_id, Pacer())
    for number, count in enumerate(counts, 1):
        end = first + number * BUCKET
        metrics = ConversationMetrics(
            total_resolved_conversations=count,
            total_handling_time_resolved_conversations=None if count is None else 60_000 * count,
        )
        if count is not None:
            interval = Interval(end - BUCKET, end, complete=True, totals=metrics)
            found.add(ClosedBucket(ACCOUNT, interval))
    return found


def drawn(rows: list[AccountRow], width: int = 80, height: int = 24) -> list[str]:
    text = StringIO()
    console = Console(file=text, width=width, height=height, legacy_windows=False)
    console._environ = {}
    console.print(table(rows, console))
    return text.getvalue().splitlines()


def test_bars_stand_for_the_last_hours_and_what_is_not_known_is_blank() -> None:
    """The newest is the last; three buckets a bar where there is little room."""
    full = row("1", *range(72))
    assert 36 == len(full.closed)
    assert "_.-:=+*#" == row("1", *range(8)).bars(36, "_.-:=+*#").strip()
    assert "# _" == row("1", 7, None, 0).bars(36, "_.-:=+*#").strip()
    assert "_" * 12 == row("1", *[0] * 36).bars(12, "_#")
    assert "__#" == row("1", 0, 0, 0, 0, 0, 0, 1, 1, 1).bars(12, "_#").strip()
    assert "" == row("1").bars(12, "_#")


def test_the_average_is_of_counts_and_totals() -> None:
    """And there is none of nothing."""
    assert 60_000 == average(next(iter(row("1", 3).closed.values())))
    assert average(next(iter(row("1", 0).closed.values()))) is None
    assert average(ConversationMetrics(total_resolved_conversations=3)) is None


def test_a_revised_bucket_takes_the_place_of_the_first() -> None:
    """It does not count twice."""
    found = row("1", 1, 2)
    interval = Interval(
        EIGHT, EIGHT + BUCKET, complete=True, totals=ConversationMetrics(None, None, None, 9)
    )
    found.add(ClosedBucket(ACCOUNT, interval, revised=True))

    assert [9, 2] == [each.total_resolved_conversations for each in found.closed.values()]
    assert "08:10" == found.cells()[0]


@pytest.mark.parametrize("width", [80, 120])
def test_every_line_fits_its_terminal(width: int) -> None:
    """With long ids, errors and gaps; an account that failed says why."""
    failed, waiting, gap = row("10000000000", 1), row("2"), row("3", 1_234)
    error = ServerError("the service is out of order " * 9, status=503, account_id="1")
    failed.add(Failure(ACCOUNT, error))
    gap.add(Gap(ACCOUNT, EIGHT - timedelta(hours=30), EIGHT))
    page = drawn([failed, waiting, gap], width)

    assert all(len(each) <= width for each in page)
    [line] = [each for each in page if each.startswith(" 10000000000")]
    assert line.rstrip().endswith("HTTP 503")
    [line] = [each for each in page if each.startswith(" 2 ")]
    assert line.rstrip().endswith("waiting")
    [line] = [each for each in page if each.startswith(" 3 ")]
    assert ["3", "08:05", "1,234", "1m", "00s", "20", "at", "once"] == [
        each for each in line.split() if each != "█"
    ]
    assert any("account 1: the service is out of order" in each for each in page)
    assert any("2026-03-03 02:00 to 2026-03-04 08:00 UTC lies too far back" in x for x in page)


def test_where_not_all_accounts_fit_those_that_fail_come_first() -> None:
    """And what is left out is said."""
    rows = [row(f"{number:02}", 1) for number in range(50)]
    rows[40].add(Failure(ACCOUNT, ServerError("no", status=503, account_id="40")))
    page = drawn(rows, height=24)

    assert len(page) < 24
    shown = [each.split()[0] for each in page if each[1:3].isdigit()]
    assert ["40", "00", "01"] == shown[:3]
    assert f"50 accounts, {50 - len(shown)} not shown, 1 failing" in page[-1]


def test_the_pace_is_told_by_what_limits_it() -> None:
    """How many at once means nothing where the service counts how many a second."""
    found = row("1", 1)
    limit = found.pacer._limit
    limit.throttled(limit.started(1.0, 1, "rate"), 1.1, None)
    assert f"{found.pacer.rate:.3g} a second" == found.state.plain


def test_an_account_that_answers_again_is_well() -> None:
    """Its failure is forgotten."""
    found = row("1")
    found.add(Failure(ACCOUNT, ServerError("no", status=503, account_id="1")))
    assert "HTTP 503" == found.state.plain
    interval = Interval(EIGHT, EIGHT + BUCKET, complete=True)
    found.add(ClosedBucket(ACCOUNT, interval))
    assert "20 at once" == found.state.plain
