from __future__ import annotations

import csv
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from pyarrow import parquet  # type: ignore[import-untyped]

from msgconv_async.sandbox import CLIENT_SECRET
from tests.cli.conftest import (
    Run,
    clean_environment,
    in_terminal,
    run_process,
    run_without,
    serving,
    start,
)
from tests.cli.test_watch import accounts_file

ASKED = ("--timeframe", 10, "--interval", 5)
GROUPED = (*ASKED, "--skills", "all", "--agents", "7,8")
FIRST = 10000001
NOBODY = "http://127.0.0.1:9"
FORMATS = ["parquet", "csv", "ndjson"]


def rows(folder: Path, table: str, form: str) -> list[dict[str, Any]]:
    path = folder / f"{table}.{form}"
    match form:
        case "parquet":
            return list(parquet.read_table(path).to_pylist())
        case "csv":
            with path.open(newline="") as file:
                return list(csv.DictReader(file))
        case _:
            return [json.loads(line) for line in path.read_text().splitlines()]


def names(folder: Path) -> set[str]:
    return {each.name for each in folder.iterdir()}


def keys(folder: Path, table: str, form: str, *columns: str) -> set[tuple[str, ...]]:
    return {tuple(str(row[column]) for column in columns) for row in rows(folder, table, form)}


@pytest.mark.parametrize("form", FORMATS)
def test_each_table_that_was_asked_for_is_a_file(
    run: Run, sandbox: str, tmp_path: Path, form: str
) -> None:
    """All accounts are in it; nothing is on stdout."""
    given = ("--base-url", sandbox, "--format", form, "-o", tmp_path / "day")
    done = run("export", 71, 72, *GROUPED, *given)
    assert (0, "") == (done.code, done.out)
    folder = tmp_path / "day"
    asked = ("skill_metrics", "agent_metrics", "skill_agent_metrics")
    assert {f"{each}.{form}" for each in asked} == names(folder)
    assert {("71", "3"), ("71", "-1"), ("72", "3")} == keys(
        folder, "skill_metrics", form, "account_id", "skill_id"
    )
    assert {("71", "7"), ("71", "8")} == keys(
        folder, "agent_metrics", form, "account_id", "agent_id"
    )
    assert {("71", "3", "7"), ("71", "3", "8"), ("71", "-1", "7"), ("72", "3", "9")} == keys(
        folder, "skill_agent_metrics", form, "account_id", "skill_id", "agent_id"
    )
    assert re.search(r"^msgconv: 2 of 2 accounts, 11 rows in .*s$", done.err, re.MULTILINE)
    assert "the interval Wed 08:10-08:15 UTC" in done.err


@pytest.mark.parametrize("form", FORMATS)
def test_a_table_without_rows_is_a_file_with_its_columns(
    run: Run, sandbox: str, tmp_path: Path, form: str
) -> None:
    """What is not there was not asked for; what was asked for and is empty says so."""
    given = ("--agents", 12345, "--base-url", sandbox, "--format", form)
    done = run("export", 71, *ASKED, *given, "-o", tmp_path)
    assert 0 == done.code
    assert {f"agent_metrics.{form}"} == names(tmp_path)
    assert [] == rows(tmp_path, "agent_metrics", form)


@pytest.mark.parametrize("form", FORMATS)
def test_an_earlier_export_is_replaced(run: Run, sandbox: str, tmp_path: Path, form: str) -> None:
    """Nothing is added to it, and nothing is left beside it."""
    given = ("--base-url", sandbox, "--format", form, "-o", tmp_path)
    run("export", 71, 72, *ASKED, *given)
    run("export", 72, *ASKED, *given)
    assert {("72",)} == keys(tmp_path, "account_metrics", form, "account_id")
    assert {f"account_metrics.{form}"} == names(tmp_path)


@pytest.mark.parametrize("form", FORMATS)
def test_an_account_that_fails_is_said_and_the_others_are_exported(
    run: Run, sandbox: str, tmp_path: Path, form: str
) -> None:
    """The exit code says that something failed."""
    given = ("--base-url", sandbox, "--format", form, "-o", tmp_path)
    done = run("export", 71, 404, 72, *ASKED, *given)
    assert (3, "") == (done.code, done.out)
    assert {("71",), ("72",)} == keys(tmp_path, "account_metrics", form, "account_id")
    [line] = [line for line in done.err.splitlines() if "404" in line]
    assert line.startswith("msgconv: account 404: the login was refused (HTTP 401)")
    assert "2 of 3 accounts (1 failed), 6 rows" in done.err


@pytest.mark.parametrize("form", FORMATS)
def test_only_what_was_complete_is_exported_if_that_is_asked_for(
    run: Run, sandbox: str, tmp_path: Path, form: str
) -> None:
    """Else a column tells; what was left out is said."""
    given = ("--base-url", sandbox, "--format", form, "-o", tmp_path)
    done = run("export", 71, *ASKED, *given)
    assert [True, True, False] == [
        str(row["complete"]).lower() == "true" for row in rows(tmp_path, "account_metrics", form)
    ]
    assert "not whole yet: the interval Wed 08:10-08:15 UTC" in done.err

    done = run("export", 71, *ASKED, *given, "--complete-only")
    assert 2 == len(rows(tmp_path, "account_metrics", form))
    assert "left out: the interval Wed 08:10-08:15 UTC" in done.err
    assert 0 == run("export", 71, "--timeframe", 60, *given, "--complete-only").code
    assert [] == rows(tmp_path, "account_metrics", form)


def test_five_minutes_are_added_up_to_hours(run: Run, sandbox: str, tmp_path: Path) -> None:
    """An hour that is not covered whole is not complete, and may be left out."""
    given = ("--timeframe", 120, "--roll-up", 60, "--base-url", sandbox, "--format", "csv")
    done = run("export", 71, *given, "-o", tmp_path)
    assert 0 == done.code
    found = [
        (row["interval_start"], row["total_resolved_conversations"], row["complete"])
        for row in rows(tmp_path, "account_metrics", "csv")
    ]
    hours = ("06:00", "0", "false"), ("07:00", "0", "true"), ("08:00", "3", "false")
    assert [(f"2026-03-04T{start}:00Z", *rest) for start, *rest in hours] == found
    assert "marked as not complete: Wed 06:00-07:00, Wed 08:00-09:00 UTC" in done.err
    run("export", 71, *given, "--complete-only", "-o", tmp_path)
    assert ["true"] == [row["complete"] for row in rows(tmp_path, "account_metrics", "csv")]


def test_a_number_that_a_column_cannot_hold_is_a_failure_of_its_account(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not cut to 64 bits in silence; the others are exported."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            count = 2**63 if "/71/" in self.path else 5
            metrics = {"totalResolvedConversations": count}
            self.wfile.write(json.dumps({"metricsTotals": metrics}).encode())

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setenv("MSGCONV_TOKEN", "t")
    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        done = run("export", 71, 72, "--timeframe", 5, "--base-url", url, "-o", tmp_path)
        server.shutdown()
        thread.join()
    assert (3, "") == (done.code, done.out)
    assert (
        "msgconv: account 71: account_metrics cannot hold total_resolved_conversations="
        "9223372036854775808: it does not fit into 64 bits"
    ) in done.err.splitlines()
    assert [("72", 5)] == [
        (row["account_id"], row["total_resolved_conversations"])
        for row in rows(tmp_path, "account_metrics", "parquet")
    ]


def test_files_are_left_alone_when_nothing_was_answered(
    run: Run, sandbox: str, tmp_path: Path
) -> None:
    """What stood there before stands there still."""
    path = tmp_path / "account_metrics.csv"
    path.write_text("before")
    given = ("--base-url", sandbox, "--format", "csv", "-o", tmp_path)
    done = run("export", 404, *ASKED, *given)
    assert (1, "") == (done.code, done.out)
    assert ("before", {path.name}) == (path.read_text(), names(tmp_path))


def test_the_accounts_may_come_from_a_file(
    run: Run, sandbox: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the credentials that it names."""
    monkeypatch.setenv("MAIN_SECRET", CLIENT_SECRET)
    path = accounts_file(tmp_path, "72", "71")
    given = ("--accounts", path, "--base-url", sandbox, "-o", tmp_path / "day")
    done = run("export", *ASKED, *given)
    assert 0 == done.code
    assert {("71",), ("72",)} == keys(tmp_path / "day", "account_metrics", "parquet", "account_id")
    assert "sandbox" not in done.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("71", *ASKED), "--output is missing"),
        ((*ASKED, "-o", "x"), "name accounts, or a file of them with --accounts: one of the two"),
        (("71", *ASKED, "-o", "x", "--accounts", "y"), "one of the two"),
        (("71", *ASKED, "-o", "x", "--format", "json"), 'Invalid value "json" for --format'),
        (("71", *ASKED, "-o", "x", "--timeout", "0"), "--timeout=0: it must be above 0 seconds"),
        (("71", "--timeframe", "5", "--interval", 7, "-o", "x"), "--interval=7: "),
        (("71", "--timeframe", "60", "--roll-up", "7", "-o", "x"), "--roll-up=7: it must be a mul"),
        (("71", "--timeframe", "60", "--interval", 15, "--roll-up", 60, "-o", "x"), "adds up int"),
        (("71", *ASKED, "-o", "taken"), "taken: no folder can be made there: File exists"),
        (("71", *ASKED, "-o", "taken/x"), "x: no folder can be made there: Not a directory"),
    ],
)
def test_a_wrong_command_line_is_one_line_on_stderr(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[object, ...],
    said: str,
) -> None:
    """It is said before anything is asked; the exit code is 2."""
    monkeypatch.chdir(tmp_path)
    Path("taken").touch()
    done = run("export", *arguments, "--base-url", NOBODY)
    assert (2, "") == (done.code, done.out)
    [line] = done.err.splitlines()
    assert line.startswith("msgconv: ")
    assert said in line
    assert {"taken"} == names(tmp_path)


@pytest.mark.parametrize(("form", "code"), [("parquet", 2), ("csv", 0), ("ndjson", 0)])
def test_only_parquet_needs_the_extra(sandbox: str, tmp_path: Path, form: str, code: int) -> None:
    """Without it, one line says how to come by it, before anything is asked."""
    given = (71, "--timeframe", 5, "--format", form, "-o", tmp_path / "day")
    done = run_without("pyarrow", "export", *given, "--base-url", sandbox)
    assert (code, "") == (done.code, done.out)
    assert (tmp_path / "day").exists() == (code == 0)
    if code:
        [line] = done.err.splitlines()
        assert line.startswith("msgconv: Parquet needs an extra: pip install '.[arrow]' in a clone")


@pytest.fixture(scope="module")
def slow() -> Iterator[str]:
    """Run a server that takes its time: of 150 accounts, 50 are asked when others have answered."""
    with serving("--accounts", 150, "--latency", 0.7) as url:
        yield url


@contextmanager
def exporting(slow: str, folder: Path, form: str) -> Iterator[subprocess.Popen[bytes]]:
    """Have an export at work while inside: some accounts are written, others are not."""
    accounts = range(FIRST, FIRST + 150)
    given = ("--timeframe", 1440, "--interval", 5, "--base-url", slow, "--format", form)
    with start("export", *accounts, *given, "-o", folder) as process:
        while not (besides := list(folder.glob(".*.msgconv"))):
            time.sleep(0.01)
        if form == "parquet":
            time.sleep(0.8)  # its rows wait in memory
        else:
            while not besides[0].stat().st_size:
                time.sleep(0.01)
        yield process


@pytest.mark.parametrize("form", FORMATS)
def test_a_process_that_is_killed_leaves_nothing_that_looks_like_a_file_of_rows(
    run: Run, sandbox: str, slow: str, tmp_path: Path, form: str
) -> None:
    """The earlier file is there still, and the next export removes what was left."""
    path = tmp_path / f"account_metrics.{form}"
    path.write_text("before")
    with exporting(slow, tmp_path, form) as process:
        process.kill()
        process.communicate(timeout=5)
    assert (-9, "before") == (process.returncode, path.read_text())
    [left] = names(tmp_path) - {path.name}
    assert re.fullmatch(r"\.[0-9a-f]{16}\.msgconv", left)

    given = ("--base-url", sandbox, "--format", form, "-o", tmp_path)
    assert 0 == run("export", 71, 72, *ASKED, *given).code
    assert {("71",), ("72",)} == keys(tmp_path, "account_metrics", form, "account_id")
    assert {path.name} == names(tmp_path)


@pytest.mark.parametrize(
    ("number", "code", "form"),
    [(signal.SIGINT, 130, "csv"), (signal.SIGTERM, 143, "ndjson"), (signal.SIGINT, 130, "parquet")],
)
def test_a_signal_ends_it_quietly_and_changes_nothing(
    slow: str, tmp_path: Path, number: signal.Signals, code: int, form: str
) -> None:
    """Ctrl-C among them; the exit code is that of a process that the signal killed."""
    path = tmp_path / f"account_metrics.{form}"
    path.write_text("before")
    with exporting(slow, tmp_path, form) as process:
        process.send_signal(number)
        out, err = process.communicate(timeout=5)
    assert (code, b"") == (process.returncode, out)
    assert [b"msgconv: no credentials given"] == [line[:29] for line in err.splitlines()]
    assert ("before", {path.name}) == (path.read_text(), names(tmp_path))


@pytest.mark.parametrize("form", FORMATS)
def test_a_disk_that_is_full_is_one_line_and_changes_nothing(
    sandbox: str, tmp_path: Path, form: str
) -> None:
    """A limit on the size of files stands for it."""
    path = tmp_path / f"account_metrics.{form}"
    path.write_text("before")
    command = f"{sys.executable} -m msgconv_async export 71 72 --timeframe 1440 --interval 5"
    done = subprocess.run(  # noqa: S603 - our own command
        [
            "/bin/sh",
            "-c",
            f"ulimit -f 1; {command} --base-url {sandbox} --format {form} -o {tmp_path}",
        ],
        capture_output=True,
        text=True,
        env=clean_environment(),
        check=False,
    )
    assert (1, "") == (done.returncode, done.stdout)
    [_, line] = done.stderr.splitlines()
    assert "msgconv: cannot write: File too large" == line
    assert ("before", {path.name}) == (path.read_text(), names(tmp_path))


@pytest.mark.parametrize("command", ["fetch", "export"])
def test_nothing_is_redrawn_where_there_is_no_terminal(
    sandbox: str, tmp_path: Path, command: str
) -> None:
    """Even if colour is forced."""
    asked = (command, 71, 72, "--timeframe", 10, "--base-url", sandbox, "--format", "csv")
    for forced in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        done = run_process(*asked, "-o", tmp_path / forced, **{forced: "1"})
        assert (0, False) == (done.code, "\x1b" in done.err)
        assert all(line.startswith("msgconv: ") for line in done.err.splitlines())


def test_in_a_terminal_a_bar_shows_how_far_it_is_and_goes_away(
    sandbox: str, tmp_path: Path
) -> None:
    """A line at the end says what it came to."""
    asked = ("export", 71, 72, "--timeframe", 10, "--base-url", sandbox)
    with in_terminal(*asked, "--format", "csv", "-o", tmp_path) as terminal:
        shown = terminal.read_all()
    assert 0 == terminal.process.returncode
    assert re.search(rb"\d accounts/s", shown)
    assert shown.index(b"of 2 accounts") < shown.rindex(b"\x1b[2K") < shown.index(b"rows in ")
