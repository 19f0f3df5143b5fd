"""How fast a response becomes four tables, beside the obvious ways to make them.

The document, the processes and the ratios are those of ``python -m benchmarks decode``. Every
contender begins with the bytes and ends with four tables of the same rows and columns: account
(without rows here), skill, agent, and agent within skill; account id, interval's start and end as
UTC times, 64-bit ids and counts. Before anything is timed, that is checked value for value on a
shorter document.

An object keyed by ids becomes columns, not rows, in pandas.json_normalize and in polars, so for
both, and for pyarrow's own from_pylist, loops gather a dict for each row first, as everybody has to
who uses them here. They keep the API's names, and do without what `decode_report` does beside: they
check no types, take the interval's size as given, and miss a name in its other spelling.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from typing import Any

import orjson
import pandas as pd  # type: ignore[import-untyped]
import polars as pl
import pyarrow as pa  # type: ignore[import-untyped]

from benchmarks.decode import BUCKET, Contender, Prepare, document, measure
from msgconv_async.export import TABLES
from msgconv_async.export.arrow import SCHEMAS, report_tables
from msgconv_async.protocol.decoding import decode_report
from msgconv_async.protocol.query import ConversationQuery
from msgconv_async.protocol.report import ConversationMetrics, ConversationReport

ACCOUNT = "10000001"
SLOWER, PACE = 3, 500_000
"""Goals: times the time of `decode_report` alone, and rows per second."""

METRICS = ConversationMetrics.__struct_encode_fields__
TIMES = ("interval_end", "interval_start")
COLUMNS = {table.name: (*table.key, "interval_start", *METRICS) for table in TABLES}

Records = dict[str, list[dict[str, Any]]]

# -- The contenders -------------------------------------------------------------------------------


def _decoding(body: bytes) -> Callable[[], ConversationReport]:
    intervals = body.count(b'"timestamp"')
    query = ConversationQuery(intervals * BUCKET, interval=BUCKET, skill_ids="all", agent_ids="all")
    return lambda: decode_report(body, query)


def _arrow(body: bytes) -> Contender:
    decoded = _decoding(body)
    return lambda: report_tables(ACCOUNT, decoded())


def _rows(body: bytes) -> Contender:
    decoded = _decoding(body)

    def run() -> object:
        report = decoded()
        return {table.name: list(table.rows(ACCOUNT, report)) for table in TABLES}

    return run


def records(answer: dict[str, Any]) -> Records:
    """Gather a dict for each row of a decoded answer."""
    account, skill, agent, skill_agent = gathered = [list[dict[str, Any]]() for _ in TABLES]
    for interval in reversed(answer["metricsByIntervals"]):
        end, data = interval["timestamp"], interval["metricsData"]
        of_all = {"account_id": ACCOUNT, "interval_end": end}
        start = {"interval_start": end - BUCKET * 60_000}
        if "metricsTotals" in data:
            account.append({**of_all, **start, **data["metricsTotals"]})
        for skill_id, each in data["skillsMetricsPerAgent"]["metricsPerSkill"].items():
            of_skill = {**of_all, "skill_id": int(skill_id)}
            skill.append({**of_skill, **start, **each["metricsTotals"]})
            for agent_id, metrics in each["metricsPerAgent"].items():
                skill_agent.append({**of_skill, "agent_id": int(agent_id), **start, **metrics})
        for agent_id, metrics in data["agentsMetrics"]["metricsPerAgent"].items():
            agent.append({**of_all, "agent_id": int(agent_id), **start, **metrics})
    return dict(zip(COLUMNS, gathered, strict=True))


def _pandas(name: str, rows: list[dict[str, Any]]) -> pd.DataFrame:
    frame = pd.json_normalize(rows) if rows else pd.DataFrame(columns=COLUMNS[name])
    return frame.assign(
        **{each: pd.to_datetime(frame[each], unit="ms", utc=True) for each in TIMES}
    )


def _polars(name: str, rows: list[dict[str, Any]]) -> pl.DataFrame:
    whole, number = pl.Int64(), pl.Float64()
    types = {each: number if each.startswith("avg") else whole for each in COLUMNS[name]}
    frame = pl.from_dicts(rows, types | {"account_id": pl.String()})
    return frame.with_columns(pl.col(TIMES).cast(pl.Datetime("ms", "UTC")))


def _pylist(name: str, rows: list[dict[str, Any]]) -> pa.Table:
    fields = zip(SCHEMAS[name], COLUMNS[name], strict=True)
    return pa.Table.from_pylist(rows, pa.schema([field.with_name(each) for field, each in fields]))


def _of_records(
    body: bytes,
    loads: Callable[[bytes], Any],
    make: Callable[[str, list[dict[str, Any]]], object],
) -> Contender:
    return lambda: {name: make(name, rows) for name, rows in records(loads(body)).items()}


def _json_pandas(body: bytes) -> Contender:
    return _of_records(body, json.loads, _pandas)


def _json_polars(body: bytes) -> Contender:
    return _of_records(body, json.loads, _polars)


def _json_pylist(body: bytes) -> Contender:
    return _of_records(body, json.loads, _pylist)


def _orjson_polars(body: bytes) -> Contender:
    return _of_records(body, orjson.loads, _polars)


OURS, BASE = "report_tables", "decode_report alone"

TABLES_OF: dict[str, Prepare] = {
    OURS: _arrow,
    "Table.rows, lists of tuples": _rows,
    "json.loads, pandas.json_normalize": _json_pandas,
    "json.loads, polars.from_dicts": _json_polars,
    "json.loads, pyarrow from_pylist": _json_pylist,
    "orjson.loads, polars.from_dicts": _orjson_polars,
}

# -- The measurement ------------------------------------------------------------------------------


def listed(table: Any) -> list[tuple[Any, ...]]:
    """Return a table's rows, whatever kind of table it is."""
    if isinstance(table, list):
        return table
    if isinstance(table, pd.DataFrame):
        return [tuple(each) for each in table.itertuples(index=False)]
    if isinstance(table, pl.DataFrame):
        return table.rows()
    return [tuple(each.values()) for each in table.to_pylist()]


def differing(body: bytes) -> list[str]:
    """Name the contenders that make other tables of a document than `Table.rows` does."""
    made: dict[str, Any] = {name: prepare(body)() for name, prepare in TABLES_OF.items()}
    found = {
        name: {each: listed(table) for each, table in tables.items()}
        for name, tables in made.items()
    }
    return [name for name, rows in found.items() if rows != made["Table.rows, lists of tuples"]]


def main(arguments: Sequence[str]) -> None:
    """Measure, and print a table and the goals beside what was measured."""
    parser = argparse.ArgumentParser("python -m benchmarks export", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contender")
    parser.add_argument(
        "--intervals", type=int, default=288, help="five-minute intervals of the response, 1 to 288"
    )
    options = parser.parse_args(arguments)
    if wrong := differing(document(2)):
        sys.exit(f"not the same tables: {', '.join(wrong)}")

    body = document(options.intervals)
    rows = sum(map(len, records(orjson.loads(body)).values()))
    taken = measure({BASE: _decoding, **TABLES_OF}, body, options.rounds)
    print(f"{len(body) / 1e6:.1f} MB, {rows:,} rows, median of {options.rounds} rounds\n")
    print(f"{'':36}{'ms':>8}{'rows/s':>11}{'of decode':>11}{'of ours':>9}")
    pace = {name: rows / statistics.median(seconds) for name, seconds in taken.items()}
    for name, seconds in taken.items():
        each = f"{pace[name]:,.0f}" if name in TABLES_OF else ""
        of_decode, of_ours = (_ratio(seconds, taken[other]) for other in (BASE, OURS))
        print(
            f"{name:36}{statistics.median(seconds) * 1e3:8.1f}{each:>11}"
            f"{of_decode:11.2f}{of_ours:9.2f}"
        )
    slower = _ratio(taken[OURS], taken[BASE])
    print()
    for goal, met in (
        (f"{slower:.2f} times {BASE}; goal <= {SLOWER}", slower <= SLOWER),
        (f"{pace[OURS]:,.0f} rows per second; goal >= {PACE:,}", pace[OURS] >= PACE),
    ):
        print(f"{OURS}: {goal}  {'met' if met else 'MISSED'}")
    print("of decode, of ours: a contender's time over that one's in the same round")


def _ratio(these: Sequence[float], those: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(these, those, strict=True))
