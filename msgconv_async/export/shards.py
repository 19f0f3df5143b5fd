"""Accounts dealt out to several collectors, which all write the same tables.

A shard's accounts follow from a hash of their ids, so none moves when others come and go. Each
shard is a dlt pipeline of its own: of its own name, state and staging dataset. Of two that share a
staging dataset, one would truncate the rows of the other, or merge them a second time
(https://github.com/dlt-hub/dlt/issues/4297).

When the number of shards changes, an account may come to another shard. Its position is then in the
state of the pipeline that had it before. So a shard reads the states of pipelines of other numbers
of shards, and takes the later position of each account. It stores the last load that it read from
each pipeline, and reads that pipeline again only after a newer load.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from operator import itemgetter
from typing import Any, NamedTuple, TypeAlias

from dlt.common.destination.exceptions import DestinationUndefinedEntity
from dlt.common.versioned_state import decompress_state

from msgconv_async import checks
from msgconv_async.client.many.checkpoint import Checkpoint, Position
from msgconv_async.errors import ConfigurationError, short
from msgconv_async.export.destination import PIPELINE, client_of

Loads: TypeAlias = Mapping[str, str]
"""The last load of pipelines, by their name."""

CHECKPOINT, SELECTION, SEEN = "checkpoint", "selection", "looked_at"
"""What stands in a pipeline's state: where its accounts stand, what it asks for, and which loads of
other pipelines it has read."""

MOST = 1000
"""Shards: more would be a mistake."""


@dataclass(frozen=True)
class Shard:
    """One of several parts of the accounts.

    Attributes:
        number: Which, from 1.
        count: Of how many. One alone has all accounts.
    """

    number: int
    count: int

    @classmethod
    def of(cls, given: object) -> Shard:
        """Return the shard that a pair of numbers means, such as (2, 8); None is all there is.

        Raises:
            ConfigurationError: It means none.
        """
        if given is None:
            return cls(1, 1)
        if not isinstance(given, tuple) or len(given) != 2:  # noqa: PLR2004 - it says so below
            raise checks.refused("shard", given, "two numbers, such as (2, 8) for the 2nd of 8")
        number, count = given
        for place, value, most in (("second", count, MOST), ("first", number, count)):
            whole = isinstance(value, int) and not isinstance(value, bool)
            if not whole or not 1 <= value <= most:
                raise ConfigurationError(
                    f"shard={short(given)}: the {place} number must be 1 to {most}"
                )
        return cls(number, count)

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def suffix(self) -> str:
        """What the names of its pipeline and its staging dataset end in; empty of one alone."""
        return "" if self.count == 1 else f"_{self.number}_of_{self.count}"

    @property
    def another(self) -> str:
        """What one is told who would be a second collector of the same accounts."""
        return "another collector" + ("" if self.count == 1 else f" of shard {self}")

    @property
    def of_another_number(self) -> str:
        """What one is told who would collect beside shards of another number."""
        return f"a collector of another number of shards than {self.count}"

    def holds(self, account_id: str) -> bool:
        """Tell whether an account is dealt to this shard."""
        digest = blake2b(account_id.encode(), digest_size=8).digest()
        return int.from_bytes(digest) % self.count == self.number - 1

    def check(self, pipeline: str, staging: str) -> None:
        """See that a pipeline is this shard's alone.

        Args:
            pipeline: Its name.
            staging: The name of its staging dataset.

        Raises:
            ConfigurationError: It may be that of another shard as well.
        """
        for what, name in (("the pipeline's name", pipeline), ("its staging dataset", staging)):
            if not name.endswith(self.suffix):
                raise ConfigurationError(
                    f"shard {self}: {what} {name!r} must end in {self.suffix!r}, or shards would"
                    " undo what the others load"
                )

    def is_peer(self, pipeline: str, other: str) -> bool:
        """Tell whether another pipeline is that of a shard of as many, or this one itself."""
        base = pipeline.removesuffix(self.suffix)
        if self.count == 1:
            return pipeline == other
        return re.fullmatch(rf"{re.escape(base)}_\d+_of_{self.count}", other) is not None

    def is_of_another_number(self, pipeline: str, other: str) -> bool:
        """Tell whether another pipeline is that of a shard of another number, or of one alone.

        A pipeline of another name is somebody else's: it may ask for other things.
        """
        base = re.escape(pipeline.removesuffix(self.suffix))
        of_any = re.fullmatch(rf"{base}(_\d+_of_\d+)?", other) is not None
        return of_any and not self.is_peer(pipeline, other)


class Left(NamedTuple):
    """What another pipeline left, and is to be taken over.

    Attributes:
        checkpoint: Where its accounts stood.
        selection: What was asked for.
    """

    checkpoint: Checkpoint
    selection: Any

    def gave(self, taken: Mapping[str, Position]) -> bool:
        """Tell whether one of these positions was taken from it."""
        return any(taken.get(name) is at for name, at in self.checkpoint.accounts.items())


def left_by_others(pipeline: Any, shard: Shard, seen: Loads) -> tuple[list[Left], dict[str, str]]:
    """Return what the pipelines of other numbers of shards left in a dataset.

    Args:
        pipeline: This shard's, of dlt.
        shard: Which it is.
        seen: What was looked at before.

    Returns:
        What was not looked at before, in the order of loading; and what to hand in as ``seen`` the
        next time.

    Raises:
        ConfigurationError: The pipeline may be that of another shard as well.
    """
    found, now = list[Left](), dict(seen)
    if pipeline.destination is None:
        return found, now
    client = client_of(pipeline.destination, pipeline.dataset_name)
    staging = shard.suffix
    if hasattr(client.config, "normalize_staging_dataset_name"):
        staging = client.config.normalize_staging_dataset_name(client.schema)
    shard.check(pipeline.pipeline_name, staging)
    for name, load in sorted(_last_loads(client).items(), key=itemgetter(1)):
        theirs = shard.is_of_another_number(pipeline.pipeline_name, name)
        if not theirs or seen.get(name) == load:
            continue
        with client:
            stored = client.get_stored_state(name)
        if stored is None:  # its first load was cut short
            continue
        now[name] = stored._dlt_load_id  # noqa: SLF001 - a column's name
        source = decompress_state(stored.state).get("sources", {}).get(PIPELINE, {})
        if CHECKPOINT in source:
            checkpoint = Checkpoint.from_json(source[CHECKPOINT])
            found.append(Left(checkpoint, source.get(SELECTION)))
    return found, now


def taken_over(own: Checkpoint | None, left: list[Left], shard: Shard) -> Checkpoint | None:
    """Return where a shard's accounts stand by all that is known of them.

    Of two that end with the same bucket, the later one has read more of those before it.
    """
    positions = {} if own is None else dict(own.accounts)
    clocks = {} if own is None else dict(own.clocks)
    queries = set() if own is None else {own.query}
    for checkpoint, _ in left:
        for account_id, position in checkpoint.accounts.items():
            if not shard.holds(account_id):
                continue
            mine = positions.get(account_id)
            if mine is None or mine.through <= position.through:
                positions[account_id] = position
                clocks.pop(account_id, None)
                if account_id in checkpoint.clocks:
                    clocks[account_id] = checkpoint.clocks[account_id]
                queries.add(checkpoint.query)
    if own is None and not positions:
        return None
    return Checkpoint(positions, queries.pop() if len(queries) == 1 else "", clocks)


def _last_loads(client: Any) -> dict[str, str]:
    """Return the last load of every pipeline that loaded into a dataset."""
    loads: dict[str, str] = {}
    with suppress(DestinationUndefinedEntity):
        for name, load in _all_loads(client):
            loads[name] = max(load, loads.get(name, ""))
    return loads


def _all_loads(client: Any) -> Iterator[tuple[str, str]]:
    table = client.schema.state_table_name
    if hasattr(client, "fs_client"):
        for _, (name, load, _hash) in client._list_dlt_table_files(table):  # noqa: SLF001 - dlt has no other way
            yield name, load
    elif hasattr(client, "sql_client"):
        with client:
            states = client.sql_client.make_qualified_table_name(table)
            name, load = (
                client.sql_client.escape_column_name(
                    client.schema.naming.normalize_identifier(column)
                )
                for column in ("pipeline_name", "_dlt_load_id")
            )
            yield from client.sql_client.execute_sql(
                f"SELECT {name}, max({load}) FROM {states} GROUP BY {name}"  # noqa: S608 - dlt's own names
            )
