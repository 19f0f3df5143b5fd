"""Events -> five-minute buckets -> the response that the API page describes.

A bucket holds one cell for each skill, agent and group that had a conversation resolved in it.
Every figure of an answer is a sum of cells, or a quotient of two figures of one sum.
"""

from __future__ import annotations

import struct
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec

from msgconv_async.protocol.buckets import BUCKET, EPOCH, Window, floor, window
from msgconv_async.protocol.report import AgentBreakdown, ConversationMetrics, SkillBreakdown
from msgconv_async.sandbox.events import Source
from msgconv_async.sandbox.parameters import IdSet, Parameters

_Cell = list[int]
"""Three counts, then three handling times in milliseconds: by CCP, by consumer, by system."""

_Bucket = dict[tuple[int, int, int | None], _Cell]
_Cells = defaultdict[int, defaultdict[int, list[_Cell]]]
"""The cells to sum, by skill and agent."""

_BUCKET_MS = 300_000
_PLACE = {"CCP": 0, "consumer": 1, "system": 2}
_FLOAT = struct.Struct("f")

# Below this, every integer is a 32-bit float.
_EVERY_INTEGER = 2**24

# Below this, seven digits distinguish no more numbers than 32 bits do.
_COARSE = 2**33
_FEWEST_DIGITS = (".7g", ".8g")
_ANY_DIGITS = tuple(f".{digits}g" for digits in range(1, 9))

_ACCOUNTS_KEPT = 64
_BUCKETS_KEPT = 600
"""Closed buckets that are kept of one account; the longest time frame covers 289."""


class Aggregates:
    """Answers questions from a source of events, and keeps the closed buckets it computed.

    Args:
        source: Where the events come from. It is never asked about the future.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._kept: OrderedDict[str, dict[int, _Bucket]] = OrderedDict()
        self._keeping = threading.Lock()  # a sandbox may serve in one thread and be told in another

    def forget(self, account_id: str) -> None:
        """Forget an account's closed buckets, since events were added to them."""
        with self._keeping:
            self._kept.pop(account_id, None)

    def answer(self, account_id: str, parameters: Parameters, at: datetime) -> bytes:
        """Return the body that answers a question about one account, asked at an aware instant."""
        covered = window(at, parameters.timeframe, parameters.interval)
        with self._keeping:
            buckets = self._buckets(account_id, covered)
        whole = _no_cells()
        intervals = []
        for span in covered.intervals:
            numbers = range(_number(span.start), _number(span.end))
            if parameters.interval is not None:
                cells = _no_cells()
                _gather(cells, (buckets[number] for number in numbers), parameters.groups)
                intervals.append(
                    {
                        "timestamp": numbers.stop * _BUCKET_MS,
                        "metricsData": _sections(cells, parameters),
                    }
                )
            _gather(whole, (buckets[number] for number in numbers), parameters.groups)
        newest_first = {"metricsByIntervals": intervals[::-1]} if intervals else {}
        return msgspec.json.encode(newest_first | _sections(whole, parameters))

    def _buckets(self, account_id: str, covered: Window) -> dict[int, _Bucket]:
        """Return the buckets of a window by number, the one still open up to the asking instant."""
        kept = self._kept.setdefault(account_id, {})
        self._kept.move_to_end(account_id)
        if len(self._kept) > _ACCOUNTS_KEPT:
            self._kept.popitem(last=False)
        still_open = floor(covered.end)
        closed = range(_number(covered.start), _number(still_open))
        missing = [number for number in closed if number not in kept]
        if missing:
            if len(kept) + len(missing) > _BUCKETS_KEPT:
                for number in kept.keys() - set(closed):
                    del kept[number]
            found = self._count(
                account_id, EPOCH + missing[0] * BUCKET, EPOCH + (missing[-1] + 1) * BUCKET
            )
            kept.update((number, found[number]) for number in missing)
        newest = self._count(account_id, still_open, covered.end)
        return kept | {closed.stop: newest[closed.stop]}

    def _count(self, account_id: str, start: datetime, end: datetime) -> defaultdict[int, _Bucket]:
        buckets: defaultdict[int, _Bucket] = defaultdict(dict)
        for conversation in self._source(account_id, start, end):
            bucket = buckets[_number(conversation.resolved_at)]
            cell = bucket.setdefault(
                (conversation.skill, conversation.agent, conversation.group), [0] * 6
            )
            place = _PLACE[conversation.resolved_by]
            cell[place] += 1
            cell[place + 3] += conversation.handling_time_ms
        return buckets


def shortest_float32(value: float) -> float:
    """Return the number with the fewest digits that prints like the nearest 32-bit float.

    That is how the service prints an average: 426 / 21 as 20.285715 (API page, response body).
    """
    if value.is_integer() and value < _EVERY_INTEGER:
        return value
    (nearest,) = _FLOAT.unpack(_FLOAT.pack(value))
    for digits in _FEWEST_DIGITS if value < _COARSE else _ANY_DIGITS:
        shortest = float(format(nearest, digits))
        if _FLOAT.unpack(_FLOAT.pack(shortest))[0] == nearest:
            return shortest
    return float(format(nearest, ".9g"))


def _number(instant: datetime) -> int:
    """Number the bucket that holds an instant, counted from the epoch."""
    return (instant - EPOCH) // BUCKET


def _no_cells() -> _Cells:
    return defaultdict(lambda: defaultdict(list))


def _gather(cells: _Cells, buckets: Iterable[_Bucket], groups: IdSet) -> None:
    for bucket in buckets:
        for (skill, agent, group), cell in bucket.items():
            if group in groups:
                cells[skill][agent].append(cell)


def _sections(cells: _Cells, parameters: Parameters) -> dict[str, Any]:
    """Sum cells into the sections asked for.

    The skill section lists every agent of a skill, even if other agents were asked for (API page,
    example), and the agent section counts an agent's conversations of every skill.
    """
    sums = {
        skill: {agent: _sum(cell) for agent, cell in agents.items()}
        for skill, agents in cells.items()
    }
    sections: dict[str, Any] = {}
    if parameters.skills is not None:
        asked = {skill: agents for skill, agents in sums.items() if skill in parameters.skills}
        sections["skillsMetricsPerAgent"] = SkillBreakdown(
            {skill: _breakdown(agents) for skill, agents in asked.items()},
            _metrics(_sum([_sum(agents.values()) for agents in asked.values()])),
        )
    if parameters.agents is not None:
        of_agent: defaultdict[int, list[_Cell]] = defaultdict(list)
        for agents in sums.values():
            for agent, cell in agents.items():
                if agent in parameters.agents:
                    of_agent[agent].append(cell)
        sections["agentsMetrics"] = _breakdown(
            {agent: _sum(cell) for agent, cell in of_agent.items()}
        )
    if not sections:
        every = [cell for agents in sums.values() for cell in agents.values()]
        sections["metricsTotals"] = _metrics(_sum(every))
    return sections


def _breakdown(agents: Mapping[int, _Cell]) -> AgentBreakdown:
    return AgentBreakdown(
        {agent: _metrics(cell) for agent, cell in agents.items()}, _metrics(_sum(agents.values()))
    )


def _sum(cells: Collection[_Cell]) -> _Cell:
    if len(cells) == 1:
        return next(iter(cells))
    return list(map(sum, zip(*cells, strict=True))) or [0] * 6


def _metrics(cell: _Cell) -> ConversationMetrics:
    ccp, consumer, system, ccp_time, consumer_time, system_time = cell
    count, time = ccp + consumer + system, ccp_time + consumer_time + system_time
    return ConversationMetrics(
        ccp,
        consumer,
        system,
        count,
        ccp_time,
        consumer_time,
        system_time,
        time,
        _average(ccp_time, ccp),
        _average(consumer_time, consumer),
        _average(system_time, system),
        _average(time, count),
    )


def _average(time: int, count: int) -> float:
    # A zero stands as an integer where a float is declared (API page, agent 6 of the example).
    return shortest_float32(time / count) if time else 0
