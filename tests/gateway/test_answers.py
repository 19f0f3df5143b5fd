"""What a gateway answers: the service's documents, and its own refusals."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web

from msgconv_async import (
    Account,
    ApiError,
    BadRequest,
    ConfigurationError,
    ConversationQuery,
    ConversationSession,
    RetryPolicy,
    ServerError,
    Unauthorized,
)
from msgconv_async.gateway import gateway
from msgconv_async.gateway.serve import Address, serving
from msgconv_async.sandbox import CLIENT_SECRET, Sandbox
from tests.client.support import CLIENT
from tests.gateway.support import NOBODY, get, path, post, running

ONCE = RetryPolicy(waits=())
QUERY = ConversationQuery(60)


async def test_a_document_arrives_byte_for_byte_with_the_service_s_own_time() -> None:
    async with Sandbox() as sandbox:
        [account_id] = sandbox.account_ids
        async with (
            running(sandbox) as url,
            ConversationSession(base_url=sandbox.url) as session,
        ):
            status, headers, body = await get(url + path(account_id))
            assert 200 == status
            assert "application/json" == headers["Content-Type"]
            assert ("fetched", "0") == (headers["Msgconv-Gateway"], headers["Age"])
            assert body == await session.fetch_document(Account(account_id, CLIENT), QUERY)
            assert "GMT" in headers["Date"]


async def test_a_session_needs_only_another_base_url() -> None:
    """GET and POST, reports and documents: all is as from the service, without a credential."""
    async with Sandbox() as sandbox:
        [account_id] = sandbox.account_ids
        long = ConversationQuery(60, interval=5, agent_ids=range(10**6, 10**6 + 300))
        async with (
            running(sandbox) as url,
            ConversationSession(base_url=sandbox.url) as direct,
            ConversationSession(base_url=url) as session,
        ):
            for query in (QUERY, long):
                told = await session.fetch(Account(account_id, NOBODY), query)
                assert told == await direct.fetch(Account(account_id, CLIENT), query)


async def test_client_credentials_are_traded_for_a_token_as_at_the_service() -> None:
    """So `msgconv fetch --base-url` works unchanged."""
    async with Sandbox() as sandbox:
        account = Account(sandbox.account_ids[0], CLIENT)
        async with running(sandbox) as url, ConversationSession(base_url=url) as session:
            await session.fetch(account, QUERY)


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ("v=1", "timeframe is required"),
        ("timeframe=60", "v is required"),
        ("timeframe=1441&v=1", "timeframe=1441: it must be 1 to 1440"),
        ("timeframe=x&v=1", "timeframe must be a whole number"),
        ("timeframe=60&v=1&interval=31", "interval=31: it must be a multiple of 5"),
        ("timeframe=60&v=1&interval=25", "interval=25: it must divide"),
        ("timeframe=60&v=1&skillIds=a", "skillIds='a': an id must be"),
        ("timeframe=60&v=1&agentIds=", "agentIds='': an id must be"),
        ("timeframe=60&v=1&skillId=4", "'skillId' is not a parameter"),
        ("timeframe=60&timeframe=5&v=1", "timeframe is given twice"),
        ("timeframe=60&v=1&skillIds=%ff", "cannot be read"),
    ],
)
async def test_a_wrong_question_is_refused_before_anything_is_sent(
    question: str, reason: str
) -> None:
    async with Sandbox() as sandbox, running(sandbox) as url:
        [account_id] = sandbox.account_ids
        status, headers, body = await get(url + path(account_id, question))
        told = json.loads(body)
        assert (400, "question") == (status, headers["Msgconv-Gateway"])
        assert (400, "question") == (told["status"], told["kind"])
        assert reason in told["reason"]
        assert 0 == sandbox.requests[account_id]
        assert 0 == sandbox.tokens[account_id]


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b'{"timeframe":60.5,"v":"1"}'])
async def test_a_wrong_body_is_refused_before_anything_is_sent(body: bytes) -> None:
    async with Sandbox() as sandbox, running(sandbox) as url:
        [account_id] = sandbox.account_ids
        status, _, _ = await post(url + path(account_id), body)
        assert 400 == status
        assert 0 == sandbox.requests[account_id]


async def test_the_page_s_own_body_is_understood() -> None:
    page = {"timeframe": "1440", "v": "1", "agentIds": "2152260212,2152260212"}
    page |= {"interval": "1440", "skillIds": "1,2"}
    async with Sandbox() as sandbox, running(sandbox) as url:
        status, _, body = await post(url + path(sandbox.account_ids[0]), json.dumps(page).encode())
        assert 200 == status
        assert "skillsMetricsPerAgent" in json.loads(body)


async def test_a_client_sees_a_refused_question_as_from_the_service() -> None:
    """Version 2 passes our check, and is the service's to refuse."""
    async with Sandbox() as sandbox, running(sandbox) as url:
        async with ConversationSession(base_url=url) as session:
            with pytest.raises(BadRequest, match="v must be 1"):
                await session.fetch(
                    Account(sandbox.account_ids[0], NOBODY), ConversationQuery(60, version=2)
                )


async def test_the_domain_api_names_the_gateway() -> None:
    async with Sandbox() as sandbox, running(sandbox) as url:
        [account_id] = sandbox.account_ids
        home = f"{url}/api/account/{account_id}/service"
        status, _, body = await get(f"{home}/leDataReporting/baseURI.json?version=1.0")
        assert 200 == status
        assert url == f"http://{json.loads(body)['baseURI']}"
        _, _, body = await get(f"{home}/baseURI.json?version=1.0")
        assert 3 == len(json.loads(body)["baseURIs"])
        assert 400 == (await get(f"{home}/nothing/baseURI.json?version=1.0"))[0]
        assert 400 == (await get(f"{home}/sentinel/baseURI.json"))[0]
        assert 401 == (await get(f"{url}/api/account/9/service/baseURI.json?version=1.0"))[0]


async def test_only_accounts_that_it_was_given_are_served() -> None:
    async with Sandbox(accounts=2) as sandbox:
        known, other = sandbox.account_ids
        app = gateway([Account(known, CLIENT)], base_url=sandbox.url)
        async with serving(app, Address(port=0)) as url:
            status, headers, _ = await get(url + path(other))
            assert (401, "account") == (status, headers["Msgconv-Gateway"])
            assert 0 == sandbox.requests[other]
            async with ConversationSession(base_url=url) as session:
                with pytest.raises(Unauthorized):
                    await session.fetch(Account(other, NOBODY), QUERY)


@pytest.mark.parametrize(("target", "status"), [("/nowhere", 404), ("/healthz/x", 404)])
async def test_what_there_is_not_is_told_as_json(target: str, status: int) -> None:
    async with Sandbox() as sandbox, running(sandbox) as url:
        told, headers, body = await get(url + target)
        assert (status, "request") == (told, headers["Msgconv-Gateway"])
        assert "Not Found" == json.loads(body)["reason"]


async def test_who_asks_the_same_shares_a_request_whoever_they_are() -> None:
    """Twenty clients: one login, one request; one fetched it, and the others shared it."""
    async with Sandbox(latency=0.2) as sandbox, running(sandbox) as url:
        [account_id] = sandbox.account_ids
        given = await asyncio.gather(*(get(url + path(account_id)) for _ in range(20)))
        assert 1 == sandbox.requests[account_id] == sandbox.tokens[account_id]
        sources = sorted(headers["Msgconv-Gateway"] for _, headers, _ in given)
        assert ["fetched"] + 19 * ["shared"] == sources
        assert 1 == len({body for _, _, body in given})


async def test_a_fresh_answer_is_given_again_with_its_age_and_its_own_time() -> None:
    async with Sandbox() as sandbox, running(sandbox, fresh_for=60.0) as url:
        [account_id] = sandbox.account_ids
        _, first, body = await get(url + path(account_id))
        await asyncio.sleep(1.1)
        _, again, same = await get(url + path(account_id))
        assert body == same
        assert ("hit", "1") == (again["Msgconv-Gateway"], again["Age"])
        assert first["Date"] == again["Date"]
        assert 1 == sandbox.requests[account_id]


async def test_nothing_is_given_again_unless_it_is_asked_for() -> None:
    async with Sandbox() as sandbox, running(sandbox) as url:
        [account_id] = sandbox.account_ids
        for _ in range(2):
            _, headers, _ = await get(url + path(account_id))
            assert "fetched" == headers["Msgconv-Gateway"]


FAILURES: list[tuple[int, int, str, type[ApiError]]] = [
    (500, 502, "service", ServerError),
    (503, 502, "service", ServerError),
    (403, 502, "credentials", Unauthorized),
    (401, 502, "credentials", Unauthorized),
    (302, 502, "status", ApiError),
    (418, 502, "status", ApiError),
]


@pytest.mark.parametrize(("upstream", "status", "kind", "error"), FAILURES)
async def test_a_failure_of_the_service_names_its_kind_and_no_secret(
    upstream: int, status: int, kind: str, error: type[ApiError]
) -> None:
    async def fault(request: web.Request) -> web.Response | None:
        if "msgconversation" not in request.path:
            return None
        text = f"{request.headers['Authorization']} {CLIENT_SECRET}"
        return web.Response(status=upstream, text=text)

    async with Sandbox(fault=fault) as sandbox, running(sandbox) as url:
        [account_id] = sandbox.account_ids
        told, headers, body = await get(url + path(account_id))
        assert (status, kind) == (told, headers["Msgconv-Gateway"])
        assert kind == json.loads(body)["kind"]
        assert CLIENT_SECRET not in body.decode()
        assert "***" in json.loads(body)["reason"]
        async with ConversationSession(base_url=url, retry=ONCE) as session:
            with pytest.raises(error) as raised:
                await session.fetch(Account(account_id, NOBODY), QUERY)
            assert error is type(raised.value)


async def test_an_answer_that_is_none_is_a_bad_gateway() -> None:
    async def fault(request: web.Request) -> web.Response | None:
        nonsense = web.Response(text="[]", content_type="application/json")
        return nonsense if "msgconversation" in request.path else None

    async with Sandbox(fault=fault) as sandbox, running(sandbox) as url:
        status, headers, _ = await get(url + path(sandbox.account_ids[0]))
        assert (502, "unexpected") == (status, headers["Msgconv-Gateway"])


async def test_a_service_that_cannot_be_reached_is_a_bad_gateway() -> None:
    async with Sandbox() as sandbox:
        async with running(sandbox, base_url="http://127.0.0.1:9") as url:
            status, headers, _ = await get(url + path(sandbox.account_ids[0]))
            assert (502, "connection", "5") == (
                status,
                headers["Msgconv-Gateway"],
                headers["Retry-After"],
            )


async def test_a_throttled_request_is_repeated_and_not_passed_on() -> None:
    async with Sandbox() as sandbox, running(sandbox) as url:
        [account_id] = sandbox.account_ids
        sandbox.fail_next(429)
        status, _, _ = await get(url + path(account_id))
        assert 200 == status
        assert 2 == sandbox.requests[account_id]


async def test_a_request_throttled_for_too_long_is_told_so_and_when_to_return() -> None:
    async with Sandbox(retry_after=100) as sandbox, running(sandbox, max_wait=0.1) as url:
        [account_id] = sandbox.account_ids
        sandbox.fail_next(429, times=5)
        status, headers, body = await get(url + path(account_id))
        assert (503, "throttled") == (status, headers["Msgconv-Gateway"])
        assert "100" == headers["Retry-After"]
        assert "throttled" in json.loads(body)["reason"]


async def test_no_account_or_the_same_twice_makes_no_gateway() -> None:
    one = Account("1", CLIENT)
    wrong: list[list[Any]] = [[], [one, one], ["1"]]
    for accounts in wrong:
        with pytest.raises(ConfigurationError):
            gateway(accounts)
    for setting in ({"max_wait": 0}, {"fresh_for": -1}, {"token": " "}):
        with pytest.raises(ConfigurationError):
            gateway([one], **setting)
