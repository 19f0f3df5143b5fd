"""Who may look at the live page: whoever has shown the token, by a cookie that is not the token."""

from __future__ import annotations

import asyncio
import time
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme
from yarl import URL

from msgconv_async import Account
from msgconv_async.gateway import gateway
from msgconv_async.gateway.page import browser_sessions, routes
from msgconv_async.gateway.serve import Address, serving
from msgconv_async.sandbox import Clock, Sandbox
from tests.client.support import CLIENT
from tests.gateway.support import get, looking, path, running

TOKEN = "a-token-of-the-gateway"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


async def send(
    url: str, target: str, body: str = "", *, cookie: str = "", origin: str | None = None
) -> tuple[int, Any, str]:
    """Send a form, as the page at this address would; return status, headers and body."""
    headers = {**FORM, "Origin": url if origin is None else origin, "Cookie": cookie}
    async with (
        aiohttp.ClientSession() as http,
        http.post(
            url + target,
            data=body,
            headers={name: value for name, value in headers.items() if value},
            allow_redirects=False,
        ) as response,
    ):
        return response.status, response.headers, await response.text()


async def logged_in(url: str) -> str:
    """Log in; return the cookie as a browser sends it."""
    status, headers, _ = await send(url, "/live/login", f"token={TOKEN}")
    assert (303, "..") == (status, headers["Location"])
    return str(headers["Set-Cookie"].partition(";")[0])


async def test_without_a_login_there_is_a_form_and_nothing_else(quick: Clock) -> None:
    async with Sandbox(clock=quick) as sandbox, running(sandbox, token=TOKEN) as url:
        status, headers, body = await get(f"{url}/")
        assert 200 == status
        assert b'type="password"' in body
        assert sandbox.account_ids[0].encode() not in body
        assert headers["Content-Security-Policy"].startswith("default-src 'none'")
        for target in ("/live/events", "/live/all", f"/live/account/{sandbox.account_ids[0]}"):
            for given in (
                {},
                {"Cookie": f"{browser_sessions.COOKIE}-{URL(url).port}=x"},
                {"Cookie": f"msgconv={TOKEN}"},
            ):
                assert 403 == (await get(url + target, **given))[0]
        await asyncio.sleep(0.7)
        assert 0 == sandbox.requests.total()


async def test_the_token_opens_the_page_by_a_cookie_that_is_not_the_token(quick: Clock) -> None:
    async with Sandbox(clock=quick) as sandbox, running(sandbox, token=TOKEN) as url:
        status, headers, _ = await send(url, "/live/login", f"token=+{TOKEN}+")
        [cookie] = SimpleCookie(headers["Set-Cookie"]).values()
        assert (303, True, "Strict", "/") == (
            status,
            cookie["httponly"],
            cookie["samesite"],
            cookie["path"],
        )
        assert "" == cookie["secure"]
        assert str(int(browser_sessions.LIFETIME)) == cookie["max-age"]
        assert TOKEN not in headers["Set-Cookie"]
        assert len(cookie.value) > 40
        given = f"{cookie.key}={cookie.value}"
        _, _, body = await get(f"{url}/", Cookie=given)
        assert b"live/logout" in body
        async with looking(url, given) as stream:
            await stream.rows(lambda row: row["summary"] is not None)


async def test_the_cookie_opens_the_page_and_not_the_api(quick: Clock) -> None:
    """And the token opens the API and not the page, but by the form."""
    async with Sandbox(clock=quick) as sandbox, running(sandbox, token=TOKEN) as url:
        cookie = await logged_in(url)
        for target in (path(sandbox.account_ids[0]), "/metrics"):
            assert 401 == (await get(url + target, Cookie=cookie))[0]
            assert 200 == (await get(url + target, Authorization=f"Bearer {TOKEN}"))[0]
        assert 403 == (await get(f"{url}/live/all", Authorization=f"Bearer {TOKEN}"))[0]
        assert 200 == (await get(f"{url}/live/all", Cookie=cookie))[0]


async def test_who_logs_out_is_out_at_once(quick: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that is open ends as well."""
    monkeypatch.setattr(routes, "BEAT", 0.1)
    async with Sandbox(clock=quick) as sandbox, running(sandbox, token=TOKEN) as url:
        cookie, other = await logged_in(url), await logged_in(url)
        async with looking(url, cookie) as stream:
            await stream.event()
            status, headers, _ = await send(url, "/live/logout", cookie=cookie)
            assert 303 == status
            assert f'{browser_sessions.COOKIE}-{URL(url).port}=""' in headers["Set-Cookie"]
            with pytest.raises(EOFError):
                await stream.event("no such kind")
        assert 403 == (await get(f"{url}/live/all", Cookie=cookie))[0]
        assert 200 == (await get(f"{url}/live/all", Cookie=other))[0]


@pytest.mark.parametrize(
    "body", ["", "token=", f"token={TOKEN}x", f"other={TOKEN}", "token=%ff%00", "&" * 1000]
)
async def test_a_wrong_token_is_told_late_and_sets_no_cookie(
    body: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(browser_sessions, "SLOW", 0.2)
    async with Sandbox() as sandbox, running(sandbox, token=TOKEN) as url:
        began = time.monotonic()
        status, headers, text = await send(url, "/live/login", body)
        assert 0.2 <= time.monotonic() - began
        assert (403, False) == (status, "Set-Cookie" in headers)
        assert "This is not the gateway&#x27;s token." in text
        assert "../live/login" in text


async def test_the_token_cannot_be_tried_out_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """While some wrong ones wait for their answer, even the right one is not looked at."""
    monkeypatch.setattr(browser_sessions, "SLOW", 0.5)
    async with Sandbox() as sandbox, running(sandbox, token=TOKEN) as url:
        guesses = [asyncio.create_task(send(url, "/live/login", "token=x")) for _ in range(10)]
        await asyncio.sleep(0.25)
        status, headers, _ = await send(url, "/live/login", f"token={TOKEN}")
        assert (429, "5") == (status, headers["Retry-After"])
        answered = [status for status, _, _ in await asyncio.gather(*guesses)]
        assert (browser_sessions.AT_ONCE, 10) == (answered.count(403), len(answered))
        await logged_in(url)


@pytest.mark.parametrize("origin", ["", "null", "http://evil.example", "http://127.0.0.1:1"])
async def test_a_form_of_another_page_is_refused(origin: str) -> None:
    async with Sandbox() as sandbox, running(sandbox, token=TOKEN) as url:
        for target in ("/live/login", "/live/logout"):
            status, headers, _ = await send(url, target, f"token={TOKEN}", origin=origin)
            assert (403, False) == (status, "Set-Cookie" in headers)


async def test_a_form_of_nonsense_size_is_not_read() -> None:
    async with Sandbox() as sandbox, running(sandbox, token=TOKEN) as url:
        status, _, _ = await send(url, "/live/login", f"token={TOKEN}&x={'x' * 100_000}")
        assert 403 == status


async def test_a_login_ends_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browser_sessions, "LIFETIME", 0.3)
    async with Sandbox() as sandbox, running(sandbox, token=TOKEN) as url:
        cookie = await logged_in(url)
        assert 200 == (await get(f"{url}/live/all", Cookie=cookie))[0]
        await asyncio.sleep(0.4)
        assert 403 == (await get(f"{url}/live/all", Cookie=cookie))[0]


async def test_so_many_logins_are_kept_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browser_sessions, "SESSIONS", 2)
    async with Sandbox() as sandbox, running(sandbox, token=TOKEN) as url:
        cookies = [await logged_in(url) for _ in range(3)]
        given = [(await get(f"{url}/live/all", Cookie=cookie))[0] for cookie in cookies]
        assert [403, 200, 200] == given


async def test_over_tls_the_cookie_goes_over_nothing_else(tmp_path: Path) -> None:
    issued = trustme.CA().issue_cert("localhost")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    issued.cert_chain_pems[0].write_to_path(cert)
    issued.private_key_pem.write_to_path(key)
    app = gateway([Account("1", CLIENT)], base_url="http://127.0.0.1:9", token=TOKEN)
    async with (
        serving(app, Address("localhost", 0, tls=(cert, key))) as url,
        aiohttp.ClientSession() as http,
        http.post(
            f"{url}/live/login",
            data={"token": TOKEN},
            headers={"Origin": url},
            ssl=False,
            allow_redirects=False,
        ) as response,
    ):
        [cookie] = SimpleCookie(response.headers["Set-Cookie"]).values()
        assert cookie["secure"]


async def test_gateways_at_two_ports_of_a_machine_do_not_log_each_other_out() -> None:
    """Cookies know no ports: a browser sends both to both."""
    async with Sandbox() as sandbox:
        async with running(sandbox, token=TOKEN) as one, running(sandbox, token=TOKEN) as other:
            cookies = [await logged_in(url) for url in (one, other)]
            for url in (one, other):
                assert 200 == (await get(f"{url}/live/all", Cookie="; ".join(cookies)))[0]
