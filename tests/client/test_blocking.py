"""Questions without await: from any thread, beside a running loop, across forks, until the end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from aiohttp import web

from msgconv_async import (
    Account,
    ClientCredentials,
    ConfigurationError,
    ConversationQuery,
    RateLimited,
    Unauthorized,
    blocking,
)
from msgconv_async.sandbox import CLIENT_ID, CLIENT_SECRET, Sandbox

ROOT = Path(__file__).parents[2]
HOUR = ConversationQuery(60)
KNOWN = ClientCredentials(CLIENT_ID, CLIENT_SECRET)

BEGIN = """
import os, signal, sys, threading, time
from msgconv_async import *
from msgconv_async import blocking
from msgconv_async.sandbox import *
known = ClientCredentials(CLIENT_ID, CLIENT_SECRET)
first, second = (Account(str(number), known) for number in (10000001, 10000002))
hour = ConversationQuery(60)
"""


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    with Sandbox(accounts=3) as sandbox:
        monkeypatch.setenv("MSGCONV_BASE_URL", sandbox.url)
        yield sandbox


def accounts_of(sandbox: Sandbox) -> list[Account]:
    return [Account(account_id, KNOWN) for account_id in sandbox.account_ids]


def started(program: str) -> subprocess.Popen[str]:
    """Start a script with every warning an error, as its user would."""
    return subprocess.Popen(  # noqa: S603 - the interpreter that runs the tests
        [sys.executable, "-X", "dev", "-W", "error", "-c", BEGIN + program],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    with process:
        out, errors = process.communicate(timeout=20)
    return process.returncode, out, errors


def test_a_call_returns_the_report_and_the_next_needs_no_login(sandbox: Sandbox) -> None:
    account, *_ = accounts_of(sandbox)
    reports = [blocking.fetch(account, HOUR, timeout=10) for _ in range(3)]
    assert all(report.totals is not None for report in reports)
    assert ({account.id: 1}, {account.id: 3}) == (sandbox.tokens, sandbox.requests)


async def test_a_running_loop_does_not_matter(sandbox: Sandbox) -> None:
    """As in a notebook, whose cells run inside one."""
    account, *_ = accounts_of(sandbox)
    assert blocking.fetch(account, HOUR).totals is not None


def test_many_are_asked_and_a_failure_stays_its_accounts(sandbox: Sandbox) -> None:
    unknown = Account("10000009", KNOWN)
    outcomes = blocking.fetch_many(iter([*accounts_of(sandbox), unknown]), HOUR)
    assert 3 == sum(outcome.report is not None for outcome in outcomes)
    [failed] = [outcome for outcome in outcomes if outcome.error]
    assert (unknown, Unauthorized) == (failed.account, type(failed.error))


def test_threads_may_call_at_the_same_time(sandbox: Sandbox) -> None:
    accounts = accounts_of(sandbox)
    with ThreadPoolExecutor(8) as pool:
        reports = list(pool.map(lambda n: blocking.fetch(accounts[n % 3], HOUR), range(24)))
    assert 24 == len(reports)
    assert 3 == sandbox.tokens.total()


def test_the_error_is_the_sessions(sandbox: Sandbox) -> None:
    account, *_ = accounts_of(sandbox)
    sandbox.fail_next(429, retry_after=60)
    with pytest.raises(RateLimited) as caught:
        blocking.fetch(account, HOUR, timeout=0.5)
    assert 60 == caught.value.retry_after
    with pytest.raises(ConfigurationError, match="query"):
        blocking.fetch(account, "all")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="accounts=5"):
        blocking.fetch_many(5)  # type: ignore[arg-type]


def test_another_base_url_is_asked_as_soon_as_it_is_set(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    account, *_ = accounts_of(sandbox)
    blocking.fetch(account, HOUR)
    with Sandbox() as other:
        monkeypatch.setenv("MSGCONV_BASE_URL", other.url)
        blocking.fetch(account, HOUR)
        assert {account.id: 1} == other.requests == sandbox.requests


# ---------------------------------------------------------------- processes of their own


def test_a_script_ends_in_silence_and_logs_its_user_out(sandbox: Sandbox) -> None:
    program = """
who = Account("10000001", UserLogin(USERNAME, PASSWORD))
print(blocking.fetch(who, hour).totals is not None)
"""
    asked: list[str] = []

    async def note(request: web.Request) -> None:
        asked.append(request.path.rpartition("/")[2])

    sandbox.fault = note
    assert (0, "True\n", "") == ended(started(program))
    assert ["login", "msgconversation", "logout"] == asked


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_forked_process_asks_for_itself_and_the_parent_goes_on(sandbox: Sandbox) -> None:
    """Both end as usual. Later Pythons warn of any fork beside a thread."""
    program = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
blocking.fetch(first, hour)
if (child := os.fork()) == 0:
    blocking.fetch(second, hour)
    sys.exit(3)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
blocking.fetch(first, hour)
"""
    assert (0, "3\n", "") == ended(started(program))
    assert {"10000001": 2, "10000002": 1} == sandbox.requests


@pytest.mark.parametrize("how", ["a long wait", "a lost answer"])
def test_ctrl_c_ends_a_call_at_once_and_another_can_be_made(sandbox: Sandbox, how: str) -> None:
    program = """
try:
    print("asking", flush=True)
    blocking.fetch(first, hour)
except KeyboardInterrupt:
    blocking.fetch(second, hour)
    print("interrupted, and answered")
"""

    async def never(request: web.Request) -> None:
        if request.path.endswith("/10000001/msgconversation"):
            await asyncio.sleep(30)

    if how == "a lost answer":
        sandbox.fault = never
    else:
        sandbox.fail_next(429, retry_after=50, account_id="10000001")
    process = started(program)
    assert process.stdout is not None
    assert "asking\n" == process.stdout.readline()
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    before = time.monotonic()
    assert (0, "interrupted, and answered\n", "") == ended(process)
    assert 3 > time.monotonic() - before


def test_the_interpreter_ends_though_a_call_is_under_way(sandbox: Sandbox) -> None:
    """It was made in a thread that nobody waits for."""
    program = """
asking = threading.Thread(target=blocking.fetch, args=(first, hour), daemon=True)
threading.excepthook = lambda _: None
asking.start()
while not blocking._loop or not blocking._loop._sessions:
    time.sleep(0.01)
time.sleep(0.2)
"""
    sandbox.fail_next(429, retry_after=50)
    before = time.monotonic()
    assert (0, "", "") == ended(started(program))
    assert 5 > time.monotonic() - before
