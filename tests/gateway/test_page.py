"""The live page: what it asks for, what it tells, and what it remembers."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from importlib.resources import files

import pytest
from aiohttp import web

from msgconv_async import Account, ConversationSession
from msgconv_async.gateway.page import live, routes
from msgconv_async.gateway.page.history import Memory, together
from msgconv_async.gateway.page.live import Live
from msgconv_async.names import Names
from msgconv_async.pacing.pacer import Pacer
from msgconv_async.protocol.buckets import BUCKET, EPOCH, floor
from msgconv_async.protocol.report import (
    AgentBreakdown,
    ConversationMetrics,
    Interval,
    SkillBreakdown,
)
from msgconv_async.sandbox import Clock, Sandbox
from tests.client.support import CLIENT
from tests.gateway.support import get, looking, running, truth

MIDNIGHT = EPOCH + timedelta(days=20_000)


def closed(end: datetime, total: int | None = 7, skills: int = 1) -> Interval:
    """Return a bucket in which an agent resolved so many conversations, in each of the skills."""
    metrics = ConversationMetrics(
        total_resolved_conversations=total,
        resolved_conversations_by_ccp=total,
        total_handling_time_resolved_conversations=1000,
    )
    agents = AgentBreakdown({101: metrics}, metrics)
    return Interval(
        start=end - BUCKET,
        end=end,
        complete=True,
        skills=SkillBreakdown(dict.fromkeys(range(skills), agents), metrics),
        agents=agents,
        totals=metrics,
    )


# ---------------------------------------------------------------------- what is asked


async def test_nobody_looks_and_nothing_is_asked(quick: Clock) -> None:
    """Not even when the page itself is fetched: only a stream is somebody who looks."""
    async with Sandbox(accounts=3, clock=quick) as sandbox, running(sandbox) as url:
        assert 200 == (await get(f"{url}/"))[0]
        await asyncio.sleep(1)
        assert 0 == sandbox.requests.total()


@pytest.mark.parametrize(
    ("site", "status"),
    [("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)],
)
async def test_a_page_of_another_site_makes_it_ask_nothing(site: str, status: int) -> None:
    async with Sandbox() as sandbox, running(sandbox) as url:
        for target in ("/live/all", f"/live/account/{sandbox.account_ids[0]}"):
            assert status == (await get(url + target, **{"Sec-Fetch-Site": site}))[0]
        if status != 200:
            assert status == (await get(f"{url}/live/events", **{"Sec-Fetch-Site": site}))[0]


async def test_a_page_that_is_switched_off_is_not_there() -> None:
    async with Sandbox() as sandbox, running(sandbox, page=False) as url:
        for target in ("/", "/live/events", "/live/all"):
            status, headers, _ = await get(url + target)
            assert (404, "request") == (status, headers["Msgconv-Gateway"])


async def test_following_ends_when_nobody_looks_any_more_and_goes_on_where_it_ended(
    quick: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What closed in between is asked for, and no more than that."""
    monkeypatch.setattr(live, "LINGER", 0.2)
    asked: list[int] = []

    async def note(request: web.Request) -> None:
        if "timeframe" in request.query:
            asked.append(int(request.query["timeframe"]))

    async with Sandbox(clock=quick, fault=note) as sandbox, running(sandbox) as url:
        async with looking(url) as stream:
            [row] = await stream.rows(lambda row: row["summary"] is not None)
        await asyncio.sleep(0.5)
        assert 1440 == max(asked)
        asked.clear()
        await asyncio.sleep(1)
        assert [] == asked
        quick.advance(3 * BUCKET)
        async with looking(url) as stream:
            end = row["summary"]["end"] + 3 * BUCKET.total_seconds()
            [later] = await stream.rows(lambda row: bool(row["summary"]["end"] == end))
        assert row["summary"]["seen"] + 3 == later["summary"]["seen"]
        assert max(asked) < 60


async def test_following_begins_anew_after_a_fault_of_our_own(
    quick: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(live, "_REST", 0.05)
    faults = [ZeroDivisionError("ours")]

    right = Memory.add

    def add(memory: Memory, interval: Interval) -> None:
        if faults:
            raise faults.pop()
        right(memory, interval)

    monkeypatch.setattr(Memory, "add", add)
    async with Sandbox(clock=quick) as sandbox, running(sandbox) as url, looking(url) as stream:
        await stream.rows(lambda row: row["summary"] is not None)
    assert "begins anew" in caplog.text


# ---------------------------------------------------------------------- what is told


async def test_a_viewer_is_told_all_and_then_what_changes(quick: Clock) -> None:
    """A bucket that closes is told with the sandbox's own truth of it."""
    async with (
        Sandbox(accounts=3, clock=quick) as sandbox,
        running(sandbox) as url,
        looking(url) as stream,
    ):
        first = await stream.event()
        assert "all" == first.kind
        assert list(sandbox.account_ids) == [row["id"] for row in first.data["rows"]]
        assert set(sandbox.account_ids) == set(first.data["pace"])
        assert quick().timestamp() == pytest.approx(first.data["now"], abs=5)
        end = floor(quick())
        for _ in range(2):
            rows = await stream.rows(partial(_is_at, end), accounts=3)
            for row in rows:
                assert truth(sandbox, row["id"], end) == row["summary"]["last"]
                midnight = end.replace(hour=0, minute=0)
                assert len(sandbox.resolved(row["id"], midnight, end)) == row["summary"]["today"]
                assert (end - midnight) // BUCKET == row["summary"]["seen"]
            quick.advance(BUCKET)
            end += BUCKET
        async with looking(url) as other:
            assert first.id < (await other.event()).id


async def test_names_stand_beside_the_ids(quick: Clock) -> None:
    """Of the accounts with their rows, and of the skills and agents that are listed."""
    names = Names(
        accounts={"10000001": "Shop"}, skills={1: "Billing", 99: "none"}, agents={101: "A"}
    )
    async with (
        Sandbox(accounts=2, clock=quick) as sandbox,
        running(sandbox, names=names) as url,
        looking(url) as stream,
    ):
        rows = await stream.rows(lambda row: row["summary"] is not None, accounts=2)
        assert {"10000001": "Shop", "10000002": ""} == {row["id"]: row["name"] for row in rows}
        _, _, body = await get(f"{url}/live/account/10000001")
        assert {"skills": {"1": "Billing"}, "agents": {"101": "A"}} == json.loads(body)["names"]


def _is_at(end: datetime, row: dict[str, dict[str, float]]) -> bool:
    return bool(row["summary"]) and row["summary"]["end"] == end.timestamp()


async def test_an_account_is_told_by_skill_and_agent(quick: Clock) -> None:
    async with (
        Sandbox(clock=quick) as sandbox,
        running(sandbox) as url,
        looking(url) as stream,
    ):
        [account_id] = sandbox.account_ids
        end = floor(quick())
        await stream.rows(partial(_is_at, end))
        _, headers, body = await get(f"{url}/live/account/{account_id}")
        assert "no-store" == headers["Cache-Control"]
        account = json.loads(body)
        for period, buckets in zip(account["periods"], (1, 12), strict=True):
            found = sandbox.resolved(account_id, end - buckets * BUCKET, end)
            for name, attribute in (("skills", "skill"), ("agents", "agent")):
                expected: dict[str, int] = {}
                for conversation in found:
                    id_ = str(getattr(conversation, attribute))
                    expected[id_] = expected.get(id_, 0) + 1
                assert expected == {id_: total for id_, total, *_ in period[name]}
            for skill, agents in period["within"].items():
                of_skill = [one for one in found if str(one.skill) == skill]
                assert len(of_skill) == sum(total for _, total, *_ in agents)
                assert sum(one.handling_time_ms for one in of_skill) == sum(
                    time for *_, time in agents
                )
        day = (end - EPOCH) // timedelta(days=1)
        assert day == account["day"]
        assert len(sandbox.resolved(account_id, end - BUCKET, end)) == account["today"][143]
        assert [None] * 144 == account["today"][144:] == account["before"][:144]
        assert 404 == (await get(f"{url}/live/account/9"))[0]

        everything = json.loads((await get(f"{url}/live/all"))[2])
        assert everything == {name: account.get(name, 1) for name in everything}


async def test_a_failure_is_told_until_a_bucket_comes(quick: Clock) -> None:
    async with Sandbox(clock=quick) as sandbox, running(sandbox) as url:
        sandbox.fail_next(503)
        async with looking(url) as stream:
            [row] = await stream.rows(lambda row: bool(row["failure"]))
            assert "the service failed (HTTP 503)" in row["failure"]
            assert quick().timestamp() == pytest.approx(row["failed_at"], abs=5)
            assert row["summary"] is None
            [row] = await stream.rows(lambda row: row["summary"] is not None)
            assert "" == row["failure"]


async def test_the_pace_is_told_when_it_changes(
    quick: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the pace of all who ask through the gateway, not of the page alone."""
    monkeypatch.setattr(live, "PACE_EVERY", 0.25)
    async with (
        Sandbox(clock=quick, rate=8, burst=0) as sandbox,
        running(sandbox) as url,
        looking(url) as stream,
    ):
        [account_id] = sandbox.account_ids
        asking = asyncio.gather(
            *(
                get(f"{url}/operations/api/account/{account_id}/msgconversation?timeframe={n}&v=1")
                for n in range(1, 25)
            )
        )
        waited = 0
        while True:
            told = (await stream.event("pace")).data["pace"][account_id]
            by, rate, _, waiting, _, refused, sent = told
            waited = max(waited, waiting)
            if refused and waited and by is not None:
                break
        assert sent >= refused
        assert rate > 0
        await asking


async def test_silence_is_broken(quick: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "BEAT", 0.1)
    monkeypatch.setattr(live, "PACE_EVERY", 1e6)
    async with Sandbox(clock=quick, latency=5) as sandbox, running(sandbox) as url:
        async with looking(url) as stream:
            first, second = [await stream.event("beat") for _ in range(2)]
        assert first.id < second.id
        assert first.data["now"] < second.data["now"]


async def test_a_viewer_who_does_not_keep_up_is_sent_away() -> None:
    """And the others are told as before."""
    page = Live(ConversationSession(), [Account("1", CLIENT)], lambda _: Pacer())
    (slow, _), (quick, _) = (entered for _ in range(2) if (entered := page.enter()))
    for _ in range(live.WAITING + 1):
        page._tell("rows", {})
        assert await quick.message()
    assert await slow.message() is None
    assert {quick} == page._viewers


async def test_so_many_may_look_and_no_more(quick: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "VIEWERS", 1)
    async with Sandbox(clock=quick) as sandbox, running(sandbox) as url, looking(url):
        status, headers, _ = await get(f"{url}/live/events")
        assert (503, "5") == (status, headers["Retry-After"])


async def test_a_stream_does_not_hold_up_the_end(quick: Clock) -> None:
    async with Sandbox(clock=quick) as sandbox:
        async with running(sandbox, grace=20) as url:
            response = asyncio.create_task(_until_ended(url))
            await asyncio.sleep(0.5)
            began = time.monotonic()
        assert 5 > time.monotonic() - began
        await response


async def _until_ended(url: str) -> None:
    async with looking(url) as stream:
        with suppress(EOFError):
            while True:
                await stream.event()


# ---------------------------------------------------------------------- files


async def test_the_page_asks_no_other_host_and_runs_nothing_of_a_stranger() -> None:
    async with Sandbox() as sandbox, running(sandbox) as url:
        _, headers, body = await get(f"{url}/")
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert ("nosniff", "same-origin") == (
            headers["X-Content-Type-Options"],
            headers["Referrer-Policy"],
        )
        page = body.decode()
        assert not re.search(r"<style|style=|\son\w+=|https?:|<script(?![^>]* src=)", page)
        addresses = re.findall(r'(?:src|href)="(live/[^"]+)"', page)
        assert len(addresses) == 4
        for address in addresses:
            status, headers, _ = await get(f"{url}/{address}")
            assert 200 == status
            assert "immutable" in headers["Cache-Control"]
            assert policy == headers["Content-Security-Policy"]
        folder = addresses[0].rpartition("/")[0]
        for stranger in ("index.html", "..%2fapp.py", "LICENSE", "live.py"):
            assert 404 == (await get(f"{url}/{folder}/{stranger}"))[0]


def test_the_page_is_small_and_its_code_of_others_is_named() -> None:
    vendor = files("msgconv_async") / "vendor"
    folders = (files("msgconv_async.gateway.page") / "static", vendor)
    sizes = [len(item.read_bytes()) for folder in folders for item in folder.iterdir()]
    assert 150_000 > sum(sizes)
    note = (vendor / "README.md").read_text("utf-8")
    script = (vendor / "uPlot.iife.min.js").read_text("utf-8")
    [version] = re.findall(r"\(v([\d.]+)\)", script[:200])
    assert f"| {version} | MIT" in note
    assert "MIT License" in (vendor / "LICENSE").read_text("utf-8")


# ---------------------------------------------------------------------- memory


def test_a_month_takes_as_much_memory_as_two_days() -> None:
    memory = Memory()
    sizes = set()
    for number in range(1, 30 * 288 + 1):
        memory.add(closed(MIDNIGHT + number * BUCKET, number % 100))
        if number >= 2 * 288 and number % 288 == 0:
            sizes.add(
                sum(map(sys.getsizeof, memory._columns))
                + sum(map(sys.getsizeof, memory._hour.values()))
            )
    assert len(sizes) == 1
    assert 50_000 > sizes.pop()
    summary = memory.summary()
    assert summary is not None
    assert (288, 288) == (summary.seen, summary.common)
    first = 29 * 288
    expected = [number % 100 for number in range(first + 1, first + 289)]
    assert expected == memory.day(memory.today)


def test_a_bucket_that_was_revised_takes_the_place_of_what_came() -> None:
    memory = Memory()
    for total in (3, 5):
        memory.add(closed(MIDNIGHT + BUCKET, total))
    memory.add(closed(MIDNIGHT + 2 * BUCKET, 2))
    memory.add(closed(MIDNIGHT + BUCKET, 6))
    summary = memory.summary()
    assert summary is not None
    assert (8.0, 2, 2.0) == (summary.today, summary.seen, summary.last[0])
    assert (8.0, 8.0, None, None, 2000.0) == memory.breakdown(12).agents[101]
    assert (2.0, 2.0, None, None, 1000.0) == memory.breakdown(1).agents[101]


def test_the_day_before_is_compared_in_the_buckets_that_both_days_have() -> None:
    memory = Memory()
    for number, total in ((2, 10), (3, 20), (4, 40), (289, 1), (290, 3), (292, 5)):
        memory.add(closed(MIDNIGHT + number * BUCKET, total))
    summary = memory.summary()
    assert summary is not None
    assert ((8.0, 50.0), 2) == (summary.compared, summary.common)
    assert (9.0, 3) == (summary.today, summary.seen)
    assert (3.0, 23.33) == (summary.hours[0][0], summary.hours[1][0])


def test_what_was_not_sent_and_what_is_beyond_all_sense_is_left_out() -> None:
    memory = Memory()
    memory.add(closed(MIDNIGHT + BUCKET, None))
    memory.add(closed(MIDNIGHT + 2 * BUCKET, 10**400))
    summary = memory.summary()
    assert summary is not None
    assert (None, None, None, None, 1000.0) == summary.last
    assert (0, 0) == (summary.today, summary.seen)


def test_accounts_add_up_as_far_as_all_were_seen() -> None:
    """One that lags is waited for, up to an hour."""
    one, two, lost, unknown = (Memory() for _ in range(4))
    lost.add(closed(MIDNIGHT, 1000))
    for number in range(1, 20):
        one.add(closed(MIDNIGHT + number * BUCKET, 1))
        if number < 19:
            two.add(closed(MIDNIGHT + number * BUCKET, 2))
    day, today, before, accounts = together([one, two, lost, unknown])
    assert (20_000, 2) == (day, accounts)
    assert [3.0] * 18 + [None] * 270 == today
    assert [None] * 288 == before
    assert (0, [], [], 0) == together([unknown])


def test_an_hour_is_remembered_by_skill_and_agent() -> None:
    memory = Memory()
    for number in range(1, 30):
        memory.add(closed(MIDNIGHT + number * BUCKET, 1, skills=3))
    found = memory.breakdown(12)
    assert {0, 1, 2} == set(found.skills) == set(found.within)
    assert 12.0 == found.skills[1][0] == found.within[1][101][0]
    assert 1.0 == memory.breakdown(1).skills[1][0]
