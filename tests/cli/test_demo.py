from __future__ import annotations

import json
import re
import signal
import time
from http.client import HTTPConnection

import pytest

from tests.cli.conftest import Run, ask, run_process, run_without, start


def test_the_demo_shows_what_it_promises_in_less_than_twenty_seconds() -> None:
    """A table of accounts, a chart of the day, the cost, the limit found; plain in a pipe."""
    began = time.monotonic()
    done = run_process("demo")
    assert 20 > time.monotonic() - began
    assert (0, False) == (done.code, "\x1b" in done.out + done.err)
    assert [
        "msgconv: 24 hours of every account: 50 requests",
        "msgconv: the last hour, 30 times over: 1500 requests",
    ] == done.err.splitlines()
    lines = [re.sub(r"\s+", " ", line).strip() for line in done.out.splitlines()]
    assert all(len(line) <= 80 for line in done.out.splitlines())

    shown = [line.split() for line in lines]
    row = re.compile(r"(100000\d\d) [A-Z][a-z]+(?: \d)?" + 4 * r" ([\d,]+)" + " .*")
    accounts = [
        [int(cell.replace(",", "")) for cell in found.groups()]
        for line in lines
        if (found := row.fullmatch(line))
    ]
    assert 10 == len(accounts)
    assert all(resolved == a + b + c for _, resolved, a, b, c in accounts)
    everything = next(line for line in shown if line[:2] == ["all", "50"])
    others = next(line for line in shown if line[:2] == ["40", "others"])
    total, rest = (int(line[2].replace(",", "")) for line in (everything, others))
    assert total == rest + sum(account[1] for account in accounts)

    assert any(
        "resolved conversations of all accounts, per 5 minutes (UTC)" in line for line in lines
    )
    assert any("00:00" in line and "12:00" in line for line in lines)
    assert any(re.fullmatch(r"requests 1,\d\d\d", line) for line in lines)
    assert any(re.fullmatch(r"rows per second, .* [\d,]+", line) for line in lines)
    assert "requests of an account at once: the true limit 6" in lines
    assert "and so a second, as each takes 0.5 s 12" in lines
    for unit in ("at once", "a second"):
        assert any(
            re.fullmatch(rf"what the client now believes: {unit} [\d.]+", line) for line in lines
        )
    held = next(line for line in lines if line.startswith("accounts held by how many at once"))
    assert 0 < sum(map(int, re.findall(r"\d+", held))) <= 50
    asked = next(line for line in lines if line.startswith("and so asks a second"))
    assert 12.6 >= float(asked.split()[-1])  # 5 % above the true one at most


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_demo_in_a_browser_prints_its_address_and_runs_until_it_is_stopped(
    number: signal.Signals,
) -> None:
    """Fifty accounts, some of which are seen at once, and a pace to be seen."""
    with start("demo", "--web") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            line = process.stdout.readline().decode()
            found = re.fullmatch(r"listening on http://(127\.0\.0\.1:\d+)\n", line)
            assert found is not None, line
            response, page = ask(f"http://{found[1]}/")
            assert (200, True) == (response.status, b"<table" in page)
            connection = HTTPConnection(found[1], timeout=30)
            connection.request("GET", "/live/events")
            seen: set[str] = set()
            refused = 0
            stream = connection.getresponse()
            while len(seen) < 3 or not refused:
                name, _, data = stream.readline().decode().partition(": ")
                message = json.loads(data) if name == "data" else {}
                seen |= {row["id"] for row in message.get("rows", ()) if row["summary"]}
                refused += sum(pace[5] for pace in message.get("pace", {}).values())
            connection.close()
            process.send_signal(number)
            assert 0 == process.wait(timeout=10)
            [said] = process.stderr.read().decode().splitlines()
            assert "50 invented accounts" in said
        finally:
            process.kill()


def test_the_port_of_a_page_that_is_not_shown_is_one_sentence(run: Run) -> None:
    done = run("demo", "--port", 1)
    assert (2, "") == (done.code, done.out)
    assert ["msgconv: --port: it is the port of the page that --web shows"] == (
        done.err.splitlines()
    )
    assert "--port" in run("demo", "--web", "--port", 70_000).err


def test_the_page_needs_the_gateways_extra() -> None:
    done = run_without("prometheus_client", "demo", "--web")
    assert (2, True) == (done.code, "pip install '.[cli,gateway]' in a clone" in done.err)
