"""``msgconv collect``: stores the new data of accounts in a database, once or repeatedly."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from threading import Event, Thread
from types import FrameType
from typing import NoReturn

import msgspec

from msgconv_async.cli.accounts import hears_sighup, read_again
from msgconv_async.cli.alive import Life, Round, Telling
from msgconv_async.cli.console import FAILED, IN_USE, OK, SOME_FAILED, complain
from msgconv_async.cli.failures import Failures, log_to_stderr
from msgconv_async.cli.progress import Progress
from msgconv_async.client.access.account import Account
from msgconv_async.client.session import ConversationSession
from msgconv_async.errors import ConfigurationError, MsgConvError
from msgconv_async.export.destination import StoreInUse
from msgconv_async.export.pipeline import Batch, Emptied, Reader, conversation_metrics
from msgconv_async.export.shards import Shard
from msgconv_async.export.store import Store
from msgconv_async.pacing.pacer import Pacer
from msgconv_async.protocol.buckets import BUCKET
from msgconv_async.protocol.query import Ids

_LOG = logging.getLogger("msgconv_async")

_MINUTE = timedelta(minutes=1)

LONGEST = timedelta(hours=12)
"""The most between two rounds: the API forgets after twice as long, and a round may fail."""

_APART = timedelta(seconds=0.3)
"""The time from one account to the next, so that a thousand accounts are no burst. It is less if
they would take more than half of the time to the next round."""

_GRACE = 3.0
"""Seconds in which a round must end after a signal."""

_IN_USE = (15.0, 45.0)
"""Seconds after which a store is tried again that another collector was at work on."""

_PATIENCE = timedelta(minutes=15)
"""A collector that ended no round for so long, or for three of its rounds, is not healthy."""

_HEED = 0.5
"""Seconds in which a signal is heeded between rounds."""

_NOWHERE = Telling()

_STOPPED = "stopped; the next run goes on from where the last round ended"


class Collect:
    """The settings of the command line.

    Args:
        store: The store to write to.
        accounts: The accounts; none of them may be given twice.
        shard: Which of several collectors this is, such as (2, 8); None if it is the only one.
        every: From the beginning of a round to that of the next; None for one round alone.
        skills: As `conversation_metrics` takes them.
        agents: As `conversation_metrics` takes them.
        groups: As `conversation_metrics` takes them.
        note: A note to say before anything is asked, or an empty text.
        file: The accounts file, to be read again at SIGHUP; None if there is none.
        telling: Where to tell how it goes.
        metrics: Write a line of JSON to stdout after each round.

    Raises:
        ConfigurationError: ``every`` is out of range.
        InvalidQuery: The service would refuse the skills, agents or groups.
    """

    def __init__(
        self,
        store: Store,
        accounts: Sequence[Account],
        *,
        shard: tuple[int, int] | None = None,
        every: timedelta | None,
        skills: Ids | None,
        agents: Ids | None,
        groups: Ids | None,
        note: str = "",
        file: Path | None = None,
        telling: Telling = _NOWHERE,
        metrics: bool = False,
    ) -> None:
        if every is not None and not BUCKET <= every <= LONGEST:
            whole = every % _MINUTE == timedelta()
            given = f"{every / _MINUTE:g}m" if whole else f"{every.total_seconds():g}s"
            raise ConfigurationError(f"--every={given}: it must be 5m to 12h")
        self._store = store
        self._shard = shard
        self._in_use = False
        self._every = every
        self._note = note
        self._file = file
        self._metrics = metrics
        self._hung_up = False
        self._failures = Failures()
        self._life = Life("collect", telling, max(3 * (every or BUCKET), _PATIENCE))
        self._source_of = partial(
            conversation_metrics, shard=shard, skills=skills, agents=agents, groups=groups
        )
        self._take(accounts)
        self._source_of(accounts)  # a mistake shows before anything is asked

    def _take(self, accounts: Sequence[Account]) -> None:
        """Collect these accounts from now on."""
        part = Shard.of(self._shard)
        self._all = accounts
        self._accounts = [account for account in accounts if part.holds(account.id)]
        self._whose = "" if self._shard is None else f", shard {part} of {len(accounts)} accounts"
        self._life.has(account.id for account in self._accounts)

    def run(self, session: Callable[[], ConversationSession]) -> int:
        """Collect one round, or round after round until something stops it, such as Ctrl-C."""
        if self._note:
            complain(self._note)
        log_to_stderr(logging.WARNING, self._failures)
        with (
            _private(),
            _stoppable(),
            self._hearing(),
            Reader(session) as reader,
            self._life.told(),
        ):
            while True:
                begun = time.monotonic()
                self._read_again()
                code, said = self._round(reader)
                level = "info" if code == OK else "warning"
                if self._every is None:
                    complain(said, level)
                    return code
                rest = max(0.0, begun + self._every.total_seconds() - time.monotonic())
                if self._in_use:  # by chance, or the same collector would be kept off every time
                    rest = min(rest, random.uniform(*_IN_USE))  # noqa: S311 - no secret
                following = datetime.now(UTC) + timedelta(seconds=rest)
                complain(f"{said}; next round at {following:%H:%M:%S}", level)
                self._rest(rest)

    def _rest(self, seconds: float) -> None:
        """Wait for the next round; a signal to read the accounts again is heeded meanwhile."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, _HEED))
            self._read_again()

    @contextmanager
    def _hearing(self) -> Iterator[None]:
        """Take SIGHUP as the word to read the accounts file again.

        A terminal sends the same signal when it is closed, and then it ends the command as usual.
        """
        if self._every is None or not hears_sighup():
            yield
            return

        def hang_up(_number: int, _frame: FrameType | None) -> None:
            self._hung_up = True

        before = signal.signal(signal.SIGHUP, hang_up)
        try:
            yield
        finally:
            signal.signal(signal.SIGHUP, before)

    def _read_again(self) -> None:
        """Read the accounts file again, if that was asked for."""
        if self._hung_up:
            self._hung_up = False
            if (accounts := read_again(self._file, self._all)) is not None:
                self._take(accounts)

    def _round(self, reader: Reader) -> tuple[int, str]:
        """Collect once, tell it, and return the exit code and a sentence about the round."""
        begun = time.monotonic()
        self._life.pacers = reader.pacers(self._accounts)
        before = _sent(self._life.pacers)
        failed = set[str]()
        progress = Progress(len(self._accounts), then="loading")
        code, said = self._collect(reader, progress, failed)
        self._failures.sum_up()
        stored = code in {OK, SOME_FAILED}
        for account in self._accounts:
            if account.id in failed:
                self._life.failed(account.id)
            elif stored:
                self._life.read(account.id)
        sent = _sent(self._life.pacers) - before
        ended = Round(
            ended=datetime.now(UTC),
            seconds=round(time.monotonic() - begun, 3),
            accounts=len(self._accounts),
            failed=len(failed),
            rows=progress.rows if stored else 0,
            requests=sent["sent"],
            throttled=sent["throttled"],
            retried=sent["retried"],
            error=None if stored else said,
        )
        self._life.ended(ended)
        self._life.save()
        if self._metrics:
            print(msgspec.json.encode(ended).decode(), flush=True)  # noqa: T201 - a command does
        return code, said

    def _collect(self, reader: Reader, progress: Progress, failed: set[str]) -> tuple[int, str]:
        """Collect once; return the exit code, and a sentence about the round.

        The accounts that failed are added to a set.
        """
        over = timedelta()
        self._in_use = False
        if self._every is not None:
            over = min(len(self._accounts) * _APART, self._every / 2)
        emptied: list[Emptied] = []

        def watch(batch: Batch) -> None:
            emptied.extend(batch.emptied)
            failed.update(failure.account.id for failure in batch.failures)
            progress.done(batch.turns, rows=batch.rows, failed=len(batch.failures))

        try:
            with progress:
                append = not self._store.merges
                source = self._source_of(
                    self._all, append=append, over=over, reader=reader, watch=watch
                )
                self._store.load(source, emptied)
        except ConfigurationError as error:
            if not self._life.rounds:
                raise
            return FAILED, str(error)  # what worked before may work again
        except StoreInUse as error:
            self._in_use = True
            return IN_USE, str(error)
        except MsgConvError as error:
            return FAILED, str(error)
        except Exception as error:
            if self._every is None:
                raise
            _LOG.exception("this is a bug in msgconv")
            return FAILED, f"the round failed: {type(error).__name__}"
        said = f"{progress.summary()} into {self._store}{self._whose}"
        if not failed:
            return OK, said
        some = progress.rows or len(failed) < len(self._accounts)
        return SOME_FAILED if some else FAILED, said


def _sent(pacers: Mapping[str, Pacer]) -> Counter[str]:
    """Return what was sent through pacers, up to now."""
    found = Counter[str]()
    for pacer in pacers.values():
        stats = pacer.stats()
        found.update(sent=stats.sent, throttled=stats.throttled, retried=stats.retried)
    return found


@contextmanager
def _private() -> Iterator[None]:
    """Make files and folders for their owner alone; existing ones keep their modes."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def _stoppable() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM stop what runs: dlt is not asynchronous, so no task is cancelled."""

    def terminate(_number: int, _frame: FrameType | None) -> NoReturn:
        raise asyncio.CancelledError

    before = {
        number: signal.signal(number, handler)
        for number, handler in (
            (signal.SIGINT, signal.default_int_handler),
            (signal.SIGTERM, terminate),
        )
    }
    try:
        with _ended_in_time():
            yield
    except (KeyboardInterrupt, asyncio.CancelledError) as error:
        complain(_STOPPED)
        # While dlt loads, it makes a KeyboardInterrupt of either signal.
        if getattr(error, "signal_code", None) == signal.SIGTERM:
            raise asyncio.CancelledError from None
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _ended_in_time() -> Iterator[None]:
    """End the process if a signal has not ended the block after `_GRACE` seconds.

    A database's driver notices no signal while its server does not answer, and dlt waits for its
    present load. A collector may end anywhere: data that was not stored is asked for again.
    """
    numbers, wakeup = os.pipe()
    os.set_blocking(wakeup, False)
    over = Event()

    def watch() -> None:
        while received := os.read(numbers, 1):
            if received[0] in (signal.SIGINT, signal.SIGTERM) and not over.wait(_GRACE):
                complain(_STOPPED)
                os._exit(128 + received[0])

    watching = Thread(target=watch, name="signals", daemon=True)
    watching.start()
    before = signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
    try:
        yield
    finally:
        over.set()
        signal.set_wakeup_fd(before)
        os.close(wakeup)
        watching.join()
        os.close(numbers)
