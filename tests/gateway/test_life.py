"""Health, metrics, what is kept over restarts, and how it stops."""

from __future__ import annotations

import asyncio
import json
import logging
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from msgconv_async import Account
from msgconv_async.gateway import app as application
from msgconv_async.gateway import gateway, state
from msgconv_async.gateway.serve import Address, serving
from msgconv_async.pacing.adaptive import Belief
from msgconv_async.sandbox import Sandbox
from tests.client.support import USER
from tests.gateway.support import get, path, running
from tests.programs import program

BELIEF = Belief("rate", 50.0, 50.0, 12, 4.0)


async def _samples(url: str) -> dict[tuple[str, str], float]:
    _, headers, body = await get(f"{url}/metrics")
    assert headers["Content-Type"].startswith("text/plain; version=")
    return {
        (sample.name, sample.labels.get("account", "")): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


async def test_it_is_alive_and_ready() -> None:
    async with Sandbox(accounts=3) as sandbox, running(sandbox) as url:
        assert 200 == (await get(f"{url}/healthz"))[0]
        status, _, body = await get(f"{url}/readyz")
        assert (200, {"ready": True, "accounts": 3}) == (status, json.loads(body))


async def test_it_is_not_ready_while_the_service_only_fails_and_then_it_tries_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(application, "LATELY", 0.5)
    async with Sandbox() as sandbox, running(sandbox) as url:
        [account_id] = sandbox.account_ids
        sandbox.fail_next()
        await get(url + path(account_id))
        status, _, body = await get(f"{url}/readyz")
        assert (503, False) == (status, json.loads(body)["ready"])
        assert "the service failed" in json.loads(body)["reason"]
        assert 200 == (await get(f"{url}/healthz"))[0]
        await asyncio.sleep(0.5)
        assert 200 == (await get(f"{url}/readyz"))[0]


async def test_why_it_is_not_ready_is_for_those_who_bring_the_token() -> None:
    """An excerpt of the service's answer is nothing for strangers."""
    async with Sandbox() as sandbox, running(sandbox, token="a-token") as url:
        [account_id] = sandbox.account_ids
        sandbox.fail_next()
        own = {"Authorization": "Bearer a-token"}
        await get(url + path(account_id), **own)
        _, _, to_strangers = await get(f"{url}/readyz")
        _, _, to_its_own = await get(f"{url}/readyz", **own)
        assert "service" == json.loads(to_strangers)["reason"]
        assert account_id in json.loads(to_its_own)["reason"]


async def test_one_account_that_fails_does_not_take_the_others_down() -> None:
    """Others were answered lately: a balancer must not turn away from all of them."""
    async with Sandbox(accounts=2) as sandbox, running(sandbox) as url:
        well, failing = sandbox.account_ids
        await get(url + path(well))
        sandbox.fail_next()
        assert 502 == (await get(url + path(failing)))[0]
        assert 200 == (await get(f"{url}/readyz"))[0]


async def test_an_answer_makes_it_ready_at_once() -> None:
    async with Sandbox() as sandbox, running(sandbox) as url:
        [account_id] = sandbox.account_ids
        sandbox.fail_next()
        for _ in range(2):
            await get(url + path(account_id))
        assert 200 == (await get(f"{url}/readyz"))[0]


async def test_metrics_count_by_account() -> None:
    async with Sandbox(accounts=2) as sandbox, running(sandbox, fresh_for=60) as url:
        one, two = sandbox.account_ids
        sandbox.fail_next(429)
        for target in (path(one), path(one), path(one, "timeframe=0&v=1"), path("9"), path("8")):
            await get(url + target)
        samples = await _samples(url)
        expected = {"sent": 2, "answered": 1, "throttled": 1, "retried": 1}
        for name, value in expected.items():
            assert value == samples[f"msgconv_gateway_requests_{name}_total", one]
        for name in ("requests_waiting", "requests_in_flight"):
            assert 0 == samples[f"msgconv_gateway_{name}", one]
        for name in ("believed_requests_per_second", "believed_concurrency", "limited_by"):
            assert ("msgconv_gateway_" + name, one) in samples
        assert 3 == samples["msgconv_gateway_request_duration_seconds_count", one]
        assert {one, ""} == {account for _, account in samples}
        assert two not in {account for _, account in samples}


async def test_metrics_are_as_prometheus_wants_them() -> None:
    """Its own checker finds nothing to say about names, units and help."""
    promtool = program("promtool")
    async with Sandbox() as sandbox, running(sandbox) as url:
        [account_id] = sandbox.account_ids
        for target in (path(account_id), path("9")):
            await get(url + target)
        _, _, text = await get(f"{url}/metrics")
    process = await asyncio.create_subprocess_exec(
        promtool, "check", "metrics", stdin=PIPE, stdout=PIPE, stderr=STDOUT
    )
    said, _ = await process.communicate(text)
    assert (0, b"") == (process.returncode, said)


async def test_strangers_ids_make_no_new_series() -> None:
    async with Sandbox() as sandbox, running(sandbox) as url:
        await get(url + path("x1"))
        before = len(await _samples(url))
        for number in range(20):
            await get(url + path(f"x{number}"))
        assert before == len(await _samples(url))


@pytest.mark.parametrize("content", [b'[[account]]\nid = "1"\n', b'{"version": 2, "accounts": {}}'])
async def test_a_file_of_another_kind_is_told_of_and_stays_as_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    """Such as the accounts file, named by mistake."""
    kept = tmp_path / "accounts.toml"
    kept.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        async with Sandbox() as sandbox, running(sandbox, state=kept) as url:
            assert 200 == (await get(url + path(sandbox.account_ids[0])))[0]
    assert "the file stays as it is" in caplog.text
    assert content == kept.read_bytes()


async def test_what_was_learnt_survives(tmp_path: Path) -> None:
    kept = tmp_path / "state.json"
    async with Sandbox() as sandbox:
        [account_id] = sandbox.account_ids
        state.save(kept, {account_id: BELIEF, "of another": BELIEF})
        async with running(sandbox, state=kept) as url:
            samples = await _samples(url)
            believed = samples["msgconv_gateway_believed_requests_per_second", account_id]
            assert 48 <= believed <= 50
        assert BELIEF.limit == pytest.approx((state.load(kept) or {})[account_id].limit)


async def test_what_is_learnt_is_written_while_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For whoever is killed cannot write any more."""
    monkeypatch.setattr(application, "SAVE_EVERY", 0.05)
    kept = tmp_path / "state.json"
    async with Sandbox(rate=20) as sandbox, running(sandbox, state=kept) as url:
        [account_id] = sandbox.account_ids
        asked = (path(account_id, f"timeframe={minutes}&v=1") for minutes in range(1, 20))
        await asyncio.gather(*(get(url + question) for question in asked))
        await asyncio.sleep(0.2)
        assert account_id in (state.load(kept) or {})
        assert 0o600 == kept.stat().st_mode & 0o777


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[]",
        b'{"version":1}',
        b'{"version":2,"accounts":{}}',
        b'{"version":1,"accounts":{"10000001":{"limited_by":"moon","limit":1,"speed":1}}}',
        state.encoded({"10000001": BELIEF._replace(limit=-1)}),
    ],
)
async def test_a_file_that_makes_no_sense_means_a_cold_start(
    tmp_path: Path, content: bytes
) -> None:
    kept = tmp_path / "state.json"
    kept.write_bytes(content)
    async with Sandbox() as sandbox, running(sandbox, state=kept) as url:
        assert 200 == (await get(url + path(sandbox.account_ids[0])))[0]


async def test_a_file_that_cannot_be_written_is_told_and_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nowhere = tmp_path / "none" / "state.json"
    with caplog.at_level(logging.WARNING):
        async with Sandbox() as sandbox, running(sandbox, state=nowhere) as url:
            assert 200 == (await get(url + path(sandbox.account_ids[0])))[0]
    assert "cannot be written" in caplog.text


async def test_stopping_lets_what_is_in_flight_end() -> None:
    async with Sandbox(latency=0.5) as sandbox:
        async with running(sandbox, grace=5) as url:
            task = asyncio.create_task(get(url + path(sandbox.account_ids[0])))
            await asyncio.sleep(0.2)
        assert 200 == (await task)[0]


async def test_stopping_waits_no_longer_than_the_grace() -> None:
    async with Sandbox(latency=30) as sandbox:
        async with running(sandbox, grace=0.2) as url:
            task: asyncio.Task[Any] = asyncio.create_task(get(url + path(sandbox.account_ids[0])))
            await asyncio.sleep(0.2)
        await asyncio.wait([task], timeout=5)
        assert task.done()
        assert task.exception() is not None or 200 != task.result()[0]


async def test_stopping_logs_users_out() -> None:
    asked: list[str] = []

    async def fault(request: web.Request) -> None:
        asked.append(request.path.rpartition("/")[2])

    async with Sandbox(fault=fault) as sandbox:
        app = gateway([Account(sandbox.account_ids[0], USER)], base_url=sandbox.url)
        async with serving(app, Address(port=0)) as url:
            assert 200 == (await get(url + path(sandbox.account_ids[0])))[0]
    assert ["login", "msgconversation", "logout"] == asked
