"""Answers with members that this version does not know, decoded as fast as the others.

A service may add a member any day. The usual types refuse an answer that has one, and name it. Its
name is then learnt: types that also have that member, and skip its value, decode the answer, and
those that follow. What they read is made into the usual types. How many names are learnt is
bounded; answers with more are read in parts (`decoding`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple, get_origin

import msgspec
from msgspec import UNSET, Raw
from msgspec.structs import astuple

from msgconv_async.protocol.report import (
    AgentBreakdown,
    ConversationMetrics,
    Id,
    SkillBreakdown,
)
from msgconv_async.protocol.wire import (
    OTHER_NAMES,
    Document,
    Sections,
    WireInterval,
    array,
    elements,
    names,
)

MOST_LEARNT: Final = 20
"""New members of one type that are learnt. A service that makes up names must not slow others."""

UNKNOWN_FIELD = re.compile(
    r"Object contains unknown field `(?P<name>.*?)`(?: - at `(?P<path>.*)`)?", re.DOTALL
)
"""What msgspec says of the first member that a type does not know."""

_LONGEST_NAME = 60
"""Characters of a name that are shown."""

_OF_SECTIONS = {
    "skillsMetricsPerAgent": SkillBreakdown,
    "agentsMetrics": AgentBreakdown,
    "metricsTotals": ConversationMetrics,
}
_INSIDE: dict[Any, Mapping[str, Any]] = {
    Document: _OF_SECTIONS | {"metricsByIntervals": WireInterval},
    WireInterval: _OF_SECTIONS | {"metricsData": Sections},
    Sections: _OF_SECTIONS,
    SkillBreakdown: {"metricsPerSkill": AgentBreakdown, "metricsTotals": ConversationMetrics},
    AgentBreakdown: {"metricsPerAgent": ConversationMetrics, "metricsTotals": ConversationMetrics},
}
"""The types of members by their names, of the type that has them: of maps, those of the values."""

_METRICS: Final = len(ConversationMetrics.__struct_fields__)
_NO_METRICS = (None,) * _METRICS


class ReadDocument(NamedTuple):
    """A document in the usual types.

    Attributes:
        whole: The sections over the whole time frame.
        intervals: Each interval's timestamp and sections, as they came.
        new: The places of new members, once for each kind.
    """

    whole: Sections
    intervals: list[tuple[int, Sections]]
    new: Iterable[str]


class NewMembers:
    """What was learnt of members that the usual types do not know.

    Attributes:
        expected: Whether the last answer had one: then the next is likely to have it as well.
    """

    def __init__(self) -> None:
        self.expected = False
        self._learnt: dict[Any, tuple[str, ...]] = {}
        self._reader: _Reader | None = None

    def learn(self, refused: msgspec.ValidationError) -> bool:
        """Learn the member that an answer was refused for; tell whether it is known now.

        It is not if the answer was refused for another reason, if the API page knows the member by
        another name, or if too many were learnt.
        """
        found = UNKNOWN_FIELD.fullmatch(str(refused))
        if found is None or found["name"] in OTHER_NAMES:
            return False
        kind = _kind_at(found["path"] or "")
        known = self._learnt.get(kind, ())
        if found["name"] in known:
            return True
        if kind is None or len(known) == MOST_LEARNT:
            return False
        learnt = self._learnt | {kind: (*known, found["name"])}
        try:
            self._reader = _Reader(learnt)
        except (TypeError, ValueError):  # a name that JSON can have, and msgspec's structs cannot
            return False
        self._learnt = learnt
        return True

    def read(self, body: bytes) -> ReadDocument | None:
        """Decode an answer.

        Returns:
            The document; None if it must be read in parts.

        Raises:
            msgspec.DecodeError: The answer is not JSON.
        """
        while self._reader is not None:
            reader = self._reader
            try:
                told = reader.decoder.decode(body)
            except msgspec.ValidationError as refused:
                if self.learn(refused) and self._reader is not reader:
                    continue
                return None
            places: dict[str, None] = {}
            document = reader.document(told, places)
            self.expected = document is not None and bool(places)
            return document
        return None


class _NothingElse(Exception):
    """An object has new members only, as an error in the place of a section would."""


class _Reader:
    """Decodes documents that have the members which were learnt.

    Args:
        learnt: Names of new members by the type that has them.
    """

    def __init__(self, learnt: Mapping[Any, tuple[str, ...]]) -> None:
        self._learnt = {kind: learnt.get(kind, ()) for kind in (*_INSIDE, ConversationMetrics)}
        # A part without new members has its usual type, and needs no conversion.
        metrics: Any = ConversationMetrics
        agents: Any = AgentBreakdown
        skills: Any = SkillBreakdown
        if self._learnt[ConversationMetrics]:
            metrics = self._type(ConversationMetrics, bases=(ConversationMetrics,))
        if metrics is not ConversationMetrics or self._learnt[AgentBreakdown]:
            agents = self._type(AgentBreakdown, per_agent=_by_id(metrics), totals=metrics)
        if agents is not AgentBreakdown or self._learnt[SkillBreakdown]:
            skills = self._type(SkillBreakdown, per_skill=_by_id(agents), totals=metrics)
        sections = {"skills": skills | None, "agents": agents | None, "totals": metrics | None}
        data = self._type(Sections, **sections)
        interval = self._type(WireInterval, timestamp=int, data=data | None, **sections)
        intervals = array(interval | msgspec.UnsetType, UNSET) | None
        document = self._type(Document, intervals=intervals, **sections)
        self.decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(document)

    def _type(self, kind: Any, *, bases: tuple[type, ...] = (), **types: Any) -> Any:
        """Return a type with the members of this one, in its order, and then the new ones."""
        usual = {member.name: member for member in msgspec.structs.fields(kind)}
        new = self._learnt[kind]
        members: list[Any] = []
        for name, of in types.items():
            if usual[name].required:
                members.append((name, of))
            elif usual[name].default is None:
                members.append((name, of, None))
            else:
                members.append((name, of, msgspec.field(default_factory=get_origin(of) or of)))
        return msgspec.defstruct(
            f"New{kind.__name__}",
            [*members, *((f"new_{place}", Raw, UNSET) for place in range(len(new)))],
            bases=bases,
            frozen=True,
            gc=False,
            kw_only=True,
            forbid_unknown_fields=True,
            rename={name: names(kind)[name] for name in types}
            | {f"new_{place}": name for place, name in enumerate(new)},
        )

    def document(self, told: Any, places: dict[str, None]) -> ReadDocument | None:
        """Return a document in the usual types; None if an object has new members only.

        Args:
            told: What the decoder returned.
            places: Filled with the places of new members.
        """
        usual = _Usual(self._learnt, places)
        try:
            whole = usual.sections(told, Document, "$")
            intervals = [usual.interval(interval) for interval in elements(told.intervals, UNSET)]
        except _NothingElse:
            return None
        return ReadDocument(whole, intervals, places)


class _Usual:
    """Makes objects of the usual types from those with new members, and notes where these were.

    Args:
        learnt: Names of new members by the type that has them.
        places: Filled with the places of new members.
    """

    __slots__ = ("_absent", "_learnt", "_noted", "_places")

    def __init__(self, learnt: Mapping[Any, tuple[str, ...]], places: dict[str, None]) -> None:
        self._learnt = learnt
        self._absent = (UNSET,) * len(learnt[ConversationMetrics])
        self._places = places
        self._noted: set[str] = set()  # paths of metrics that had all new members there are

    def interval(self, told: Any) -> tuple[int, Sections]:
        path = "$.metricsByIntervals[*]"
        if told.data is None:
            return told.timestamp, self.sections(told, WireInterval, path)
        self._note(told, WireInterval, path)
        return told.timestamp, self.sections(told.data, Sections, f"{path}.metricsData")

    def sections(self, told: Any, kind: Any, path: str) -> Sections:
        self._note(told, kind, path)
        return Sections(
            None if told.skills is None else self._skills(told.skills, path),
            None if told.agents is None else self._agents(told.agents, f"{path}.agentsMetrics"),
            None if told.totals is None else self._metrics(told.totals, f"{path}.metricsTotals"),
        )

    def _skills(self, told: Any, path: str) -> SkillBreakdown:
        path += ".skillsMetricsPerAgent"
        skills: SkillBreakdown = self._breakdown(told, SkillBreakdown, path, self._agents)
        return skills

    def _agents(self, told: Any, path: str) -> AgentBreakdown:
        agents: AgentBreakdown = self._breakdown(told, AgentBreakdown, path, self._metrics)
        return agents

    def _breakdown(
        self, told: Any, kind: Any, path: str, inner: Callable[[Any, str], object]
    ) -> Any:
        """Return a breakdown, its map's values by `inner`."""
        if type(told) is kind:
            return told
        (by_id, name), *_ = names(kind).items()
        found = {
            id_: inner(value, f"{path}.{name}[*]") for id_, value in getattr(told, by_id).items()
        }
        totals = self._metrics(told.totals, f"{path}.metricsTotals")
        if self._note(told, kind, path) and not found:
            raise _NothingElse
        return kind(found, totals)

    def _metrics(self, told: Any, path: str) -> ConversationMetrics:
        if type(told) is ConversationMetrics:
            return told
        values = astuple(told)
        known = values[:_METRICS]
        if values[_METRICS:] != self._absent:
            if known == _NO_METRICS:
                raise _NothingElse
            if path not in self._noted:
                self._note(told, ConversationMetrics, path)
                if UNSET not in values:
                    self._noted.add(path)
        return ConversationMetrics(*known)

    def _note(self, told: Any, kind: Any, path: str) -> bool:
        """Note the new members of one object; tell whether it has any."""
        if not (new := self._learnt[kind]):
            return False
        values = astuple(told)[-len(new) :]
        for name, value in zip(new, values, strict=True):
            if value is not UNSET:
                self._places[f"{path}.{shown(name)}"] = None
        return any(value is not UNSET for value in values)


def _by_id(kind: Any) -> Any:
    return dict[Id, kind]


def shown(name: str) -> str:
    """Return a name as it may stand in a message."""
    return ascii(name[:_LONGEST_NAME])[1:-1]


def _kind_at(path: str) -> Any:
    """Return the type of the object at a place that msgspec names, or None."""
    kind: Any = Document
    for name in re.findall(r"\.([^.\[\]`]+)", path):
        kind = _INSIDE.get(kind, {}).get(name)
    return kind
