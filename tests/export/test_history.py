from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from dlt.destinations import duckdb
from dlt.destinations.impl.duckdb.configuration import DuckDbCredentials

from msgconv_async import ConfigurationError, MsgConvError
from msgconv_async.export.destination import Destination, StoreFailed, destination
from msgconv_async.export.history import ALL, Day, History, Part, read
from msgconv_async.export.store import Store
from msgconv_async.protocol.buckets import BUCKET
from tests.export.sample_history import at, gap, quiet, row, store

SKILLS = [
    row("1", at(2, 8), (1, 2, 4), 700, skill_id=4),
    row("1", at(2, 23, 55), (8, 0, 0), 100, skill_id=4),
    row("1", at(3), (16, 0, 0), 3_200, skill_id=4),
    row("2", at(3, 12), (0, 32, 0), 64, skill_id=4),
    row("2", at(3, 23, 55), (0, 0, 3), 30, skill_id=-1),
    row("1", at(5), (0, 0, 1), None, skill_id=4),
]
SECOND, THIRD, FOURTH, FIFTH = (date(2026, 3, number) for number in (2, 3, 4, 5))
DAYS = (
    Day(SECOND, Part("1", 4), 9, 2, 4, 15, 800),
    Day(THIRD, Part("1", 4), 16, 0, 0, 16, 3_200),
    Day(THIRD, Part("2", -1), 0, 0, 3, 3, 30),
    Day(THIRD, Part("2", 4), 0, 32, 0, 32, 64),
    Day(FIFTH, Part("1", 4), 0, 0, 1, 1, None),
)
AGENTS = [
    row("1", at(2, 8), (1, 0, 0), 700, agent_id=7),
    row("1", at(2, 8, 55), (2, 0, 0), 100, agent_id=7),
    row("1", at(2, 23, 55), (4, 0, 0), 100, agent_id=8),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keep the same history as a database and as files."""
    folder = tmp_path_factory.mktemp("history")
    gaps = [gap("2", at(3, 4), at(3, 5)), gap("2", at(1), at(2))]
    tables = {"skill_metrics": SKILLS, "agent_metrics": AGENTS, "collection_gaps": gaps}
    for place, form in ((f"duckdb:{folder}/a.duckdb", None), (f"filesystem:{folder}", "parquet")):
        store(destination(place), folder / "dlt", tables, form)
    return folder


@pytest.fixture(params=["duckdb", "a session elsewhere", "parquet"])
def skills(request: pytest.FixtureRequest, folder: Path) -> Destination:
    """Return where a history of skills is."""
    file = f"{folder}/a.duckdb"
    if request.param == "a session elsewhere":
        return duckdb(DuckDbCredentials(file, read_only=True, session_timezone="Asia/Tokyo"))
    return destination(f"duckdb:{file}" if request.param == "duckdb" else f"filesystem:{folder}")


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Be far from UTC."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()


def totals(
    tmp_path: Path,
    *rows: dict[str, Any],
    skills: Sequence[dict[str, Any]] = (),
    days: int | None = None,
) -> History:
    """Read a history of account totals."""
    place = destination(f"duckdb:{tmp_path}/totals.duckdb")
    store(place, tmp_path / "dlt", {"account_metrics": rows, "skill_metrics": skills})
    return read(Store(place), days, by="skill")


@pytest.mark.usefixtures("elsewhere")
def test_days_of_utc_are_summed_by_account_and_skill(skills: Destination) -> None:
    """Wherever reader and database are; the day is that on which a bucket starts."""
    history = read(Store(skills), by="skill")
    assert DAYS == history.days
    assert (("1", "2"), SECOND, FIFTH) == (history.accounts, history.first, history.last)


def test_the_same_skill_of_two_accounts_is_two_skills(skills: Destination) -> None:
    """They are added up in the sums of each account, and of all."""
    parts = read(Store(skills), by="skill").by_part
    assert [ALL, Part("1"), Part("1", 4), Part("2"), Part("2", -1), Part("2", 4)] == list(parts)
    on_third = {part: day.total for part, days in parts.items() for day in days if day.day == THIRD}
    assert [51, 16, 16, 35, 3, 32] == [on_third[part] for part in parts]


def test_several_accounts_are_told_apart_and_one_by_skill(skills: Destination) -> None:
    """Unless it is said; where there are no totals, skills are added up."""
    both = read(Store(skills))
    assert ("account", [ALL, Part("1"), Part("2")]) == (both.by, list(both.by_part))
    assert [15, 51, 1] == [day.total for day in both.by_part[ALL]]
    one = read(Store(skills), accounts=["2"])
    assert ("skill", ("2",), THIRD) == (one.by, one.accounts, one.first)
    assert [Part("2"), Part("2", -1), Part("2", 4)] == list(one.by_part)


def test_an_account_of_which_nothing_was_collected_is_named(skills: Destination) -> None:
    """It may be any text: it is no part of the query."""
    for wrong in (["9' OR '1'='1"], ["1", "9' OR '1'='1"]):
        with pytest.raises(ConfigurationError, match="collected of account \"9' OR '1'='1\""):
            read(Store(skills), accounts=wrong)


@pytest.mark.usefixtures("elsewhere")
def test_agents_and_hours_are_summed(skills: Destination) -> None:
    """An hour is one of UTC as well."""
    history = read(Store(skills), accounts=["1"], by="agent", hourly=True)
    found = [(day.day, day.hour, day.part, day.total) for day in history.days]
    assert [(SECOND, 8, Part("1", 7), 3), (SECOND, 23, Part("1", 8), 4)] == found
    assert 24 * 4 == len(history.periods)
    assert [(8, 3), (23, 4)] == [(day.hour, day.total) for day in history.by_part[Part("1")]]


def test_days_are_counted_back_from_the_newest(skills: Destination) -> None:
    """A day without rows counts as one."""
    history = read(Store(skills), 3, by="skill")
    assert (DAYS[1:], THIRD) == (history.days, history.first)
    assert [THIRD, FOURTH, FIFTH] == history.calendar


def test_where_only_skills_are_known_a_day_is_whole_inside_what_was_collected(
    skills: Destination,
) -> None:
    """Not before the first row nor after the last, nor where there is a gap; a quiet day is."""
    # Account 1 is known from the 2nd at 8:00 to the 5th at 0:05, and 2 from the 3rd to its end.
    assert {SECOND: 2, THIRD: 1, FOURTH: 1, FIFTH: 2} == read(Store(skills)).partial


def test_a_gap_makes_a_day_partial(tmp_path: Path) -> None:
    """That account's, and no other's."""
    place = destination(f"duckdb:{tmp_path}/gaps.duckdb")
    ends = [row(who, at(day), skill_id=4) for who in "12" for day in (1, 5)]
    gaps = [gap("1", at(2, 23), at(3)), gap("2", at(3, 12), at(4, 1))]
    store(place, tmp_path / "dlt", {"skill_metrics": ends, "collection_gaps": gaps})
    days = [date(2026, 3, number) for number in (2, 3, 4, 5)]
    assert dict(zip(days, (1, 1, 1, 2), strict=True)) == read(Store(place)).partial


def test_averages_are_made_of_sums() -> None:
    """Not of averages, and not of nothing."""
    of_days = [each.average for each in DAYS]
    assert [800 / 15, 200.0, 10.0, 2.0, None] == of_days
    together = History((), SECOND, FIFTH, DAYS, {}).by_part[ALL]
    assert (3_200 + 30 + 64) / (16 + 3 + 32) == together[1].average
    assert Day(THIRD, ALL, 16, 32, 3, 51, 3_294) == together[1]


def test_a_single_skill_is_not_summed_up_again() -> None:
    """It is all there is."""
    assert {Part("1", 4): DAYS[:1]} == History((), SECOND, SECOND, DAYS[:1], {}).by_part


def test_without_skills_account_totals_are_reported(tmp_path: Path) -> None:
    """A number that was not sent is not zero."""
    history = totals(
        tmp_path,
        row("1", at(2), (1, 2, None), 60),
        row("2", at(2), (4, 8, None), 90),
    )
    one, two = Part("1"), Part("2")
    assert {
        ALL: (Day(SECOND, ALL, 5, 10, None, 15, 150),),
        one: (Day(SECOND, one, 1, 2, None, 3, 60),),
        two: (Day(SECOND, two, 4, 8, None, 12, 90),),
    } == history.by_part


def test_account_totals_tell_whole_days_by_their_288_buckets(tmp_path: Path) -> None:
    """Each once, however often it was stored; a day without a row is not whole either."""
    history = totals(
        tmp_path,
        *quiet("1", 2),
        *quiet("1", 3, range(287)),
        *quiet("1", 3, range(1)),
        *quiet("1", 5),
    )
    assert {THIRD: 1, FOURTH: 1} == history.partial


def test_an_account_that_was_not_collected_on_a_day_makes_it_partial(tmp_path: Path) -> None:
    """Sums over different accounts are not to be compared in silence."""
    history = totals(tmp_path, *quiet("1", 2), *quiet("1", 3), *quiet("2", 3))
    assert ({SECOND: 1}, ("1", "2")) == (history.partial, history.accounts)


def test_an_account_of_long_ago_does_not_count(tmp_path: Path) -> None:
    """Only those that were collected in the days asked for."""
    history = totals(tmp_path, *quiet("1", 3), row("2", at(2)), days=1)
    assert ({}, ("1",)) == (history.partial, history.accounts)


def test_account_totals_tell_of_days_that_are_quiet_in_all_skills(tmp_path: Path) -> None:
    """Where both were collected."""
    skill = row("1", at(2, 8), (1, 0, 0), skill_id=4)
    history = totals(tmp_path, *quiet("1", 2), *quiet("1", 3), skills=[skill])
    assert ({}, SECOND, THIRD) == (history.partial, history.first, history.last)
    assert [(SECOND, 4), (SECOND, None), (THIRD, None)] == [
        (each.day, each.part.id) for each in history.days
    ]
    assert {None, 4} == {part.id for part in history.by_part}


def test_an_accounts_totals_are_more_than_the_sums_over_its_skills(tmp_path: Path) -> None:
    """Where skills were collected of a part only, all is not what they come to."""
    skill = row("1", at(2, 8), (1, 0, 0), skill_id=4)
    account = row("1", at(2, 8), (5, 2, 1))
    history = totals(tmp_path, account, skills=[skill])
    assert (8, 1) == tuple(history.by_part[Part("1", each)][0].total for each in (None, 4))


def test_totals_are_reported_of_days_in_which_no_skills_were_collected(tmp_path: Path) -> None:
    """Though they were before."""
    skill = row("1", at(2), skill_id=4)
    history = totals(tmp_path, row("1", at(3), (1, 0, 0)), skills=[skill], days=1)
    assert (Day(THIRD, Part("1"), 1, 0, 0, 1, 0),) == history.days


def test_a_file_that_is_missing_is_named_and_not_made(tmp_path: Path) -> None:
    """As DuckDB would."""
    place = tmp_path / "none.duckdb"
    with pytest.raises(ConfigurationError, match=f"there is no file {place}"):
        read(Store(destination(f"duckdb:{place}")))
    assert not place.exists()


def test_a_dataset_that_is_missing_is_named(skills: Destination) -> None:
    """There may be others."""
    with pytest.raises(ConfigurationError, match="dataset other: nothing was collected"):
        read(Store(skills, "other"))


def test_a_dataset_without_skills_or_totals_is_an_error(tmp_path: Path) -> None:
    """It cannot be a report of nothing."""
    place = destination(f"duckdb:{tmp_path}/gaps.duckdb")
    store(place, tmp_path / "dlt", {"collection_gaps": [gap("1", at(2), at(3))]})
    with pytest.raises(ConfigurationError, match="holds neither skills nor account totals"):
        read(Store(place))


def test_a_file_that_is_being_written_is_an_error(folder: Path) -> None:
    """It says who writes."""
    file = f"{folder}/a.duckdb"
    program = f"import duckdb; c = duckdb.connect({file!r}); print(flush=True); input()"
    with subprocess.Popen(  # noqa: S603 - the interpreter that runs the tests
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        with pytest.raises(MsgConvError, match=rf"cannot be used: .*\(PID {writer.pid}\)"):
            read(Store(destination(f"duckdb:{file}")))
        writer.communicate(b"\n")


def test_a_database_that_does_not_answer_is_an_error_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In one line."""
    monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", "postgresql://me:sesame@127.0.0.1:9/d")
    with pytest.raises(StoreFailed, match=r"cannot be used: .* refused") as raised:
        read(Store(destination("postgres")))
    assert "sesame" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_credentials_that_are_missing_are_said_to_be() -> None:
    """And where they may be put."""
    with pytest.raises(ConfigurationError, match="DESTINATION__POSTGRES__CREDENTIALS"):
        read(Store(destination("postgres")))


@pytest.mark.parametrize("form", [None, "parquet"])
def test_rows_of_the_far_future_do_not_hide_the_others(tmp_path: Path, form: Any) -> None:
    """A service whose clock was wrong for a while left them, and a gap up to there."""
    place = destination(f"filesystem:{tmp_path}" if form else f"duckdb:{tmp_path}/a.duckdb")
    far = datetime(9999, 12, 31, 23, 50, tzinfo=UTC)
    rows = [row("1", far, (1, 0, 0), 5, skill_id=4), row("3", far, (1, 0, 0), 5, skill_id=4)]
    tables = {"skill_metrics": [*SKILLS, *rows], "collection_gaps": [gap("1", at(5), far)]}
    store(place, tmp_path / "dlt", tables, form)

    history = read(Store(place, "conversations"), 7, by="skill")
    assert (DAYS, ("1", "2"), 2) == (history.days, history.accounts, history.ahead)
    assert (SECOND, FIFTH) == (history.first, history.last)


def test_days_of_a_time_zone_have_23_and_25_hours(tmp_path: Path) -> None:
    """Each is whole with as many buckets as it has, and a bucket belongs where its clocks say."""
    longest, shortest = date(2025, 10, 26), date(2026, 3, 29)
    begins = {
        longest: (datetime(2025, 10, 25, 22, tzinfo=UTC), 300),
        shortest: (datetime(2026, 3, 28, 23, tzinfo=UTC), 276),
    }
    rows = [
        row("1", start + number * BUCKET, (1, 0, 0), 100)
        for start, count in begins.values()
        for number in range(-1, count + 1)
    ]
    place = destination(f"duckdb:{tmp_path}/totals.duckdb")
    store(place, tmp_path / "dlt", {"account_metrics": rows})
    history = read(Store(place), zone=ZoneInfo("Europe/Berlin"))
    counted = {day.day: day.total for day in history.days}
    assert {
        date(2025, 10, 25): 1,
        longest: 300,
        date(2025, 10, 27): 1,
        date(2026, 3, 28): 1,
        shortest: 276,
        date(2026, 3, 30): 1,
    } == counted
    assert "Europe/Berlin" == history.zone
    assert {longest, shortest} == set(history.calendar) - history.partial.keys()
    assert {date(2026, 3, 29), date(2026, 3, 30)} == {
        day.day for day in read(Store(place), 2, zone=ZoneInfo("Asia/Tokyo")).days
    }


def test_skills_are_whole_over_a_long_day(tmp_path: Path) -> None:
    """From its first midnight to its second, and where a gap lies in its last hour, it is not."""
    start, day = datetime(2025, 10, 25, 22, tzinfo=UTC), date(2025, 10, 26)
    rows = [row("1", start + number * BUCKET, (1, 0, 0), 100, skill_id=4) for number in (0, 299)]
    late = gap("1", start + 290 * BUCKET, start + 291 * BUCKET)
    for name, gaps in (("whole", []), ("gap", [late])):
        place = destination(f"duckdb:{tmp_path}/{name}.duckdb")
        tables = {"skill_metrics": rows, "collection_gaps": gaps}
        store(place, tmp_path / "dlt", tables)
        history = read(Store(place), zone=ZoneInfo("Europe/Berlin"))
        assert ([day], bool(gaps)) == (history.calendar, day in history.partial)
