"""README's programs run, and do what it says of them."""

import asyncio
import csv
import os
import re
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import duckdb
import httpx
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from msgconv_async import Account, CheckpointStore, ClientCredentials, ConversationSession
from msgconv_async.cli.app import app
from msgconv_async.gateway import gateway
from msgconv_async.gateway.serve import Address, serving
from msgconv_async.names import read_names
from msgconv_async.sandbox import CLIENT_ID, CLIENT_SECRET, Clock, Sandbox
from tests.sandbox.test_double import run_tests

ROOT = Path(__file__).parents[1]
READMES = [
    ROOT / "README.md",
    *sorted(ROOT.glob("msgconv_async/*/README.md")),
    ROOT / "benchmarks" / "README.md",
]
NOON = datetime(2026, 3, 4, 12, 2, tzinfo=UTC)
"""At night, an hour may pass without a conversation in some skill."""
TEXT = "\n".join(path.read_text(encoding="utf-8") for path in READMES)
PROGRAMS = dict(
    re.findall(
        r"^##+ ([^\n]*)\n(?:(?!^##+ ).)*?^```python\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE
    )
)


@pytest.fixture
async def sandbox(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Sandbox]:
    async with Sandbox(accounts=3, seed=1, clock=Clock(NOON)) as sandbox:
        monkeypatch.setenv("MSGCONV_BASE_URL", sandbox.url)
        yield sandbox


async def _output(
    title: str,
    *changes: tuple[str, str],
    cwd: Path | None = None,
    strict: bool = True,
    seconds: float = 30,
) -> list[str]:
    """Run a section's program as its reader would, and return the lines it prints."""
    program = PROGRAMS[title]
    for old, new in changes:
        assert old in program
        program = program.replace(old, new)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-W", "error" if strict else "ignore", "-c", program),
        cwd=cwd,
        env=dict(os.environ) | {"PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await asyncio.wait_for(process.communicate(), seconds)
    assert (0, "") == (process.returncode, errors.decode())
    return out.decode().splitlines()


def _names(title: str) -> dict[str, Any]:
    """Run a section's program as an imported module, and return what it defines."""
    names: dict[str, Any] = {"__name__": "readme"}
    exec(compile(PROGRAMS[title], f"README.md: {title}", "exec"), names)  # noqa: S102
    return names


def test_every_program_is_run_here() -> None:
    """A section that gains a program gains a test."""
    tested = [
        "A question",
        "In a web service",
        "Many accounts",
        "Following over time",
        "Tables and ETL",
        "With FastAPI",
        "A client that goes away",
        "In tests",
        "What happens inside",
        "OpenTelemetry",
        "A report as tables",
        "Bulk work on Dask",
        "In a dlt pipeline of your own",
        "From Python",
        "A limit that is known",
        "As a test double",
        "In synchronous tests",
    ]
    assert tested == list(PROGRAMS)
    assert len(tested) == TEXT.count("```python\n")


def test_the_first_page_is_read_in_five_minutes() -> None:
    """What is longer has a page of its own, and every page is there."""
    text = READMES[0].read_text(encoding="utf-8")
    assert 350 >= len(text.splitlines())
    for page in READMES:
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), link


def test_nothing_is_left_to_be_filled_in() -> None:
    """No line stands for a table that was to come."""
    lines = TEXT.splitlines()
    assert [] == [line for line in lines if re.fullmatch("[A-Z_]{3,}", line)]


async def test_a_known_limit_paces_what_is_asked() -> None:
    """Twenty requests at 45 a second; the first of them start at once."""
    assert ["20 answered at 45 a second"] == await _output("A limit that is known")


async def test_the_first_program_prints_what_each_skill_resolved(sandbox: Sandbox) -> None:
    lines = await _output("A question", ("http://127.0.0.1:8080", sandbox.url))
    assert {"-1", "1", "2"} <= {line.split()[2] for line in lines}
    assert len(lines) > 12


async def test_a_worker_asks_a_gateway(sandbox: Sandbox) -> None:
    account_id, *_ = sandbox.account_ids
    app = gateway([Account(account_id, ClientCredentials(CLIENT_ID, CLIENT_SECRET))])
    async with serving(app, Address(port=0)) as url:
        changes = (("http://127.0.0.1:8080", url), ("12345678", account_id))
        lines = await _output("From Python", *changes)
    assert "total_resolved" in " ".join(lines)


async def test_the_web_service_answers_and_says_when_to_come_back(sandbox: Sandbox) -> None:
    """200 with the truth; 503 with Retry-After while the account is throttled."""
    async with TestClient(TestServer(_names("In a web service")["application"]())) as client:
        response = await client.get("/resolved/10000001")
        assert response.status == 200
        assert (await response.json())["resolved"] > 0

        async def throttle(request: web.Request) -> web.Response:
            return web.Response(status=429, headers={"Retry-After": "30"})

        response = await client.get("/resolved/10000009")
        assert (502, "502: Bad Gateway") == (response.status, await response.text())
        sandbox.fault = throttle
        response = await client.get("/resolved/10000002")
        assert (503, "30") == (response.status, response.headers["Retry-After"])


async def test_the_fastapi_service_answers_and_tells_nothing_of_an_unknown_account(
    sandbox: Sandbox,
) -> None:
    """200 with the truth; 502 for an account that does not exist."""
    app = _names("With FastAPI")["app"]
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client,
    ):
        good = await client.get("/resolved/10000001")
        bad = await client.get("/resolved/10000009")
    assert (200, True) == (good.status_code, good.json()["resolved"] > 0)
    assert (502, {"detail": "Bad Gateway"}) == (bad.status_code, bad.json())
    assert 1 == sandbox.requests["10000001"]


async def test_the_web_service_drops_the_call_of_a_client_that_is_gone(sandbox: Sandbox) -> None:
    """With what its last line says to aiohttp."""
    assert "handler_cancellation=True" in PROGRAMS["In a web service"]
    application = _names("In a web service")["application"]()
    asked, gone = asyncio.Event(), asyncio.Event()
    sandbox.fault = _held(asked, gone)
    async with TestServer(application, handler_cancellation=True) as server:
        _, writer = await asyncio.open_connection(server.host, server.port)
        writer.write(b"GET /resolved/10000001 HTTP/1.1\r\nHost: test\r\n\r\n")
        await asyncio.wait_for(asked.wait(), 10)
        writer.close()
        await asyncio.wait_for(gone.wait(), 10)


async def test_the_fastapi_service_drops_the_call_of_a_client_that_is_gone(
    sandbox: Sandbox,
) -> None:
    """Within half a second; one that stays has its answer."""
    app = _names("A client that goes away")["app"]
    asked, gone = asyncio.Event(), asyncio.Event()
    sandbox.fault = _held(asked, gone)
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        await asked.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    path = "/resolved/10000001"
    scope: dict[str, Any] = {"type": "http", "http_version": "1.1", "method": "GET", "headers": []}
    async with ConversationSession() as session:
        app.state.session = session
        scope |= {"query_string": b"", "path": path, "raw_path": path.encode(), "scheme": "http"}
        await asyncio.wait_for(app(scope, receive, send), 10)
        await asyncio.wait_for(gone.wait(), 10)
        assert 499 == sent[0]["status"]

        sandbox.fault = _answered
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://test"
        ) as client:
            assert 200 == (await client.get(path)).status_code


def _held(asked: asyncio.Event, gone: asyncio.Event) -> Any:
    """Return a fault that never answers, and tells when it is asked and when it is dropped."""

    async def hold(_: web.Request) -> web.Response:
        asked.set()
        try:
            await asyncio.sleep(3600)
        finally:
            gone.set()
        raise AssertionError

    return hold


async def _answered(_: web.Request) -> web.Response:
    return web.Response(body=b'{"metricsTotals":{}}')


async def test_the_two_ways_of_testing_pass(tmp_path: Path) -> None:
    """In a pytest of their own, with anyio's plugin and no other."""
    await asyncio.to_thread((tmp_path / "test_ours.py").write_text, PROGRAMS["In tests"])
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "anyio", "test_ours.py"),
        cwd=tmp_path,
        env=dict(os.environ) | {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    assert "2 passed" in out.decode()


@pytest.mark.usefixtures("sandbox")
async def test_what_happens_inside_is_printed() -> None:
    """One request for two calls, one of which shares it."""
    lines = await _output("What happens inside")
    assert ["try 1: 200, 0.0 s in the queue"] == [line for line in lines if "try" in line]
    assert {"fetched", "shared"} == {line.split()[2] for line in lines if "account" in line}


@pytest.mark.usefixtures("sandbox")
async def test_a_call_is_a_span_on_the_console() -> None:
    """With its login and its question."""
    lines = await _output("OpenTelemetry")
    assert 1 == sum('"name": "msgconv call"' in line for line in lines)
    assert 2 == sum('"name": "attempt"' in line for line in lines)


async def test_many_accounts_are_printed_and_the_unknown_one_fails_alone(sandbox: Sandbox) -> None:
    lines = await _output("Many accounts")
    assert [True] == [line.startswith("failed: account 10000004") for line in lines if "f" in line]
    assert sorted(sandbox.account_ids) == sorted(
        line.split()[0] for line in lines if "f" not in line
    )


@pytest.mark.usefixtures("sandbox")
async def test_following_hands_out_a_day_and_stores_where_it_stands(tmp_path: Path) -> None:
    """It has no end of its own: after a while it is stopped, and what it stored can be read."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-u", "-c", PROGRAMS["Following over time"]),
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    lines = [await asyncio.wait_for(process.stdout.readline(), 30) for _ in range(300)]
    process.terminate()
    await process.communicate()
    assert [b"new"] * 300 == [line.split()[-1] for line in lines]
    assert 300 == len({tuple(line.split()[:3]) for line in lines})
    async with CheckpointStore(tmp_path / "checkpoint.db") as store:
        stored = await store.load()
    assert stored is not None
    through = max(position.through for position in stored.accounts.values())
    assert NOON - timedelta(days=1) < through <= NOON


@pytest.mark.usefixtures("sandbox")
async def test_the_notebooks_lines_print_what_each_skill_resolved() -> None:
    head, *lines, _ = await _output("Tables and ETL")
    assert "skill_id" == head
    assert {"-1", "1", "2"} <= {line.split()[0] for line in lines}
    assert all(int(line.split()[1]) > 0 for line in lines)


@pytest.mark.usefixtures("sandbox")
async def test_the_etl_program_writes_whole_buckets_once() -> None:
    rows = list(csv.DictReader(await _output("A report as tables")))
    keys = {(row["interval_end"], row["skill_id"], row["agent_id"]) for row in rows}
    assert len(rows) == len(keys) > 0
    assert 12 >= len({row["interval_end"] for row in rows})


async def test_workers_of_dask_add_up_what_accounts_resolved(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their credentials are in a variable, and the account that fails is told."""
    monkeypatch.setenv("SECRET", CLIENT_SECRET)
    text = f'[credentials.main]\nkind = "client"\nclient_id = "{CLIENT_ID}"\n'
    text += 'client_secret_env = "SECRET"\n'
    for account_id in (*sandbox.account_ids, "404"):
        text += f'[[accounts]]\nid = "{account_id}"\ncredentials = "main"\n'
    (tmp_path / "accounts.toml").write_text(text)
    # A port that is free, and one process less to start on a machine that is busy.
    changes = ("n_workers=2", "n_workers=1, dashboard_address=':0'")
    lines = await _output("Bulk work on Dask", changes, cwd=tmp_path, seconds=90)
    assert "skill_id  agent_id" == lines[0]
    assert [True] == [
        line.startswith("failed: 404 account 404") for line in lines if "fail" in line
    ]
    assert dict.fromkeys(sandbox.account_ids, 1) == sandbox.requests


async def test_a_pipeline_of_ones_own_loads_a_day(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dlt uses what is deprecated, so it may warn."""
    monkeypatch.setenv("DLT_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("RUNTIME__DLTHUB_TELEMETRY", "false")
    lines = await _output("In a dlt pipeline of your own", cwd=tmp_path, strict=False)
    assert "1 load package(s) were loaded to destination duckdb" in "\n".join(lines)
    with closing(duckdb.connect(str(tmp_path / "metrics.duckdb"))) as connection:
        rows = connection.execute("SELECT count(*) FROM conversations.account_metrics").fetchall()
    assert [(288,)] == rows
    assert 2 == sandbox.requests["10000001"]


def test_airflow_runs_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a stand-in, for Airflow is larger than all of this."""
    programs = re.findall(r"^```py\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
    program, *_ = [program for program in programs if "airflow" in program]
    commands: list[str] = []

    def dag(**_: Any) -> Callable[..., Any]:
        return lambda function: function

    def bash(**_: Any) -> Callable[..., Any]:
        return lambda function: lambda: commands.append(function())

    module = ModuleType("airflow.sdk")
    module.__dict__.update(dag=dag, task=SimpleNamespace(bash=bash))
    monkeypatch.setitem(sys.modules, "airflow.sdk", module)
    monkeypatch.setitem(sys.modules, "airflow", ModuleType("airflow"))
    exec(compile(program, "README.md", "exec"), {})  # noqa: S102
    assert [".venv/bin/msgconv collect"] == [each[:25] for each in commands]


def test_every_command_that_is_shown_is_one() -> None:
    """With options that there are."""
    blocks = re.findall(r"^```(?:sh|text|ini|py)\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
    commands = [
        found.partition(" 2>>")[0].rstrip('"')
        for block in blocks
        for found in re.findall(r"\bmsgconv ((?:[a-z]+ )?-*[a-z].*)", block.replace("%i", "1"))
    ]
    shown = [each for each in commands if each.split()[0] in app]
    assert {"demo", "fetch", "export", "collect", "report"} <= {each.split()[0] for each in shown}
    for each in shown:
        app.parse_args(each.split(), exit_on_error=False, print_error=False)


def test_the_pages_names_are_read(tmp_path: Path) -> None:
    [example] = re.findall(r"^```toml\n(\[accounts\]\n.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
    (tmp_path / "names.toml").write_text(example, encoding="utf-8")
    names = read_names(tmp_path / "names.toml")
    assert ("12345678 Shop", "4 Billing") == (names.account("12345678"), names.skill(4))


async def test_the_test_double_holds_its_own_test() -> None:
    names = _names("As a test double")
    await names["test_a_failing_service_is_asked_again"]()


def test_a_synchronous_test_uses_the_fixture(tmp_path: Path) -> None:
    """In a project whose conftest.py is as the page says."""
    [conftest] = re.findall(r"^```py\n(pytest_plugins.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
    (tmp_path / "conftest.py").write_text(conftest, encoding="utf-8")
    (tmp_path / "test_it.py").write_text(PROGRAMS["In synchronous tests"], encoding="utf-8")
    code, out = run_tests(tmp_path)
    assert (0, True) == (code, "1 passed" in out), out
