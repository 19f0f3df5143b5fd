from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import IO

import pytest
from rich.console import Console

from msgconv_async import Account, BearerToken, ConversationMetrics, Interval, ServerError
from msgconv_async.cli.failures import Failures
from msgconv_async.cli.figures import average
from msgconv_async.cli.keys import keys_of
from msgconv_async.cli.watch import _Lines
from msgconv_async.cli.watch_table import AccountRow, View, table
from msgconv_async.client.many.checkpoint import ClosedBucket, Failure, Gap
from msgconv_async.names import Names
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
    # Each with its time, and the note where the first average is shown.
    assert all(re.match(r"msgconv: \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC: ", line) for line in err)
    said = sorted(line.partition("UTC: ")[2] for line in err[1:])
    assert said[0].startswith("Handling times are read as milliseconds")
    assert said[1].startswith("account 404: the login was refused (HTTP 401)")


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
        lines = _Lines(Failures())
        lines.say(ClosedBucket(ACCOUNT, Interval(begin, begin + BUCKET, complete=True)))
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
        shown = terminal.read_until(
            lambda shown: b"31m 15s" in shown and shown.count(b"q quits") >= 3
        )
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


def drawn(
    rows: list[AccountRow], width: int = 80, height: int = 24, view: View | None = None
) -> list[str]:
    text = StringIO()
    console = Console(file=text, width=width, height=height, legacy_windows=False)
    console._environ = {}
    console.print(table(rows, console, view or View()))
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
    assert f"50 accounts, 1 to {len(shown)} shown, 1 failing" in page[-2]
    assert "read as milliseconds" in page[-1]


def ids(page: list[str]) -> list[str]:
    return [line.split()[0] for line in page if re.match(r" \d\d", line)]


def test_keys_scroll_filter_and_sort_two_thousand_accounts() -> None:
    """The line below says what is seen; a filter finds ids and failures."""
    rows = [row(f"{number}", number % 7) for number in range(10_000, 12_000)]
    rows[1_500].add(Failure(ACCOUNT, ServerError("no", status=503, account_id="11500")))
    view = View()
    view.has_keys = True

    def page(*keys: str) -> list[str]:
        for key in keys:
            view.press(key)
        return drawn(rows, view=view)

    first = ids(page())
    assert (["11500", "10000", "10001"], 24 - 1) == (first[:3], len(page()))
    assert first[-1] == ids(page("page down"))[0]
    assert "2000 accounts, " in page()[-2]
    assert "11999" == ids(page("end"))[-1]
    assert first == ids(page("home"))
    assert first[1:] == ids(page("down"))[:-1]
    assert first == ids(page("up", "up"))
    assert ["10000", "10001"] == ids(page("s"))[:2]
    assert {"6"} == {line.split()[2] for line in page("s") if re.match(r" \d\d", line)}
    assert ["11500", "10503", "11503"] == ids(page("/", *"503", "enter", "s", "s"))
    assert ["10503"] == ids(page("/", *"1050", "backspace", *"03"))
    assert any("filter: 10503_" in line for line in page())
    assert any("2000 accounts, 1 found" in line for line in page("enter"))
    assert len(first) == len(ids(page("escape")))
    assert not view.ended
    page("q")
    assert view.ended


def test_what_a_terminal_sends_is_keys() -> None:
    """Several may come at once; what is not known is nothing."""
    sent = "\x1b[A\x1bOB\x1b[5~\x1b[6~\x1b[H\x1b[4~q/\r\x7f\x1b"
    names = ["up", "down", "page up", "page down", "home", "end", "q", "/", "enter", "backspace"]
    assert [*names, "escape"] == list(keys_of(sent))
    assert ["a"] == list(keys_of("a\x1b[15;5~"))
    assert [] == list(keys_of("\x00\x03"))


@pytest.mark.parametrize("width", [20, 40, 60, 72])
def test_ids_stay_whole_where_there_is_little_room(width: int) -> None:
    """Columns that matter less are left out."""
    rows = [row("12345678901", *[123_456] * 36), row("99999999999")]
    page = drawn(rows, width)
    assert all(len(line) <= width for line in page)
    assert ["12345678901", "99999999999"] == [
        line.split()[0] for line in page if line[1:3].isdigit()
    ]
    if width >= 60:
        assert "123,456" in next(line for line in page if "12345678901" in line)


def test_a_name_stands_beside_its_id_where_there_is_room() -> None:
    """Whole, and as text; a reader may look for it."""
    rows = [row("12345678901", 1), row("99999999999", 2)]
    rows[0].name = "[b]Shop, Germany\x1b[31m"
    page = drawn(rows, 120)
    assert any("12345678901  [b]Shop, Germany\\x1b[31m " in line for line in page)
    assert not any("Shop" in line for line in drawn(rows, 60))
    view = View()
    view.wanted = "GERMANY"
    assert ([rows[0]], 1) == view.of(rows, 10)


def test_a_line_has_the_name_as_well(capsys: pytest.CaptureFixture[str]) -> None:
    lines = _Lines(Failures(), Names(accounts={"71": "Shop"}))
    lines.say(ClosedBucket(ACCOUNT, Interval(EIGHT, EIGHT + BUCKET, complete=True)))
    assert "  71 Shop  None resolved" in capsys.readouterr().out


def test_in_a_terminal_keys_work_and_nothing_else_is_shown(sandbox: str) -> None:
    """No stray line before the table, nor of a key; q ends it, and the terminal is as it was."""
    with in_terminal("watch", 71, 72, 404, "--base-url", sandbox) as terminal:
        before = termios.tcgetattr(terminal.leader)
        shown = terminal.read_until(lambda shown: b"31m 15s" in shown and b"HTTP 401" in shown)
        os.write(terminal.leader, b"/404")
        shown += terminal.read_until(lambda shown: b"filter: 404_" in shown)
        os.write(terminal.leader, b"\x1b")
        os.write(terminal.leader, b"q")
        shown += terminal.read_all()
        assert before[3] == termios.tcgetattr(terminal.leader)[3]
    assert 0 == terminal.process.returncode
    first = re.sub(rb"\x1b\[[0-9;?]*[a-zA-Z]", b"", shown).decode().splitlines()
    assert [] == [line for line in first if line.startswith("msgconv:")]
    assert "account" in next(line for line in first if line.strip())
    assert "using the sandbox's (sandbox" in " ".join(first)


def test_the_accounts_file_is_read_again_at_sighup(sandbox: str, tmp_path: Path) -> None:
    """Accounts come and go; a file with a mistake changes nothing, and is told."""
    path = accounts_file(tmp_path, "71")
    status = tmp_path / "status.json"
    given = ("--accounts", path, "--base-url", sandbox, "--status-file", status)
    with watching(*given, MAIN_SECRET=CLIENT_SECRET) as process:
        lines(process.stdout, 1)
        lines(process.stderr, 1)
        path.write_text("nonsense")
        process.send_signal(signal.SIGHUP)
        [broken] = lines(process.stderr, 1)
        accounts_file(tmp_path, "72")
        process.send_signal(signal.SIGHUP)
        [told] = lines(process.stderr, 1)
        [line] = lines(process.stdout, 1)
        interrupt(process)
    assert "line 1" in broken
    assert broken.endswith("; the accounts stay as they were")
    assert told.endswith("was read again: 1 added, 1 removed, 0 changed, 1 in all")
    assert "  72  0 resolved" in line
    told_there = json.loads(status.read_bytes())
    assert ("watch", 1, 0) == tuple(told_there[key] for key in ("command", "accounts", "failing"))


def test_sighup_ends_no_watch_that_has_no_accounts_file(sandbox: str) -> None:
    """It is told, and the watch goes on."""
    with watching(71, "--base-url", sandbox) as process:
        lines(process.stdout, 1)
        lines(process.stderr, 2)
        for _ in range(2):
            process.send_signal(signal.SIGHUP)
            [told] = lines(process.stderr, 1)
            assert "there is no accounts file to read again" in told
        interrupt(process)


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
