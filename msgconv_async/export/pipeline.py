"""A dlt source: every closed five-minute bucket of many accounts, in tables that only grow.

Every bucket is stored exactly once, even if a run is killed at any moment:

1. The position of each account is part of the pipeline's state, which dlt stores at the destination
   when all rows are there. A run that dies before that leaves the state as it was, and the next run
   asks again.
2. Tables merge by account and interval. The present rows of a bucket replace rows that were loaded
   before, by half a run for example, or that the service revised. A row may reach the staging
   tables twice, as when a connection breaks before it says that a copy was committed; one of the
   two is taken. If a destination can only append, the rows of half a run are removed, and a bucket
   waits until it has settled.
3. A stretch of time that the API no longer reaches is a row of ``collection_gaps``.

See https://dlthub.com/docs/general-usage/state and, for merging,
https://dlthub.com/docs/general-usage/merge-loading.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import KW_ONLY, dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NamedTuple, Self

import anyio
import dlt
import msgspec
import pyarrow as pa  # type: ignore[import-untyped]
from anyio.from_thread import start_blocking_portal
from dlt.extract import DltResource, DltSource

from msgconv_async import checks
from msgconv_async.client.access.account import Account
from msgconv_async.client.many.checkpoint import Checkpoint, ClosedBucket, Failure, Gap, Item
from msgconv_async.client.many.follow import SETTLE, Following
from msgconv_async.client.many.follow_arguments import check_settle, each_once
from msgconv_async.client.session import ConversationSession
from msgconv_async.errors import UnexpectedResponse
from msgconv_async.export.arrow import SCHEMAS, to_tables
from msgconv_async.export.destination import PIPELINE
from msgconv_async.export.rows import TABLES, tables_of
from msgconv_async.export.shards import (
    CHECKPOINT,
    SEEN,
    SELECTION,
    Left,
    Shard,
    left_by_others,
    taken_over,
)
from msgconv_async.pacing.pacer import Pacer
from msgconv_async.protocol.query import ConversationQuery, Ids

GAPS = "collection_gaps"
"""The table of the time that was never read, and can no longer be read."""

_TIME = pa.timestamp("us", "UTC")
"""dlt's usual type of a time; not every destination has a finer or coarser one."""

_GAP_SCHEMA = pa.schema(
    [
        pa.field("account_id", pa.string(), nullable=False),
        pa.field("gap_start", _TIME, nullable=False),
        pa.field("gap_end", _TIME, nullable=False),
    ]
)
KEYS = {table.name: table.key for table in TABLES} | {GAPS: ("account_id", "gap_start")}
"""The columns that identify a row, by table."""


def _replaced(key: Sequence[str]) -> str:
    """Return the condition for stored rows that a load replaces.

    Rows are replaced by the first two columns of their key, so all rows of a bucket together: a
    bucket that the service revised may have lost some. dlt would do that for a ``merge_key`` as
    well. But beside the ``primary_key``, which makes it take each staged row once, it would look
    for either of the two, and no database has a fast plan for that. The staged columns get other
    names, so that the plain names can only be those of the stored rows, in any dialect.
    """
    first, second = key[:2]
    return (
        f"EXISTS (SELECT 1 FROM (SELECT {first} AS k1, {second} AS k2 FROM {{staging_table}}) s"  # noqa: S608 - names of ours
        f" WHERE s.k1 = {first} AND s.k2 = {second})"
    )


def _with_time(schema: pa.Schema) -> pa.Schema:
    return pa.schema(
        field.with_type(_TIME) if pa.types.is_timestamp(field.type) else field for field in schema
    )


_SCHEMAS = {name: _with_time(schema) for name, schema in SCHEMAS.items()}

_BATCH = 288
"""Buckets in one batch: a day of one account, or one bucket of each of many accounts."""

_PATIENCE = 0.5
"""Seconds after which a batch that is not full is handed on, so that progress can be seen."""

_LOG = logging.getLogger("msgconv_async")


class Emptied(NamedTuple):
    """A bucket that the service revised, and that has no row in a table any more."""

    table: str
    account_id: str
    interval_end: datetime


class Batch(NamedTuple):
    """A summary of what was read since the batch before.

    Attributes:
        turns: How many accounts' turns ended.
        rows: Rows, over all tables.
        failures: Accounts that failed, after every retry; the next run catches up.
        gaps: Stretches of time that are lost.
        emptied: Revised buckets without a row in a table, whose stored rows `Store.load` removes.
            A merge replaces rows by rows, so it leaves the rows that have no replacement.
    """

    turns: int
    rows: int
    failures: tuple[Failure, ...]
    gaps: tuple[Gap, ...]
    emptied: tuple[Emptied, ...] = ()


class Reader:
    """A session on an event loop in a thread of its own, for dlt, which is not asynchronous.

    A program that goes on passes one reader to all its runs, so that logins, connections and paces
    last.

    Args:
        session: Makes the session.

    Raises:
        ConfigurationError: ``session`` cannot be called.
    """

    def __init__(self, session: Callable[[], ConversationSession] = ConversationSession) -> None:
        checks.function("session", session, "a function that makes a ConversationSession")
        self._make = session
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._portal = stack.enter_context(start_blocking_portal())
            self._session = stack.enter_context(
                self._portal.wrap_async_context_manager(self._make())
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def pacers(self, accounts: Iterable[Account]) -> dict[str, Pacer]:
        """Return the pacers of accounts, by their ids. They know what was sent."""
        return self._portal.call(lambda: {each.id: self._session.pacer(each) for each in accounts})

    def follow(
        self, accounts: Sequence[Account], queries: Sequence[ConversationQuery], **settings: Any
    ) -> Iterator[tuple[list[Item], Following]]:
        """Yield the items of `ConversationSession.follow` in batches, and its iterator."""
        follow = partial(self._session.follow, accounts, queries, **settings)
        manager = self._portal.call(follow)
        with self._portal.wrap_async_context_manager(manager) as closed:
            ended = False
            while not ended:
                items, ended = self._portal.call(_next_batch, closed)
                yield items, closed


async def _next_batch(closed: Following) -> tuple[list[Item], bool]:
    """Return some items, and whether there will be no more."""
    items: list[Item] = []
    with anyio.move_on_after(_PATIENCE):
        async for item in closed:
            items.append(item)
            if len(items) == _BATCH:
                return items, False
        return items, True
    return items, False


def conversation_metrics(
    accounts: Iterable[Account],
    *,
    skills: Ids | None = "all",
    agents: Ids | None = "all",
    groups: Ids | None = None,
    settle: int = SETTLE,
    append: bool = False,
    over: timedelta = timedelta(),
    shard: tuple[int, int] | None = None,
    reader: Reader | None = None,
    watch: Callable[[Batch], None] | None = None,
) -> DltSource:
    """Return a source of the new rows of every account since the last run, for a dlt pipeline.

    The source has five resources, each a table: ``account_metrics``, ``skill_metrics``,
    ``agent_metrics`` and ``skill_agent_metrics``, as `msgconv_async.export.TABLES` describes them,
    with rows for every closed five-minute bucket; and ``collection_gaps``, the stretches of time
    (``account_id``, ``gap_start``, ``gap_end``) that were not read while the API reached them.

    An account's first run begins as far back as the API reaches. Failures and gaps are logged as
    warnings. An account that fails does not fail the run: the next one catches up. A bucket with a
    number that fits into no database is a gap.

    Args:
        accounts: The accounts; none of them may be given twice.
        skills: Fill ``skill_metrics`` and ``skill_agent_metrics`` for these skills; None leaves
            them empty.
        agents: Fill ``agent_metrics`` for these agents; None leaves it empty.
        groups: Count only agents of these groups.
        settle: How many of the latest closed buckets the service may still change.
        append: For destinations that cannot merge, such as plain files: a bucket comes once, and
            only after it has settled.
        over: Spread the accounts over this time, so that many accounts make no burst.
        shard: Take only those of the accounts that are dealt to one of several shards: (2, 8) is
            the second of eight. The names of its pipeline and of its staging dataset must end in
            ``_2_of_8``. All shards write the same tables. When their number changes, each goes on
            where others left its accounts. Run those of one number at a time.
        reader: The reader to use, entered. None: one for each run.
        watch: Called after every batch.

    Raises:
        InvalidQuery: The service would refuse ``skills``, ``agents`` or ``groups``.
        ConfigurationError: There is no account, one is given twice, ``shard`` is none, or a setting
            cannot work. When the source is extracted: the pipeline is not the shard's alone.
    """
    check_settle(settle)
    checks.switch("append", append)
    checks.duration("over", over, "a timedelta of 0 or more")
    if reader is not None:
        checks.instance("reader", reader, Reader, "a Reader, or None")
    if watch is not None:
        checks.function("watch", watch, "a function of a batch, or None")
    queries = [ConversationQuery(5, group_ids=groups)]
    if skills is not None or agents is not None:
        queries.append(ConversationQuery(5, skill_ids=skills, agent_ids=agents, group_ids=groups))
    return _source(
        _Collection(
            each_once(accounts),
            tuple(queries),
            settle=settle,
            append=append,
            over=over,
            shard=Shard.of(shard),
            reader=reader,
            watch=watch,
        )
    )


@dataclass(frozen=True)
class _Collection:
    """The settings of a collection; see `conversation_metrics`."""

    accounts: tuple[Account, ...]
    queries: tuple[ConversationQuery, ...]
    _: KW_ONLY
    settle: int
    append: bool
    over: timedelta
    shard: Shard
    reader: Reader | None
    watch: Callable[[Batch], None] | None


# No parameter of the source and of its resources has a default: dlt's configuration could change a
# parameter with a default.


@dlt.source(name=PIPELINE, section=PIPELINE, max_table_nesting=0)
def _source(collection: _Collection) -> list[DltResource]:
    batches = _batches(collection)
    return [batches, *(_table(name, batches, append=collection.append) for name in KEYS)]


@dlt.resource(name="batches", selected=False)
def _batches(collection: _Collection) -> Iterator[dict[str, pa.Table]]:
    """Yield the new rows since the last run, batch by batch: the rows of every table, by its name.

    The position of each account is stored in the state only when all batches were taken.
    """
    state = dlt.current.source_state()
    since, changed = _resume(state, collection)
    if CHECKPOINT not in state:
        yield _tables(())  # every table must exist, even without rows
    dealt = [account for account in collection.accounts if collection.shard.holds(account.id)]
    if not dealt:
        state[CHECKPOINT] = (since or Checkpoint()).to_json()
        return
    turns = 0
    # One that is given was entered, and lasts longer than this run.
    with Reader() if collection.reader is None else nullcontext(collection.reader) as reader:
        for found, closed in reader.follow(
            dealt,
            collection.queries,
            since=since,
            settle=collection.settle,
            revise=not collection.append,
            over=collection.over,
        ):
            _log(found)
            items, tables = _fitting_tables(found)
            if items:
                yield tables
            if collection.watch is not None:
                # If other things are asked for, a bucket lacks rows for another reason.
                emptied = () if changed else tuple(_emptied(items, collection.queries))
                collection.watch(_batch(closed.turns - turns, items, tables, emptied))
            turns = closed.turns
    state[CHECKPOINT] = closed.checkpoint.to_json()


def _table(name: str, batches: DltResource, *, append: bool) -> DltResource:
    """Return the resource that picks one table out of each batch."""

    def pick(batch: dict[str, pa.Table]) -> pa.Table:
        return batch[name]

    key = KEYS[name]
    merge = {"disposition": "merge", "destination_scope": _replaced(key)}
    disposition: Any = "append" if append else merge  # dlt's own type has only the names
    return dlt.transformer(
        pick, data_from=batches, name=name, primary_key=key, write_disposition=disposition
    )


def _resume(state: dict[str, Any], collection: _Collection) -> tuple[Checkpoint | None, bool]:
    """Return where the last run ended, and whether other things are asked for since.

    Before the first run, the former is None. The state stores what is asked for now, and what was
    taken over from other shards.
    """
    stored = state.get(CHECKPOINT)
    since = Checkpoint.from_json(stored) if stored else None
    selection = [query.parameters() for query in collection.queries]
    changed = state.setdefault(SELECTION, selection) != selection
    if left := _left(state, collection.shard):
        since = taken_over(since, left, collection.shard)
        taken = {} if since is None else since.accounts
        changed = changed or any(
            other.selection != selection and other.gave(taken) for other in left
        )
    if changed:
        _LOG.warning(
            "from now on other skills, agents or groups are asked for;"
            " what was collected before stays as it is"
        )
        state[SELECTION] = selection
        since = None if since is None else msgspec.structs.replace(since, query="")
    return since, changed


def _left(state: dict[str, Any], shard: Shard) -> list[Left]:
    """Return what other pipelines of the dataset left, and note in the state that it was seen."""
    left, seen = left_by_others(dlt.current.pipeline(), shard, state.get(SEEN, {}))
    if seen:
        state[SEEN] = seen
    return left


def _fitting_tables(items: list[Item]) -> tuple[list[Item], dict[str, pa.Table]]:
    """Return the rows of some items, by table, and the items, with gaps for what does not fit."""
    try:
        return items, _tables(items)
    except UnexpectedResponse:
        items = [_fitting(item) for item in items]
        return items, _tables(items)


def _batch(
    turns: int, items: Sequence[Item], tables: dict[str, pa.Table], emptied: tuple[Emptied, ...]
) -> Batch:
    return Batch(
        turns,
        sum(table.num_rows for table in tables.values()),
        tuple(item for item in items if isinstance(item, Failure)),
        tuple(item for item in items if isinstance(item, Gap)),
        emptied,
    )


def _emptied(items: Iterable[Item], queries: Iterable[ConversationQuery]) -> Iterator[Emptied]:
    """Yield the revised buckets that have no row in a table that the queries fill."""
    asked = {table for query in queries for table in tables_of(query)}
    for item in items:
        if isinstance(item, ClosedBucket) and item.revised:
            account_id, interval = item.account.id, item.interval
            for table in asked:
                if next(table.flatten(account_id, interval), None) is None:
                    yield Emptied(table.name, account_id, interval.end)


def _log(items: Iterable[Item]) -> None:
    for item in items:
        match item:
            case Gap():
                _LOG.warning("%s", item)
            case Failure(_, error):
                _LOG.warning("%s", error)


def _fitting(item: Item) -> Item:
    """Put a gap in the place of a bucket that no database could hold, so that the rest goes on."""
    if isinstance(item, ClosedBucket):
        account, interval = item.account, item.interval
        try:
            to_tables([(account.id, interval)])
        except UnexpectedResponse as error:
            _LOG.warning("%s; %s is left out", error, f"{interval.end:%Y-%m-%d %H:%M} UTC")
            return Gap(account, interval.start, interval.end)
    return item


def _tables(items: Iterable[Item]) -> dict[str, pa.Table]:
    """Return the rows of some items, by table; failures have none."""
    buckets, gaps = [], []
    for item in items:
        match item:
            case ClosedBucket(account, interval):
                buckets.append((account.id, interval))
            case Gap(account, start, end):
                gaps.append((account.id, start, end))
    tables = {name: table.cast(_SCHEMAS[name]) for name, table in to_tables(buckets).items()}
    columns = zip(*gaps, strict=True) if gaps else [()] * len(_GAP_SCHEMA)
    arrays = [
        pa.array(column, type_) for column, type_ in zip(columns, _GAP_SCHEMA.types, strict=True)
    ]
    return tables | {GAPS: pa.Table.from_arrays(arrays, schema=_GAP_SCHEMA)}
