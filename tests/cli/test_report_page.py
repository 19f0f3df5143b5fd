"""The page of a report as its readers have it: in a real Chromium."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from datetime import date, timedelta
from pathlib import Path

import pytest

from msgconv_async.cli.page import page
from msgconv_async.export.history import Day, History, Part
from tests.gateway.browser import Tab, browsing

FIRST = date(2026, 3, 2)
DAYS = [FIRST + timedelta(number) for number in range(3)]
FOUR = Part("71", 4)
HISTORY = History(
    ("71",),
    DAYS[0],
    DAYS[-1],
    (
        Day(DAYS[0], FOUR, 100, 0, 300, 400, 4_000_000),
        Day(DAYS[1], FOUR, 600, 200, 0, 800, 80_000_000),
        Day(DAYS[1], Part("71", -1), 0, 0, 50, 50, 30_000),
        Day(DAYS[2], FOUR, 0, 0, 0, 0, 0),
    ),
    {DAYS[0]: 1},
)

DRAWN = """((id) => {
    const canvas = document.querySelector(`#${id} canvas`);
    const copy = new OffscreenCanvas(canvas.width, canvas.height);
    const pen = copy.getContext("2d", { willReadFrequently: true });
    pen.drawImage(canvas, 0, 0);
    const { data } = pen.getImageData(0, 0, canvas.width, canvas.height);
    const found = {};
    for (let at = 0; at < data.length; at += 4) {
        if (data[at + 3] !== 255) continue;
        const [red, green, blue] = data.slice(at, at + 3);
        const two = (of) => of.toString(16).padStart(2, "0");
        const name = "#" + [red, green, blue].map(two).join("");
        found[name] = (found[name] ?? 0) + 1;
    }
    return found;
})"""
COLOUR = "getComputedStyle(document.documentElement).getPropertyValue('--{}').trim()"
SHOWN = """[...document.querySelectorAll('tbody tr:not([hidden])')].map(
    (row) => [...row.children].map((cell) => cell.textContent))"""
CHOOSE = """((skill) => { const choice = document.getElementById('skill');
    choice.selectedIndex = skill;
    choice.dispatchEvent(new Event('change')); })"""
SAID = """[...document.querySelectorAll('figcaption')].map(
    (each) => [...each.querySelectorAll('.at, [data-of] b')].map((part) => part.textContent))"""


@pytest.fixture
async def tab(tmp_path: Path) -> AsyncIterator[Tab]:
    async with browsing(tmp_path) as tab:
        await tab.look()
        file = tmp_path / "report.html"
        file.write_bytes(page(HISTORY))
        await tab.open(file.as_uri())
        yield tab
        assert [] == tab.problems
        assert [file.as_uri()] == [url for url in tab.requested if not url.startswith("data:")]


async def areas(tab: Tab) -> dict[str, int]:
    """Return how many pixels of the bars each side of a conversation has."""
    drawn: dict[str, int] = await tab.value(f"{DRAWN}('resolved')")
    return {
        side: drawn.get(await tab.value(COLOUR.format(side)), 0)
        for side in ("agent", "consumer", "system")
    }


def test_the_page_can_be_sent() -> None:
    """It is as large as its figures, and its chart library."""
    assert 100_000 > len(page(HISTORY))


async def test_bars_are_as_high_as_their_counts(tab: Tab) -> None:
    """A day that was not collected whole is hatched, so that less of its colour is seen."""
    found = await areas(tab)
    whole = found["consumer"] / 200  # pixels for one conversation of a whole day
    assert 2 < whole
    hatched = found["system"] - 50 * whole
    assert 0.2 < hatched / (300 * whole) < 0.8
    assert pytest.approx(600 * whole + hatched / 3, rel=0.02) == found["agent"]
    assert (
        200 < (await tab.value(f"{DRAWN}('handling')"))[await tab.value(COLOUR.format("average"))]
    )


async def test_a_reader_chooses_the_skill(tab: Tab) -> None:
    """Charts, headings, sums and table follow."""
    assert ["2026-03-02*", "all", "400", "100", "0", "300", "10.0s"] == (await tab.value(SHOWN))[0]
    assert "1,250" == await tab.value("document.getElementById('total').textContent")
    await tab.value(f"{CHOOSE}(1)")
    assert [["2026-03-03", "unassigned", "50", "0", "0", "50", "0.6s"]] == await tab.value(SHOWN)
    assert "50" == await tab.value("document.getElementById('total').textContent")
    title = await tab.value("document.getElementById('who').textContent")
    assert "Resolved conversations per day, skill unassigned" == title
    found = await areas(tab)
    assert (0, 0, True) == (found["agent"], found["consumer"], found["system"] > 1000)


async def test_the_pointer_reads_a_day(tab: Tab) -> None:
    """In the caption, where what the colours mean stands anyway."""
    nothing = [["", "", "", ""], ["", ""]]
    assert nothing == await tab.value(SAID)
    for place, (id_, read) in enumerate(
        (("resolved", ["Mar 3", "600", "200", "50"]), ("handling", ["Mar 3", "1m 34s"]))
    ):
        left, top = await tab.value(
            f"""(() => {{ const box = document.querySelector('#{id_} .u-over')
                .getBoundingClientRect(); return [box.x + box.width / 2, box.y + 20]; }})()"""
        )
        for x in (left - 3, left):
            await tab.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=top)
        expected = [*nothing[:place], read, *nothing[place + 1 :]]
        await tab.until(SAID, expected.__eq__)


async def test_a_phone_scrolls_nothing_but_the_table(tab: Tab) -> None:
    """Under the day, which stays; the charts have the phone's width."""
    await tab.look(width=390, height=844)
    await tab.until("document.querySelector('#resolved canvas').clientWidth < 360")
    assert 390 == await tab.value("document.documentElement.scrollWidth")
    left = """(() => { document.querySelector('.table').scrollLeft = 500;
        return document.querySelector('tbody th').getBoundingClientRect().left; })()"""
    assert await tab.value(left) < 20
    small = (
        "[...document.querySelectorAll('select')].filter((each) => each.offsetHeight < 44).length"
    )
    assert 0 == await tab.value(small)


async def test_it_is_drawn_in_the_readers_colours_and_on_paper_in_those_of_paper(tab: Tab) -> None:
    """Paper has all rows of the skill, and no control."""
    light = await areas(tab)
    await tab.look(dark=True)
    await tab.until(f"{DRAWN}('resolved')['#56b4e9']")
    assert pytest.approx(light) == await areas(tab)
    await tab.call(
        "Emulation.setEmulatedMedia",
        media="print",
        features=[{"name": "prefers-color-scheme", "value": "dark"}],
    )
    await tab.value("dispatchEvent(new Event('beforeprint'))")
    assert "#0b6fb8" == await tab.value(COLOUR.format("agent"))
    assert min((await areas(tab)).values()) > 100
    assert 660 == await tab.value("document.querySelector('#resolved canvas').clientWidth")
    assert "none" == await tab.value("getComputedStyle(document.querySelector('.choice')).display")
    await tab.call("Emulation.setEmulatedMedia", media="")
    paper = base64.b64decode((await tab.call("Page.printToPDF"))["data"])
    assert paper.startswith(b"%PDF")
    await tab.value("dispatchEvent(new Event('afterprint'))")
    assert 900 < await tab.value("document.querySelector('#resolved canvas').clientWidth")


async def test_a_screen_reader_has_the_table_and_the_charts_names(tab: Tab) -> None:
    tree = (await tab.call("Accessibility.getFullAXTree"))["nodes"]
    named = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in tree
        if not node["ignored"]
    ]
    assert ("table", "Figures by day (UTC)") in named
    assert ("image", "Resolved conversations per day, all skills") in named
    assert ("image", "Average handling time per day, all skills") in named
    assert ("combobox", "Skill") in named
    assert 7 == sum(role == "columnheader" for role, _ in named)
    assert 3 == sum(role == "rowheader" for role, _ in named)
