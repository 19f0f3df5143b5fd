import asyncio

import pytest
from aiohttp import web

from msgconv_async import (
    Account,
    ApiError,
    ConfigurationError,
    ConversationSession,
    RetryPolicy,
    ServerError,
    Unauthorized,
    UnexpectedResponse,
)
from msgconv_async.client.access.domains import parse_base_uri, parse_origin
from tests.client.support import (
    API,
    BEARER,
    CLIENT,
    EVEN,
    HOSTS,
    QUERY,
    USER,
    World,
    account,
    liveperson,
    now,
)

NOT_BARE_HOSTS = [
    "",
    " ",
    "va.data.example.net/",
    "va.data.example.net/path",
    "va.data.example.net?query",
    "va.data.example.net#fragment",
    "user@va.data.example.net",
    "user:password@va.data.example.net",
    "https://va.data.example.net",
    "//va.data.example.net",
    "va.data.example.net\\@evil.example",
    "va.data.example.net\r\nHost: evil.example",
    "va.data.example.net\n",
    "va.data.example.net\x00",
    "va.data\t.example.net",
    " va.data.example.net",
    "va.data.example.net ",
    "va..example.net",
    ".example.net",
    "-va.example.net",
    "va.data.example.net:",
    "va.data.example.net:0",
    "va.data.example.net:99999",
    "va.data.example.net:443:443",
    "va.data.example.net:+443",
    "va.data.example.net:٤٤٣",
    "vä.data.example.net",
    "va。data.example.net",
    "[::1]",
    "%76a.data.example.net",
    "a" * 64 + ".example.net",
    "a." * 127 + "net",
]
BARE_HOSTS = ["va.data.example.net", "VA.Data.Example.NET", "va.data.example.net:8443", "lo"]


@pytest.mark.looptime
async def test_hosts_come_from_the_domain_api_over_https() -> None:
    """Each service is asked for at api.liveperson.net, and what is named is then used."""
    async with liveperson() as world, ConversationSession(http=world.http) as session:
        who = account(world.sandbox)

        await session.fetch(who, QUERY)

        paths = [
            (API, f"/api/account/{who.id}/service/leDataReporting/baseURI.json"),
            (API, f"/api/account/{who.id}/service/sentinel/baseURI.json"),
            (HOSTS["sentinel"], f"/sentinel/api/v2/account/{who.id}/app/token"),
            (HOSTS["leDataReporting"], f"/operations/api/account/{who.id}/msgconversation"),
        ]
        assert paths == world.asked


@pytest.mark.looptime
async def test_the_domain_api_is_asked_once_for_each_account() -> None:
    """However many ask at the same time and later, an account's services are looked up once."""
    async with liveperson() as world, ConversationSession(http=world.http) as session:
        first, second = account(world.sandbox, 0), account(world.sandbox, 1)

        await asyncio.gather(*(session.fetch(who, QUERY) for who in [first, second] * 5))
        await session.fetch(first, QUERY)

        assert ["leDataReporting"] * 2 + ["sentinel"] * 2 == sorted(world.lookups())


@pytest.mark.looptime
async def test_a_user_is_logged_in_where_the_domain_api_says() -> None:
    """The agent login service has a host of its own."""
    async with liveperson() as world, ConversationSession(http=world.http) as session:
        who = Account(world.sandbox.account_ids[0], USER)

        await session.fetch(who, QUERY)

        assert (HOSTS["agentVep"], f"/api/account/{who.id}/login") in world.asked


@pytest.mark.looptime
async def test_a_host_that_is_known_is_not_looked_up() -> None:
    """With Account(host=...) the Domain API is asked for nothing but the login's host."""
    async with liveperson() as world, ConversationSession(http=world.http) as session:
        who = Account(world.sandbox.account_ids[0], CLIENT, host=HOSTS["agentVep"])

        await session.fetch(who, QUERY)

        assert ["sentinel"] == world.lookups()
        assert HOSTS["agentVep"] == world.asked[-1][0]


@pytest.mark.looptime
@pytest.mark.parametrize("named", [*NOT_BARE_HOSTS, None, 7, ["va.data.example.net"]])
async def test_what_is_no_bare_host_is_sent_nothing(named: object) -> None:
    """Whatever the Domain API names will be sent credentials: only a bare host is."""
    async with liveperson() as world, ConversationSession(http=world.http) as session:
        world.hosts["sentinel"] = named

        with pytest.raises(UnexpectedResponse, match="baseURI") as caught:
            await session.fetch(account(world.sandbox), QUERY)

        assert world.sandbox.account_ids[0] == caught.value.account_id
        assert {API} == {host for host, _ in world.asked}


@pytest.mark.looptime
async def test_an_account_that_the_domain_api_does_not_know_is_unauthorized() -> None:
    """401 from the Domain API ends the call at once."""
    async with liveperson() as world, ConversationSession(http=world.http) as session:
        world.sandbox.fault = None

        with pytest.raises(Unauthorized) as caught:
            await session.fetch(Account("99999999", BEARER), QUERY)

        assert ("99999999", 401) == (caught.value.account_id, caught.value.status)


@pytest.mark.looptime
async def test_a_look_up_that_failed_is_made_again_by_the_next_call() -> None:
    """A wrong answer of the Domain API is not kept."""
    async with liveperson() as world, ConversationSession(http=world.http) as session:
        world.hosts["leDataReporting"] = "not a host"
        with pytest.raises(UnexpectedResponse):
            await session.fetch(account(world.sandbox), QUERY)
        world.hosts.update(HOSTS)

        await session.fetch(account(world.sandbox), QUERY)


NEW = HOSTS["agentVep"]
"""Where an account's other services move to in these tests."""


def gone(world: World, host: str, failure: int | None) -> None:
    """Let a host serve nobody any more: it answers with a status, or hangs up."""
    answer = world.sandbox.fault
    assert answer is not None

    async def fault(request: web.Request) -> web.StreamResponse | None:
        known = await answer(request)
        if request.host != host:
            return known
        if failure is None:
            raise ConnectionError
        return web.Response(status=failure, headers={"Location": f"https://{NEW}/"})

    world.sandbox.fault = fault


STOPPED = pytest.mark.parametrize("failure", [301, 302, 307, 401, 404, 503, None])


@pytest.mark.looptime
@STOPPED
@pytest.mark.parametrize("service", ["leDataReporting", "sentinel"])
async def test_an_account_that_moved_is_found_where_it_lives_now(
    service: str, failure: int | None
) -> None:
    """The host that stopped serving it is looked up again, and the call is repeated at once."""
    async with liveperson() as world, ConversationSession(http=world.http) as session:
        who = account(world.sandbox)
        await session.fetch(who, QUERY)
        gone(world, HOSTS[service], failure)
        world.hosts[service] = NEW
        if service == "sentinel":
            await asyncio.sleep(12 * 3600)  # the token has run out
        began = now()

        await session.fetch(who, QUERY)
        await session.fetch(who, QUERY)

        assert now() - began < 1
        assert 2 == world.lookups().count(service)


@pytest.mark.looptime
@pytest.mark.parametrize("failure", [400, 403, 422, 429, 500])
async def test_what_says_nothing_of_a_move_is_not_looked_up(failure: int) -> None:
    """Such an answer is one of a host that serves the account."""
    async with (
        liveperson() as world,
        ConversationSession(http=world.http, retry=RetryPolicy(waits=())) as session,
    ):
        who = account(world.sandbox)
        await session.fetch(who, QUERY)
        gone(world, HOSTS["leDataReporting"], failure)

        with pytest.raises(ApiError):
            await session.fetch(who, QUERY, timeout=1)

        assert 1 == world.lookups().count("leDataReporting")


@pytest.mark.looptime
async def test_a_host_that_fails_where_it_always_was_is_looked_up_once_a_minute() -> None:
    """However many ask: a host that is down is no reason to ask the Domain API all the time."""
    policy = RetryPolicy(waits=())
    async with (
        liveperson() as world,
        ConversationSession(http=world.http, retry=policy, coalesce=False) as session,
    ):
        who = account(world.sandbox)
        await session.fetch(who, QUERY)
        gone(world, HOSTS["leDataReporting"], 503)

        for _ in range(12):
            outcomes = await asyncio.gather(
                *(session.fetch(who, QUERY) for _ in range(5)), return_exceptions=True
            )
            assert [ServerError] * 5 == [type(outcome) for outcome in outcomes]
            await asyncio.sleep(10)

        assert 1 + 2 == world.lookups().count("leDataReporting")


@pytest.mark.looptime
@pytest.mark.parametrize("how", ["refused", "failing", "unreadable", "silent"])
async def test_while_the_domain_api_is_down_the_known_host_goes_on(how: str) -> None:
    """A failure that passes is repeated there; the look-up's own is not the call's."""
    async with (
        liveperson() as world,
        ConversationSession(http=world.http, retry=EVEN) as session,
    ):
        who = account(world.sandbox)
        await session.fetch(who, QUERY)
        answer = world.sandbox.fault
        assert answer is not None
        failures = [503]

        async def fault(request: web.Request) -> web.StreamResponse | None:
            known = await answer(request)
            if request.host == API:
                if how == "refused":
                    raise ConnectionError
                if how == "silent":
                    await asyncio.sleep(3600)
                return web.Response(status=500 if how == "failing" else 200, text="no")
            return web.Response(status=failures.pop()) if failures else known

        world.sandbox.fault = fault
        began = now()

        await session.fetch(who, QUERY)

        assert now() - began == pytest.approx(10 if how == "silent" else 5, abs=0.2)


@pytest.mark.looptime
async def test_a_host_that_was_given_is_never_looked_up() -> None:
    """Who says where an account lives is taken at his word."""
    async with (
        liveperson() as world,
        ConversationSession(http=world.http, retry=RetryPolicy(waits=())) as session,
    ):
        who = Account(world.sandbox.account_ids[0], CLIENT, host=HOSTS["leDataReporting"])
        elsewhere = Account(who.id, CLIENT)
        world.hosts["leDataReporting"] = NEW
        await session.fetch(elsewhere, QUERY)
        gone(world, HOSTS["leDataReporting"], 404)

        with pytest.raises(ApiError):
            await session.fetch(who, QUERY)

        assert 1 == world.lookups().count("leDataReporting")


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "10.0.0.1:8443",
        "169.254.169.254",
        "127.1",
        "2130706433",
        "0x7f000001",
        "va.example.0x7F",
        "example.1",
        "localhost",
        "LocalHost:8080",
        "va.localhost",
    ],
)
def test_an_address_or_this_machine_is_no_host_of_an_account(host: str) -> None:
    """A forged answer is not to send credentials into the network that this runs in."""
    with pytest.raises(UnexpectedResponse, match=r"account 1: .*an address or this machine"):
        parse_base_uri(f'{{"baseURI": "{host}"}}'.encode(), "1")


@pytest.mark.parametrize("host", BARE_HOSTS)
def test_a_bare_host_is_taken_as_it_is(host: str) -> None:
    """A name, with a port or without, stands as the service spelled it."""
    assert host == parse_base_uri(f'{{"baseURI": "{host}"}}'.encode(), "1")
    assert host == Account("1", BEARER, host=host).host


@pytest.mark.parametrize("host", NOT_BARE_HOSTS)
def test_an_account_refuses_what_is_no_bare_host(host: str) -> None:
    """A host given by hand is held to the same rule."""
    with pytest.raises(ConfigurationError, match="account 1: host"):
        Account("1", BEARER, host=host)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b"nothing", b"\xff", b'{"baseURI": ', b"[" * 100_000]
)
def test_an_answer_that_is_not_the_document_described_is_unexpected(body: bytes) -> None:
    """Garbage from the Domain API is named as such, with the account."""
    with pytest.raises(UnexpectedResponse, match="account 1: Domain API"):
        parse_base_uri(body, "1")


@pytest.mark.parametrize(
    ("given", "origin"),
    [
        ("https://api.example.net", "https://api.example.net"),
        ("https://api.example.net/", "https://api.example.net"),
        ("https://api.example.net:8443", "https://api.example.net:8443"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://127.8.9.1", "http://127.8.9.1"),
        ("http://localhost:8080/", "http://localhost:8080"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("https://[2001:db8::1]", "https://[2001:db8::1]"),
    ],
)
def test_a_base_url_is_an_origin(given: str, origin: str) -> None:
    """Scheme, host and port are kept; a trailing slash is not."""
    assert origin == parse_origin(given)


@pytest.mark.parametrize(
    "url",
    [
        "http://api.example.net",
        "http://10.0.0.1:8080",
        "http://0.0.0.0:8080",
        "http://127.0.0.1.example.net",
        "http://localhost.example.net",
        "http://2130706433",
        "http://0x7f.1",
        "http://[2001:db8::1]",
    ],
)
def test_plain_http_is_for_loopback_only(url: str) -> None:
    """A base_url that would carry credentials in the clear is refused."""
    with pytest.raises(ConfigurationError, match="plain http"):
        ConversationSession(base_url=url)


@pytest.mark.parametrize(
    "url",
    [
        "api.example.net",
        "//api.example.net",
        "ftp://api.example.net",
        "https://",
        "https://api.example.net/path",
        "https://api.example.net?query",
        "https://api.example.net#fragment",
        "https://user@api.example.net",
        "http://127.0.0.1@evil.example",
        "http://127.0.0.1\\@evil.example",
        "http://evil.example[::1]",
        "http://[::1]evil.example",
        "http://[::1].evil.example:80",
        "https://api.example.net:0",
        "https://api.example.net:99999",
        "https://api example.net",
        "https://äpi.example.net",
        "https://[::1",
    ],
)
def test_a_base_url_that_is_more_or_less_than_an_origin_is_refused(url: str) -> None:
    """No path, query or userinfo, no impossible port, no host that can be read in two ways."""
    with pytest.raises(ConfigurationError, match="is not an origin"):
        ConversationSession(base_url=url)


@pytest.mark.parametrize(
    "url",
    [
        "https://user:secret@h",
        "https://user:sec@secret@h/",
        "http://u:a/secret@h",
        "user:secret@h",
        "https:/user:secret@h",
        "https://h/?token=secret",
    ],
)
def test_a_refused_base_url_is_shown_without_its_password(url: str) -> None:
    """What stands before the @ may be a secret."""
    with pytest.raises(ConfigurationError) as caught:
        ConversationSession(base_url=url)

    assert "secret" not in str(caught.value)


def test_a_refused_host_is_shown_without_its_password() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Account("1", CLIENT, host="user:secret@h")

    assert "secret" not in str(caught.value)
    assert "is not a bare host name" in str(caught.value)


def test_the_environment_names_the_base_url(monkeypatch: pytest.MonkeyPatch) -> None:
    """MSGCONV_BASE_URL is held to the same rules as base_url, which goes before it."""
    monkeypatch.setenv("MSGCONV_BASE_URL", "http://api.example.net")

    ConversationSession(base_url="http://127.0.0.1:8080")
    with pytest.raises(ConfigurationError, match="plain http"):
        ConversationSession()
