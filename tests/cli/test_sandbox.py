from __future__ import annotations

import re
import signal
import socket

import pytest

from tests.cli.conftest import Run, ask, serving, start, token


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_where_it_listens_once_it_does_and_stops_quietly(number: signal.Signals) -> None:
    """One line on stdout, at once even where it is a pipe; stopping it is no failure."""
    with start("sandbox", "--port", 0, "--accounts", 3, "--seed", 7) as process:
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        url = re.fullmatch(r"listening on (http://127\.0\.0\.1:\d+)\n", line)
        assert url is not None
        assert token(url[1], "10000003")
        process.send_signal(number)
        out, err = process.communicate(timeout=5)
    assert (0, b"") == (process.returncode, out)
    assert 1 == len(err.splitlines())
    assert b"accounts 10000001 to 10000003" in err


def test_a_port_that_is_taken_is_one_line(run: Run) -> None:
    """It names the port."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("sandbox", "--port", port)
    assert (2, "") == (done.code, done.out)
    [line] = done.err.splitlines()
    assert line.startswith(f"msgconv: cannot listen on 127.0.0.1:{port}: ")


def test_its_limits_are_those_given() -> None:
    """With a rate and a wait it refuses what comes too soon, and says when to come back."""
    with serving("--rate", 0.001, "--retry-after", 7, "--burst", 1) as url:
        metrics = f"{url}/operations/api/account/10000001/msgconversation?timeframe=5&v=1"
        answers = [ask(metrics)[0] for _ in range(3)]
    refused = [(each.status, each.headers["Retry-After"]) for each in answers]
    assert [(401, None), (401, None), (429, "7")] == refused
