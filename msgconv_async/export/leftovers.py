"""What a load of plain files leaves behind when it is cut short, and how it is told and removed.

A database needs none of this: what is merged again takes the place of what was there. Files can
only be added, so those of half a load would make rows come twice. dlt names every file by its load,
and lists a load in ``_dlt_loads`` once all of it is there: the files of any other are leftovers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePath
from typing import Any

from dlt.common.destination.exceptions import DestinationUndefinedEntity

_LOAD_ID = re.compile(r"\d{10}\.\d+")


def remove_leftovers(client: Any, tables: Iterable[str]) -> None:
    """Remove the files of loads that are not complete.

    Args:
        client: dlt's client of a filesystem.
        tables: Whose files.
    """
    loads, versions, states = "_dlt_loads", "_dlt_version", "_dlt_pipeline_state"
    for table in (loads, versions):
        _remove_if_empty(client, _files(client, table)[-1:])
    complete = {_load_id(each) for each in _files(client, loads)}
    for table in (*tables, states):
        for path in _files(client, table):
            if _load_id(path) not in complete | {None}:
                client.fs_client.rm_file(path)


def _files(client: Any, table: str) -> list[str]:
    try:
        return sorted(client.list_table_files(table))
    except DestinationUndefinedEntity:
        return []


def _remove_if_empty(client: Any, paths: list[str]) -> None:
    """Remove what was opened and never written, which only the newest can be."""
    for path in paths:
        if not client.fs_client.size(path):
            client.fs_client.rm_file(path)


def _load_id(path: str) -> str | None:
    found = _LOAD_ID.search(PurePath(path).name)
    return found and found.group()
