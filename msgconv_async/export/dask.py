"""Many accounts as one Dask DataFrame; needs the extra ``dask``.

One task asks one group of accounts, and an account is in one group. So one worker owns an account
while it is asked, and its limit is shared with no other. A task returns two frames at once, its
rows and its failures, so both come from the same answers. Its key is made once, when `read_metrics`
is called: while a scheduler holds a task or its result, all who need it share it.

All tasks that run in a process at once share one session. It lives on an event loop in a thread of
its own, since Dask runs tasks in threads. The last task that leaves closes it, and on a distributed
worker the worker does when it closes.

What travels to a worker names an account's secrets, and holds none.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import pairwise
from threading import Lock
from typing import Any, Literal, NamedTuple, TypeAlias, overload
from uuid import uuid4

import dask.dataframe as dd
import pandas as pd  # type: ignore[import-untyped]
import pyarrow as pa  # type: ignore[import-untyped]
from anyio.from_thread import BlockingPortal, start_blocking_portal
from dask.delayed import delayed
from distributed import Reschedule, Worker, WorkerPlugin, default_client, get_worker
from distributed.utils import sync

from msgconv_async import checks
from msgconv_async.client.access.account import Account
from msgconv_async.client.access.accounts_file import credentials_of
from msgconv_async.client.access.credentials import Reference
from msgconv_async.client.many.follow_arguments import each_once
from msgconv_async.client.session import TIMEOUT, ConversationSession
from msgconv_async.errors import ConfigurationError, MsgConvError, UnexpectedResponse
from msgconv_async.export.arrow import complete_schema, report_tables, with_complete
from msgconv_async.export.rows import TABLES, tables_of
from msgconv_async.protocol.query import ConversationQuery

GROUP = 10
"""Accounts in a partition, by default. A day of one account may be ten megabytes of rows, and Dask
works best with partitions of about a hundred."""

FAILURES = pa.schema([(name, pa.string()) for name in ("account_id", "error", "message")])
"""The columns of the frame of failures: an account, and the error's name and text."""


@overload
def read_metrics(
    accounts: Iterable[Account],
    query: ConversationQuery,
    table: str = ...,
    *,
    partitions: int | None = ...,
    failures: Literal["raise"] = ...,
    base_url: str | None = ...,
    timeout: float | None = ...,
    max_in_flight: int = ...,
) -> dd.DataFrame: ...


@overload
def read_metrics(
    accounts: Iterable[Account],
    query: ConversationQuery,
    table: str = ...,
    *,
    partitions: int | None = ...,
    failures: Literal["frame"],
    base_url: str | None = ...,
    timeout: float | None = ...,
    max_in_flight: int = ...,
) -> tuple[dd.DataFrame, dd.DataFrame]: ...


def read_metrics(
    accounts: Iterable[Account],
    query: ConversationQuery,
    table: str = "skill_agent_metrics",
    *,
    partitions: int | None = None,
    failures: Literal["raise", "frame"] = "raise",
    base_url: str | None = None,
    timeout: float | None = TIMEOUT,
    max_in_flight: int = GROUP,
) -> dd.DataFrame | tuple[dd.DataFrame, dd.DataFrame]:
    """Return what many accounts answer to a question, as a Dask DataFrame.

    Nothing is asked before it is computed, and each computation asks anew: `dask.persist` keeps the
    answers. One computation asks each account once, from one worker. A second one of the same frame
    on the same cluster joins the first as long as its tasks or results are held there. Another
    `read_metrics` knows nothing of this one: where two of them ask the same accounts at the same
    time, a gateway (``base_url``) keeps each account's limit for both.

    A worker that is lost takes its partitions with it, and Dask has them asked again by another.
    Dask's ``retries`` ask a whole partition again.

    Args:
        accounts: The accounts; none of them may be given twice. Only accounts of an accounts file
            may be computed outside this process: their credentials travel as the names of
            environment variables or files, which every worker must have.
        query: The question to each of them.
        table: The name of one of the four tables; the answers to the query must have rows in it.
        partitions: How many, in the order of the accounts and as even as can be, but at most one
            for each account. None: one for every ten accounts.
        failures: ``"raise"``: the first account that fails ends the computation with its error.
            ``"frame"``: accounts that fail are rows of a second frame.
        base_url: As `ConversationSession` takes it. ``MSGCONV_BASE_URL`` is read here, and on a
            worker only if it is not set here.
        timeout: Seconds for each account's whole call, as in `ConversationSession.fetch`.
        max_in_flight: The most accounts of a partition that are asked at once.

    Returns:
        A frame of the table's columns and a last one, ``complete``, which is False where the row's
        interval was still open. All columns are Arrow's (`pandas.ArrowDtype`), of the types in
        `msgconv_async.export.arrow.SCHEMAS`. Rows are in the order of the accounts, and divisions
        are not known.

        With ``failures="frame"``, a pair of this frame and one of `FAILURES`. Compute both in one
        `dask.compute`, or persist both in one `dask.persist`; otherwise each asks for itself.

    Raises:
        ConfigurationError: There is no account, one is given twice, its credentials may not travel
            to the workers of the present Dask client, the query's answers have no rows in the
            table, or a setting cannot work.
    """
    asked = each_once(accounts)
    names = [each.name for each in tables_of(query)]
    checks.one_of("table", table, [each.name for each in TABLES])
    if table not in names:
        raise checks.refused("table", table, f"{' or '.join(names)}, as this query is answered")
    if partitions is None:
        partitions = math.ceil(len(asked) / GROUP)
    checks.whole("partitions", partitions, 1)
    checks.one_of("failures", failures, ("raise", "frame"))
    if base_url is None:
        base_url = os.environ.get("MSGCONV_BASE_URL") or None
    ConversationSession(base_url=base_url)  # refuses what is no origin
    if timeout is not None:
        checks.number("timeout", timeout, "above 0 seconds, or None", above=True, most=math.inf)
    checks.whole("max_in_flight", max_in_flight, 1)
    groups = _groups(asked, min(partitions, len(asked)))
    if _has_client():
        for group in groups:
            group.travelling()

    question = _Question(query, table, failures == "raise", base_url, timeout, max_in_flight)
    ask = delayed(partial(_ask, question), pure=False, traverse=False)
    read = uuid4().hex
    both = [
        ask(group, dask_key_name=f"ask-accounts-{read}-{place}")
        for place, group in enumerate(groups)
    ]
    metrics, failed = (
        dd.from_delayed([each[place] for each in both], _frame(schema.empty_table()), prefix=name)
        for place, (schema, name) in enumerate(
            ((complete_schema(table), table.replace("_", "-")), (FAILURES, "failures"))
        )
    )
    return metrics if failures == "raise" else (metrics, failed)


class _Question(NamedTuple):
    """What is asked of each account, and how."""

    query: ConversationQuery
    table: str
    raising: bool
    base_url: str | None
    timeout: float | None
    max_in_flight: int


class _Elsewhere(NamedTuple):
    """An account at a worker, where its secrets are still to be read."""

    id: str
    host: str | None
    reference: Reference

    def account(self) -> Account:
        """Return the account with its secrets.

        Raises:
            ConfigurationError: They are not to be had here.
        """
        try:
            credentials = credentials_of(self.reference)
        except ConfigurationError as error:
            raise ConfigurationError(f"account {self.id}: at Dask's worker, {error}") from None
        return Account(self.id, credentials, host=self.host)


class _Group:
    """Accounts that one task asks. It pickles without their secrets, or not at all."""

    def __init__(self, members: Sequence[Account | _Elsewhere]) -> None:
        self.members = members

    def __repr__(self) -> str:
        return f"<{len(self.members)} accounts>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _Group, (self.travelling(),)

    def travelling(self) -> list[_Elsewhere]:
        """Return the accounts as they leave this process.

        Raises:
            ConfigurationError: The secrets of one of them would have to leave with it.
        """
        return [_travelling(member) for member in self.members]


def _travelling(member: Account | _Elsewhere) -> _Elsewhere:
    if isinstance(member, _Elsewhere):
        return member
    if (reference := member.credentials.reference) is None:
        raise ConfigurationError(
            f"account {member.id}: its credentials do not leave this process, since they were not"
            " read from an accounts file: `read_accounts` knows in which environment variables or"
            " files the workers find them"
        )
    return _Elsewhere(member.id, member.host, reference)


def _groups(accounts: Sequence[Account], count: int) -> list[_Group]:
    edges = [len(accounts) * place // count for place in range(count + 1)]
    return [_Group(accounts[first:last]) for first, last in pairwise(edges)]


def _has_client() -> bool:
    """Tell whether Dask would compute outside this process now, and not only later."""
    try:
        default_client()
    except ValueError:
        return False
    return True


# -- A task ---------------------------------------------------------------------------------------


def _ask(question: _Question, group: _Group) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Ask a group of accounts; return the rows and the failures."""
    with _session(question.base_url) as (portal, session, running):
        asking = portal.start_task_soon(_answers, session, question, group)
        running.add(asking)
        try:
            rows, failed = asking.result()
        except CancelledError:
            raise Reschedule from None
        finally:
            running.discard(asking)
            asking.cancel()  # a task that Ctrl-C ends asks no longer
    return _frame(rows), _frame(failed)


async def _answers(
    session: ConversationSession, question: _Question, group: _Group
) -> tuple[pa.Table, pa.Table]:
    rows: dict[str, pa.Table] = {}
    errors: dict[str, MsgConvError] = {}

    def fail(account_id: str, error: MsgConvError) -> None:
        if question.raising:
            raise error
        errors[account_id] = error

    accounts = []
    for member in group.members:
        try:
            accounts.append(member if isinstance(member, Account) else member.account())
        except ConfigurationError as error:
            fail(member.id, error)
    async with session.fetch_many(
        accounts, question.query, timeout=question.timeout, max_in_flight=question.max_in_flight
    ) as outcomes:
        async for outcome in outcomes:
            account_id, report, failure = outcome.account.id, outcome.report, outcome.error
            if report is not None:
                try:
                    tables = report_tables(account_id, report)
                    rows[account_id] = with_complete(tables[question.table], report)
                except UnexpectedResponse as error:
                    failure = error
            if failure is not None:
                fail(account_id, failure)

    ids = [member.id for member in group.members]
    schema = complete_schema(question.table)
    return (
        pa.concat_tables([schema.empty_table(), *(rows[each] for each in ids if each in rows)]),
        pa.table(
            [
                [each for each in ids if each in errors],
                [type(errors[each]).__name__ for each in ids if each in errors],
                [str(errors[each]) for each in ids if each in errors],
            ],
            FAILURES,
        ),
    )


def _frame(table: pa.Table) -> pd.DataFrame:
    """Return a table as pandas' frame, which holds Arrow's own columns."""
    return table.combine_chunks().to_pandas(types_mapper=pd.ArrowDtype)


# -- The session of a process ---------------------------------------------------------------------


_Running: TypeAlias = set[Future[Any]]
"""What the tasks of a distributed worker are asking now."""


class _Shared:
    """A session that the first of its users opens, and the last one closes."""

    def __init__(self, base_url: str | None) -> None:
        self._base_url = base_url
        self._lock = Lock()
        self._users = 0
        self._stack = ExitStack()

    def __enter__(self) -> tuple[BlockingPortal, ConversationSession]:
        with self._lock:
            if not self._users:
                with ExitStack() as stack:
                    portal = stack.enter_context(start_blocking_portal())
                    made = ConversationSession(base_url=self._base_url)
                    session = stack.enter_context(portal.wrap_async_context_manager(made))
                    self._held = portal, session
                    self._stack = stack.pop_all()
            self._users += 1
            return self._held

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                self._stack.close()


_SHARED: dict[str | None, _Shared] = {}
"""The sessions of this process, by their base URL."""

_ADDING = Lock()
"""A second keeper of the same name would end the first, with all that its worker asks."""


class _Keeper(WorkerPlugin):
    """Keeps a session open until its worker closes, and then ends what the worker still asks."""

    def __init__(self, shared: _Shared) -> None:
        self._shared = shared
        self.running: _Running = set()

    def setup(self, worker: Worker) -> None:  # noqa: ARG002
        """Use the session, as a task does that is open already."""
        self._shared.__enter__()

    async def teardown(self, worker: Worker) -> None:  # noqa: ARG002
        """Let the session go, without holding up the worker's event loop."""
        for asking in list(self.running):
            asking.cancel()
        await asyncio.to_thread(self._shared.__exit__)


@contextmanager
def _session(
    base_url: str | None,
) -> Iterator[tuple[BlockingPortal, ConversationSession, _Running]]:
    """Use the session of this process, which a distributed worker keeps for its later tasks."""
    shared = _SHARED.setdefault(base_url, _Shared(base_url))
    with shared as (portal, session):
        yield portal, session, _running_at_worker(shared, f"msgconv_async {base_url}")


def _running_at_worker(shared: _Shared, name: str) -> _Running:
    try:
        worker = get_worker()
    except ValueError:  # another one of Dask's schedulers runs this
        return set()
    with _ADDING:
        if name not in worker.plugins:
            sync(worker.loop, worker.plugin_add, plugin=_Keeper(shared), name=name)
    keeper: Any = worker.plugins[name]
    running: _Running = keeper.running
    return running
