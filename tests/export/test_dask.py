"""Many accounts as a Dask DataFrame: on Dask's local schedulers, and on workers of their own."""

from __future__ import annotations

import asyncio
import os
import pickle
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import dask
import pandas as pd  # type: ignore[import-untyped]
import pytest
from aiohttp import web
from anyio.from_thread import start_blocking_portal
from distributed import Client, LocalCluster

from msgconv_async import (
    Account,
    ClientCredentials,
    ConfigurationError,
    ConversationQuery,
    ConversationSession,
    Unauthorized,
    UserLogin,
    read_accounts,
)
from msgconv_async.export import TABLES, tables_of
from msgconv_async.export.dask import FAILURES, read_metrics
from msgconv_async.export.files.lines import file_rows
from msgconv_async.sandbox import (
    CLIENT_ID,
    CLIENT_SECRET,
    PASSWORD,
    USERNAME,
    Sandbox,
)

NOON = datetime(2026, 3, 4, 12, 2, tzinfo=UTC)
EVERYTHING = ConversationQuery(60, interval=5, skill_ids="all", agent_ids="all")
TOTALS = ConversationQuery(60, interval=5)
NAMES = [table.name for table in TABLES]
LITERAL = ClientCredentials(CLIENT_ID, CLIENT_SECRET)
FILE = """
[credentials.main]
kind = "client"
client_id = "{id}"
client_secret_env = "DASK_TEST_SECRET"

[credentials.person]
kind = "user"
username = "{name}"
password_env = "DASK_TEST_PASSWORD"
"""


class Service:
    """A sandbox on an event loop of its own, and its accounts.

    Attributes:
        asked: The requests of each path but for the account, such as "login".
        begun: The questions to each account, answered or not.
        held: The accounts whose questions wait.
    """

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.url = sandbox.url
        self.accounts = [Account(each, LITERAL) for each in sandbox.account_ids]
        self.asked: Counter[str] = Counter()
        self.begun: Counter[str] = Counter()
        self.held: set[str] = set()

    async def fault(self, request: web.Request) -> None:
        """Count a request, and hold a question to an account as long as that is held."""
        path = request.path.rsplit("/", 1)[-1]
        self.asked[path] += 1
        if path == "msgconversation":
            account_id = request.match_info["account"]
            self.begun[account_id] += 1
            while account_id in self.held:  # noqa: ASYNC110 - of another thread
                await asyncio.sleep(0.01)

    def of_file(self, folder: Path, credentials: str = "main") -> list[Account]:
        """Return the accounts with credentials from an accounts file."""
        path = folder / "accounts.toml"
        text = FILE.format(id=CLIENT_ID, name=USERNAME)
        for account in self.accounts:
            text += f'[[accounts]]\nid = "{account.id}"\ncredentials = "{credentials}"\n'
        path.write_text(text, encoding="utf-8")
        secrets = {"DASK_TEST_SECRET": CLIENT_SECRET, "DASK_TEST_PASSWORD": PASSWORD}
        return read_accounts(path, secrets)

    def logged_in(self) -> int:
        """Return how many users have a session at the service."""
        return len(self.sandbox._service._credentials._sessions)


@pytest.fixture(scope="module")
def running() -> Iterator[Service]:
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(
            Sandbox(accounts=6, seed=1, clock=lambda: NOON)
        ) as sandbox,
    ):
        service = Service(sandbox)
        sandbox.fault = service.fault
        yield service


@pytest.fixture
def service(running: Service) -> Service:
    for each in (running.asked, running.begun, running.held, running.sandbox.requests):
        each.clear()
    return running


class Workers(NamedTuple):
    """Two worker processes, and their client."""

    cluster: LocalCluster
    client: Client


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DASK_TEST_SECRET", CLIENT_SECRET)
        patch.setenv("DASK_TEST_PASSWORD", PASSWORD)
        with (
            LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
            Client(cluster) as client,
        ):
            yield Workers(cluster, client)


def rows(frame: Any) -> list[tuple[Any, ...]]:
    """Return the rows of a frame that was computed, None in the place of what is missing."""
    return [
        tuple(None if value is pd.NA else value for value in row)
        for row in frame.itertuples(index=False)
    ]


def in_one_process(service: Service, query: ConversationQuery, name: str) -> list[tuple[Any, ...]]:
    """Return the same rows without Dask."""
    [table] = [table for table in TABLES if table.name == name]

    async def ask() -> list[tuple[Any, ...]]:
        async with ConversationSession(base_url=service.url) as session:
            reports = [await session.fetch(account, query) for account in service.accounts]
        pairs = zip(service.accounts, reports, strict=True)
        return [row for who, report in pairs for row in file_rows(table, who.id, report)]

    return asyncio.run(ask())


def until(condition: Callable[[], object]) -> None:
    """Wait until something holds."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


# -- In this process ------------------------------------------------------------------------------


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
@pytest.mark.parametrize("name", NAMES)
def test_the_rows_are_those_of_one_process(service: Service, name: str, scheduler: str) -> None:
    """In the order of the accounts, value for value, and asked once."""
    query = TOTALS if name == "account_metrics" else EVERYTHING
    expected = in_one_process(service, query, name)
    service.begun.clear()

    frame = read_metrics(service.accounts, query, name, partitions=4, base_url=service.url)
    computed = frame.compute(scheduler=scheduler)

    assert len(expected) > 0
    assert expected == rows(computed)
    assert computed.columns[-1] == "complete"
    assert 0 < computed["complete"].sum() < len(expected)
    assert {account.id: 1 for account in service.accounts} == service.begun


@pytest.mark.parametrize("name", NAMES)
def test_the_types_are_known_before_and_hold_without_a_row(service: Service, name: str) -> None:
    nobody = ConversationQuery(60, interval=5, skill_ids=[999], agent_ids=[999])
    query = TOTALS if name == "account_metrics" else nobody
    frame = read_metrics(service.accounts[:1], query, name, base_url=service.url)
    computed = frame.compute(scheduler="synchronous")

    assert (name == "account_metrics") == (len(computed) > 0)
    assert all(isinstance(dtype, pd.ArrowDtype) for dtype in frame.dtypes)
    assert frame.dtypes.equals(computed.dtypes)
    assert not frame.known_divisions


@pytest.mark.parametrize(
    ("partitions", "sizes"),
    [(4, [1, 2, 1, 2]), (1, [6]), (50, [1] * 6), (None, [6])],
)
def test_an_account_is_in_one_partition(
    service: Service, partitions: int | None, sizes: list[int]
) -> None:
    frame = read_metrics(
        service.accounts, TOTALS, "account_metrics", partitions=partitions, base_url=service.url
    )
    parts = dask.compute(*frame.partitions, scheduler="synchronous")
    assert sizes == [part["account_id"].nunique() for part in parts]


def test_the_first_failure_is_raised_as_it_is(service: Service) -> None:
    accounts = [*service.accounts, Account("404", LITERAL)]
    frame = read_metrics(accounts, EVERYTHING, partitions=7, base_url=service.url)
    with pytest.raises(Unauthorized) as caught:
        frame.compute(scheduler="synchronous")
    assert "404" == caught.value.account_id


def test_failures_are_a_frame_of_the_same_answers(service: Service) -> None:
    """Whoever computes both has asked once, and an account is in one of the two."""
    accounts = [service.accounts[0], Account("404", LITERAL), *service.accounts[1:]]
    metrics, failures = read_metrics(
        accounts, EVERYTHING, partitions=2, failures="frame", base_url=service.url
    )
    assert list(FAILURES.names) == list(failures.columns)
    sums = metrics.groupby("account_id")["total_resolved_conversations"].sum()
    summed, failed = dask.compute(sums, failures, scheduler="threads")

    assert {account.id for account in service.accounts} == set(summed.index)
    [(account_id, error, message)] = rows(failed)
    assert ("404", "Unauthorized") == (account_id, error)
    assert message.startswith("account 404: ")
    assert failures.dtypes.equals(failed.dtypes)
    assert {account.id: 1 for account in service.accounts} == service.begun


def test_what_runs_at_once_shares_a_session_that_is_then_closed(service: Service) -> None:
    """One login for each user, who is logged out in the end."""
    accounts = [Account(each.id, UserLogin(USERNAME, PASSWORD)) for each in service.accounts]
    frame = read_metrics(accounts, TOTALS, "account_metrics", partitions=3, base_url=service.url)
    frame.compute(scheduler="threads")
    assert {"login": 6, "logout": 6} == {
        path: times for path, times in service.asked.items() if path.startswith("log")
    }
    assert 0 == service.logged_in()


# -- What travels ---------------------------------------------------------------------------------


def test_no_secret_travels(service: Service, tmp_path: Path) -> None:
    """The names of the variables do."""
    accounts = service.of_file(tmp_path)
    frame = read_metrics(accounts, EVERYTHING, base_url=service.url)
    graph = frame.optimize().dask
    sent = pickle.dumps(dict(graph))
    assert CLIENT_SECRET == accounts[0].credentials.secrets()[0]
    assert CLIENT_SECRET.encode() not in sent
    assert b"DASK_TEST_SECRET" in sent
    assert CLIENT_SECRET not in repr(dict(graph))


def test_the_path_of_a_secrets_file_travels(service: Service, tmp_path: Path) -> None:
    """A worker reads the file, as it reads a variable; the graph that travelled is computed."""
    secret = tmp_path / "secret"
    secret.write_text(f"{CLIENT_SECRET}\n", encoding="utf-8")
    path = tmp_path / "accounts.toml"
    text = FILE.format(id=CLIENT_ID, name=USERNAME).replace(
        'client_secret_env = "DASK_TEST_SECRET"', f"client_secret_file = '{secret}'"
    )
    path.write_text(
        f'{text}[[accounts]]\nid = "{service.accounts[0].id}"\ncredentials = "main"\n',
        encoding="utf-8",
    )
    accounts = read_accounts(path, {"DASK_TEST_PASSWORD": PASSWORD})
    frame = read_metrics(accounts, TOTALS, "account_metrics", base_url=service.url)
    sent = pickle.dumps(frame)
    assert CLIENT_SECRET.encode() not in sent
    assert str(secret).encode() in sent
    there = pickle.loads(sent).compute(scheduler="threads")
    assert [accounts[0].id] == there.account_id.unique().tolist()


def test_a_secret_of_a_program_stays_in_its_process(service: Service) -> None:
    """And one sentence says what to do."""
    frame = read_metrics(service.accounts, EVERYTHING, base_url=service.url)
    with pytest.raises(ConfigurationError, match="accounts file") as caught:
        pickle.dumps(dict(frame.optimize().dask))
    assert CLIENT_SECRET not in str(caught.value)


# -- On workers -----------------------------------------------------------------------------------


def test_workers_ask_each_account_once_though_it_is_computed_twice(
    service: Service, workers: Workers, tmp_path: Path
) -> None:
    """Two computations at once, of both frames."""
    expected = in_one_process(service, EVERYTHING, "skill_agent_metrics")
    service.begun.clear()
    accounts = service.of_file(tmp_path)
    lost = Account("404", accounts[0].credentials)
    service.held.add(accounts[0].id)
    metrics, failures = read_metrics(
        [*accounts, lost], EVERYTHING, partitions=4, failures="frame", base_url=service.url
    )
    futures = workers.client.compute([metrics, failures])
    until(lambda: service.begun[accounts[0].id])
    futures += workers.client.compute([metrics.copy()])
    service.held.clear()
    one, failed, other = workers.client.gather(futures)

    assert expected == rows(one) == rows(other)
    assert ["404"] == list(failed["account_id"])
    assert {account.id: 1 for account in accounts} == service.begun


def test_a_worker_keeps_its_session_until_it_closes(
    service: Service, workers: Workers, tmp_path: Path
) -> None:
    """Users are logged in by the first of its tasks, and logged out by the worker."""
    accounts = service.of_file(tmp_path, "person")
    [address, _] = workers.client.scheduler_info()["workers"]
    for _ in range(2):
        frame = read_metrics(accounts, TOTALS, "account_metrics", base_url=service.url)
        workers.client.compute(frame, workers=[address]).result(timeout=30)
    assert {account.id: 2 for account in accounts} == service.begun
    assert 6 == service.asked["login"]
    assert 6 == service.logged_in()
    workers.client.restart_workers([address], timeout=30)
    until(lambda: not service.logged_in())
    workers.client.wait_for_workers(2, timeout=30)


def test_the_partitions_of_a_lost_worker_are_asked_again(
    service: Service, workers: Workers, tmp_path: Path
) -> None:
    """Killed while it asks; nothing is missing, and nothing comes twice."""
    expected = in_one_process(service, EVERYTHING, "skill_agent_metrics")
    service.begun.clear()
    accounts = service.of_file(tmp_path)
    frame = read_metrics(accounts, EVERYTHING, partitions=3, base_url=service.url)
    service.held.add(accounts[0].id)
    future = workers.client.compute(frame)
    pids = workers.client.run(os.getpid)
    until(lambda: service.begun[accounts[0].id])
    [victim] = [
        address
        for address, keys in workers.client.processing().items()
        if any(re.fullmatch("ask-accounts-.*-0", str(key)) for key in keys)
    ]
    os.kill(pids[victim], signal.SIGKILL)
    until(lambda: service.begun[accounts[0].id] > 1)
    service.held.clear()

    assert expected == rows(future.result(timeout=30))
    workers.client.wait_for_workers(2, timeout=30)


def test_a_variable_that_a_worker_lacks_is_told(
    service: Service, workers: Workers, tmp_path: Path
) -> None:
    """As the failure of its account."""
    path = tmp_path / "elsewhere.toml"
    entry = FILE.format(id=CLIENT_ID, name=USERNAME).replace("DASK_TEST_SECRET", "ELSEWHERE")
    path.write_text(f'{entry}[[accounts]]\nid = "1"\ncredentials = "main"\n', encoding="utf-8")
    accounts = read_accounts(path, {"ELSEWHERE": "x", "DASK_TEST_PASSWORD": "x"})
    _, failures = read_metrics(accounts, EVERYTHING, failures="frame", base_url=service.url)
    message = "account 1: at Dask's worker, the environment variable ELSEWHERE is not set, or empty"
    assert [("1", "ConfigurationError", message)] == rows(failures.compute())


def test_a_client_is_told_at_the_call_that_a_secret_stays(
    service: Service, workers: Workers
) -> None:
    assert workers.client.status == "running"
    with pytest.raises(ConfigurationError, match="accounts file"):
        read_metrics(service.accounts, EVERYTHING)


def test_a_table_without_rows_for_a_query_is_refused() -> None:
    """Which would else be an empty frame."""
    assert ["account_metrics"] == [table.name for table in tables_of(TOTALS)]
    with pytest.raises(ConfigurationError, match="account_metrics"):
        read_metrics([Account("1", LITERAL)], TOTALS)
