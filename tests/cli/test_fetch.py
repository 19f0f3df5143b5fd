from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from msgconv_async.export import SKILL_AGENT_METRICS
from msgconv_async.sandbox import CLIENT_ID, CLIENT_SECRET, PASSWORD, USERNAME
from tests.cli.conftest import (
    Done,
    Run,
    ask,
    clean_environment,
    in_terminal,
    run_process,
    serving,
    start,
    token,
)

ASKED = ("--timeframe", 10, "--interval", 5)
GROUPED = (*ASKED, "--skills", "all", "--agents", "7,8")
FIRST = 10000001
NOBODY = "http://127.0.0.1:9"


def document(sandbox: str, account_id: str, parameters: str) -> str:
    """Return what the server sends, asked without this library."""
    url = f"{sandbox}/operations/api/account/{account_id}/msgconversation?{parameters}"
    _, body = ask(url, Authorization=f"Bearer {token(sandbox, account_id)}")
    return body.decode()


def parsed(done: Done) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(done.out)))


def test_json_is_the_servers_document_byte_for_byte(run: Run, sandbox: str) -> None:
    """Nothing is added, not even a line end, and no number is written in another way."""
    done = run("fetch", 71, *GROUPED, "--base-url", sandbox, "--format", "json")
    asked = "timeframe=10&v=1&skillIds=all&agentIds=7,8&interval=5"
    assert (0, document(sandbox, "71", asked)) == (done.code, done.out)


def test_json_of_many_accounts_holds_each_document_byte_for_byte(run: Run, sandbox: str) -> None:
    """One object, the documents under their account ids, in the order they were asked for."""
    done = run("fetch", 72, 71, *GROUPED, "--base-url", sandbox, "--format", "json")
    asked = "timeframe=10&v=1&skillIds=all&agentIds=7,8&interval=5"
    first, second = (document(sandbox, each, asked) for each in ("72", "71"))
    assert (0, f'{{"72":{first},"71":{second}}}') == (done.code, done.out)


def test_csv_has_the_same_columns_whatever_is_asked(run: Run, sandbox: str) -> None:
    """A key that a table lacks is an empty cell."""
    grouped = run("fetch", 71, *GROUPED, "--base-url", sandbox, "--format", "csv")
    plain = run("fetch", 71, *ASKED, "--base-url", sandbox, "--format", "csv")
    header = ",".join(("table", *SKILL_AGENT_METRICS.columns, "complete"))
    assert [header, header] == [each.out.splitlines()[0] for each in (grouped, plain)]
    keys = ("table", "interval_end", "skill_id", "agent_id", "interval_start")
    assert {
        ("skill_metrics", "2026-03-04T08:05:00Z", "3", "", "2026-03-04T08:00:00Z"),
        ("skill_metrics", "2026-03-04T08:10:00Z", "3", "", "2026-03-04T08:05:00Z"),
        ("skill_metrics", "2026-03-04T08:10:00Z", "-1", "", "2026-03-04T08:05:00Z"),
        ("agent_metrics", "2026-03-04T08:05:00Z", "", "7", "2026-03-04T08:00:00Z"),
        ("agent_metrics", "2026-03-04T08:10:00Z", "", "8", "2026-03-04T08:05:00Z"),
        ("agent_metrics", "2026-03-04T08:10:00Z", "", "7", "2026-03-04T08:05:00Z"),
        ("skill_agent_metrics", "2026-03-04T08:05:00Z", "3", "7", "2026-03-04T08:00:00Z"),
        ("skill_agent_metrics", "2026-03-04T08:10:00Z", "3", "8", "2026-03-04T08:05:00Z"),
        ("skill_agent_metrics", "2026-03-04T08:10:00Z", "-1", "7", "2026-03-04T08:05:00Z"),
    } == {tuple(row[key] for key in keys) for row in parsed(grouped)}
    assert ["true", "true", "false"] == [row["complete"] for row in parsed(plain)]
    assert ["1", "2", "0"] == [row["total_resolved_conversations"] for row in parsed(plain)]
    assert {("account_metrics", "", "")} == {
        (row["table"], row["skill_id"], row["agent_id"]) for row in parsed(plain)
    }


def test_ndjson_is_one_object_a_row_with_its_tables_columns(run: Run, sandbox: str) -> None:
    """A row has no member that its table lacks, and numbers as they were sent."""
    asked = ("--timeframe", 10, "--interval", 10, "--skills", "-1")
    done = run("fetch", 71, *asked, "--base-url", sandbox, "--format", "ndjson")
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert ["skill_metrics", "skill_agent_metrics"] == [row["table"] for row in rows]
    assert ["table", *SKILL_AGENT_METRICS.columns, "complete"] == list(rows[1])
    assert [False, False] == [row["complete"] for row in rows]
    assert "agent_id" not in rows[0]
    assert ("71", -1, "2026-03-04T08:05:00Z", "2026-03-04T08:15:00Z", 1, 3_720_000.0) == (
        *(rows[0][name] for name in ("account_id", "skill_id", "interval_start", "interval_end")),
        *(
            rows[0][name]
            for name in ("resolved_conversations_by_system", "avg_time_resolved_conversations")
        ),
    )


def test_a_table_shows_handling_times_for_readers_and_marks_what_is_still_open(
    run: Run, sandbox: str
) -> None:
    """It says why they are read as milliseconds; it is plain where there is no terminal."""
    done = run("fetch", 72, 71, *ASKED, "--base-url", sandbox)
    lines = [line.split() for line in done.out.splitlines()]
    assert 0 == done.code
    assert ["72", "Wed", "08:00-08:05", "1", "1", "0", "0", "1.0s"] in lines
    assert ["71", "Wed", "08:05-08:10", "2", "0", "1", "1", "31m", "15s"] in lines
    assert ["71", "Wed", "08:10-08:15*", "0", "0", "0", "0", "-"] in lines
    assert [line[0] for line in lines if line[1:2] == ["Wed"]] == ["72"] * 3 + ["71"] * 3
    assert "* Still open when asked" in done.out
    assert "dashboard" in done.out
    assert "\x1b" not in done.out + done.err


@pytest.mark.parametrize("form", ["csv", "ndjson", "table"])
def test_only_what_was_complete_is_shown_if_that_is_asked_for(
    run: Run, sandbox: str, form: str
) -> None:
    """What was left out is said, and nothing else is marked."""
    asked = (*ASKED, "--complete-only", "--base-url", sandbox, "--format", form)
    done = run("fetch", 71, *asked)
    assert 0 == done.code
    assert ("2026-03-04T08:10:00Z" if form != "table" else "08:05-08:10") in done.out
    assert "08:15" not in done.out
    assert "*" not in done.out
    assert "still open when asked, so left out: the interval Wed 08:10-08:15 UTC" in done.err


def test_the_services_document_is_never_cut(run: Run) -> None:
    """It says so, before anything is asked."""
    given = ("--complete-only", "--format", "json", "--base-url", NOBODY)
    done = run("fetch", 71, *ASKED, *given)
    assert (2, "") == (done.code, done.out)
    assert done.err.startswith("msgconv: --complete-only: the format json is the service's own")


@pytest.mark.parametrize(
    ("timeframe", "interval", "shown"),
    [(1440, (), "Tue 08:10-Wed 08:15"), (1440, ("--interval", 720), "Tue 20:15-Wed 08:15")],
)
def test_a_span_that_ends_on_another_day_says_so(
    run: Run, sandbox: str, timeframe: int, interval: tuple[object, ...], shown: str
) -> None:
    """Twenty-four hours are not taken for five minutes."""
    asked = ("--timeframe", timeframe, *interval, "--base-url", sandbox)
    assert f"{shown}*" in run("fetch", 71, *asked).out
    assert f"the interval {shown} UTC" in run("fetch", 71, *asked, "--format", "csv").err


@pytest.mark.parametrize("document", ["[]", "null", '"x"', "1"])
def test_a_document_that_is_no_object_is_a_failure(
    run: Run, monkeypatch: pytest.MonkeyPatch, document: str
) -> None:
    """It is not passed off as a result; of several accounts, the others are written."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            whole = '{"metricsTotals":{}}'
            self.wfile.write((document if "/71/" in self.path else whole).encode())

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setenv("MSGCONV_TOKEN", "t")
    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        asked = ("--timeframe", 5, "--base-url", url, "--format", "json")
        alone, together = run("fetch", 71, *asked), run("fetch", 71, 72, *asked)
        server.shutdown()
        thread.join()
    assert (1, "") == (alone.code, alone.out)
    [line] = alone.err.splitlines()
    assert line.startswith("msgconv: account 71: ")
    assert (3, {"72": {"metricsTotals": {}}}) == (together.code, json.loads(together.out))


@pytest.mark.parametrize("form", ["csv", "ndjson"])
def test_what_is_still_open_is_said_on_stderr_where_rows_cannot_say_it(
    run: Run, sandbox: str, form: str
) -> None:
    """Nobody takes the newest bucket for a whole one."""
    done = run("fetch", 71, *ASKED, "--base-url", sandbox, "--format", form)
    assert "still open when asked, so not whole yet: the interval Wed 08:10-08:15 UTC" in done.err


def test_a_failed_account_is_said_on_stderr_and_the_others_are_delivered(
    run: Run, sandbox: str
) -> None:
    """The exit code says that something failed."""
    for form in ("csv", "ndjson", "json", "table"):
        done = run("fetch", 71, 404, 72, *ASKED, "--base-url", sandbox, "--format", form)
        assert 3 == done.code
        assert "71" in done.out
        assert "72" in done.out
        assert "404" not in done.out
        [line] = [line for line in done.err.splitlines() if "404" in line]
        assert line.startswith("msgconv: account 404: the login was refused (HTTP 401)")


@pytest.mark.parametrize(
    "page",
    [b"<html>Welcome</html>", b'{"a":' + b"[" * 9999 + b"]" * 9999 + b"}", b'{"a":"\xff"}'],
    ids=["a page", "too deep", "not UTF-8"],
)
@pytest.mark.parametrize("form", ["csv", "table", "json"])
def test_an_answer_that_is_not_json_is_a_failure_in_every_format(
    run: Run, monkeypatch: pytest.MonkeyPatch, form: str, page: bytes
) -> None:
    """Such as the page of a proxy: nothing of it is passed off as a result."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setenv("MSGCONV_TOKEN", "t")
    with HTTPServer(("127.0.0.1", 0), Page) as server:
        thread = Thread(target=server.handle_request)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        done = run("fetch", 71, *ASKED, "--base-url", url, "--format", form)
        thread.join()
    assert (1, "") == (done.code, done.out)
    [line] = done.err.splitlines()
    assert line.startswith("msgconv: account 71: ")
    assert "JSON" in line or "UTF-8" in line


def test_an_account_named_twice_is_asked_once(run: Run, sandbox: str) -> None:
    """Its rows do not count twice."""
    done = run("fetch", 71, 71, "--timeframe", 5, "--base-url", sandbox, "--format", "csv")
    assert 1 == len(parsed(done))


def test_a_file_is_written_whole(run: Run, sandbox: str, tmp_path: Path) -> None:
    """It holds what stdout would, replaces what was there, and nothing is left beside it."""
    path, link = tmp_path / "day.csv", tmp_path / "link.csv"
    path.write_text("before")
    link.symlink_to(path)
    asked = (71, *GROUPED, "--base-url", sandbox, "--format", "csv")
    done = run("fetch", *asked, "-o", link)
    assert (0, "") == (done.code, done.out)
    assert run("fetch", *asked).out == path.read_text()
    assert {path, link} == set(tmp_path.iterdir())
    assert link.is_symlink()


@pytest.mark.parametrize("form", ["table", "csv", "ndjson", "json"])
def test_a_file_is_left_alone_when_nothing_was_answered(
    run: Run, sandbox: str, tmp_path: Path, form: str
) -> None:
    """What stood there before stands there still."""
    path = tmp_path / "day"
    path.write_text("before")
    done = run("fetch", 404, *ASKED, "--base-url", sandbox, "--format", form, "-o", path)
    assert (1, "") == (done.code, done.out)
    assert ("before", [path]) == (path.read_text(), list(tmp_path.iterdir()))


@pytest.mark.parametrize("path", ["missing/day.csv", "."])
def test_a_path_that_cannot_be_written_is_one_line(run: Run, tmp_path: Path, path: str) -> None:
    """It is said before anything is asked."""
    done = run("fetch", 71, *ASKED, "--base-url", NOBODY, "-o", tmp_path / path)
    assert (2, "") == (done.code, done.out)
    assert 1 == len(done.err.splitlines())
    assert done.err.startswith(f"msgconv: --output={(tmp_path / path).resolve()}: ")


@pytest.mark.parametrize(
    "given",
    [
        {"MSGCONV_CLIENT_ID": CLIENT_ID, "MSGCONV_CLIENT_SECRET": CLIENT_SECRET},
        {"MSGCONV_USERNAME": USERNAME, "MSGCONV_PASSWORD": PASSWORD},
        {"MSGCONV_TOKEN": "?"},
    ],
)
def test_credentials_and_the_base_url_come_from_the_environment(
    run: Run, sandbox: str, monkeypatch: pytest.MonkeyPatch, given: dict[str, str]
) -> None:
    """Then there is nothing to say about the sandbox's own."""
    given = {
        name: token(sandbox, "71") if name == "MSGCONV_TOKEN" else value
        for name, value in given.items()
    }
    for name, value in {"MSGCONV_BASE_URL": sandbox, **given}.items():
        monkeypatch.setenv(name, value)
    done = run("fetch", 71, *ASKED, "--format", "csv")
    assert 0 == done.code
    assert "sandbox" not in done.err


def test_without_credentials_a_local_server_is_taken_for_the_sandbox(
    run: Run, sandbox: str
) -> None:
    """And that is said."""
    done = run("fetch", 71, *ASKED, "--base-url", sandbox)
    assert "no credentials given for a server on this machine: using the sandbox's" in done.err


def test_a_secret_that_is_refused_is_not_shown(
    run: Run, sandbox: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not on stdout, not on stderr, not in the log."""
    monkeypatch.setenv("MSGCONV_CLIENT_ID", CLIENT_ID)
    monkeypatch.setenv("MSGCONV_CLIENT_SECRET", "hunter2")
    done = run("fetch", 71, *ASKED, "--base-url", sandbox)
    assert (1, False) == (done.code, "hunter2" in done.out + done.err)


def test_retries_are_told_when_asked_for() -> None:
    """The library's log goes to stderr; what fails after all is said as well."""
    with serving("--rate", 0.001) as url:
        asked = ("fetch", FIRST, "--timeframe", 10, "--base-url", url, "--format", "csv")
        assert 0 == run_process(*asked).code
        done = run_process(*asked, "--timeout", 1.5, "--verbose")
    assert (1, "") == (done.code, done.out)
    said = r"msgconv: account 10000001: throttled \(HTTP 429\): .*"
    [_, retry, failure] = done.err.splitlines()
    assert re.fullmatch(said + r"; again in 1\.[01] s", retry)
    assert re.fullmatch(said, failure)


@pytest.mark.parametrize("given", ["fetch csv", "fetch table", "fetch json", "--help", "sandbox"])
def test_a_reader_that_leaves_is_no_failure_to_talk_about(sandbox: str, given: str) -> None:
    """The pipe is broken quietly, with the exit code of a process that SIGPIPE ended."""
    command, _, form = given.partition(" ")
    asked = (71, "--timeframe", 10, "--base-url", sandbox, "--format", form) if form else ()
    read, write = os.pipe()
    os.close(read)
    done = run_process(command, *asked, stdout=write)
    os.close(write)
    assert 141 == done.code
    assert all(line.startswith("msgconv: ") for line in done.err.splitlines())


def test_a_full_disk_is_one_line(sandbox: str) -> None:
    """It is no traceback."""
    with Path("/dev/full").open("wb") as full:
        done = run_process("fetch", 71, "--timeframe", 10, "--base-url", sandbox, stdout=full)
    assert 1 == done.code
    assert "msgconv: cannot write: No space left on device" == done.err.splitlines()[-1]
    assert all(line.startswith("msgconv: ") for line in done.err.splitlines())


@pytest.mark.parametrize(
    ("form", "timeframe", "unbuffered"),
    [("csv", 1440, ""), ("csv", 1440, "1"), ("json", 1440, "1"), ("table", 1440, "1")],
)
def test_all_of_a_result_is_written_or_its_loss_is_said(
    form: str, timeframe: int, unbuffered: str
) -> None:
    """Into a pipe that does not block and that nobody reads for a while, and onto a full disk."""
    with serving("--accounts", 3) as url:
        asked = ("--timeframe", timeframe, "--interval", 5, "--skills", "all")
        command = ("fetch", FIRST, FIRST + 1, *asked, "--base-url", url, "--format", form)
        whole = run_process(*command).out
        read, write = os.pipe()
        os.set_blocking(write, False)
        with start(*command, stdout=write, PYTHONUNBUFFERED=unbuffered) as process:
            os.close(write)
            time.sleep(0.5)
            with os.fdopen(read, "rb") as pipe:
                shown = pipe.read()
            process.communicate(timeout=10)
        with Path("/dev/full").open("wb") as full:
            lost = run_process(*command, stdout=full, PYTHONUNBUFFERED=unbuffered)
    assert len(whole) > 65536
    assert (0, whole.encode()[-1:]) == (process.returncode, shown[-1:])
    assert len(whole.encode()) == pytest.approx(len(shown), rel=0.05)  # a little later
    assert (1, "msgconv: cannot write: No space left on device") == (
        lost.code,
        lost.err.splitlines()[-1],
    )


@pytest.mark.parametrize(
    "command", [("sandbox",), ("fetch", "--help"), ("--version",)], ids=" ".join
)
def test_a_line_that_a_full_disk_loses_is_a_failure(command: tuple[str, ...]) -> None:
    """Written without a buffer as well."""
    with Path("/dev/full").open("wb") as full:
        done = run_process(*command, stdout=full, PYTHONUNBUFFERED="1")
    assert (1, "msgconv: cannot write: No space left on device\n") == (done.code, done.err)


def test_what_stderr_cannot_take_is_no_failure(sandbox: str) -> None:
    """The results are there all the same."""
    command = f"{sys.executable} -m msgconv_async fetch 71 --timeframe 5 --base-url {sandbox}"
    done = subprocess.run(  # noqa: S603 - our own command
        ["/bin/sh", "-c", f"{command} 2>/dev/full"],
        env=clean_environment(),
        stdout=subprocess.PIPE,
        check=False,
    )
    assert (0, True) == (done.returncode, b"account_metrics" in done.stdout)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_quietly_and_leaves_no_file_behind(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    """Ctrl-C among them; the exit code is that of a process that the signal killed."""
    with serving("--latency", 60) as url:
        asked = ("--timeframe", 10, "--base-url", url, "-o", tmp_path / "x")
        with start("fetch", FIRST, *asked) as process:
            assert process.stderr is not None
            process.stderr.readline()
            time.sleep(0.2)
            process.send_signal(number)
            out, err = process.communicate(timeout=5)
    assert (code, b"", b"") == (process.returncode, out, err)
    assert [] == list(tmp_path.iterdir())


def test_a_result_that_a_closed_stdout_loses_is_a_failure(sandbox: str) -> None:
    """It says so in a line, and is no traceback."""
    command = f"{sys.executable} -m msgconv_async fetch 71 --timeframe 5 --base-url {sandbox}"
    done = subprocess.run(  # noqa: S603 - our own command
        ["/bin/sh", "-c", f"{command} 2>&1 >&-"],
        env=clean_environment(),
        stdout=subprocess.PIPE,
        check=False,
    )
    assert 1 == done.returncode
    assert b"msgconv: cannot write: stdout is closed" == done.stdout.splitlines()[-1]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-16"])
def test_a_table_is_legible_in_any_encoding(sandbox: str, encoding: str) -> None:
    """What the encoding cannot write is drawn in ASCII."""
    asked = ("fetch", 71, "--timeframe", 10, "--base-url", sandbox)
    page = run_process(*asked, encoding=encoding, PYTHONIOENCODING=encoding).out
    assert "account_metrics" in page
    assert "?" not in page


def test_in_a_terminal_tables_are_set_off_and_progress_goes_away(sandbox: str) -> None:
    """Escape codes are for terminals, and none of them is left in the way of what follows."""
    with in_terminal("fetch", 71, 72, "--timeframe", 10, "--base-url", sandbox) as terminal:
        shown = terminal.read_all()
    assert 0 == terminal.process.returncode
    assert b"\x1b[1maccount_metrics" in shown
    assert shown.index(b"asking") < shown.rindex(b"\x1b[2K") < shown.index(b"account_metrics")
