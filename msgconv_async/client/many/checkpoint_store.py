"""A file that keeps where following stands, and is written what moved.

It is an SQLite database with one row for each account: the account's latest `Move`, as JSON.

- A save is one transaction of the accounts that moved since the one before. So what it costs does
  not depend on how many accounts there are. New rows are appended, and every round of turns goes
  through the accounts in one order. So rows that are written one after the other lie on the same
  pages, and a small page is all that a save writes.
- The journal is a write-ahead log, and ``synchronous`` is NORMAL. What was committed is with the
  operating system: a process that is killed loses nothing of it, and leaves nothing torn. A power
  cut may undo the last saves, whole ones, latest first. Their items then come again; none is lost.
- The file is locked for as long as it is open, so that two processes cannot take turns at moving
  one account. The lock ends with the process, however that ends.
- All of it runs in a thread of its own, in the order of the calls, since the disk may take long to
  answer when the log is written back.

See https://www.sqlite.org/wal.html and https://www.sqlite.org/pragma.html#pragma_synchronous.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar
from weakref import WeakKeyDictionary

from msgconv_async import checks
from msgconv_async.client.many.checkpoint import Checkpoint, Move
from msgconv_async.client.many.follow import Following
from msgconv_async.errors import ConfigurationError, MsgConvError

if TYPE_CHECKING:
    import sqlite3

_T = TypeVar("_T")

APPLICATION_ID = 0x6D736763
"""In the header of the file, says what wrote it: "msgc"."""

VERSION = 1
"""Of what stands in the file, and how."""

_PAGE = 1024
"""Bytes: a page holds the rows of three or four accounts. It is the least that a save writes."""

_PATIENCE = 1.0
"""Seconds to wait for a process that is about to end to give up its lock."""

_OWNER_ALONE = 0o600

_CREATE = "CREATE TABLE moves (account_id TEXT NOT NULL UNIQUE, move TEXT NOT NULL)"
_SAVE = (
    "INSERT INTO moves VALUES (?, ?) ON CONFLICT (account_id) DO UPDATE SET move = excluded.move"
)
_LOAD = "SELECT move FROM moves ORDER BY rowid"


class CheckpointStore:
    """A file that keeps where following stands, at the cost of what moved.

        async with (
            CheckpointStore("checkpoint.db") as store,
            session.follow(accounts, query, since=await store.load()) as closed,
        ):
            async for item in closed:
                ...  # deal with it
                await store.save(closed)

    It is safe to kill: what was saved stays, and what was not comes again. A power cut may undo the
    last saves, so that their items come again too. The file is its owner's alone (mode 0600),
    with its journal beside it (``-wal``), and one process has it open at a time.

    Args:
        path: The file; created where there is none. Its folder must be there, on a disk of this
            machine.

    Raises:
        ConfigurationError: ``path`` is no path. On entering: the file cannot be opened, is no such
            store, or one of a newer version, or another process or store has it open.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        checks.path("path", path)
        self._path = Path(path).absolute()
        self._thread: ThreadPoolExecutor | None = None
        self._saved: WeakKeyDictionary[Following, int] = WeakKeyDictionary()
        self._loaded: dict[str, Move] = {}
        self._query = ""

    async def __aenter__(self) -> Self:
        if self._thread is not None:
            raise ConfigurationError(f"{self._path}: this store is open already: enter it once")
        self._thread = ThreadPoolExecutor(1, "msgconv_async-checkpoint")
        try:
            await self._run(self._open)
        except BaseException:
            self._thread.submit(self._close)
            self._end()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self._run(self._close)
        finally:
            self._end()

    async def load(self) -> Checkpoint | None:
        """Return what is stored, to hand on as ``since``; None if there is nothing yet.

        Raises:
            ConfigurationError: The store is not open, or what stands there is not what it wrote.
            MsgConvError: The file cannot be read.
        """
        return await self._run(self._read)

    async def save(self, following: Following) -> None:
        """Store what moved since it was saved the last time, in one transaction.

        Call it when the items taken so far are dealt with: after each, or after some. A call that
        is cancelled is carried out all the same.

        Args:
            following: What `ConversationSession.follow` handed out.

        Raises:
            ConfigurationError: The store is not open, or keeps another query's checkpoint.
            MsgConvError: The file cannot be written, as when the disk is full. Nothing of this call
                was stored then; the next one stores it as well.
        """
        checks.instance("following", following, Following, "what session.follow hands out")
        # Gathered and handed over at once, so that what is older is never written later.
        moves, until = following.moves(self._saved.get(following, 0))
        if moves:
            await self._run(lambda: self._write(following, moves, until))

    async def _run(self, work: Callable[[], _T]) -> _T:
        if self._thread is None:
            raise ConfigurationError(
                f"{self._path}: the store is not open: use it inside 'async with'"
            )
        return await asyncio.shield(asyncio.wrap_future(self._thread.submit(work)))

    def _end(self) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=False)  # what was handed over is carried out
            self._thread = None

    # What follows runs in the thread.

    def _open(self) -> None:
        # Imported here: some builds of Python lack it, and most programs do not need it.
        import sqlite3  # noqa: PLC0415

        try:
            # Never one that is there: to close it would end the lock of another store of ours.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, _OWNER_ALONE))
        except FileExistsError:
            pass
        except OSError as error:
            raise ConfigurationError(f"{self._path}: cannot be opened: {error.strerror}") from None
        self._errors = sqlite3.Error
        try:
            self._connection = sqlite3.connect(self._path, _PATIENCE, isolation_level=None)
            self._prepare()
        except sqlite3.Error as error:
            raise ConfigurationError(f"{self._path}: {_why(error)}") from None

    def _prepare(self) -> None:
        """Lock the file, and make it a store if it is empty."""
        execute = self._connection.execute
        execute("PRAGMA locking_mode = EXCLUSIVE")
        execute(f"PRAGMA page_size = {_PAGE}")
        self._check()
        execute("PRAGMA journal_mode = WAL")
        execute("PRAGMA synchronous = NORMAL")
        with self._transaction():
            if self._check():
                execute(_CREATE)
                execute(f"PRAGMA application_id = {APPLICATION_ID}")
                execute(f"PRAGMA user_version = {VERSION}")
        for (text,) in execute(f"{_LOAD} LIMIT 1"):
            self._query = self._decoded(text).query

    def _check(self) -> bool:
        """Refuse what is no store; tell whether the file is empty."""
        (application,), (version,), (tables,) = (
            self._connection.execute(query).fetchone()
            for query in (
                "PRAGMA application_id",
                "PRAGMA user_version",
                "SELECT count(*) FROM sqlite_master",
            )
        )
        if not tables and application in {0, APPLICATION_ID}:
            return True
        if application != APPLICATION_ID:
            raise ConfigurationError(
                f"{self._path}: this is a database of something else, not a checkpoint's store"
            )
        if version != VERSION:
            raise ConfigurationError(
                f"{self._path}: this store is of version {version}, and this release knows only"
                f" {VERSION}: use the release that wrote it, or a newer one"
            )
        return False

    def _close(self) -> None:
        self._query, self._loaded = "", {}
        with suppress(AttributeError):  # it may never have been opened
            self._connection.close()

    def _read(self) -> Checkpoint | None:
        with self._telling("read"):
            found = self._connection.execute(_LOAD).fetchall()
        moves = [self._decoded(text) for (text,) in found]
        self._loaded = {move.account_id: move for move in moves}
        return Checkpoint.of(moves) if moves else None

    def _decoded(self, text: str) -> Move:
        try:
            return Move.from_json(text)
        except ConfigurationError as error:
            raise ConfigurationError(f"{self._path}: {error}") from None

    def _write(self, following: Following, moves: list[Move], until: int) -> None:
        query = moves[0].query
        if self._query and query != self._query:
            raise ConfigurationError(
                f"{self._path}: this store keeps the checkpoint of another query, with other"
                " skills, agents, groups or version: give this one a file of its own"
            )
        if following not in self._saved:  # what it was handed as since is stored already
            moves = [move for move in moves if self._loaded.get(move.account_id) != move]
        with self._telling("written"), self._transaction():
            self._connection.executemany(_SAVE, _rows(moves))
        self._query, self._saved[following], self._loaded = query, until, {}

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    @contextmanager
    def _telling(self, what: str) -> Iterator[None]:
        try:
            yield
        except self._errors as error:
            raise MsgConvError(f"{self._path}: cannot be {what}: {_why(error)}") from None


def _rows(moves: Iterable[Move]) -> Iterator[tuple[str, str]]:
    for move in moves:
        yield move.account_id, move.to_json()


def _why(error: sqlite3.Error) -> str:
    said = str(error)
    if "locked" in said:
        return "another process, or another store, has it open: each needs a file of its own"
    if "not a database" in said:
        return "this is not a checkpoint's store, but a file of another kind"
    if "readonly" in said:
        return "cannot be written: the file and its folder must be writable"
    if "unable to open" in said:
        return "cannot be opened: it must be a file that may be read and written"
    return said
