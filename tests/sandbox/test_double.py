"""The sandbox as a double in tests of any kind: its thread, its failures, its fixture."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.error import HTTPError

import pytest

from msgconv_async import ConfigurationError
from msgconv_async.sandbox import Clock, Conversation, Sandbox
from tests.sandbox.conftest import NOW, Ask, metrics_url

HERE = Path(__file__).parents[2]


def status_of(sandbox: Sandbox) -> tuple[int, str | None]:
    """Ask without credentials, and return the status and how long to wait."""
    with pytest.raises(HTTPError) as caught:
        urllib.request.urlopen(metrics_url(sandbox), timeout=5)  # noqa: S310 - loopback, http
    with caught.value as answer:
        return answer.code, answer.headers["Retry-After"]


# ---------------------------------------------------------------- failures


async def test_a_failure_says_when_to_come_back(ask: Ask) -> None:
    """Its own seconds come before the sandbox's, of any status."""
    async with Sandbox(retry_after=7) as sandbox:
        sandbox.fail_next(429, retry_after=2.5)
        sandbox.fail_next(503, retry_after=0)
        sandbox.fail_next(429)
        answers = [await ask(sandbox) for _ in range(3)]
    assert [(429, "3"), (503, "0"), (429, "7")] == [
        (answer.status, answer.headers["Retry-After"]) for answer in answers
    ]


async def test_a_failures_wait_is_a_date_where_the_sandboxs_is(ask: Ask) -> None:
    async with Sandbox(retry_after_date=True, clock=lambda: NOW) as sandbox:
        sandbox.fail_next(429, retry_after=60)
        answer = await ask(sandbox)
    assert "Wed, 04 Mar 2026 08:08:00 GMT" == answer.headers["Retry-After"]


# ---------------------------------------------------------------- in a thread of its own


def test_a_synchronous_test_runs_it_in_a_thread() -> None:
    """It serves at once, can be told to fail, and leaves neither thread nor socket."""
    before = threading.active_count()
    with Sandbox() as sandbox:
        assert (401, None) == status_of(sandbox)
        sandbox.fail_next(429, retry_after=9)
        assert (429, "9") == status_of(sandbox)
        assert {sandbox.account_ids[0]: 2} == sandbox.requests
    assert before == threading.active_count()
    with pytest.raises(RuntimeError, match="not running"):
        _ = sandbox.url


def test_the_thread_ends_when_the_block_fails() -> None:
    before = threading.active_count()
    with pytest.raises(KeyError):
        with Sandbox():
            raise KeyError
    assert before == threading.active_count()


def test_a_port_that_is_taken_is_told_and_no_thread_stays() -> None:
    before = threading.active_count()
    with Sandbox() as sandbox:
        port = int(sandbox.url.rpartition(":")[2])
        with pytest.raises(ConfigurationError, match="cannot listen"):
            Sandbox(port=port).__enter__()
    assert before == threading.active_count()


def test_the_truth_and_the_clock_are_read_from_outside() -> None:
    """And what is added from outside is answered."""
    clock = Clock(NOW)
    with Sandbox(clock=clock) as sandbox:
        account_id, now = sandbox.account_ids[0], sandbox.clock()
        assert NOW <= now < NOW + timedelta(minutes=1)
        before = sandbox.resolved(account_id, NOW - timedelta(hours=1), NOW)
        late = Conversation(account_id, NOW - timedelta(minutes=30), 101, "CCP", 1000)
        sandbox.add(late)
        assert [*before, late] == sandbox.resolved(account_id, NOW - timedelta(hours=1), NOW)
        clock.advance(timedelta(days=1))
        assert sandbox.clock() - now >= timedelta(days=1)


def test_a_clock_without_a_loop_goes_on() -> None:
    clock = Clock(datetime(2026, 3, 4, tzinfo=UTC))
    assert clock() <= clock()


# ---------------------------------------------------------------- the fixture

TESTS = """
import os, urllib.request
import pytest
from msgconv_async.sandbox import Sandbox

def document(sandbox):
    with urllib.request.urlopen(f"{sandbox.url}/openapi.json", timeout=5) as answer:
        return answer.status

def test_plain(msgconv_sandbox):
    assert 200 == document(msgconv_sandbox)
    assert msgconv_sandbox.url == os.environ["MSGCONV_BASE_URL"]
    assert 1 == len(msgconv_sandbox.account_ids)

@pytest.mark.msgconv_sandbox(accounts=3)
class TestOfThree:
    @pytest.mark.msgconv_sandbox(seed=7)
    def test_both(self, msgconv_sandbox):
        assert 3 == len(msgconv_sandbox.account_ids)

    @pytest.mark.msgconv_sandbox(accounts=2)
    def test_nearest(self, msgconv_sandbox):
        assert 2 == len(msgconv_sandbox.account_ids)

def test_without():
    assert "MSGCONV_BASE_URL" not in os.environ

@pytest.mark.msgconv_sandbox(3)
def test_wrong(msgconv_sandbox):
    pass

@pytest.mark.msgconv_sandbox(acounts=2)
def test_misspelt(msgconv_sandbox):
    pass
"""


def run_tests(folder: Path, *options: str) -> tuple[int, str]:
    """Run pytest in a process of its own, with nothing but what a user has there."""
    done = subprocess.run(  # noqa: S603 - the interpreter that runs the tests
        [sys.executable, "-m", "pytest", "-q", "--strict-markers", "-W", "error", *options, "."],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(HERE), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_fixture_runs_a_sandbox_for_each_test(tmp_path: Path) -> None:
    """As its marker says; a marker that cannot be is one sentence."""
    (tmp_path / "test_it.py").write_text(TESTS, encoding="utf-8")
    code, out = run_tests(tmp_path, "-p", "msgconv_async.sandbox.pytest_plugin")
    assert (1, True) == (code, "4 passed, 2 errors" in out), out
    assert "msgconv_sandbox takes settings by name, such as accounts=3" in out
    assert "msgconv_sandbox takes no 'acounts'; it takes accounts, " in out
    assert "TypeError" not in out


def test_nobody_gets_the_fixture_who_did_not_ask(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("def test_it(msgconv_sandbox): ...", encoding="utf-8")
    code, out = run_tests(tmp_path)
    assert (1, True) == (code, "fixture 'msgconv_sandbox' not found" in out), out
