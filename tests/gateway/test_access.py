"""Who may ask: this machine, or who has the token, over TLS."""

from __future__ import annotations

import socket
import ssl
import stat
from pathlib import Path

import aiohttp
import pytest
import trustme

from msgconv_async import (
    Account,
    BearerToken,
    ClientCredentials,
    ConfigurationError,
    ConversationQuery,
    ConversationSession,
    Unauthorized,
)
from msgconv_async.gateway import gateway
from msgconv_async.gateway.serve import Address, for_this_machine, serving
from msgconv_async.sandbox import Sandbox
from tests.client.support import CLIENT
from tests.gateway.support import NOBODY, get, path, running

TOKEN = "a-token-of-the-gateway"
TLS = (Path("cert.pem"), Path("key.pem"))
QUERY = ConversationQuery(60)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "gateway.example.net", ""])  # noqa: S104
def test_an_address_that_others_reach_takes_a_token_and_tls(host: str) -> None:
    for token, tls, lacking in (
        (None, None, "--token-env and --tls-cert and --tls-key"),
        (TOKEN, None, "--tls-cert"),
        (None, TLS, "--token-env"),
    ):
        with pytest.raises(ConfigurationError, match=lacking):
            Address(host, tls=tls).check(token)
    Address(host, tls=TLS).check(TOKEN)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_loopback_takes_neither(host: str) -> None:
    Address(host).check(None)


async def test_with_a_token_nobody_asks_without_it() -> None:
    async with Sandbox() as sandbox, running(sandbox, token=TOKEN) as url:
        [account_id] = sandbox.account_ids
        target = url + path(account_id)
        for given in ({}, {"Authorization": f"Bearer {TOKEN}x"}, {"Authorization": TOKEN}):
            status, headers, body = await get(target, **given)
            assert (401, "Bearer") == (status, headers["WWW-Authenticate"])
            assert TOKEN not in body.decode()
        assert 401 == (await get(f"{url}/metrics"))[0]
        assert 0 == sandbox.requests[account_id]
        assert 200 == (await get(target, Authorization=f"Bearer {TOKEN}"))[0]
        assert 200 == (await get(f"{url}/healthz"))[0]


async def test_a_session_brings_the_token_as_bearer_or_as_client_secret() -> None:
    async with Sandbox() as sandbox, running(sandbox, token=TOKEN) as url:
        async with ConversationSession(base_url=url) as session:
            for credentials in (BearerToken(TOKEN), ClientCredentials("worker", TOKEN)):
                await session.fetch(Account(sandbox.account_ids[0], credentials), QUERY)
            for wrong in (NOBODY, ClientCredentials("worker", "wrong")):
                with pytest.raises(Unauthorized):
                    await session.fetch(Account(sandbox.account_ids[0], wrong), QUERY)


async def test_a_unix_socket_is_for_its_user_alone(tmp_path: Path) -> None:
    unix = tmp_path / "gateway.sock"
    async with Sandbox() as sandbox:
        async with running(sandbox, unix=unix) as url:
            assert f"unix:{unix}" == url
            assert 0o600 == stat.S_IMODE(unix.stat().st_mode)
            connector = aiohttp.UnixConnector(str(unix))
            async with (
                aiohttp.ClientSession(
                    connector=connector, cookie_jar=aiohttp.DummyCookieJar()
                ) as http,
                ConversationSession(http=http, base_url="http://localhost") as session,
            ):
                await session.fetch(Account(sandbox.account_ids[0], NOBODY), QUERY)
        assert not unix.exists()


async def test_a_socket_left_by_a_gateway_that_was_killed_is_replaced(tmp_path: Path) -> None:
    unix = tmp_path / "gateway.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(unix))
    async with Sandbox() as sandbox, running(sandbox, unix=unix):
        assert unix.is_socket()


async def test_a_socket_in_use_and_a_file_are_left_alone(tmp_path: Path) -> None:
    unix, file = tmp_path / "gateway.sock", tmp_path / "file"
    file.write_text("precious")
    async with Sandbox() as sandbox, running(sandbox, unix=unix):
        for taken in (unix, file):
            with pytest.raises(ConfigurationError, match="cannot listen on"):
                async with running(sandbox, unix=taken):
                    pass
        assert unix.is_socket()
    assert "precious" == file.read_text()


async def test_over_tls_all_is_the_same(tmp_path: Path) -> None:

    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    issued.cert_chain_pems[0].write_to_path(cert)
    issued.private_key_pem.write_to_path(key)

    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with Sandbox() as sandbox:
        app = gateway([Account(sandbox.account_ids[0], CLIENT)], base_url=sandbox.url, token=TOKEN)
        async with serving(app, Address("localhost", 0, tls=(cert, key))) as url:
            assert url.startswith("https://localhost:")
            async with (
                aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(ssl=trusting),
                    cookie_jar=aiohttp.DummyCookieJar(),
                ) as http,
                ConversationSession(http=http, base_url=url) as session,
            ):
                account = Account(sandbox.account_ids[0], BearerToken(TOKEN))
                await session.fetch(account, QUERY)


async def test_a_certificate_that_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:

    app = gateway([Account("1", NOBODY)])
    with pytest.raises(ConfigurationError, match=r"--tls-cert=.* cannot be used: No such file"):
        async with serving(app, Address(tls=(tmp_path / "none", tmp_path / "none"))):
            pass


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:1234", 200),
        ("127.0.0.2", 200),
        ("[::1]:8080", 200),
        ("gateway.example:8080", 403),
        ("127.0.0.1.example", 403),
    ],
)
async def test_without_a_token_a_page_that_lets_its_name_lead_here_reads_nothing(
    host: str, status: int
) -> None:
    """DNS rebinding: to a browser the gateway would be of the page's own site."""
    async with Sandbox() as sandbox:
        [account_id] = sandbox.account_ids
        app = gateway([Account(account_id, CLIENT)], base_url=sandbox.url)
        app.middlewares.append(for_this_machine)
        async with serving(app, Address(port=0)) as url:
            for target in (path(account_id), "/", "/metrics"):
                given, _, body = await get(url + target, Host=host)
                assert status == given
                assert status == 200 or b"--token-env" in body


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_a_page_of_another_site_asks_nothing(site: str) -> None:
    """It could not read the answer, and would spend the account's limit."""
    async with Sandbox() as sandbox, running(sandbox) as url:
        [account_id] = sandbox.account_ids
        status, headers, _ = await get(url + path(account_id), **{"Sec-Fetch-Site": site})
        assert (403, "site") == (status, headers["Msgconv-Gateway"])
        assert 0 == sandbox.requests[account_id]
