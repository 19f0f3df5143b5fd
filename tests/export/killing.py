"""Collectors in processes of their own, which can be killed at any moment."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from datetime import timedelta
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TypeAlias

from msgconv_async import Account, ConversationSession, RetryPolicy
from msgconv_async.cli.collect import Collect
from msgconv_async.export.destination import destination, set_defaults
from msgconv_async.export.store import Store
from msgconv_async.protocol.buckets import BUCKET, floor
from msgconv_async.sandbox import Conversation
from tests.export.collecting import DAY, NOON, World, in_duckdb, in_parquet, in_postgres

EDGE = floor(NOON)
Pair: TypeAlias = tuple[int, int]

# Forked from a process that has imported everything, a collector starts at once; dlt imports some
# of it late.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        __name__,
        "dlt.destinations.impl.duckdb.duck",
        "dlt.destinations.impl.postgres.postgres",
        "dlt.sources.helpers.requests",
        "pyarrow.parquet",
    ]
)


def collect(
    url: str, accounts: list[Account], where: str, shard: Pair | None, settings: dict[str, str]
) -> None:
    """Collect once, as the command does, but without waiting before a request is repeated."""
    os.environ.update(settings)
    set_defaults()
    session = partial(ConversationSession, base_url=url, retry=RetryPolicy(waits=()))
    command = Collect(
        Store(destination(where), shard=shard),
        accounts,
        shard=shard,
        every=None,
        skills="all",
        agents="all",
        groups=None,
    )
    raise SystemExit(command.run(session))


class Collecting:
    """Collectors of a world, each a process, and what they have brought.

    Args:
        world: What they collect from.
        folder: A new one.
        kind: The destination.
        address: How to connect to it, if it is a PostgreSQL server.

    Attributes:
        codes: How often a collector ended with an exit code while some were killed.
    """

    def __init__(self, world: World, folder: Path, kind: str, address: str = "") -> None:
        self.codes = Counter[int | None]()
        self._world = world
        self._settings = {"DLT_DATA_DIR": str(folder / "dlt")}
        match kind:
            case "duckdb":
                self._where = f"duckdb:{folder / 'history.duckdb'}"
                self.read = partial(in_duckdb, folder / "history.duckdb")
            case "filesystem":
                self._where = f"filesystem:{folder / 'lake'}"
                self.read = partial(in_parquet, folder / "lake" / "conversations")
            case _:
                self._where = "postgres"
                self._settings["DESTINATION__POSTGRES__CREDENTIALS"] = address
                self.read = partial(in_postgres, address)

    def start(self, shard: Pair | None = None, **settings: str) -> BaseProcess:
        arguments = (self._world.sandbox.url, self._world.accounts, self._where, shard)
        process = FORKS.Process(target=collect, args=(*arguments, self._settings | settings))
        process.start()
        return process

    def run(self, shard: Pair | None = None) -> int | None:
        """Run a collector to its end; return its exit code."""
        process = self.start(shard)
        process.join()
        return process.exitcode

    def killed_after(self, seconds: float) -> bool:
        """Run a collector for so long; tell whether that was too short for it."""
        process = self.start()
        process.join(seconds)
        return self._kill(process) == -signal.SIGKILL

    def begin(self, chance: random.Random) -> float:
        """Kill some before there is anything; return the seconds that one takes later, in peace."""
        for _ in range(3):
            self.killed_after(chance.uniform(0, 0.5))
        while self.run() != 0:  # an account may fail
            pass
        self._world.advance(BUCKET)
        begun = time.monotonic()
        self.run()
        return time.monotonic() - begun

    def survive(self, kills: int, chance: random.Random) -> None:
        """Kill so many while time goes on and conversations come late."""
        longest = self.begin(chance)
        killed = 0
        while killed < kills:
            self._go_on(3, chance)
            killed += self.killed_after(chance.uniform(0, longest))

    def begin_in_shards(self, count: int, chance: random.Random) -> None:
        """Kill all shards while they make the tables, at different moments; then run them all."""
        running = [self.start(shard) for shard in all_of(count)]
        for process in running:
            process.join(chance.uniform(0, 2 / count))
            self._kill(process)
        while self.run_shards(count) != [0] * count:  # the server may not know yet who was killed
            pass

    def survive_in_shards(self, count: int, kills: int, chance: random.Random) -> None:
        """Keep so many shards at work at once and kill so many of them, and in the end all.

        A shard that has ended begins anew. In the mean, one is killed after the time of a round.
        """
        begun = time.monotonic()
        self.run_shards(count)
        apart = 2 * (time.monotonic() - begun) / count
        running = {shard: self.start(shard) for shard in all_of(count)}
        kills += self.codes[-signal.SIGKILL]
        while self.codes[-signal.SIGKILL] < kills:
            time.sleep(chance.uniform(0, apart))
            self._go_on(1, chance)
            victim = running[chance.choice(all_of(count))]
            victim.kill()
            victim.join()
            for shard, process in running.items():
                if process.exitcode is not None:
                    self._kill(process)
                    running[shard] = self.start(shard)
        for process in running.values():
            self._kill(process)

    def _kill(self, process: BaseProcess) -> int | None:
        """End a collector, unless it has; return and note its exit code."""
        process.kill()
        process.join()
        self.codes[process.exitcode] += 1
        return process.exitcode

    def run_shards(self, count: int) -> list[int | None]:
        """Run all shards to their ends, at once; return their exit codes."""
        running = [self.start(shard) for shard in all_of(count)]
        for process in running:
            process.join()
        return [process.exitcode for process in running]

    def finish(self, count: int = 1) -> None:
        """Collect once more, in the middle of a bucket: none may close between this and `check`."""
        now = self._world.now()
        self._world.advance(floor(now) + 1.5 * BUCKET - now)
        until = time.monotonic() + 20
        while self.run_shards(count) != [0] * count:  # the server may not know yet who was killed
            assert time.monotonic() < until

    def _go_on(self, most: int, chance: random.Random) -> None:
        """Let up to so many buckets pass, and a conversation come late."""
        late = floor(self._world.now()) - chance.uniform(0, 2) * BUCKET
        account_id = chance.choice(self._world.ids)
        self._world.add(Conversation(account_id, late, 7, "system", chance.randrange(9999)))
        self._world.advance(chance.uniform(0, most) * BUCKET)

    def check(self, settled: timedelta = timedelta()) -> None:
        """See that every bucket is there once, and true."""
        found = self.read()
        assert {} == found.pop("collection_gaps")
        assert self._world.truth(EDGE - DAY, floor(self._world.now()) - settled) == found


def all_of(count: int) -> list[Pair | None]:
    """Return all shards of a number; of one, there is none."""
    return [None] if count == 1 else [(number, count) for number in range(1, count + 1)]
