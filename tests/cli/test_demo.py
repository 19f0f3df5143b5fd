from __future__ import annotations

import re
import time

from tests.cli.conftest import run_process


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
    accounts = [
        [int(cell.replace(",", "")) for cell in line[:5]]
        for line in shown
        if line and line[0].startswith("100000")
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
