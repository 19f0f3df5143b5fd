from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import date
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from msgconv_async.cli import show
from msgconv_async.cli.captions import notes
from msgconv_async.cli.chart import bars
from msgconv_async.cli.page import page
from msgconv_async.cli.report import Report, as_csv, as_json, shown
from msgconv_async.export.destination import destination
from msgconv_async.export.history import Day, History, Part, read
from msgconv_async.export.store import Store
from msgconv_async.names import Names
from tests.cli.conftest import Run, clean_environment, run_process, run_without
from tests.export.sample_history import at, gap, row, store
from tests.programs import program

SKILLS = [
    row("71", at(2), (0, 0, 1), 8_000, skill_id=4),
    row("71", at(3, 8), (1, 2, 0), 700_000, skill_id=4),
    row("71", at(3, 9), (1_200, 0, 0), 900_000, skill_id=4),
    row("71", at(3, 8), (0, 0, 5), 3_000, skill_id=-1),
    row("71", at(4, 23, 55), (0, 0, 0), 0, skill_id=4),
]
NOTES = """\
* Not collected whole: 2026-03-02.
Handling times are read as milliseconds: the API names no unit, and LivePerson's own demo dashboard
divides them by 1000 to get seconds.
"""
TABLE = f"""\
Resolved conversations, 2026-03-02 to 2026-03-04 (UTC), account 71

day          skill       resolved  by agent  consumer  system  average
───────────────────────────────────────────────────────────────────────
2026-03-02*  4                  1         0         0       1     8.0s
2026-03-02*  all                1         0         0       1     8.0s

2026-03-03   unassigned         5         0         0       5     0.6s
2026-03-03   4              1,203     1,201         2       0     1.3s
2026-03-03   all            1,208     1,201         2       5     1.3s

2026-03-04   4                  0         0         0       0        -
2026-03-04   all                0         0         0       0        -

{NOTES}"""


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Keep a history, and return where."""
    folder = tmp_path_factory.mktemp("collected")
    place = f"duckdb:{folder}/a.duckdb"
    tables = {"skill_metrics": SKILLS, "collection_gaps": [gap("71", at(2, 8), at(2, 9))]}
    store(destination(place), folder / "dlt", tables)
    return place


@pytest.fixture
def history(collected: str) -> History:
    """Return the history that is kept."""
    return read(Store(destination(collected)))


def in_terminal(history: History) -> str:
    """Return what a terminal shows."""
    return show.rendered(shown(history), encoding="utf-8", terminal=True).decode()


def plain(shown: str) -> list[str]:
    return [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()]


def test_in_a_pipe_it_is_a_plain_table(collected: str) -> None:
    """As wide as ever, nothing else around it, and nothing on stderr, not even from dlt."""
    code, out, err = run_process("report", "--destination", collected, COLUMNS="40")
    assert (0, "") == (code, err)
    assert TABLE.splitlines() == plain(out)
    assert "\x1b" not in out


def test_account_totals_are_a_row_a_day() -> None:
    """There is nothing to sum up."""
    first, last = date(2026, 3, 2), date(2026, 3, 3)
    rows = tuple(Day(day, Part("[b]x"), 1, 2, 0, 3, 3_000) for day in (first, last))
    history = History(("[b]x",), first, last, rows, {}, by="account")
    assert [
        "Resolved conversations, 2026-03-02 to 2026-03-03 (UTC), account [b]x",
        "2026-03-02 [b]x 3 1 2 0 1.0s",
        "2026-03-03 [b]x 3 1 2 0 1.0s",
    ] == lines_of(history)


def lines_of(history: History) -> list[str]:
    """Return the lines of a history's table that hold a day."""
    table = show.rendered(shown(history), encoding="utf-8", terminal=False).decode()
    return [re.sub(" +", " ", line) for line in plain(table) if re.search("2026.*[a-z0-9]$", line)]


@pytest.fixture
def two() -> History:
    """Return an hour of two accounts, which both have a skill 4."""
    day = date(2026, 3, 2)
    parts = [(Part("71", 4), 3), (Part("71", 5), 1), (Part("71"), 4), (Part("72", 4), 9)]
    rows = tuple(Day(day, part, count, 0, 0, count, 1_000, 8) for part, count in parts)
    return History(("71", "72"), day, day, rows, {day: 1}, hourly=True)


def test_accounts_are_told_apart_skill_by_skill(two: History) -> None:
    """What comes to what is in the order of adding up."""
    assert [
        "Resolved conversations, 2026-03-02 to 2026-03-02 (UTC), 2 accounts",
        "2026-03-02 08:00* 71 4 3 3 0 0 0.3s",
        "2026-03-02 08:00* 71 5 1 1 0 0 1.0s",
        "2026-03-02 08:00* 71 all 4 4 0 0 0.2s",
        "2026-03-02 08:00* 72 4 9 9 0 0 0.1s",
        "2026-03-02 08:00* 72 all 9 9 0 0 0.1s",
        "2026-03-02 08:00* all all 13 13 0 0 0.2s",
    ] == lines_of(two)


def test_names_stand_beside_ids(two: History) -> None:
    """In the table and on the page; they are text and nothing else."""
    names = Names(accounts={"71": "[b]Shop"}, skills={4: "<b>B\x1b"})
    named = msgspec.structs.replace(two, names=names)
    shown = lines_of(named)
    assert "2026-03-02 08:00* 71 [b]Shop 4 <b>B\\x1b 3 3 0 0 0.3s" == shown[1]
    assert "2026-03-02 08:00* 72 all 9 9 0 0 0.1s" == shown[5]
    document = page(named).decode()
    assert ">71 [b]Shop: 4 &lt;b&gt;B\\x1b</option>" in document
    alone = History(("71",), two.first, two.last, two.days[:1], {}, by="agent", names=names)
    assert [">4</option>"] == re.findall(r">[^<]*</option>", page(alone).decode())


def test_names_have_columns_of_their_own_in_rows(two: History) -> None:
    """Beside the ids, which stay as they were; what has no name has an empty one."""
    names = Names(accounts={"71": "Shop, 1"}, skills={4: "B\x1b\u202e"}, agents={4: "Ada"})
    named = msgspec.structs.replace(two, names=names)
    head, *rows = as_csv(named).decode().splitlines()
    assert head.startswith("day,hour,account_id,account_name,skill_id,skill_name,resolved,")
    assert [
        '2026-03-02,8,71,"Shop, 1",4,B\\x1b\\u202e,3',
        '2026-03-02,8,71,"Shop, 1",5,,1',
        "2026-03-02,8,72,,4,B\\x1b\\u202e,9",
    ] == [row.rsplit(",", 5)[0] for row in rows]
    document = as_json(named)
    assert b"\\u202e" in document
    assert [("Shop, 1", "B\x1b\u202e"), ("Shop, 1", None), (None, "B\x1b\u202e")] == [
        (row["account_name"], row["skill_name"]) for row in json.loads(document)
    ]
    agents = msgspec.structs.replace(named, by="agent")
    assert ["Ada", None, "Ada"] == [row["agent_name"] for row in json.loads(as_json(agents))]


def test_the_command_gives_names_to_a_program(run: Run, collected: str, tmp_path: Path) -> None:
    path = tmp_path / "n.csv"
    path.write_text("account,71,Shop\nskill,4,Sales")
    given = ("report", "--destination", collected, "--names", path, "--format", "csv")
    assert ",71,Shop,4,Sales," in run(*given, "--by", "skill").out
    assert ",71,Shop,1," in run(*given, "--by", "account").out


def test_help_says_that_the_hour_which_comes_twice_is_one_row(run: Run) -> None:
    """At both options that lead there."""
    said = " ".join(run("help", "report").out.replace("│", " ").split())
    assert "by the clock: the hour that comes twice, where clocks are put back, is one row" in said
    assert "a day has 25 hours, and with --hourly two of them are one row" in said


def test_rows_for_a_program_hold_no_sums(two: History) -> None:
    """Else they would be counted twice."""
    figures = "resolved,by_agent,by_consumer,by_system,average_handling_time_ms"
    assert [
        f"day,hour,account_id,skill_id,{figures},whole_day",
        "2026-03-02,8,71,4,3,3,0,0,333.3333333333333,false",
        "2026-03-02,8,71,5,1,1,0,0,1000.0,false",
        "2026-03-02,8,72,4,9,9,0,0,111.11111111111111,false",
    ] == as_csv(two).decode().splitlines()


def test_the_command_takes_an_account_a_grain_and_a_format(run: Run, collected: str) -> None:
    place = ("--destination", collected)
    done = run("report", "71", *place, "--by", "account", "--days", 2, "--format", "json")
    assert (0, "") == (done.code, done.err)
    assert [
        ("2026-03-03", "71", 1208, True),
        ("2026-03-04", "71", 0, True),
    ] == [
        (row["day"], row["account_id"], row["resolved"], row["whole_day"])
        for row in json.loads(done.out)
    ]
    hours = run("report", *place, "--hourly", "--format", "csv").out.splitlines()
    assert [f"{hour}" for hour in (0, 8, 8, 9, 23)] == [line.split(",")[1] for line in hours[1:]]


def test_more_days_than_there_are_are_all(run: Run, collected: str) -> None:
    """However many."""
    assert TABLE.splitlines() == plain(
        run("report", "--destination", collected, "--days", 10**12).out
    )


def test_days_are_counted_back_from_the_newest(run: Run, collected: str) -> None:
    """One is the newest."""
    done = run("report", "--destination", collected, "--days", 1)
    assert "Resolved conversations, 2026-03-04 to 2026-03-04 (UTC), account 71" in done.out
    assert {"2026-03-04"} == set(re.findall(r"(?m)^ *(2026\S+) ", done.out))
    assert "Not collected whole" not in done.out


@pytest.mark.parametrize("width", ["80", "120"])
def test_a_terminal_shows_charts_as_well(
    history: History, monkeypatch: pytest.MonkeyPatch, width: str
) -> None:
    """Of each skill, who resolved and how long it took; no line is wider than the terminal."""
    monkeypatch.setenv("COLUMNS", width)
    lines = plain(in_terminal(history))
    assert all(len(line) <= int(width) for line in lines)
    assert [
        f"{skill}: █ agent ▒ consumer ░ system {skill}: average handling time"
        for skill in ("all", "4", "unassigned")
    ] == [re.sub(" +", " ", line) for line in lines if "█ agent" in line]
    assert 6 == sum(line.count("02*") for line in lines if re.match("02", line))
    assert any("1,208┤" in line for line in lines)


def test_charts_are_drawn_of_the_busiest_skills() -> None:
    """And it is said where the others are."""
    day = date(2026, 3, 2)
    days = tuple(Day(day, Part("71", skill), skill, 0, 0, skill, 0) for skill in range(1, 7))
    lines = plain(in_terminal(History(("71",), day, day, days, {})))
    assert ["all", "6", "5", "4"] == [each.partition(":")[0] for each in lines if "█ agent" in each]
    assert "Charts of the 4 busiest; --html draws all 7." in lines


def test_days_in_a_row_are_named_by_the_first_and_the_last() -> None:
    """As long as they lack the same number of accounts."""
    days = [date(2026, 3, number) for number in range(1, 8)]
    lacking = dict(zip((days[0], *days[2:]), (1, 1, 1, 2, 2, 1), strict=True))
    history = History(("71", "72"), days[0], days[-1], (), lacking)
    assert (
        "* Not collected whole: 2026-03-01 (1 of 2 accounts),"
        " 2026-03-03 to 2026-03-04 (1 of 2 accounts), 2026-03-05 to 2026-03-06 (2 of 2 accounts),"
        " 2026-03-07 (1 of 2 accounts)."
    ) == notes(history)[0]


def test_rows_of_the_future_are_told(history: History) -> None:
    """They are in none of the figures."""
    told = [notes(msgspec.structs.replace(history, ahead=number)) for number in (0, 1, 1234)]
    assert [
        [],
        ["1 row lies in the future by this machine's clock, and not shown."],
        ["1,234 rows lie in the future by this machine's clock, and not shown."],
    ] == [[note for note in each if "future" in note] for each in told]


def test_without_colour_there_is_none(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bars differ in more than that."""
    assert "\x1b[36m" in in_terminal(history)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[3" not in in_terminal(history)


CONSOLE = Console(width=80)


@pytest.mark.parametrize("count", [1, 2, 7, 10, 30])
def test_bars_are_as_wide_as_each_other(count: int) -> None:
    """And as many as there are labels, while each has a column."""
    drawn = bars("t", [[3] * count, [2] * count, [1] * count], ["x"] * count, CONSOLE, width=40)
    bottom = next(line for line in drawn.plain.splitlines() if line.startswith("0┤"))
    found = re.findall("█+", bottom)
    if count < 30:
        assert count == len(found)
        assert 1 == len(set(found))
    else:
        assert ["█" * 30] == found


def test_more_bars_than_columns_are_the_last() -> None:
    """And the title says so."""
    drawn = bars("t", [list(range(50))], [f"{each}" for each in range(50)], CONSOLE, width=25)
    assert "t, the last 20" == drawn.plain.splitlines()[0]
    assert "30" in drawn.plain.splitlines()[-1]


WRONG = {
    "no such file": (("--destination", "duckdb:/nope/a.duckdb"), 2, "no file /nope/a.duckdb"),
    "no such destination": (("--destination", "nope"), 2, "destination 'nope': dlt has no"),
    "no such dataset": (("--dataset", "other"), 2, "dataset other: nothing was collected"),
    "no name": (("--dataset", "[/b] c"), 2, "dataset '[/b] c': a name is made of up to 63 small"),
    "no such account": (("99",), 2, "nothing was collected of account '99'"),
    "hours on a page": (("--hourly", "--html", "x"), 2, "--hourly and --html: give one of the"),
    "rows on a page": (("--format", "csv", "--html", "x"), 2, "--format and --html: give one of"),
    "no time zone": (("--tz", "Mars"), 2, "--tz: 'Mars' is not the name of a time zone such as"),
    "no names": (("--names", "a.txt"), 2, "--names: a.txt: a file of names ends in .toml or in"),
    "no days": (("--days", "0"), 2, "--days=0: it must be 1 or more"),
    "no folder": (("--html", "/nope/a.html"), 2, "--html=/nope/a.html: cannot write there"),
    "no credentials": (("--destination", "postgres"), 2, "DESTINATION__POSTGRES__CREDENTIALS"),
}


@pytest.mark.parametrize(("arguments", "code", "said"), WRONG.values(), ids=WRONG)
def test_a_mistake_is_one_line_on_stderr(
    run: Run, collected: str, arguments: tuple[str, ...], code: int, said: str
) -> None:
    """The last word on an option is the one that counts."""
    place = () if "--destination" in arguments else ("--destination", collected)
    done = run("report", *place, *arguments)
    assert (code, "") == (done.code, done.out)
    [line] = done.err.splitlines()
    assert line.startswith("msgconv: ")
    assert said in line


@pytest.mark.parametrize("name", ["dlt", "filelock"])
def test_without_the_extra_one_line_says_which(tmp_path: Path, collected: str, name: str) -> None:
    """No page is left behind either."""
    done = run_without(name, "report", "--destination", collected, "--html", tmp_path / "a.html")
    assert (2, "", []) == (done.code, done.out, list(tmp_path.iterdir()))
    [line] = done.err.splitlines()
    assert "pip install '.[cli,etl]' in a clone" in line


@pytest.mark.parametrize(
    ("environment", "reports"), [({}, "False"), ({"RUNTIME__DLTHUB_TELEMETRY": "true"}, "True")]
)
def test_dlt_reports_to_its_makers_only_where_the_user_says_so(
    collected: str, environment: dict[str, str], reports: str
) -> None:
    """It would by itself."""
    program = (
        f"from msgconv_async.cli import main; main(['report', '--destination', {collected!r}])\n"
        "from dlt.common.runtime import anon_tracker, telemetry\n"
        "assert telemetry._TELEMETRY_STARTED\n"
        "print(anon_tracker._ANON_TRACKER_ENDPOINT is not None)"
    )
    nobody = {"RUNTIME__DLTHUB_TELEMETRY_ENDPOINT": "http://127.0.0.1:9"}
    done = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=clean_environment(**environment, **nobody),
        check=True,
    )
    assert reports == done.stdout.splitlines()[-1]


class Seen(HTMLParser):
    """The text of a page's cells and options, by row, and its elements."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(document)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in {"td", "th"}:
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] in {"td", "th"} and data.strip():
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def written(collected: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a page of the history, and return where."""
    path = tmp_path_factory.mktemp("page") / "a.html"
    assert 0 == Report(Store(destination(collected)), 7).run(path)
    return path


def test_the_page_has_every_figure_without_a_script(written: Path) -> None:
    """By skill, all of them first."""
    assert [
        ["2026-03-02*", "all", "1", "0", "0", "1", "8.0s"],
        ["2026-03-03", "all", "1,208", "1,201", "2", "5", "1.3s"],
        ["2026-03-04", "all", "0", "0", "0", "0", "-"],
        ["2026-03-03", "unassigned", "5", "0", "0", "5", "0.6s"],
        ["2026-03-02*", "4", "1", "0", "0", "1", "8.0s"],
        ["2026-03-03", "4", "1,203", "1,201", "2", "0", "1.3s"],
        ["2026-03-04", "4", "0", "0", "0", "0", "-"],
    ] == Seen(written.read_text("utf-8")).rows[1:]


def test_the_page_is_written_all_at_once(run: Run, collected: str, tmp_path: Path) -> None:
    """Nothing goes to stdout, and what fails leaves what was there."""
    path = tmp_path / "a.html"
    path.write_text("before")
    assert 2 == run("report", "--destination", collected, "--dataset", "x", "--html", path).code
    assert ("before", [path]) == (path.read_text(), list(tmp_path.iterdir()))
    assert (0, "", "") == run("report", "--destination", collected, "--html", path)
    assert path.read_text("utf-8").startswith("<!doctype html>")
    assert [path] == list(tmp_path.iterdir())


def test_a_new_page_is_its_owners_alone(run: Run, collected: str, tmp_path: Path) -> None:
    """It holds data; one that was there keeps its mode."""
    old, new = tmp_path / "old.html", tmp_path / "new.html"
    old.touch()
    old.chmod(0o644)
    for path in (old, new):
        assert 0 == run("report", "--destination", collected, "--html", path).code
    assert (0o644, 0o600) == (old.stat().st_mode & 0o777, new.stat().st_mode & 0o777)


def test_a_report_ends_however_narrow_the_terminal(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Charts among it."""
    for columns in ("0", "1", "2", "20", "999999999"):
        monkeypatch.setenv("COLUMNS", columns)
        assert "Handling" in in_terminal(history)


def test_names_are_text_in_a_page(history: History) -> None:
    """And nothing but text."""
    name = "<script>alert('&')</script>"
    document = page(msgspec.structs.replace(history, accounts=(name,))).decode()
    assert 0 == document.count("<script>alert")
    assert 1 == document.count("account &lt;script&gt;alert(&#x27;&amp;&#x27;)")


def browsed(folder: Path, page: Path) -> tuple[str, list[str]]:
    """Return a page as a browser has it after its scripts, and what the page has requested."""
    browser = program("chromium")
    log = folder / "log.json"
    options = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync
        --disable-background-networking --disable-component-update --virtual-time-budget=10000
        --proxy-server=127.0.0.1:9 --proxy-bypass-list=<-loopback>"""  # so that nothing gets out
    done = subprocess.run(  # noqa: S603 - a browser that looks at our own page
        [
            *(browser, *options.split(), f"--user-data-dir={folder}/profile"),
            *(f"--log-net-log={log}", "--dump-dom", page.as_uri()),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        timeout=60,
        check=True,
    )
    events = [each.get("params", {}) for each in json.loads(log.read_bytes())["events"]]
    # The browser makes requests of its own, on behalf of no page.
    requested = [
        each["url"] for each in events if each.get("initiator", "not an origin") != "not an origin"
    ]
    return done.stdout, requested


def test_a_browser_requests_nothing(written: Path, tmp_path: Path) -> None:
    """And has run the scripts."""
    document, requested = browsed(tmp_path, written)
    assert [] == requested
    assert '<dd id="total">1,209</dd>' in document


def test_a_page_of_days_without_rows_is_a_page() -> None:
    """Such as of accounts in which nothing happened."""
    day = date(2026, 3, 2)
    assert b'<dd id="total">' in page(History(("71",), day, day, (), {}))


@pytest.mark.parametrize(
    ("kept", "requests", "title"), [(True, [], ""), (False, ["http://outside.invalid/a.png"], "in")]
)
def test_the_pages_policy_lets_nothing_out(
    written: Path,
    tmp_path: Path,
    kept: bool,  # noqa: FBT001
    requests: list[str],
    title: str,
) -> None:
    """Nor run, even if something were let in; without it, both are seen to happen."""
    [policy] = re.findall("<meta http-equiv=.*?>", written.read_text("utf-8"))
    intruder = '<img src="http://outside.invalid/a.png"><script>document.title = "in"</script>'
    path = tmp_path / "a.html"
    path.write_text(f"<!doctype html><title></title>{policy if kept else ''}{intruder}")
    document, requested = browsed(tmp_path, path)
    assert requests == requested
    assert f"<title>{title}</title>" in document
