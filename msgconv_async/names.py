"""Names of accounts, skills and agents, which the API knows by their ids alone.

A file of them is TOML, with a table for each kind,

    [skills]
    4 = "Billing"
    -1 = "Nobody's"

    [agents]
    101 = "Ada"

    [accounts]
    12345678 = "Shop"

or CSV, ``kind,id,name``, such as ``skill,4,Billing``.
"""

from __future__ import annotations

import csv
import os
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from msgconv_async import checks
from msgconv_async.errors import ConfigurationError, short

__all__ = ["Names", "read_names"]

_KINDS: dict[str, Callable[[str], int | str]] = {"account": str, "skill": int, "agent": int}
"""The kinds of what has a name, and what their ids are."""

_HEAD = ["kind", "id", "name"]


class Names(msgspec.Struct, frozen=True, kw_only=True):
    """Names by id; what has none is shown by its id alone.

    Attributes:
        accounts: By the account's id.
        skills: By the skill's id; -1 is "unassigned".
        agents: By the agent's id.

    Raises:
        ConfigurationError: An id is of another type, or a name is not a string with something in
            it.
    """

    accounts: Mapping[str, str] = msgspec.field(default_factory=dict)
    skills: Mapping[int, str] = msgspec.field(default_factory=dict)
    agents: Mapping[int, str] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        for kind, of in _KINDS.items():
            given = getattr(self, f"{kind}s")
            what = f"a mapping of the ids of {kind}s to their names"
            checks.instance(f"{kind}s", given, Mapping, what)
            for id_, name in given.items():
                if type(id_) is not of:
                    whole = "a whole number" if of is int else "a string"
                    raise checks.refused(f"{kind}s: id", id_, whole)
                checks.text(f"{kind}s[{id_!r}]", name, "a name: a string that is not empty")

    def account(self, account_id: str) -> str:
        """Write an account for a reader: its id, and its name if it has one."""
        return _beside(account_id, self.accounts.get(account_id))

    def skill(self, skill_id: int) -> str:
        """Write a skill for a reader: its id, and its name if it has one."""
        return _beside(skill_id, self.skills.get(skill_id))

    def agent(self, agent_id: int) -> str:
        """Write an agent for a reader: its id, and its name if it has one."""
        return _beside(agent_id, self.agents.get(agent_id))


NOBODY = Names()
"""No names at all."""


def _beside(id_: object, name: str | None) -> str:
    return f"{id_}" if name is None else f"{id_} {name.strip()}"


def read_names(path: str | os.PathLike[str]) -> Names:
    """Read a file of names.

    Args:
        path: The file; it ends in ``.toml`` or ``.csv``.

    Raises:
        ConfigurationError: The file cannot be read or has a mistake. The message names the mistake
            and its place.
    """
    checks.path("path", path)
    reading = {".toml": _from_toml, ".csv": _from_csv}.get(Path(path).suffix.lower())
    if reading is None:
        raise ConfigurationError(f"{path}: a file of names ends in .toml or in .csv")
    try:
        # With a byte order mark or without: editors on Windows write one.
        text = Path(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(f"{path}, line {line}: this is not UTF-8") from None
    found: dict[str, dict[Any, str]] = {kind: {} for kind in _KINDS}
    reading(f"{path}", text, found)
    return Names(**{f"{kind}s": names for kind, names in found.items()})


def _from_toml(path: str, text: str, found: dict[str, dict[Any, str]]) -> None:
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # TOMLDecodeError is a ValueError
        raise ConfigurationError(f"{path} is not TOML: {error}") from None
    for table, names in document.items():
        kind = table.removesuffix("s")
        if f"{kind}s" != table or kind not in _KINDS or not isinstance(names, dict):
            known = ", ".join(f"[{each}s]" for each in _KINDS)
            raise ConfigurationError(f"{path}: {short(table)}: its tables are {known}")
        for id_, name in names.items():
            _add(f"{path}: {table}.{id_}", found[kind], kind, id_, name)


def _from_csv(path: str, text: str, found: dict[str, dict[Any, str]]) -> None:
    rows = csv.reader(text.splitlines())
    try:
        for row in rows:
            place = f"{path}, line {rows.line_num}"
            if row == _HEAD or not any(row):
                continue
            kinds = ", ".join(_KINDS)
            if len(row) != len(_HEAD):
                raise ConfigurationError(
                    f"{place}: a line has three values: a kind ({kinds}), an id and a name"
                )
            if row[0] not in _KINDS:
                raise ConfigurationError(f"{place}: {short(row[0])}: the kinds are {kinds}")
            _add(place, found[row[0]], *row)
    except csv.Error as error:
        raise ConfigurationError(f"{path}, line {rows.line_num}: {error}") from None


def _add(place: str, found: dict[Any, str], kind: str, id_: str, name: object) -> None:
    try:
        key = _KINDS[kind](id_.strip())
    except ValueError:
        raise ConfigurationError(
            f"{place}: the id of {'an' if kind[0] == 'a' else 'a'} {kind} is a whole number"
        ) from None
    if not isinstance(name, str) or not name.strip():
        raise ConfigurationError(f"{place}: a name is text that is not empty")
    if key in found:
        raise ConfigurationError(f"{place}: {kind} {key} has a name already")
    found[key] = name.strip()
