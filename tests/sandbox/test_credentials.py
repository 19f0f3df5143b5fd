from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import aiohttp
import pytest
from oauthlib.oauth1 import Client

from msgconv_async.sandbox import (
    ACCESS_TOKEN,
    ACCESS_TOKEN_SECRET,
    APP_KEY,
    APP_SECRET,
    PASSWORD,
    USERNAME,
    Clock,
    Sandbox,
)
from tests.sandbox.conftest import CREDENTIALS, metrics_url, token_url

Bearer = Callable[..., Awaitable[dict[str, str]]]
LOGIN = {"username": USERNAME, "password": PASSWORD}


async def status(
    client: aiohttp.ClientSession, sandbox: Sandbox, headers: dict[str, str], account_id: str = ""
) -> int:
    """Ask for metrics with some headers and return the status of the answer."""
    url = f"{metrics_url(sandbox, account_id)}?v=1&timeframe=5&skillIds=-1,1"
    async with client.get(url, headers=headers) as response:
        if response.status == 401:
            assert (await response.json())["reason"]
            assert "Bearer" == response.headers["WWW-Authenticate"]
        return response.status


def moved(sandbox: Sandbox, **by: float) -> None:
    assert isinstance(sandbox.clock, Clock)
    sandbox.clock.advance(timedelta(**by))


# ---------------------------------------------------------------- OAuth 2.0


async def test_client_credentials_buy_a_token_that_lets_in(client: aiohttp.ClientSession) -> None:
    async with Sandbox() as sandbox:
        async with client.post(token_url(sandbox), data=CREDENTIALS) as response:
            token = await response.json()
        assert {"access_token", "token_type", "expires_in"} == token.keys()
        assert ("Bearer", 3600) == (token["token_type"], token["expires_in"])
        headers = {"Authorization": f"Bearer {token['access_token']}"}
        assert 200 == await status(client, sandbox, headers)
        assert 1 == sandbox.tokens[sandbox.account_ids[0]]


@pytest.mark.parametrize(
    ("wrong", "answered"),
    [
        ({"grant_type": "password"}, 400),
        ({"grant_type": ""}, 400),
        ({"client_id": "someone"}, 401),
        ({"client_secret": "guess"}, 401),
        ({"client_secret": ""}, 401),
    ],
)
async def test_wrong_client_credentials_buy_nothing(
    client: aiohttp.ClientSession, wrong: dict[str, str], answered: int
) -> None:
    async with Sandbox() as sandbox:
        async with client.post(token_url(sandbox), data=CREDENTIALS | wrong) as response:
            assert answered == response.status
        assert 0 == sandbox.tokens.total()


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data"])
async def test_a_token_request_that_is_no_form_is_a_bad_request(
    client: aiohttp.ClientSession, kind: str
) -> None:
    async with Sandbox() as sandbox:
        headers = {"Content-Type": kind}
        async with client.post(token_url(sandbox), data=b"{}\xff", headers=headers) as response:
            assert 400 == response.status


async def test_a_token_is_good_for_its_lifetime_by_the_sandbox_s_clock(
    client: aiohttp.ClientSession, bearer: Bearer
) -> None:
    async with Sandbox(token_lifetime=60) as sandbox:
        headers = await bearer(sandbox)
        moved(sandbox, seconds=55)
        assert 200 == await status(client, sandbox, headers)
        moved(sandbox, seconds=5)
        assert 401 == await status(client, sandbox, headers)
        assert 200 == await status(client, sandbox, await bearer(sandbox))


async def test_a_token_is_good_for_its_own_account_only(
    client: aiohttp.ClientSession, bearer: Bearer
) -> None:
    async with Sandbox(accounts=2) as sandbox:
        first, second = sandbox.account_ids
        assert 200 == await status(client, sandbox, await bearer(sandbox, first), first)
        assert 401 == await status(client, sandbox, await bearer(sandbox, first), second)


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer x", "Basic eDp5", "nonsense"])
async def test_any_other_authorization_is_refused(
    client: aiohttp.ClientSession, authorization: str
) -> None:
    async with Sandbox() as sandbox:
        assert 401 == await status(client, sandbox, {"Authorization": authorization})


async def test_an_unknown_account_is_refused_everywhere(client: aiohttp.ClientSession) -> None:
    async with Sandbox() as sandbox:
        for url in (
            metrics_url(sandbox, "99999999"),
            f"{sandbox.url}/api/account/99999999/service/sentinel/baseURI.json?version=1.0",
        ):
            assert 401 == (await client.get(url)).status
        for url in (
            token_url(sandbox, "99999999"),
            f"{sandbox.url}/api/account/99999999/login?v=1.3",
        ):
            assert 401 == (await client.post(url)).status
        assert 0 == sandbox.requests.total()


async def test_expired_tokens_are_forgotten(bearer: Bearer) -> None:
    async with Sandbox() as sandbox:
        for _ in range(5):
            await bearer(sandbox)
            moved(sandbox, hours=2)
        await bearer(sandbox)
        assert 1 == len(sandbox._service._credentials._grants)


# ---------------------------------------------------------------- user login


async def post(
    client: aiohttp.ClientSession, sandbox: Sandbox, path: str, body: Any, cookie: str = ""
) -> aiohttp.ClientResponse:
    url = f"{sandbox.url}/api/account/{sandbox.account_ids[0]}/{path}"
    headers = {"Cookie": cookie} if cookie else {}
    async with client.post(url, json=body, headers=headers) as response:
        await response.read()
        return response


async def login(client: aiohttp.ClientSession, sandbox: Sandbox) -> tuple[dict[str, str], str]:
    response = await post(client, sandbox, "login?v=1.3", LOGIN)
    assert 200 == response.status
    return await response.json(), response.headers["Set-Cookie"].split(";")[0]


async def test_a_login_gives_a_bearer_a_csrf_a_lifetime_and_a_cookie(
    client: aiohttp.ClientSession,
) -> None:
    async with Sandbox() as sandbox:
        answer, cookie = await login(client, sandbox)
        assert "28800000" == answer["sessionTTl"]
        assert answer["csrf"]
        assert cookie.startswith("Session_id=")
        assert 200 == await status(client, sandbox, {"Authorization": f"Bearer {answer['bearer']}"})


@pytest.mark.parametrize(
    ("path", "body", "answered"),
    [
        ("login?v=1.3", LOGIN | {"password": "guess"}, 401),
        ("login?v=1.3", LOGIN | {"username": "someone"}, 401),
        ("login?v=1.3", {"username": USERNAME}, 400),
        ("login?v=1.3", [], 400),
        ("login?v=1", LOGIN, 400),
        ("login", LOGIN, 400),
        ("refresh", {"csrf": "x"}, 401),
        ("logout", {"csrf": "x"}, 401),
        ("refresh", "x", 400),
    ],
)
async def test_a_wrong_login_request_is_refused(
    client: aiohttp.ClientSession, path: str, body: Any, answered: int
) -> None:
    async with Sandbox() as sandbox:
        assert answered == (await post(client, sandbox, path, body)).status


async def test_a_session_lives_for_its_time_unless_it_is_refreshed(
    client: aiohttp.ClientSession,
) -> None:
    async with Sandbox() as sandbox:
        answer, cookie = await login(client, sandbox)
        headers = {"Authorization": f"Bearer {answer['bearer']}"}
        csrf = {"csrf": answer["csrf"]}
        moved(sandbox, hours=7)
        assert 200 == (await post(client, sandbox, "refresh", csrf, cookie)).status
        moved(sandbox, hours=7)
        assert 200 == await status(client, sandbox, headers)
        moved(sandbox, hours=1)
        assert 401 == await status(client, sandbox, headers)
        assert 401 == (await post(client, sandbox, "refresh", csrf, cookie)).status


@pytest.mark.parametrize("path", ["refresh", "logout"])
async def test_refresh_and_logout_want_the_csrf_and_the_cookie(
    client: aiohttp.ClientSession, path: str
) -> None:
    async with Sandbox() as sandbox:
        answer, cookie = await login(client, sandbox)
        csrf = {"csrf": answer["csrf"]}
        client.cookie_jar.clear()
        assert 401 == (await post(client, sandbox, path, csrf)).status
        assert 401 == (await post(client, sandbox, path, csrf, "Session_id=x")).status
        assert 401 == (await post(client, sandbox, path, {"csrf": "x"}, cookie)).status
        assert 401 == (await post(client, sandbox, path, {}, cookie)).status
        assert 200 == (await post(client, sandbox, path, csrf, cookie)).status


async def test_a_logout_ends_the_bearer_at_once(client: aiohttp.ClientSession) -> None:
    async with Sandbox() as sandbox:
        answer, cookie = await login(client, sandbox)
        await post(client, sandbox, "logout", {"csrf": answer["csrf"]}, cookie)
        assert 401 == await status(client, sandbox, {"Authorization": f"Bearer {answer['bearer']}"})


# ---------------------------------------------------------------- OAuth 1.0


def signed(sandbox: Sandbox, method: Any = "GET", **changed: str) -> dict[str, str]:
    names = {
        "client_key": APP_KEY,
        "client_secret": APP_SECRET,
        "resource_owner_key": ACCESS_TOKEN,
        "resource_owner_secret": ACCESS_TOKEN_SECRET,
    }
    query = "?v=1&timeframe=5&skillIds=-1,1" if method == "GET" else ""
    url = metrics_url(sandbox) + query
    _, headers, _ = Client(**names | changed).sign(url, method)
    return dict(headers)


async def test_an_oauth_1_signature_lets_in_once(client: aiohttp.ClientSession) -> None:
    async with Sandbox() as sandbox:
        headers = signed(sandbox)
        assert 200 == await status(client, sandbox, headers)
        assert 401 == await status(client, sandbox, headers)
        assert 200 == await status(client, sandbox, signed(sandbox))


async def test_an_oauth_1_signature_covers_a_post_but_not_its_json(
    client: aiohttp.ClientSession,
) -> None:
    async with Sandbox() as sandbox:
        body, headers = {"v": "1", "timeframe": "5"}, signed(sandbox, "POST")
        async with client.post(metrics_url(sandbox), json=body, headers=headers) as response:
            assert 200 == response.status


@pytest.mark.parametrize(
    "changed",
    [
        {"client_key": "other"},
        {"client_secret": "guess"},
        {"resource_owner_key": "other"},
        {"resource_owner_secret": "guess"},
        {"signature_method": "PLAINTEXT"},
        {"timestamp": "soon"},
    ],
)
async def test_a_wrong_oauth_1_signature_is_refused(
    client: aiohttp.ClientSession, changed: dict[str, str]
) -> None:
    async with Sandbox() as sandbox:
        assert 401 == await status(client, sandbox, signed(sandbox, **changed))


async def test_an_oauth_1_signature_of_another_request_is_refused(
    client: aiohttp.ClientSession,
) -> None:
    async with Sandbox() as sandbox:
        assert 401 == await status(client, sandbox, signed(sandbox, "POST"))
        assert 401 == await status(client, sandbox, {"Authorization": "OAuth"})
        assert 401 == await status(client, sandbox, {"Authorization": 'OAuth oauth_nonce="%zz"'})


async def test_without_oauthlib_oauth_1_is_refused_with_a_reason(
    client: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Sandbox() as sandbox:
        headers = signed(sandbox)
        monkeypatch.setitem(sys.modules, "oauthlib.oauth1.rfc5849.signature", None)
        async with client.get(metrics_url(sandbox), headers=headers) as response:
            assert 401 == response.status
            assert "not installed" in (await response.json())["reason"]
