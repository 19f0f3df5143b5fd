"""Decodes the bytes of a response into a report, or an error that says what is wrong and where.

Almost every answer takes the short way: one decoder whose types know exactly the names that the
service sends (`wire`), as fast as the format allows. One that has new members besides is nearly as
fast when these were learnt (`new_members`). Any other answer takes the long way. The document is
cut into its sections and intervals, and each of these is decoded by the same types if possible.
Otherwise the long way's own types decode it: they skip unknown members, accept the API page's
second spelling of a name, and read the numbers of other JSON writers (``21.0`` for a count,
``"NaN"`` for no value). If they refuse it as well, only its own interval is lost.

The size of an answer is limited before its objects are built: intervals by the longest time frame,
ids by 64 bits, objects by the size of the body. Unknown members are skipped and never built.
"""

from __future__ import annotations

import codecs
import functools
import random
import re
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from itertools import islice
from types import UnionType
from typing import Any, Final, NamedTuple, TypeAlias, get_args, get_origin

import msgspec
from msgspec import UNSET, Raw
from msgspec.structs import astuple, fields

from msgconv_async import checks
from msgconv_async.errors import UnexpectedResponse
from msgconv_async.protocol.buckets import BUCKET, EPOCH
from msgconv_async.protocol.new_members import UNKNOWN_FIELD, NewMembers, shown
from msgconv_async.protocol.query import ConversationQuery
from msgconv_async.protocol.report import (
    AgentBreakdown,
    ConversationMetrics,
    ConversationReport,
    Id,
    Interval,
    SkillBreakdown,
    Unreadable,
)
from msgconv_async.protocol.wire import (
    DOCUMENT,
    OTHER_NAMES,
    Document,
    Sections,
    WireInterval,
    array,
    elements,
    names,
)

FREE = 1024 * 1024
"""Bytes up to which an answer may hold anything: that makes 40 MiB of values at most."""

OBJECT_BYTES = 100
"""The least bytes of a larger answer for each of its objects and arrays. The twelve metrics take
some 500 bytes. Skills and intervals without data never take less than this for each of their
objects. An answer with more objects is made to exhaust its reader's memory."""

_WINDOW = 16 * 1024
_WINDOWS = 64
"""Bytes of one sample, and the least number of samples. They cover a sixteenth of an answer."""

_SURVEYED = 1024 * 1024
"""The most bytes of an answer that are searched for unknown names, and of a part that are searched
for the value that does not fit."""

_MOST_UNKNOWN = 20
"""The most unknown names that are reported of one part of an answer."""

OnUnknown: TypeAlias = Callable[[str], None]


_NOTHING, _NULL = Raw(), Raw(b"null")
"""The values for a part that is absent, and for a part that is null."""


# -- The long way: the other forms that are understood --------------------------------------------


_SECTIONS = {
    spelling: name
    for name, wire in names(Sections).items()
    for spelling in (*(other for other, usual in OTHER_NAMES.items() if usual == wire), wire)
}
"""The attribute of a section by its spellings, the usual one last."""


def _tolerant(kind: Any, **types: Any) -> Any:
    """Return a struct like this one that skips unknown members.

    Its members may be null. After them come the members that the API page spells another way.
    """
    usual = {name: wire for name, wire in names(kind).items() if name in types}
    other = {
        f"other_{name}": (spelling, types[name])
        for spelling, meant in OTHER_NAMES.items()
        for name, wire in usual.items()
        if wire == meant
    }
    return msgspec.defstruct(
        f"Any{kind.__name__}",
        [
            *((name, of | None, None) for name, of in types.items()),
            *((name, of | None, None) for name, (_, of) in other.items()),
        ],
        frozen=True,
        gc=False,
        rename=usual | {name: spelling for name, (spelling, _) in other.items()},
    )


def _by_id(kind: Any) -> Any:
    return dict[Id, kind]


_COUNTS: Final = 8
"""The first so many of the twelve metrics are counts and times, the others are averages."""

_AnyMetrics = _tolerant(
    ConversationMetrics,
    **{
        name: float | str if name.startswith("avg_") else int | float | str
        for name in ConversationMetrics.__struct_fields__
    },
)
_AnyAgents = _tolerant(AgentBreakdown, per_agent=_by_id(_AnyMetrics), totals=_AnyMetrics)
_AnySkills = _tolerant(SkillBreakdown, per_skill=_by_id(_AnyAgents), totals=_AnyMetrics)
_AnySections = msgspec.defstruct(
    "AnySections", [(spelling, Raw, _NOTHING) for spelling in _SECTIONS], frozen=True
)
_AnyInterval = msgspec.defstruct(
    "AnyInterval",
    [("timestamp", int), ("data", _AnySections | None, None)],
    bases=(_AnySections,),
    frozen=True,
    kw_only=True,
    rename={"data": "metricsData"},
)


def _count(value: float | str | None) -> int | None:
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**63:
        return int(value)
    if value is None or value == "NaN":
        return None
    if isinstance(value, int):
        return value
    raise msgspec.ValidationError(f"Expected `int`, got `{type(value).__name__}`")


def _average(value: float | str | None) -> float | None:
    if isinstance(value, str):
        if value == "NaN":
            return None
        raise msgspec.ValidationError("Expected `float`, got `str`")
    return value


_USUAL_TYPES = (*[int] * _COUNTS, *[float] * 4, *[type(None)] * 3)
_OTHER_PLACES = {
    _AnyMetrics.__struct_fields__.index(name.removeprefix("other_")): place
    for place, name in enumerate(_AnyMetrics.__struct_fields__)
    if name.startswith("other_")
}


def _metrics(told: Any) -> ConversationMetrics:
    if told is None:
        return ConversationMetrics()
    values = astuple(told)
    if tuple(map(type, values)) == _USUAL_TYPES:
        return ConversationMetrics(*values[:-3])
    chosen = [
        values[_OTHER_PLACES[place]] if value is None and place in _OTHER_PLACES else value
        for place, value in enumerate(values[:-3])
    ]
    counts, averages = map(_count, chosen[:_COUNTS]), map(_average, chosen[_COUNTS:])
    return ConversationMetrics(*counts, *averages)


def _agents(told: Any) -> AgentBreakdown:
    per_agent = {key: _metrics(metrics) for key, metrics in (told.per_agent or {}).items()}
    return AgentBreakdown(per_agent, _metrics(told.totals or told.other_totals))


def _skills(told: Any) -> SkillBreakdown:
    per_skill = {key: _agents(agents) for key, agents in (told.per_skill or {}).items()}
    return SkillBreakdown(per_skill, _metrics(told.totals or told.other_totals))


def _sections(told: Any) -> Sections:
    found = {}
    for spelling, name in _SECTIONS.items():
        part = getattr(told, spelling)
        if part not in (_NOTHING, _NULL) and _says_something(part, spelling):
            found[name] = _decoded(part, _members(Sections)[spelling])
    return Sections(**found)


def _says_something(part: Raw, spelling: str) -> bool:
    """Tell whether a section is empty, or has a known member.

    A part that has only other members, such as an error, is no section.
    """
    members = _split(part)
    return not members or not members.keys().isdisjoint(_members(_members(Sections)[spelling]))


def _interval(told: Any) -> WireInterval:
    sections = _sections(told if told.data is None else told.data)
    return WireInterval(sections.skills, sections.agents, sections.totals, timestamp=told.timestamp)


_LONG_WAY: dict[Any, tuple[msgspec.json.Decoder[Any], Callable[[Any], Any]]] = {
    int: (msgspec.json.Decoder(int | float | str | None), _count),
    float: (msgspec.json.Decoder(float | str | None), _average),
    ConversationMetrics: (msgspec.json.Decoder(_AnyMetrics), _metrics),
    AgentBreakdown: (msgspec.json.Decoder(_AnyAgents), _agents),
    SkillBreakdown: (msgspec.json.Decoder(_AnySkills), _skills),
    Sections: (msgspec.json.Decoder(_AnySections), _sections),
    WireInterval: (msgspec.json.Decoder(_AnyInterval), _interval),
}
_SHORT_WAY = {kind: msgspec.json.Decoder(kind) for kind in _LONG_WAY}

_OUTLINE: msgspec.json.Decoder[Any] = msgspec.json.Decoder(
    msgspec.defstruct(
        "Outline",
        [
            ("intervals", array(Raw, _NOTHING) | None, None),
            *((spelling, Raw, _NOTHING) for spelling in _SECTIONS),
        ],
        rename={"intervals": "metricsByIntervals"},
    )
)
"""A document whose sections and intervals are found, and not yet decoded."""

_MEMBERS = msgspec.json.Decoder(dict[str, Raw])
_BY_ID = msgspec.json.Decoder(dict[Id, Raw])
_STAMP: msgspec.json.Decoder[Any] = msgspec.json.Decoder(
    msgspec.defstruct("Stamp", [("timestamp", int)])
)


_NEW = NewMembers()
"""What this process learnt. It only makes answers quicker to read: what they say is the same."""


# -- A document read ------------------------------------------------------------------------------


class _Told(NamedTuple):
    """One interval as a document has it, and its place in the list."""

    place: int
    timestamp: int
    sections: Sections | UnexpectedResponse


class _Read(NamedTuple):
    """A document: the sections over the whole time frame, and the intervals as they came."""

    whole: Sections | UnexpectedResponse
    intervals: list[_Told]


def decode_report(
    body: bytes | bytearray | memoryview,
    query: ConversationQuery | None = None,
    *,
    at: datetime | None = None,
    on_unknown: OnUnknown | None = None,
) -> ConversationReport:
    """Decode a response body.

    Members that the API page does not name are left out. Known ones may be missing or null, and
    both spellings of the names that the page spells two ways are understood. Numbers are kept as
    sent. An integral float such as ``21.0`` is a count; ``"NaN"`` is no value.

    Args:
        body: The response body: one JSON document in UTF-8.
        query: The question it answers. The answer must then have what was asked for: each section,
            in each interval and over the whole time frame, and every interval. The query also tells
            where each interval starts, since the service sends only ends. Without it, an interval
            is assumed to start at the end of the one before it, and the earliest to hold just the
            one bucket that it surely holds.
        at: The instant of asking by the server's clock (its ``Date`` header), aware.
        on_unknown: Called with the place of a member that was left out, such as
            ``"$.metricsTotals.newMetric"``, for each kind of member at least once.

    Returns:
        The report, intervals oldest first.

    Raises:
        UnexpectedResponse: The body is not JSON, a known member has the wrong type, something that
            was asked for is absent, or the intervals are not those of the question. The error says
            where.
        ConfigurationError: ``at`` is naive, or an argument is of another type.
    """
    _check(body, query, at, on_unknown)
    read = _read(body if isinstance(body, bytes) else bytes(body), on_unknown)
    intervals = _in_order(read.intervals, query, at)
    told: list[Interval] = []
    for interval in intervals:
        if isinstance(interval, Unreadable):
            raise interval.error
        told.append(interval)
    if query is not None and query.interval is not None:
        if not told:
            raise _absent("metricsByIntervals", "$")
        if len(told) < (expected := query.timeframe // query.interval):
            raise UnexpectedResponse(
                f"the answer has {len(told)} of at least {expected} intervals",
                where="$.metricsByIntervals",
            )
    whole = _asked_for(read.whole, query, "$")
    if isinstance(whole, UnexpectedResponse):
        raise whole
    return ConversationReport(tuple(told), whole.skills, whole.agents, whole.totals, query, at)


def _check(body: object, query: object, at: object, on_unknown: object) -> None:
    if not isinstance(body, bytes):
        checks.instance("body", body, bytearray | memoryview, "a response body, as bytes")
    if query is not None:
        checks.instance("query", query, ConversationQuery, "a ConversationQuery, or None")
    if at is not None:
        checks.aware("at", at)
    if on_unknown is not None:
        checks.function("on_unknown", on_unknown, "a function of a member's place, or None")


def decode_intervals(
    body: bytes,
    query: ConversationQuery,
    *,
    at: datetime | None = None,
    on_unknown: OnUnknown | None = None,
) -> tuple[Interval | Unreadable, ...]:
    """Decode the intervals of a response body, each on its own.

    Args:
        body: As `decode_report` takes it.
        query: The question it answers, with an interval.
        at: As `decode_report` takes it.
        on_unknown: As `decode_report` takes it.

    Returns:
        The intervals, oldest first and without a hole. An `Unreadable` stands for an interval that
        was left out or cannot be taken. The answer may begin later than the question asked.

    Raises:
        UnexpectedResponse: There are no intervals, or they are not those of any answer to the
            question. The error says where.
    """
    intervals = _in_order(_read(body, on_unknown).intervals, query, at)
    if not intervals:
        raise _absent("metricsByIntervals", "$")
    if intervals[0].start < EPOCH:  # near the year 1, arithmetic overflows
        raise UnexpectedResponse(
            "the intervals lie before the year 1970", where="$.metricsByIntervals"
        )
    return intervals


def _read(body: bytes, on_unknown: OnUnknown | None) -> _Read:
    body = body.removeprefix(codecs.BOM_UTF8)  # RFC 8259, section 8.1: a reader may ignore it
    if _is_flood(body):
        raise UnexpectedResponse(
            f"{len(body)} bytes with more than an object or array in {OBJECT_BYTES} are no metrics"
        )
    try:
        return _read_whole(body, on_unknown)
    except msgspec.ValidationError as error:
        return _read_in_parts(body, on_unknown, error)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(body, error) from None


def _read_whole(body: bytes, on_unknown: OnUnknown | None) -> _Read:
    """Read a document of the usual types, or one that has new members besides.

    Raises:
        msgspec.ValidationError: It is neither, and must be read in parts.
    """
    if _NEW.expected and (read := _read_with_new_members(body, on_unknown)):
        return read
    try:
        document = DOCUMENT.decode(body)
    except msgspec.ValidationError as refused:
        if _NEW.learn(refused) and (read := _read_with_new_members(body, on_unknown)):
            return read
        raise
    intervals = [
        _Told(place, interval.timestamp, interval.data or interval)
        for place, interval in enumerate(elements(document.intervals, UNSET))
    ]
    return _Read(document, intervals)


def _read_with_new_members(body: bytes, on_unknown: OnUnknown | None) -> _Read | None:
    """Read a document that may have members which are not known; None if it must go in parts."""
    read = _NEW.read(body)
    if read is None:
        return None
    _check_utf8(body)  # the values of new members are skipped, and not decoded
    if on_unknown is not None:
        for place in read.new:
            on_unknown(place)
    told = [_Told(place, *interval) for place, interval in enumerate(read.intervals)]
    return _Read(read.whole, told)


def _is_flood(body: bytes) -> bool:
    """Tell whether a large answer has more objects and arrays than metrics of its size could have.

    Counting all of them takes half as long as decoding the answer, so only samples are counted.
    Their places are random, since the sender of the answer must not know them.
    """
    size = len(body)
    if size <= FREE:
        return False
    parts, windows = 0, max(_WINDOWS, size // 16 // _WINDOW)
    for _ in range(windows):
        start = random.randrange(size - _WINDOW)  # noqa: S311 - a guess helps a sender little
        window = body[start : start + _WINDOW]
        parts += window.count(b"{") + window.count(b"[")
    return parts > windows * _WINDOW // OBJECT_BYTES


def _read_in_parts(
    body: bytes, on_unknown: OnUnknown | None, refused: msgspec.ValidationError
) -> _Read:
    try:
        outline = _OUTLINE.decode(body)
        _check_utf8(body)  # skipped parts are not decoded
    except msgspec.ValidationError as error:
        what, _, path = str(error).partition(" - at `")
        raise UnexpectedResponse(what, where=path.rstrip("`") or "$") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(body, error) from None
    survey = _Survey(on_unknown, refused)
    survey.unknown_in(Raw(body), Document, "$")
    sections: dict[str, Any] = {}
    whole: Sections | UnexpectedResponse
    try:
        for spelling, name in _SECTIONS.items():
            part = getattr(outline, spelling)
            if part not in (_NOTHING, _NULL) and _says_something(part, spelling):
                of = _members(Sections)[spelling]
                sections[name] = _part(part, of, f"$.{spelling}", survey)
        whole = Sections(**sections)
    except UnexpectedResponse as error:
        whole = error
    intervals = []
    for place, part in enumerate(elements(outline.intervals, _NOTHING)):
        told: Sections | UnexpectedResponse
        try:
            interval = _part(part, WireInterval, f"$.metricsByIntervals[{place}]", survey)
            timestamp, told = interval.timestamp, interval.data or interval
        except UnexpectedResponse as error:
            try:
                timestamp, told = _STAMP.decode(part).timestamp, error
            except msgspec.ValidationError:
                raise error from None  # it is unknown which interval it is
        intervals.append(_Told(place, timestamp, told))
    return _Read(whole, intervals)


def _part(part: Raw, kind: Any, path: str, survey: _Survey) -> Any:
    """Decode a section or an interval, the short way if it can be."""
    try:
        return _SHORT_WAY[kind].decode(part)
    except msgspec.ValidationError:
        survey.unknown_in(part, kind, path)
    try:
        return _the_long_way(part, kind)
    except msgspec.ValidationError as error:
        raise _misfit(part, kind, path, error) from None


def _decoded(part: Raw, kind: Any) -> Any:
    try:
        return _SHORT_WAY[kind].decode(part)
    except msgspec.ValidationError:
        return _the_long_way(part, kind)


def _the_long_way(part: Raw, kind: Any) -> Any:
    if get_origin(kind) is dict:
        of = get_args(kind)[1]
        return {key: _the_long_way(inner, of) for key, inner in _BY_ID.decode(part).items()}
    decoder, made = _LONG_WAY[kind]
    return made(decoder.decode(part))


def _misfit(part: Raw, kind: Any, path: str, error: msgspec.ValidationError) -> UnexpectedResponse:
    """Follow a part that could not be decoded to the innermost value that does not fit its type."""
    for name, inner, of in _inside(part, kind):
        try:
            _the_long_way(inner, of)
        except msgspec.ValidationError as cause:
            step = f"[{shown(name)!r}]" if get_origin(kind) is dict else f".{name}"
            return _misfit(inner, of, path + step, cause)
    try:
        msgspec.json.decode(part, type=kind)  # says what is wrong by the usual type
    except msgspec.ValidationError as plain:
        error = plain
    return UnexpectedResponse(str(error).partition(" - at `")[0], where=path)


class _Survey:
    """Reports the unknown members of an answer. Of a map, it looks at the first value only.

    Args:
        on_unknown: Called with the place of each unknown member.
        error: Why the answer could not be decoded the short way. If an unknown member is the
            reason, the error names the first one. So one is reported even of the largest answer.
    """

    def __init__(self, on_unknown: OnUnknown | None, error: msgspec.ValidationError) -> None:
        self._on_unknown = on_unknown
        self._left = _SURVEYED
        first = UNKNOWN_FIELD.fullmatch(str(error))
        if first and first["name"] not in OTHER_NAMES:
            self._tell(f"{first['path'] or '$'}.{shown(first['name'])}")

    def unknown_in(self, part: Raw, kind: Any, path: str) -> None:
        """Report the unknown members of one part, unless too much was searched already."""
        size = memoryview(part).nbytes
        if size <= self._left:
            self._left -= size
            for place in islice(_unknown(part, kind, path), _MOST_UNKNOWN):
                self._tell(place)

    def _tell(self, path: str) -> None:
        if self._on_unknown is not None:
            self._on_unknown(re.sub(r"\[(\d+|\.\.\.)\]", "[*]", path))


def _unknown(part: Raw, kind: Any, path: str) -> Iterator[str]:
    known = _members(kind)
    if not known and get_origin(kind) is not dict:
        return
    for name, inner in _split(part).items():
        if get_origin(kind) is dict:
            yield from _unknown(inner, get_args(kind)[1], f"{path}[*]")
            return
        if name not in known:
            yield f"{path}.{shown(name)}"
        elif (of := known[name]) is not None:
            yield from _unknown(inner, of, f"{path}.{name}")


def _inside(part: Raw, kind: Any) -> Iterator[tuple[str, Raw, Any]]:
    """Yield the members of a part that its type knows and that are not null, each with its type."""
    known = _members(kind)
    for name, inner in _split(part).items() if known or get_origin(kind) is dict else ():
        of = get_args(kind)[1] if get_origin(kind) is dict else known.get(name)
        if of is not None and (inner != _NULL or get_origin(kind) is dict):
            yield name, inner, of


def _split(part: Raw) -> dict[str, Raw]:
    if memoryview(part).nbytes > _SURVEYED:
        return {}
    try:
        return _MEMBERS.decode(part)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}


@functools.cache
def _members(kind: Any) -> dict[str, Any]:
    """Return the types of a struct's members by their names on the wire, of either spelling.

    None stands for the type of ``metricsByIntervals``, whose elements are parts of their own.
    """
    if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        return {}
    types = {
        member.encode_name: next(
            (of for of in get_args(member.type) if of is not type(None)), member.type
        )
        if get_origin(member.type) is UnionType
        else member.type
        for member in fields(kind)
    }
    if "metricsByIntervals" in types:
        types["metricsByIntervals"] = None
    other = {name: types[usual] for name, usual in OTHER_NAMES.items() if usual in types}
    return types | other


# -- Intervals in the order of time ---------------------------------------------------------------


def _in_order(
    told: list[_Told], query: ConversationQuery | None, at: datetime | None
) -> tuple[Interval | Unreadable, ...]:
    """Put the intervals in order and give each its start, from ends alone.

    There are ``timeframe / interval + 1`` intervals. The newest is still open, and the earliest is
    cut to one bucket, a whole time frame before the newest. If the question came on a bucket's
    edge, there are exactly ``timeframe / interval``, all of them whole.
    """
    if not told:
        return ()
    by_end = _by_end(told, query)
    ends = sorted(by_end)
    newest = ends[-1]
    on_edge = False
    try:
        if query is not None and query.interval is not None:
            size, frame = timedelta(minutes=query.interval), timedelta(minutes=query.timeframe)
            if ends[0] < newest - frame or any((newest - end) % size for end in ends):
                raise UnexpectedResponse(
                    f"these are not intervals of {query.interval} minutes in a time frame of"
                    f" {query.timeframe}",
                    where="$.metricsByIntervals",
                )
            on_edge = len(ends) == frame // size and newest - ends[0] == frame - size
            on_edge = on_edge and (at is None or newest <= at)  # else one was left out
            ends = [ends[0] + size * step for step in range((newest - ends[0]) // size + 1)]
            starts = [end - (size if newest - end < frame else BUCKET) for end in ends]
        else:
            starts = [ends[0] - BUCKET, *ends[:-1]]
    except OverflowError:
        raise _beyond_the_calendar() from None
    intervals: list[Interval | Unreadable] = []
    for start, end in zip(starts, ends, strict=True):
        complete = on_edge or end < newest
        sections = by_end.get(end)
        if sections is None:
            sections = UnexpectedResponse(
                f"the interval that ends at {end:%Y-%m-%d %H:%M} UTC was left out",
                where="$.metricsByIntervals",
            )
        if isinstance(sections, UnexpectedResponse):
            intervals.append(Unreadable(start, end, complete, sections))
        else:
            intervals.append(
                Interval(start, end, complete, sections.skills, sections.agents, sections.totals)
            )
    return tuple(intervals)


def _by_end(
    told: list[_Told], query: ConversationQuery | None
) -> dict[datetime, Sections | UnexpectedResponse]:
    """Return the content of each interval by its end, each once."""
    by_end: dict[datetime, Sections | UnexpectedResponse] = {}
    for place, timestamp, sections in told:
        path = f"$.metricsByIntervals[{place}]"
        try:
            end = EPOCH + timedelta(milliseconds=timestamp)
        except OverflowError:
            raise _beyond_the_calendar() from None
        if (end - EPOCH) % BUCKET:
            raise UnexpectedResponse(
                f"timestamp {timestamp} is not on a five-minute edge", where=path
            )
        checked = _asked_for(sections, query, path)
        if end in by_end and not _same(by_end[end], checked):
            checked = UnexpectedResponse(
                f"the interval that ends at {end:%Y-%m-%d %H:%M} UTC came twice, with different"
                " figures",
                where=path,
            )
        by_end[end] = checked
    return by_end


def _same(one: Sections | UnexpectedResponse, other: Sections | UnexpectedResponse) -> bool:
    return (
        isinstance(one, Sections)
        and isinstance(other, Sections)
        and (one.skills, one.agents, one.totals) == (other.skills, other.agents, other.totals)
    )


def _asked_for(
    sections: Sections | UnexpectedResponse, query: ConversationQuery | None, path: str
) -> Sections | UnexpectedResponse:
    """Return the sections, or the error that a section that was asked for is absent."""
    if query is None or isinstance(sections, UnexpectedResponse):
        return sections
    if query.skill_ids is not None and sections.skills is None:
        return _absent("skillsMetricsPerAgent", path)
    if query.agent_ids is not None and sections.agents is None:
        return _absent("agentsMetrics", path)
    if query.skill_ids is None and query.agent_ids is None and sections.totals is None:
        return _absent("metricsTotals", path)
    return sections


# -- Errors ---------------------------------------------------------------------------------------


def _absent(name: str, path: str) -> UnexpectedResponse:
    return UnexpectedResponse(f"{name} was asked for and is absent", where=path)


def _beyond_the_calendar() -> UnexpectedResponse:
    return UnexpectedResponse(
        "a timestamp lies outside the years 1 to 9999", where="$.metricsByIntervals"
    )


def _check_utf8(body: bytes) -> None:
    """Raise UnicodeDecodeError if the body is not UTF-8, without a copy of all of it."""
    if body.isascii():  # most are, and this is many times as fast
        return
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(body), _SURVEYED):
        decoder.decode(body[start : start + _SURVEYED])
    decoder.decode(b"", final=True)


def _malformed(body: bytes, error: Exception) -> UnexpectedResponse:
    if isinstance(error, RecursionError):
        return UnexpectedResponse("the JSON is nested too deeply")
    if isinstance(error, UnicodeDecodeError):
        try:
            body.decode()
        except UnicodeDecodeError as exact:
            return UnexpectedResponse("the body is not UTF-8", where=f"byte {exact.start}")
    if not body:
        return UnexpectedResponse("the body is empty", where="byte 0")
    reason, _, place = str(error).partition(" (")
    reason = reason.split(" - at ")[0]
    return UnexpectedResponse(
        f"the body is not whole JSON: {reason}", where=place.rstrip(")") or f"byte {len(body)}"
    )
