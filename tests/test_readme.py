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

from msgconv_async import Account, CheckpointStore, ClientCredentials
from msgconv_async.cli.app import app
from msgconv_async.gateway import gateway
from msgconv_async.gateway.serve import Address, serving
from msgconv_async.sandbox import CLIENT_ID, CLIENT_SECRET, Clock, Sandbox

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
    title: str, *changes: tuple[str, str], cwd: Path | None = None, strict: bool = True
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
    out, errors = await asyncio.wait_for(process.communicate(), 30)
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
        "ETL",
        "With FastAPI",
        "In a dlt pipeline of your own",
        "From Python",
        "A limit that is known",
        "As a test double",
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
async def test_the_etl_program_writes_whole_buckets_once() -> None:
    rows = list(csv.DictReader(await _output("ETL")))
    keys = {(row["interval_end"], row["skill_id"], row["agent_id"]) for row in rows}
    assert len(rows) == len(keys) > 0
    assert 12 >= len({row["interval_end"] for row in rows})


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
    program, *_ = re.findall(r"^```py\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
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


async def test_the_test_double_holds_its_own_test() -> None:
    names = _names("As a test double")
    await names["test_a_failing_service_is_asked_again"]()
