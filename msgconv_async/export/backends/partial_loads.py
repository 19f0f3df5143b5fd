"""Partial loads: the files that a load leaves behind when it is cut short.

A database needs no such removal: rows that are merged again replace the earlier ones. Files can
only be added, so the files of a partial load would repeat rows. dlt names every file by its load,
loads one after the other, and lists a load in ``_dlt_loads`` once all of it is there. So the files
of a load after the last in this list are partial.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import PurePath
from typing import Any

from dlt.common.destination.exceptions import DestinationUndefinedEntity

from msgconv_async.export.destination import StoreFailed

_LOAD_ID = re.compile(r"\d{10}\.\d+")


def remove_partial_loads(client: Any, tables: Iterable[str]) -> None:
    """Remove the files of loads that came after the last complete one.

    Args:
        client: dlt's client of a filesystem.
        tables: The tables whose files are removed.

    Raises:
        StoreFailed: The list of complete loads was lost: nothing is removed.
    """
    loads, versions, states = "_dlt_loads", "_dlt_version", "_dlt_pipeline_state"
    for table in (loads, versions):
        _remove_if_empty(client, _files(client, table)[-1:])
    found = [(id_, path) for table in (*tables, states) for id_, path in _loaded(client, table)]
    last = max((id_ for id_, _ in _loaded(client, loads)), default="")
    if not last and len({id_ for id_, _ in found}) > 1:
        raise StoreFailed(
            f"{client.dataset_path} holds files of several loads but no {loads}, which lists those"
            " that are whole: bring it back, or begin another dataset"
        )
    for id_, path in found:
        if id_ > last:
            client.fs_client.rm_file(path)


def _files(client: Any, table: str) -> list[str]:
    try:
        return sorted(client.list_table_files(table))
    except DestinationUndefinedEntity:
        return []


def _remove_if_empty(client: Any, paths: list[str]) -> None:
    """Remove files that were opened and never written; only the newest file can be one."""
    for path in paths:
        if not client.fs_client.size(path):
            client.fs_client.rm_file(path)


def _loaded(client: Any, table: str) -> Iterator[tuple[str, str]]:
    """Yield a table's files, each with the load that it is of."""
    for path in _files(client, table):
        if load := _LOAD_ID.search(PurePath(path).name):
            yield load.group(), path
