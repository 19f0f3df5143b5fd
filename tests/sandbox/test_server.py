from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import anyio
import pytest
from aiohttp import web

from msgconv_async.errors import ConfigurationError
from msgconv_async.protocol.buckets import floor
from msgconv_async.protocol.decoding import decode_report
from msgconv_async.protocol.query import ConversationQuery
from msgconv_async.sandbox import Clock, Conversation, Sandbox, Synthetic
from tests.sandbox.conftest import NOW, Ask, metrics_url

Bearer = Callable[..., Awaitable[dict[str, str]]]
QUERY = {"v": "1", "timeframe": "60"}


# ---------------------------------------------------------------- the metrics route


async def test_a_get_is_answered_with_what_was_resolved(ask: Ask) -> None:
    async with Sandbox(clock=lambda: NOW) as sandbox:
        query = ConversationQuery(1440, interval=5, skill_ids="all", agent_ids="all")
        response = await ask(sandbox, **query.parameters())
        report = decode_report(response.body, query)
        truth = sandbox.resolved(sandbox.account_ids[0], NOW - timedelta(days=2), NOW)
        for interval in report.intervals:
            assert interval.agents is not None
            assert interval.agents.totals.total_resolved_conversations == sum(
                interval.start <= each.resolved_at < interval.end for each in truth
            )


async def test_a_post_asks_the_same_with_strings_or_numbers(
    client: aiohttp.ClientSession, bearer: Bearer, ask: Ask
) -> None:
    async with Sandbox(clock=lambda: NOW) as sandbox:
        told = (await ask(sandbox, interval="30", skillIds="all")).body
        headers = await bearer(sandbox)
        for v, timeframe in (("1", "60"), (1, 60)):
            body = {"v": v, "timeframe": timeframe, "interval": "30", "skillIds": "all"}
            async with client.post(metrics_url(sandbox), json=body, headers=headers) as response:
                assert told == await response.read()


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b'"v=1"', b"{", b"\xff", b'{"v": {}}', b"v=1", b'{"v":' + b"[" * 100_000],
    ids=lambda body: repr(body[:12]),
)
async def test_a_post_of_anything_but_a_right_json_object_is_a_bad_request(
    client: aiohttp.ClientSession, bearer: Bearer, body: bytes
) -> None:
    async with Sandbox() as sandbox:
        headers = await bearer(sandbox)
        async with client.post(
            metrics_url(sandbox), params=QUERY, data=body, headers=headers
        ) as response:
            assert 400 == response.status
            assert 400 == (await response.json())["status"]


async def test_a_long_list_of_agents_fits_into_a_post(
    client: aiohttp.ClientSession, bearer: Bearer
) -> None:
    async with Sandbox() as sandbox:
        body = QUERY | {"agentIds": ",".join(map(str, range(10**9, 10**9 + 90_000)))}
        headers = await bearer(sandbox)
        async with client.post(metrics_url(sandbox), json=body, headers=headers) as response:
            assert 200 == response.status


async def test_a_bad_question_is_answered_with_its_reason(ask: Ask) -> None:
    async with Sandbox() as sandbox:
        response = await ask(sandbox, interval="31")
        assert {
            "status": 400,
            "reason": "interval must divide the timeframe of 60 minutes",
        } == response.json()


async def test_unknown_paths_are_404_and_wrong_methods_405(client: aiohttp.ClientSession) -> None:
    async with Sandbox() as sandbox:
        for path in ("/", "/operations/api/account/10000001", "/api/account/10000001/Login"):
            async with client.get(sandbox.url + path) as response:
                assert 404 == response.status
                assert 404 == (await response.json())["status"]
        for method in ("PUT", "DELETE", "HEAD"):
            async with client.request(method, metrics_url(sandbox)) as response:
                assert 405 == response.status
                assert "GET,POST" == response.headers["Allow"]
        assert 405 == (await client.get(f"{sandbox.url}/api/account/10000001/login")).status


async def test_answers_are_dated_by_the_sandbox_s_clock(ask: Ask) -> None:
    async with Sandbox(clock=lambda: NOW) as sandbox:
        assert "Wed, 04 Mar 2026 08:07:00 GMT" == (await ask(sandbox)).headers["Date"]


# ---------------------------------------------------------------- the Domain API


async def test_the_domain_api_names_the_sandbox_as_the_host_of_every_service(
    client: aiohttp.ClientSession,
) -> None:
    async with Sandbox() as sandbox:
        account_id, host = sandbox.account_ids[0], sandbox.url.removeprefix("http://")
        url = f"{sandbox.url}/api/account/{account_id}/service"
        homes = []
        for service in ("agentVep", "leDataReporting", "sentinel"):
            async with client.get(f"{url}/{service}/baseURI.json?version=1.0") as response:
                homes.append(await response.json())
            assert {"service": service, "account": account_id, "baseURI": host} == homes[-1]
        async with client.get(f"{url}/baseURI.json?version=1.0") as response:
            assert {"baseURIs": homes} == await response.json()


@pytest.mark.parametrize(
    "path",
    [
        "leDataReporting/baseURI.json",
        "leDataReporting/baseURI.json?version=2.0",
        "ledatareporting/baseURI.json?version=1.0",
        "baseURI.json",
    ],
)
async def test_a_wrong_version_or_service_name_is_a_bad_request(
    client: aiohttp.ClientSession, path: str
) -> None:
    async with Sandbox() as sandbox:
        url = f"{sandbox.url}/api/account/{sandbox.account_ids[0]}/service/{path}"
        assert 400 == (await client.get(url)).status


# ---------------------------------------------------------------- faults


async def test_the_next_requests_fail_as_asked_then_none(ask: Ask) -> None:
    async with Sandbox(accounts=2) as sandbox:
        first, second = sandbox.account_ids
        sandbox.fail_next(times=2, account_id=first)
        sandbox.fail_next(500)
        assert [503, 503] == [(await ask(sandbox, first)).status for _ in range(2)]
        assert 500 == (await ask(sandbox, second)).status
        assert [200, 200] == [(await ask(sandbox, each)).status for each in (first, second)]
        assert {first: 3, second: 2} == sandbox.requests


async def test_a_fault_answers_in_place_of_the_sandbox_until_it_is_taken_away(ask: Ask) -> None:
    body = gzip.compress(b'{"metricsTotals": ' + b" " * 10**6 + b"{}}")
    answers = [
        web.Response(text="<html>Oops</html>", content_type="text/html"),
        web.Response(body=body, headers={"Content-Encoding": "gzip"}),
    ]

    async def fault(request: web.Request) -> web.Response | None:
        return answers.pop(0) if request.path.endswith("/msgconversation") else None

    async with Sandbox(fault=fault) as sandbox:
        assert b"<html>Oops</html>" == (await ask(sandbox)).body
        assert 10**6 < len((await ask(sandbox)).body)
        sandbox.fault = None
        assert 200 == (await ask(sandbox)).status


async def test_a_fault_may_redirect(client: aiohttp.ClientSession) -> None:
    async def fault(_: web.Request) -> web.Response | None:
        raise web.HTTPFound("/elsewhere")

    async with Sandbox(fault=fault) as sandbox:
        response = await client.get(metrics_url(sandbox), allow_redirects=False)
        assert (302, "/elsewhere") == (response.status, response.headers["Location"])


async def test_a_fault_may_drop_the_connection(client: aiohttp.ClientSession, ask: Ask) -> None:
    async def fault(_: web.Request) -> None:
        raise ConnectionAbortedError

    async with Sandbox(fault=fault) as sandbox:
        with pytest.raises(aiohttp.ClientConnectionError):
            await client.post(metrics_url(sandbox))
        assert 1 == sandbox.requests.total()
        sandbox.fault = None
        assert 200 == (await ask(sandbox)).status


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("setting", "value", "rule"),
    [
        ("accounts", 0, "1 or more"),
        ("concurrency", 0, "1 or more"),
        ("rate", 0, "above 0"),
        ("rate", -1.5, "above 0"),
        ("burst", -1, "0 or more"),
        ("latency", -0.1, "0 or more"),
        ("retry_after", -1, "0 or more"),
        ("token_lifetime", 0, "above 0"),
        ("port", 65536, "0 to 65535"),
        ("port", -1, "0 to 65535"),
        ("latency", float("nan"), "0 or more"),
        ("accounts", "3", "1 or more, as a whole number"),
        ("concurrency", 1.5, "1 or more, as a whole number"),
        ("rate", "x", "above 0, in requests per second"),
        ("rate", float("inf"), "above 0"),
        ("latency", None, "0 or more, in seconds"),
        ("port", True, "0 to 65535, as a whole number"),
    ],
)
def test_a_setting_that_cannot_work_is_refused_by_name(
    setting: str, value: object, rule: str
) -> None:
    settings: dict[str, Any] = {setting: value}
    with pytest.raises(ConfigurationError, match=rf"^{setting}={value!r}: it must be {rule}"):
        Sandbox(**settings)


async def test_a_port_that_is_taken_is_refused() -> None:
    async with Sandbox() as sandbox:
        port = int(sandbox.url.rsplit(":", 1)[1])
        with pytest.raises(ConfigurationError, match=f"127.0.0.1:{port}"):
            await Sandbox(port=port).__aenter__()


async def test_a_clock_that_does_not_know_its_offset_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="aware"):
        Clock(datetime(2026, 3, 4))  # noqa: DTZ001
    with pytest.raises(ConfigurationError, match="aware"):
        await Sandbox(clock=lambda: datetime(2026, 3, 4)).__aenter__()  # noqa: DTZ001


def test_accounts_are_numbered_and_cost_nothing_until_asked_about() -> None:
    sandbox = Sandbox(accounts=1000)
    assert ("10000001", "10001000") == (sandbox.account_ids[0], sandbox.account_ids[-1])


def test_a_sandbox_that_does_not_run_has_no_url() -> None:
    with pytest.raises(RuntimeError, match="async with"):
        _ = Sandbox().url


# ---------------------------------------------------------------- time and truth


async def test_the_clock_starts_at_the_real_time_and_runs() -> None:
    clock = Clock()
    assert abs(clock() - datetime.now(UTC)) < timedelta(seconds=1)
    before = clock()
    clock.advance(timedelta(hours=-1))
    assert timedelta(minutes=-60) <= clock() - before < timedelta(minutes=-59)


@pytest.mark.looptime
async def test_on_a_virtual_time_loop_time_is_virtual() -> None:
    clock = Clock(NOW)
    clock()
    await asyncio.sleep(3600)
    assert timedelta(hours=1) == clock() - NOW


@pytest.mark.looptime
async def test_the_sandbox_serves_on_a_virtual_time_loop(ask: Ask) -> None:
    async with Sandbox(latency=60, clock=Clock(NOW)) as sandbox:
        began = time.monotonic()
        assert [200, 200] == [(await ask(sandbox)).status for _ in range(2)]
        assert 5 > time.monotonic() - began
        assert timedelta(minutes=2) <= sandbox.clock() - NOW


async def test_the_truth_is_told_up_to_now() -> None:
    synthetic = Synthetic(5)
    async with Sandbox(seed=5, clock=lambda: NOW) as sandbox:
        start = floor(NOW) - timedelta(hours=1)
        account_id = sandbox.account_ids[0]
        told = sandbox.resolved(account_id, start, NOW + timedelta(hours=1))
        assert list(synthetic(account_id, start, NOW)) == told


async def test_any_callable_can_be_the_source_of_events(ask: Ask) -> None:
    def source(account_id: str, start: datetime, end: datetime) -> list[Conversation]:
        told = Conversation(account_id, NOW - timedelta(minutes=1), 2, "system", 3)
        return [told] if start <= told.resolved_at < end else []

    async with Sandbox(events=source, clock=lambda: NOW) as sandbox:
        totals = (await ask(sandbox)).json()["metricsTotals"]
        assert (1, 3) == (
            totals["resolvedConversations_bySystem"],
            totals["totalHandlingTime_resolvedConversations_bySystem"],
        )


# ---------------------------------------------------------------- leaving


async def test_leaving_ends_requests_in_flight_and_leaves_no_task(
    client: aiohttp.ClientSession, bearer: Bearer
) -> None:
    before = asyncio.all_tasks()
    async with Sandbox(latency=60) as sandbox:
        headers, url = await bearer(sandbox), metrics_url(sandbox)
        flying = [
            asyncio.ensure_future(client.get(url, params=QUERY, headers=headers)) for _ in range(5)
        ]
        await asyncio.sleep(0.2)
        assert 5 == sandbox.requests.total()
        began = time.monotonic()
    assert 1 > time.monotonic() - began
    answers = await asyncio.gather(*flying, return_exceptions=True)
    assert all(isinstance(each, aiohttp.ClientConnectionError) for each in answers)
    assert before == asyncio.all_tasks()


async def test_leaving_by_an_exception_closes_the_server_too(
    client: aiohttp.ClientSession,
) -> None:
    sandbox = Sandbox()

    async def fail() -> None:
        async with sandbox:
            urls.append(sandbox.url)
            raise LookupError

    urls: list[str] = []
    with pytest.raises(LookupError):
        await fail()
    with pytest.raises(aiohttp.ClientConnectorError):
        await client.get(urls[0])


async def test_leaving_by_cancellation_closes_the_server_too(
    client: aiohttp.ClientSession, bearer: Bearer
) -> None:
    before = asyncio.all_tasks()
    with anyio.move_on_after(0.2) as scope:
        async with Sandbox(latency=60) as sandbox:
            url = metrics_url(sandbox)
            await client.get(url, params=QUERY, headers=await bearer(sandbox))
    assert scope.cancelled_caught
    with pytest.raises(aiohttp.ClientConnectorError):
        await client.get(url)
    assert before == asyncio.all_tasks()


async def test_fifty_accounts_over_24_hours_in_five_minute_intervals_are_served_soon(
    ask: Ask,
) -> None:
    async with Sandbox(accounts=50) as sandbox:
        began = time.process_time()
        for account_id in sandbox.account_ids[:5]:
            response = await ask(
                sandbox,
                account_id,
                timeframe="1440",
                interval="5",
                skillIds="all",
                agentIds="all",
            )
            assert 200 == response.status
        assert 2 > time.process_time() - began


# ---------------------------------------------------------------- conversations that come late


async def test_a_closed_bucket_tells_of_what_was_added_to_it(ask: Ask) -> None:
    async with Sandbox(clock=lambda: NOW) as sandbox:
        account = sandbox.account_ids[0]
        query = ConversationQuery(60, interval=5)
        before = decode_report((await ask(sandbox, **query.parameters())).body, query)
        late = before.intervals[3].start
        sandbox.add(Conversation(account, late, agent=101, resolved_by="CCP", handling_time_ms=1))
        after = decode_report((await ask(sandbox, **query.parameters())).body, query)

        changed = [
            old.start
            for old, new in zip(before.intervals, after.intervals, strict=True)
            if old.totals != new.totals
        ]
        assert [late] == changed
        assert late in [each.resolved_at for each in sandbox.resolved(account, late, NOW)]


async def test_a_conversation_of_an_account_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="account '5' is not one of the sandbox's"):
        Sandbox().add(Conversation("5", NOW, agent=1, resolved_by="CCP", handling_time_ms=1))
