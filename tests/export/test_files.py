from __future__ import annotations

import csv
import gc
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa  # type: ignore[import-untyped]
import pytest
from pyarrow import parquet

from msgconv_async import (
    AgentBreakdown,
    ConfigurationError,
    ConversationMetrics,
    ConversationQuery,
    ConversationReport,
    Interval,
    UnexpectedResponse,
    decode_report,
)
from msgconv_async.export import (
    ACCOUNT_METRICS,
    AGENT_METRICS,
    SKILL_AGENT_METRICS,
    SKILL_METRICS,
    TABLES,
    Table,
    intervals,
    table_files,
    tables_of,
)
from msgconv_async.export.arrow import SCHEMAS
from msgconv_async.export.files import FileFormat, WholeFile
from tests.protocol.documents import PAGE_EXAMPLE

FORMATS: tuple[FileFormat, ...] = get_args(FileFormat)
AT = datetime(2026, 3, 4, 8, 7, tzinfo=UTC)
REPORT = decode_report(PAGE_EXAMPLE, ConversationQuery(60, skill_ids="all", agent_ids=2), at=AT)
Rows = list[tuple[Any, ...]]


def of_agents(count: int, first: int = 0, resolved: int = 1) -> ConversationReport:
    metrics = ConversationMetrics(total_resolved_conversations=resolved)
    section = AgentBreakdown({first + number: metrics for number in range(count)})
    return ConversationReport(agents=section, query=ConversationQuery(60), at=AT)


def as_text(value: Any) -> Any:
    """Return a value as JSON has it."""
    return value.strftime("%Y-%m-%dT%H:%M:%SZ") if isinstance(value, datetime) else value


def expected(table: Table, of: ConversationReport = REPORT) -> Rows:
    """Return a table's rows, and of each whether its interval was complete."""
    return [
        (*map(as_text, row), each.complete)
        for each in intervals(of)
        for row in table.flatten("71", each)
    ]


def held(table: Table, folder: Path, form: FileFormat) -> Rows:
    """Read a file with something else than wrote it; its columns must be the table's."""
    content = (folder / f"{table.name}.{form}").read_bytes()
    if form == "parquet":
        read = parquet.read_table(BytesIO(content))
        assert SCHEMAS[table.name].append(pa.field("complete", pa.bool_(), nullable=False)) == (
            read.schema
        )
        return [tuple(map(as_text, row.values())) for row in read.to_pylist()]
    if form == "ndjson":
        rows = [json.loads(line) for line in content.splitlines()]
        assert all([*table.columns, "complete"] == [*row] for row in rows)
        return [tuple(row.values()) for row in rows]
    header, *lines = csv.reader(StringIO(content.decode()))
    assert [*table.columns, "complete"] == header
    ids = len(table.key) - 2
    kinds: list[Callable[[str], Any]] = [
        str,
        str,
        *[int] * ids,
        str,
        *[int] * 8,
        *[float] * 4,
        json.loads,
    ]
    return [
        tuple(kind(cell) if cell else None for kind, cell in zip(kinds, line, strict=True))
        for line in lines
    ]


@pytest.mark.parametrize("form", FORMATS)
def test_each_table_is_a_file_of_its_rows(tmp_path: Path, form: FileFormat) -> None:
    """One without rows is a file as well."""
    folder = tmp_path / "new" / "folder"
    with table_files(folder, form) as files:
        assert 4 == files.add("71", REPORT)
        files.commit()
    assert {f"{each.name}.{form}" for each in TABLES} == {each.name for each in folder.iterdir()}
    for table in TABLES:
        assert expected(table) == held(table, folder, form)


@pytest.mark.parametrize("form", FORMATS)
def test_reports_follow_one_another_in_the_same_files(tmp_path: Path, form: FileFormat) -> None:
    """Whether there are rows in them or not; a metric that was not sent is nowhere made up."""
    reports = [of_agents(2), of_agents(0), of_agents(3, first=7)]
    with table_files(tmp_path, form, [AGENT_METRICS]) as files:
        assert [2, 0, 3] == [files.add("71", each) for each in reports]
        files.commit()
    rows = [row for each in reports for row in expected(AGENT_METRICS, each)]
    assert rows == held(AGENT_METRICS, tmp_path, form)


@pytest.mark.parametrize("form", FORMATS)
def test_a_row_tells_whether_its_interval_was_complete(tmp_path: Path, form: FileFormat) -> None:
    """The newest is still filling; of an answer without intervals, its whole window is."""
    totals = ConversationMetrics(total_resolved_conversations=1)
    times = [AT.replace(minute=minute) for minute in (0, 5, 10)]
    halves = [
        Interval(start, end, complete, totals=totals)
        for start, end, complete in zip(times, times[1:], [True, False], strict=False)
    ]
    with table_files(tmp_path, form, [ACCOUNT_METRICS]) as files:
        files.add("71", ConversationReport(intervals=tuple(halves)))
        files.add("71", ConversationReport(totals=totals, query=ConversationQuery(60), at=AT))
        files.commit()
    assert [True, False, False] == [row[-1] for row in held(ACCOUNT_METRICS, tmp_path, form)]


def test_a_new_file_is_its_owners_alone_and_an_old_one_keeps_its_mode(tmp_path: Path) -> None:
    """Whatever the umask would allow."""
    old, new = tmp_path / "old", tmp_path / "new"
    old.touch()
    old.chmod(0o640)
    before = os.umask(0)
    try:
        for path in (old, new):
            with WholeFile(path) as file:
                [beside] = set(tmp_path.iterdir()) - {old, new}
                assert 0 == beside.stat().st_mode & 0o007
                file.commit()
    finally:
        os.umask(before)
    assert (0o640, 0o600) == (old.stat().st_mode & 0o777, new.stat().st_mode & 0o777)


def test_what_a_killed_process_left_is_removed_and_what_is_being_written_is_not(
    tmp_path: Path,
) -> None:
    """By the next that writes there; nothing else goes, however it is named."""
    program = f"""
from tests.export.test_files import WholeFile
with WholeFile({str(tmp_path / "day")!r}) as file:
    file.stream.write(b"half")
    file.store()
    print(file._temporary.name, flush=True)
    input()
"""
    others = {".0123456789abcdef.msgconv.txt", ".msgconv", ".0123.msgconv", "link"}
    for name in others - {"link"}:
        (tmp_path / name).touch()
    (tmp_path / "link").touch()
    (tmp_path / ".fedcba9876543210.msgconv").symlink_to(tmp_path / "link")
    others.add(".fedcba9876543210.msgconv")
    with subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as killed:
        assert killed.stdout is not None
        left = killed.stdout.readline().strip()
        with WholeFile(tmp_path / "other"):
            assert left in {each.name for each in tmp_path.iterdir()}
        killed.kill()
    assert {left, *others} == {each.name for each in tmp_path.iterdir()}

    with WholeFile(tmp_path / "day") as first, WholeFile(tmp_path / "day") as second:
        first.stream.write(b"first")
        second.stream.write(b"second")
        first.commit()
        second.commit()
    assert {"day", *others} == {each.name for each in tmp_path.iterdir()}
    assert b"second" == (tmp_path / "day").read_bytes()


def test_files_that_many_write_at_once_into_one_folder_are_all_there(tmp_path: Path) -> None:
    """Each removes what others left, and nothing of those at work."""

    def write(number: int) -> None:
        for _ in range(50):
            with WholeFile(tmp_path / f"{number}") as file:
                file.stream.write(b"x")
                file.commit()

    with ThreadPoolExecutor(8) as pool:
        assert [None] * 8 == list(pool.map(write, range(8)))
    assert {*map(str, range(8))} == {each.name for each in tmp_path.iterdir()}


@pytest.mark.parametrize("form", FORMATS)
def test_without_a_commit_nothing_has_changed(tmp_path: Path, form: FileFormat) -> None:
    """Whatever went wrong meanwhile."""
    path = tmp_path / f"skill_metrics.{form}"
    path.write_text("before")

    def broken_off() -> None:
        with table_files(tmp_path, form) as files:
            files.add("71", REPORT)
            raise KeyError

    with pytest.raises(KeyError):
        broken_off()
    gc.collect()  # what is left open would warn
    assert ("before", [path]) == (path.read_text(), [*tmp_path.iterdir()])


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_of_the_same_name_is_replaced_and_others_are_left_alone(
    tmp_path: Path, form: FileFormat
) -> None:
    """Only in the end, at once; until then the earlier one can be read."""
    earlier, other = tmp_path / f"agent_metrics.{form}", tmp_path / "notes.txt"
    earlier.write_text("before")
    other.write_text("mine")
    with table_files(tmp_path, form, [AGENT_METRICS]) as files:
        files.add("71", REPORT)
        assert "before" == earlier.read_text()
        files.commit()
    assert expected(AGENT_METRICS) == held(AGENT_METRICS, tmp_path, form)
    assert ({earlier, other}, "mine") == ({*tmp_path.iterdir()}, other.read_text())


def test_parquet_rows_wait_for_a_row_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small groups would read slowly, and all rows at once would not fit into memory."""
    monkeypatch.setattr("msgconv_async.export.files.parquet._GROUP", 5)
    with table_files(tmp_path, "parquet", [AGENT_METRICS]) as files:
        for first in range(0, 14, 2):
            files.add("71", of_agents(2, first))
        files.commit()
    metadata = parquet.ParquetFile(tmp_path / "agent_metrics.parquet").metadata
    assert [6, 6, 2] == [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)]
    assert expected(AGENT_METRICS, of_agents(14)) == held(AGENT_METRICS, tmp_path, "parquet")


def test_a_report_that_does_not_fit_leaves_no_row_behind(tmp_path: Path) -> None:
    """Those before and after it are written."""
    with table_files(tmp_path, "parquet", [AGENT_METRICS]) as files:
        files.add("71", of_agents(1))
        with pytest.raises(UnexpectedResponse, match=r"^account 72: "):
            files.add("72", of_agents(1, resolved=2**63))
        files.add("71", of_agents(1, first=1))
        files.commit()
    assert expected(AGENT_METRICS, of_agents(2)) == held(AGENT_METRICS, tmp_path, "parquet")


@pytest.mark.parametrize(
    ("asked", "tables"),
    [
        ({}, {ACCOUNT_METRICS}),
        ({"group_ids": 1}, {ACCOUNT_METRICS}),
        ({"skill_ids": "all"}, {SKILL_METRICS, SKILL_AGENT_METRICS}),
        ({"agent_ids": 7}, {AGENT_METRICS}),
        ({"skill_ids": 3, "agent_ids": 7}, {SKILL_METRICS, SKILL_AGENT_METRICS, AGENT_METRICS}),
    ],
)
def test_a_question_tells_which_tables_it_fills(asked: dict[str, Any], tables: set[Table]) -> None:
    """Each of them once."""
    found = tables_of(ConversationQuery(60, **asked))
    assert (tables, len(tables)) == ({*found}, len(found))


@pytest.mark.parametrize(
    ("at", "said"),
    [
        ("notes.txt", r"notes\.txt: no folder can be made there: File exists"),
        ("notes.txt/x", r"x: no folder can be made there: Not a directory"),
        ("taken", r"skill_metrics\.csv: not a file that can be replaced"),
    ],
)
def test_a_folder_that_cannot_be_written_is_one_sentence(
    tmp_path: Path, at: str, said: str
) -> None:
    """Nothing is left behind."""
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "taken" / "skill_metrics.csv").mkdir(parents=True)
    with pytest.raises(ConfigurationError, match=said):
        table_files(tmp_path / at, "csv").__enter__()
    assert {"notes.txt", "taken", "skill_metrics.csv"} == {
        each.name for each in tmp_path.rglob("*")
    }


@pytest.mark.parametrize("form", FORMATS)
def test_a_disk_that_is_full_changes_nothing_and_is_said_once(
    tmp_path: Path, form: FileFormat
) -> None:
    """A limit on the size of files stands for it. Nothing tries to write once more at the end."""
    path = tmp_path / f"agent_metrics.{form}"
    path.write_text("before")
    program = f"""
from tests.export.test_files import AGENT_METRICS, of_agents, table_files
try:
    with table_files({str(tmp_path)!r}, {form!r}, [AGENT_METRICS]) as files:
        for number in range(90):
            files.add("71", of_agents(1000, 1000 * number, number ** 9))
        files.commit()
except OSError as error:
    print(error.strerror or error)
"""
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000)),
        check=True,
    )
    assert ("File too large\n", "") == (done.stdout, done.stderr)
    assert ("before", [path]) == (path.read_text(), [*tmp_path.iterdir()])


def test_what_is_behind_a_link_is_replaced(tmp_path: Path) -> None:
    """The link stays one."""
    path, link = tmp_path / "day", tmp_path / "link"
    link.symlink_to(path)
    with WholeFile(link) as file:
        file.stream.write(b"now")
        file.commit()
    assert (True, "now") == (link.is_symlink(), path.read_text())
