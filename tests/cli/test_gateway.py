"""The command: what it says, what it refuses to start with, and how it ends."""

from __future__ import annotations

import json
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen

import pytest

from msgconv_async.sandbox import CLIENT_ID, CLIENT_SECRET
from tests.cli.conftest import Run, ask, run_process, run_without, serving, start

METRICS = "/operations/api/account/10000001/msgconversation?timeframe=60&v=1"
SECRETS = {"MSGCONV_CLIENT_ID": CLIENT_ID, "MSGCONV_CLIENT_SECRET": CLIENT_SECRET}


@contextmanager
def _gateway(*arguments: object, base_url: str) -> Iterator[tuple[str, Popen[bytes]]]:
    arguments = ("gateway", 10000001, "--port", 0, "--base-url", base_url, *arguments)
    with start(*arguments, **SECRETS) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline().decode()
            url = re.fullmatch(r"listening on (http://127\.0\.0\.1:\d+)\n", line)
            assert url is not None, line
            yield url[1], process
        finally:
            process.kill()


def test_a_worker_asks_it_as_it_would_liveperson() -> None:
    """The worker's environment holds no credential of LivePerson's."""
    with serving() as sandbox, _gateway(base_url=sandbox) as (url, _):
        options = ("--timeframe", 60, "--base-url", url, "--format", "json")
        done = run_process("fetch", 10000001, *options)
        assert 0 == done.code, done.err
        assert "metricsTotals" in json.loads(done.out)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_told_to_stop_it_finishes_what_is_in_flight_and_exits_with_0(
    number: signal.Signals,
) -> None:
    with serving("--latency", 0.6) as sandbox, _gateway(base_url=sandbox) as (url, process):
        answers: list[int] = []
        thread = threading.Thread(target=lambda: answers.append(ask(url + METRICS)[0].status))
        thread.start()
        time.sleep(0.3)
        process.send_signal(number)
        assert 0 == process.wait(timeout=5)
        thread.join()
        assert [200] == answers


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--host", "0.0.0.0"), "give --token-env and --tls-cert and --tls-key"),  # noqa: S104
        (("--tls-cert", "x"), "--tls-cert and --tls-key: give both, or none"),
        (("--unix", "x", "--port", "1"), "--port and --unix: give one of the two"),
        (("--token-env", "NOTHING_HERE"), "the environment variable is not set"),
        (("--port", "70000"), "it must be 0 to 65535"),
        (("--max-wait", "0"), "it must be above 0 seconds"),
        (("--fresh-for", "-1"), "it must be 0 seconds or more"),
        (("--grace", "-1"), "it must be 0 seconds or more"),
    ],
)
def test_what_cannot_work_is_one_sentence(
    run: Run, arguments: tuple[str, ...], sentence: str
) -> None:
    done = run("gateway", 10000001, "--base-url", "http://127.0.0.1:9", *arguments)
    assert (2, "") == (done.code, done.out)
    [line] = done.err.splitlines()
    assert sentence in line


def test_a_port_that_is_taken_is_one_sentence(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        given = ("--port", port, "--base-url", "http://127.0.0.1:9", "--client-id", "x")
        done = run_process("gateway", 10000001, *given, **SECRETS)
    assert 2 == done.code
    assert f"cannot listen on 127.0.0.1:{port}: " in done.err


@pytest.mark.parametrize(
    ("module", "code", "said"),
    [("prometheus_client", 2, "pip install '.[cli,gateway]'"), ("uvloop", 2, "cannot be used")],
)
def test_prometheus_is_needed_and_uvloop_is_not(module: str, code: int, said: str) -> None:
    arguments = ("--base-url", "http://127.0.0.1:9", "--tls-cert", "no", "--tls-key", "no")
    done = run_without(module, "gateway", 10000001, *arguments)
    assert code == done.code
    assert said in done.err


@pytest.mark.parametrize(("arguments", "status"), [((), 200), (("--no-page",), 404)])
def test_the_live_page_is_there_unless_it_is_switched_off(
    arguments: tuple[str, ...], status: int
) -> None:
    with _gateway(*arguments, base_url="http://127.0.0.1:9") as (url, _):
        assert status == ask(f"{url}/")[0].status


def test_what_it_learnt_is_in_a_file_when_it_ends(tmp_path: Path) -> None:
    kept = tmp_path / "state.json"
    with serving("--rate", 5) as sandbox:
        with _gateway("--state", kept, base_url=sandbox) as (url, process):
            targets = [url + METRICS.replace("60", str(60 + each)) for each in range(12)]
            threads = [threading.Thread(target=ask, args=(target,)) for target in targets]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            process.terminate()
            assert 0 == process.wait(timeout=5)
    assert "10000001" in json.loads(kept.read_bytes())["accounts"]
