"""How fast a response becomes a report, beside what else could read it.

One day of five-minute intervals for ten skills and twenty agents is decoded by each contender in
a process of its own, all alive at once and asked one after the other, in a new order each round:
within one process, the memory that one contender frees decides how many page faults the next one
has. At its turn a contender decodes a few times in a row, as a busy job does, and the median
counts: a cold cache is the neighbour's doing. A ratio is taken within a round and its median over
the rounds, so that a slow moment of the machine falls on both sides. Each contender starts with an
unmeasured turn; the garbage collector stays on, as in real life, and giving the result back is not
timed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import statistics
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from types import GenericAlias
from typing import Any

import msgspec
import orjson
import pydantic
import pydantic.dataclasses

from msgconv_async.protocol.decoding import decode_report
from msgconv_async.protocol.query import ConversationQuery
from msgconv_async.protocol.report import ConversationMetrics

BUCKET = 5  # minutes
SKILLS, AGENTS = 10, 20
IN_A_ROW = 5  # runs in one turn
NEWEST = 1_395_820_800_000  # epoch milliseconds, the API page's own example
METRICS = msgspec.structs.fields(ConversationMetrics)
SINGLE = struct.Struct("<f")

# -- The document ---------------------------------------------------------------------------------


def document(intervals: int, seed: int = 20_140_326) -> bytes:
    """Return a response such as the service sends, the same one for the same arguments."""
    rng = random.Random(seed)
    skills = rng.sample(range(1000, 10_000), SKILLS)
    agents = rng.sample(range(2 * 10**9, 4 * 10**9), AGENTS)

    def per_agent() -> str:
        each = ",".join(f'"{agent}":{_metrics(rng)}' for agent in agents)
        return f'{{"metricsPerAgent":{{{each}}},"metricsTotals":{_metrics(rng)}}}'

    def sections() -> str:
        each = ",".join(f'"{skill}":{per_agent()}' for skill in skills)
        return (
            f'"skillsMetricsPerAgent":{{"metricsPerSkill":{{{each}}},'
            f'"metricsTotals":{_metrics(rng)}}},"agentsMetrics":{per_agent()}'
        )

    ends = (NEWEST - place * BUCKET * 60_000 for place in range(intervals))
    each = ",".join(f'{{"timestamp":{end},"metricsData":{{{sections()}}}}}' for end in ends)
    return f'{{"metricsByIntervals":[{each}],{sections()}}}'.encode()


def _metrics(rng: random.Random) -> str:
    counts = [rng.randrange(6) for _ in range(3)]
    times = [int(count * rng.lognormvariate(14.5, 1)) for count in counts]  # around half an hour
    counts.append(sum(counts))
    times.append(sum(times))
    averages = [
        _shortest(spent / count) if count else "0"
        for count, spent in zip(counts, times, strict=True)
    ]
    values = zip(METRICS, (*counts, *times, *averages), strict=True)
    return "{" + ",".join(f'"{metric.encode_name}":{value}' for metric, value in values) + "}"


def _shortest(value: float) -> str:
    """Return a 32-bit float in its shortest form, as the service prints its averages."""
    packed = SINGLE.pack(value)
    (exact,) = SINGLE.unpack(packed)
    forms = (f"{exact:.{digits}g}" for digits in range(6, 10))
    return next(form for form in forms if SINGLE.pack(float(form)) == packed)


# -- The contenders -------------------------------------------------------------------------------


Contender = Callable[[], object]
Prepare = Callable[[bytes], Contender]


def _report(body: bytes) -> Contender:
    intervals = body.count(b'"timestamp"')
    query = ConversationQuery(intervals * BUCKET, interval=BUCKET, skill_ids="all", agent_ids="all")
    return lambda: decode_report(body, query)


def _report_with_a_new_member(body: bytes) -> Contender:
    return _report(body[:-1] + b',"new":0}')


def _report_with_a_new_metric(body: bytes) -> Contender:
    return _report(body.replace(b'"totalResolved', b'"newMetric":1.5,"totalResolved'))


def _json(body: bytes) -> Contender:
    return lambda: json.loads(body)


def _orjson(body: bytes) -> Contender:
    return lambda: orjson.loads(body)


def pydantic_models() -> pydantic.TypeAdapter[Any]:
    """Describe the response as pydantic models."""

    def model(name: str, members: Members) -> Any:
        fields: dict[str, Any] = {
            member: (kind | None, pydantic.Field(default=None, alias=alias))
            for member, (kind, alias) in members.items()
        }
        return pydantic.create_model(name, **fields)

    return _pydantic(model)


def _pydantic_models(body: bytes) -> Contender:
    adapter = pydantic_models()
    return lambda: adapter.validate_json(body)


def _pydantic_dataclasses(body: bytes) -> Contender:
    def slotted(name: str, members: Members) -> Any:
        namespace: dict[str, Any] = {
            member: pydantic.Field(default=None, alias=alias)
            for member, (_, alias) in members.items()
        }
        namespace["__annotations__"] = {each: kind | None for each, (kind, _) in members.items()}
        return pydantic.dataclasses.dataclass(type(name, (), namespace), slots=True)

    adapter = _pydantic(slotted)
    return lambda: adapter.validate_json(body)


Members = dict[str, tuple[Any, str]]


def _pydantic(make: Callable[[str, Members], Any]) -> pydantic.TypeAdapter[Any]:
    """Describe the response to pydantic as this library's structs do: same names, same types."""
    metrics = make("Metrics", {each.name: (each.type, each.encode_name) for each in METRICS})
    totals = {"totals": (metrics, "metricsTotals")}
    per_agent = {"per_agent": (GenericAlias(dict, (int, metrics)), "metricsPerAgent")}
    agents = make("Agents", per_agent | totals)
    per_skill = {"per_skill": (GenericAlias(dict, (int, agents)), "metricsPerSkill")}
    skills = make("Skills", per_skill | totals)
    sections = totals | {
        "skills": (skills, "skillsMetricsPerAgent"),
        "agents": (agents, "agentsMetrics"),
    }
    data = make("Sections", sections)
    interval = make("Interval", {"timestamp": (int, "timestamp"), "data": (data, "metricsData")})
    intervals = {"intervals": (GenericAlias(list, (interval,)), "metricsByIntervals")}
    return pydantic.TypeAdapter(make("Document", intervals | sections))


CONTENDERS: dict[str, tuple[Prepare, float | None]] = {
    "decode_report": (_report, None),
    "json.loads": (_json, 5),
    "orjson.loads": (_orjson, 2),
    "pydantic, models": (_pydantic_models, 8),
    "pydantic, slotted dataclasses": (_pydantic_dataclasses, 8),
    "decode_report, a new member": (_report_with_a_new_member, None),
    "decode_report, a new metric in all": (_report_with_a_new_metric, None),
}
"""Each contender and how many times its time `decode_report` is to stay below it."""

AT_MOST = {"decode_report, a new member": 1.5}
"""How many times as long an answer with a member that is not known may take."""

# -- The measurement ------------------------------------------------------------------------------


def _serve(prepare: Prepare, pipe: Connection[float, bytes]) -> None:
    """In a child process: take the document, then time one turn for every message."""
    run = prepare(pipe.recv_bytes())
    while True:
        taken = []
        for _ in range(IN_A_ROW):
            started = time.perf_counter()
            result = run()
            taken.append(time.perf_counter() - started)
            del result
        pipe.send(statistics.median(taken))
        if not pipe.recv_bytes():
            return


@contextmanager
def _child(prepare: Prepare, body: bytes) -> Iterator[Callable[[], float]]:
    """Start a contender's process; what is yielded gives it a turn and returns seconds a run."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(prepare, theirs), daemon=True)
    process.start()
    theirs.close()
    ours.send_bytes(body)

    def run() -> float:
        ours.send_bytes(b"again")
        return float(ours.recv())

    try:
        ours.recv()  # the warm-up
        yield run
    finally:
        ours.send_bytes(b"")
        process.join()


def measure(contenders: Mapping[str, Prepare], body: bytes, rounds: int) -> dict[str, list[float]]:
    """Return the seconds that a run took each contender, round by round."""
    with ExitStack() as processes:
        run = {
            name: processes.enter_context(_child(prepare, body))
            for name, prepare in contenders.items()
        }
        taken: dict[str, list[float]] = {name: [] for name in contenders}
        turns = random.Random(rounds)
        for _ in range(rounds):
            for name in turns.sample(list(run), len(run)):
                taken[name].append(run[name]())
    return taken


def main(arguments: Sequence[str]) -> None:
    """Measure, and print a table with each goal beside what was measured."""
    parser = argparse.ArgumentParser("python -m benchmarks decode", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="turns of each contender")
    parser.add_argument(
        "--intervals", type=int, default=288, help="five-minute intervals of the response, 1 to 288"
    )
    options = parser.parse_args(arguments)

    body = document(options.intervals)
    contenders = {name: prepare for name, (prepare, _) in CONTENDERS.items()}
    taken = measure(contenders, body, options.rounds)
    size, maps = len(body) / 1e6, body.count(b'"totalResolvedConversations"')
    print(f"{size:.1f} MB, {maps:,} metric maps, median of {options.rounds} rounds\n")
    print(f"{'':36}{'ms':>8}{'MB/s':>8}{'ratio':>8}{'goal':>8}")
    for name, (_, goal) in CONTENDERS.items():
        median = statistics.median(taken[name])
        pairs = zip(taken[name], taken["decode_report"], strict=True)
        ratio = statistics.median(theirs / ours for theirs, ours in pairs)
        verdict = ""
        if goal is not None:
            verdict = f"{f'>= {goal:g}':>8}  {'met' if ratio >= goal else 'MISSED'}"
        elif (most := AT_MOST.get(name)) is not None:
            verdict = f"{f'<= {most:g}':>8}  {'met' if ratio <= most else 'MISSED'}"
        print(f"{name:36}{median * 1e3:8.1f}{size / median:8.0f}{ratio:8.2f}{verdict}")
    print("\nratio: a contender's time over decode_report's in the same round")
