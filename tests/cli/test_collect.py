from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import time
from contextlib import closing
from pathlib import Path

import duckdb
import pytest

from msgconv_async.export.destination import destination, set_defaults
from msgconv_async.export.store import Store
from tests.cli.conftest import Run, ask, in_terminal, start
from tests.cli.test_watch import accounts_file


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Work in a folder of its own, where dlt keeps what it keeps as well."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DLT_DATA_DIR", str(tmp_path / "dlt"))
    return tmp_path


def count(table: str, file: str = "msgconv.duckdb", dataset: str = "conversations") -> int:
    with closing(duckdb.connect(file, read_only=True)) as connection:
        rows = connection.execute(f"SELECT count(*) FROM {dataset}.{table}").fetchall()  # noqa: S608
    return int(rows[0][0])


def test_once_collects_into_a_file_of_duckdb_and_says_what(run: Run, sandbox: str) -> None:
    done = run("collect", "71", "72", "--once", "--base-url", sandbox)

    assert 0 == done.code
    assert "" == done.out
    assert "2 of 2 accounts, 588 rows" in done.err
    assert 576 == count("account_metrics")
    assert 4 == count("skill_agent_metrics")


def test_an_accounts_file_and_a_place_of_ones_own(
    run: Run, sandbox: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAIN_SECRET", "sandbox-secret")
    file = accounts_file(folder, "71")
    place = ("--destination", "duckdb:mine.duckdb", "--dataset", "history")
    done = run("collect", "--accounts", file, *place, "--once", "--base-url", sandbox)

    assert 0 == done.code
    assert 288 == count("account_metrics", "mine.duckdb", "history")


@pytest.mark.parametrize(
    ("options", "filled"),
    [
        (("--skills", "none", "--agents", "none"), {"account_metrics"}),
        (("--skills", "-1", "--agents", "none"), {"skill_metrics", "skill_agent_metrics"}),
        (("--skills", "none", "--agents", "7,9"), {"agent_metrics"}),
    ],
)
def test_skills_and_agents_are_told_apart_as_asked(
    run: Run, sandbox: str, options: tuple[str, ...], filled: set[str]
) -> None:
    done = run("collect", "71", *options, "--once", "--base-url", sandbox)

    assert 0 == done.code
    tables = {"skill_metrics", "agent_metrics", "skill_agent_metrics"}
    assert filled - {"account_metrics"} == {each for each in tables if count(each)}
    assert 288 == count("account_metrics")


def test_an_account_that_fails_is_named_and_the_others_are_collected(
    run: Run, sandbox: str
) -> None:
    done = run("collect", "71", "99", "--once", "--base-url", sandbox)

    assert 3 == done.code
    assert "UTC: account 99" in done.err
    assert "1 of 2 accounts (1 failed), " in done.err
    assert 288 == count("account_metrics")
    assert 1 == run("collect", "99", "--once", "--base-url", sandbox).code


def test_a_line_of_metrics_follows_each_round(run: Run, sandbox: str, folder: Path) -> None:
    """On stdout, where nothing else is; lines on stderr may be JSON as well."""
    status = folder / "status.json"
    options = ("--once", "--metrics", "--log-format", "json", "--status-file", status)
    done = run("collect", "71", "99", *options, "--base-url", sandbox)
    assert 3 == done.code
    [line] = done.out.splitlines()
    told = json.loads(line)
    assert (2, 1, 297, 2, 0, None) == tuple(
        told[key] for key in ("accounts", "failed", "rows", "requests", "throttled", "error")
    )
    lines = [json.loads(line) for line in done.err.splitlines()]
    assert all({"time", "level", "message"} <= line.keys() for line in lines)
    [failure] = [line for line in lines if line["level"] == "error"]
    assert ("99", "Unauthorized") == (failure["account"], failure["kind"])
    stored = json.loads(status.read_bytes())
    assert (told, 1, True) == (stored["round"], stored["failing"], stored["healthy"])
    assert 0o600 == status.stat().st_mode & 0o777


def test_many_equal_failures_are_summed_up(run: Run, sandbox: str) -> None:
    unknown = range(500, 510)
    done = run("collect", "71", *unknown, "--once", "--base-url", sandbox)
    lines = [line for line in done.err.splitlines() if "login was refused" in line]
    assert [True] * 3 == ["UTC: account 50" in line for line in lines[:-1]]
    assert lines[-1].endswith("UTC: and 7 more accounts: the login was refused (HTTP 401)")


def test_another_collector_at_work_has_an_exit_code_of_its_own(run: Run, sandbox: str) -> None:
    set_defaults()
    with Store(destination("duckdb")).exclusive():
        done = run("collect", "71", "--once", "--metrics", "--base-url", sandbox)
    assert 4 == done.code
    assert "another collector is at work" in done.err
    assert "another collector is at work" in json.loads(done.out)["error"]


def test_a_collector_serves_its_health_and_reads_its_accounts_again(
    sandbox: str, folder: Path
) -> None:
    """At SIGHUP; a file with a mistake changes nothing, and is told."""
    path = accounts_file(folder, "71", "404")
    given = ("--accounts", path, "--base-url", sandbox, "--metrics-port", 0)
    with start("collect", *given, MAIN_SECRET="sandbox-secret") as process:
        url = next_line(process, b"metrics at").split()[-1].decode().removesuffix("/healthz")
        said = next_line(process, b"; next round at ")
        response, body = ask(f"{url}/healthz")
        assert (200, 2, 1) == (
            response.status,
            json.loads(body)["accounts"],
            json.loads(body)["failing"],
        )
        _, body = ask(f"{url}/metrics")
        assert b"msgconv_collect_accounts_failing 1.0" in body
        assert b'msgconv_collect_requests_sent_total{account="71"} 2.0' in body
        assert b"msgconv_collect_last_round_rows 297.0" in body
        assert 403 == ask(f"{url}/metrics", Host="elsewhere.example")[0].status
        path.write_text("[[accounts]]")
        process.send_signal(signal.SIGHUP)
        assert b"; the accounts stay as they were" in next_line(process, b"accounts.toml, line 1")
        accounts_file(folder, "71", "72")
        process.send_signal(signal.SIGHUP)
        assert b"1 added, 1 removed, 0 changed, 2 in all" in next_line(process, b"read again")
        assert 0 == json.loads(ask(f"{url}/healthz")[1])["failing"]
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=10)
    assert 143 == process.returncode
    assert re.match(rb"msgconv: \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC: 1 of 2 accounts", said)


def test_sighup_ends_no_collector_that_has_no_accounts_file(sandbox: str, folder: Path) -> None:
    """It is told, and the collector goes on."""
    with start("collect", 71, "--base-url", sandbox) as process:
        next_line(process, b"; next round at ")
        for _ in range(2):
            process.send_signal(signal.SIGHUP)
            next_line(process, b"there is no accounts file to read again")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=10)
    assert 143 == process.returncode


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--status-file", "/nope/a"), "--status-file=/nope/a: cannot write there"),
        (("--metrics-port", "99999"), "--metrics-port=99999: it must be 0 to 65535"),
        (("--log-format", "xml"), 'Invalid value "xml" for --log-format'),
    ],
)
def test_a_place_to_tell_it_that_cannot_be_is_refused(
    run: Run, sandbox: str, options: tuple[str, ...], said: str
) -> None:
    done = run("collect", "71", "--once", *options, "--base-url", sandbox)
    assert 2 == done.code
    assert said in done.err


def test_a_port_that_is_taken_is_one_sentence(run: Run, sandbox: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("collect", "71", "--once", "--metrics-port", port, "--base-url", sandbox)
    assert 2 == done.code
    assert f"cannot listen on 127.0.0.1:{port}: address already in use" in done.err
    assert "choose another --metrics-port" in done.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "name accounts, or a file of them with --accounts: one of the two"),
        (("71", "--once", "--every", "5m"), "--every and --once: give one of the two"),
        (("71", "--every", "4m"), "--every=4m: it must be 5m to 12h"),
        (("71", "--every", "0s"), "--every=0m: it must be 5m to 12h"),
        (("71", "--every", "13h"), "it must be 5m to 12h"),
        (("71", "--every", "soon"), "'soon' is not a time such as 30m or 1h"),
        (("71", "--every", "5"), "'5' has no unit: for minutes, write 5m"),
        (("71", "--every", "9" * 30 + "h"), "is not a time such as 30m or 1h"),
        (("71", "--every", "90s"), "--every=90s: it must be 5m to 12h"),
        (("71", "--skills", "x"), "--skills="),
        (
            ("71", "--destination", "nosuch"),
            "destination 'nosuch': dlt has no destination of that name",
        ),
        (("71", "--destination", "s3://b/x"), "write filesystem:s3://…"),
        (("71", "--destination", "filesystem:s3://b/x"), "pip install 'dlt[s3]'"),
        (("71", "--destination", "postgres"), "DESTINATION__POSTGRES__CREDENTIALS"),
        (("71", "--dataset", "msgconv"), "DuckDB cannot tell it from its file"),
    ],
)
def test_a_mistake_is_one_sentence(
    run: Run, sandbox: str, arguments: tuple[str, ...], said: str
) -> None:
    done = run("collect", *arguments, "--base-url", sandbox)

    assert 2 == done.code
    assert said in done.err
    assert "Traceback" not in done.err


def test_a_database_that_cannot_be_written_is_one_sentence(
    run: Run, sandbox: str, folder: Path
) -> None:
    (folder / "msgconv.duckdb").write_text("no database" * 1000)
    done = run("collect", "71", "--once", "--base-url", sandbox)

    assert 1 == done.code
    assert "not a valid DuckDB database file" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_every_goes_on_until_it_is_stopped(sandbox: str, number: int, code: int) -> None:
    with start("collect", "71", "--every", "5m", "--base-url", sandbox) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if b"; next round at " in line:
                break
        assert process.poll() is None
        began = time.monotonic()
        process.send_signal(number)
        _, err = process.communicate(timeout=10)
    assert code == process.returncode
    assert b"UTC: stopped; the next run goes on" in err
    assert 1 == len(err.splitlines())
    assert time.monotonic() - began < 3
    assert 288 == count("account_metrics")


def next_line(process: subprocess.Popen[bytes], part: bytes) -> bytes:
    """Return the next line on stderr that holds something."""
    assert process.stderr is not None
    return next(line for line in process.stderr if part in line)


def test_a_database_that_refuses_does_not_end_a_collector(
    sandbox: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # but does not listen
        address = f"postgresql://me:hush@127.0.0.1:{taken.getsockname()[1]}/history"
        monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", address)
        place = ("--destination", "postgres")
        with start("collect", "71", *place, "--every", "5m", "--base-url", sandbox) as process:
            said = next_line(process, b"; next round at ")
            assert process.poll() is None
            process.send_signal(signal.SIGTERM)
            _, rest = process.communicate(timeout=10)
    assert b"Connection refused" in said
    assert b"; next round at " in said
    assert b"hush" not in said
    assert 143 == process.returncode
    assert b"Traceback" not in said + rest


def test_a_database_that_does_not_answer_makes_no_collector_deaf(
    sandbox: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a server that was stopped: the driver waits inside the one thread that hears signals."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"postgresql://me:hush@127.0.0.1:{silent.getsockname()[1]}/history"
        monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", address)
        place = ("--destination", "postgres")
        with start("collect", "71", *place, "--every", "5m", "--base-url", sandbox) as process:
            connection, _ = silent.accept()
            with connection:
                connection.recv(8)
                process.send_signal(signal.SIGTERM)
                began = time.monotonic()
                _, said = process.communicate(timeout=20)
    assert 143 == process.returncode
    assert b"UTC: stopped; the next run goes on" in said
    assert time.monotonic() - began < 8


def test_settings_of_dlt_that_cannot_be_read_are_one_sentence(sandbox: str, folder: Path) -> None:
    (folder / ".dlt").mkdir()
    (folder / ".dlt" / "config.toml").write_text("load = [")
    with start("collect", "71", "--once", "--base-url", sandbox) as process:
        _, said = process.communicate(timeout=20)
    assert 2 == process.returncode
    assert b"dlt's settings cannot be read: " in said
    assert 1 == len(said.splitlines())


def test_what_is_made_is_for_its_owner_alone(sandbox: str, folder: Path) -> None:
    with start("collect", "71", "--once", "--base-url", sandbox) as process:
        process.communicate(timeout=30)
    made = [folder / "msgconv.duckdb", *(folder / "dlt").rglob("*")]
    assert len(made) > 2
    assert not [each for each in made if each.stat().st_mode & 0o077]


def test_a_terminal_sees_a_bar(sandbox: str) -> None:
    with in_terminal("collect", 71, 72, "--once", "--base-url", sandbox, columns=120) as terminal:
        seen = terminal.read_all()
    assert 0 == terminal.process.returncode
    assert "━".encode() in seen
    assert b"of 2 accounts" in seen
