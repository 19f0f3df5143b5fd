import asyncio
import json
import math
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from msgconv_async import (
    Account,
    ApiKey,
    BearerToken,
    ClientCredentials,
    ConfigurationError,
    ConversationSession,
    DeadlineExceeded,
    MsgConvError,
    RateLimited,
    ServerError,
    Unauthorized,
    UnexpectedResponse,
    UserLogin,
)
from msgconv_async.client.http.transport import Answer
from msgconv_async.sandbox import (
    ACCESS_TOKEN,
    ACCESS_TOKEN_SECRET,
    APP_KEY,
    APP_SECRET,
    CLIENT_ID,
    USERNAME,
    Sandbox,
)
from tests.client.support import (
    BEARER,
    CLIENT,
    EVEN,
    LONG_QUERY,
    QUERY,
    USER,
    account,
    client_tasks,
    now,
    serving,
    turns,
)

pytestmark = pytest.mark.looptime

NOW = datetime(2026, 3, 4, 8, 1, tzinfo=UTC)
KEY = ApiKey(APP_KEY, APP_SECRET, ACCESS_TOKEN, ACCESS_TOKEN_SECRET)

ANSWER: dict[str, Any] = {"metricsTotals": {}}
"""To a question for account totals."""


class Seen:
    """A fault that notes what is asked, and may answer in the sandbox's place.

    Attributes:
        paths: The last segment of each path, in order.
        times: When each was asked.
        answers: What to answer a last segment with, used up from the left; a status or a document.
        delay: Seconds before anything is answered.
    """

    def __init__(self, **answers: list[int | dict[str, Any]]) -> None:
        self.paths: list[str] = []
        self.times: list[float] = []
        self.requests: list[web.Request] = []
        self.answers = answers
        self.delay = 0.0

    async def __call__(self, request: web.Request) -> web.StreamResponse | None:
        name = request.path.split("/")[-1]
        self.paths.append(name)
        self.times.append(now())
        self.requests.append(request)
        await asyncio.sleep(self.delay)
        if not (answers := self.answers.get(name)):
            return None
        answer = answers.pop(0)
        if isinstance(answer, int):
            return web.Response(status=answer)
        return web.json_response(answer)

    def count(self, name: str) -> int:
        return self.paths.count(name)

    def at(self, name: str) -> list[float]:
        return [at for at, each in zip(self.times, self.paths, strict=True) if each == name]


@pytest.mark.parametrize("credentials", [CLIENT, USER, KEY], ids=lambda each: type(each).__name__)
@pytest.mark.parametrize("query", [QUERY, LONG_QUERY], ids=["GET", "POST"])
async def test_each_way_of_being_let_in(credentials: Any, query: Any) -> None:
    """A token, a user's session or a signature: the sandbox checks each as the service does."""
    async with (
        Sandbox() as sandbox,
        ConversationSession(coalesce=False, base_url=sandbox.url) as session,
    ):
        await session.fetch(Account(sandbox.account_ids[0], credentials), query)
        await session.fetch(Account(sandbox.account_ids[0], credentials), query)


async def test_a_bearer_of_one_s_own_is_sent_as_it_is() -> None:
    """BearerToken asks nobody for anything."""
    seen = Seen(msgconversation=[ANSWER])
    async with (
        Sandbox(fault=seen) as sandbox,
        ConversationSession(coalesce=False, base_url=sandbox.url) as session,
    ):
        await session.fetch(Account(sandbox.account_ids[0], BEARER), QUERY)

    assert ["msgconversation"] == seen.paths
    assert f"Bearer {BEARER.token}" == seen.requests[0].headers["Authorization"]


@pytest.mark.parametrize("credentials", [BEARER, KEY], ids=["bearer", "key"])
async def test_what_cannot_be_renewed_is_refused_once(credentials: Any) -> None:
    """A 401 to a bearer of one's own, or to a signature, is the end."""
    seen = Seen(msgconversation=[401, 401])
    async with (
        Sandbox(fault=seen) as sandbox,
        ConversationSession(coalesce=False, base_url=sandbox.url) as session,
    ):
        with pytest.raises(Unauthorized):
            await session.fetch(Account(sandbox.account_ids[0], credentials), QUERY)

    assert ["msgconversation"] == seen.paths


@pytest.mark.parametrize("credentials", [CLIENT, USER], ids=["token", "login"])
async def test_a_token_is_fetched_once_however_many_wait_for_it(credentials: Any) -> None:
    """Twenty calls that start together, and those that follow, share one login."""
    async with (
        Sandbox() as sandbox,
        ConversationSession(coalesce=False, base_url=sandbox.url) as session,
    ):
        who = Account(sandbox.account_ids[0], credentials)

        await asyncio.gather(*(session.fetch(who, QUERY) for _ in range(20)))
        await session.fetch(who, QUERY)

        assert 1 == sandbox.tokens[who.id]


async def test_each_account_has_a_token_of_its_own() -> None:
    """One client's credentials are good for many accounts; the tokens are not."""
    async with (
        Sandbox(accounts=2) as sandbox,
        ConversationSession(coalesce=False, base_url=sandbox.url) as session,
    ):
        await asyncio.gather(*(session.fetch(account(sandbox, each), QUERY) for each in (0, 1)))

        assert [1, 1] == [sandbox.tokens[each] for each in sandbox.account_ids]


@pytest.mark.parametrize("way", ["cancelled", "timeout"])
async def test_who_gives_up_does_not_take_the_login_from_the_others(way: str) -> None:
    """The first caller leaves while it waits for the login; the second gets the same login."""
    seen = Seen()
    seen.delay = 2
    async with (
        Sandbox(fault=seen) as sandbox,
        ConversationSession(coalesce=False, base_url=sandbox.url) as session,
    ):
        who = account(sandbox)
        timeout = 1 if way == "timeout" else None
        first = asyncio.create_task(session.fetch(who, QUERY, timeout=timeout))
        await asyncio.sleep(0.5)
        second = asyncio.create_task(session.fetch(who, QUERY))
        await asyncio.sleep(0.1)
        if way == "cancelled":
            first.cancel()

        await second

        with pytest.raises(asyncio.CancelledError if way == "cancelled" else DeadlineExceeded):
            await first
        assert 1 == seen.count("token")
        assert client_tasks() == set()


async def test_a_login_that_nobody_waits_for_any_more_is_broken_off() -> None:
    """When the last caller leaves, nothing of the login goes on."""
    seen = Seen()
    seen.delay = 10
    async with (
        Sandbox(fault=seen) as sandbox,
        ConversationSession(coalesce=False, base_url=sandbox.url) as session,
    ):
        calls = [asyncio.create_task(session.fetch(account(sandbox), QUERY)) for _ in range(3)]
        await asyncio.sleep(1)
        for call in calls:
            call.cancel()

        await asyncio.wait(calls)

        assert client_tasks() == set()
        seen.delay = 0
        await session.fetch(account(sandbox), QUERY)
        assert 2 == seen.count("token")


async def test_a_login_lasts_as_long_as_the_most_patient_allows() -> None:
    """A retry that is too late for the first caller is made for the second."""
    seen = Seen(token=[503])
    async with Sandbox(fault=seen) as sandbox:
        async with ConversationSession(coalesce=False, base_url=sandbox.url, retry=EVEN) as session:
            who = account(sandbox)
            hasty = asyncio.create_task(session.fetch(who, QUERY, timeout=4))
            patient = asyncio.create_task(session.fetch(who, QUERY, timeout=20))

            await patient

            with pytest.raises(MsgConvError):
                await hasty
    assert 2 == seen.count("token")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (400, Unauthorized),
        (401, Unauthorized),
        (403, Unauthorized),
        (451, Unauthorized),
        ({"access_token": 7}, UnexpectedResponse),
        ({"access_token": "with a space"}, UnexpectedResponse),
        ({"access_token": "x\r\nHost: evil.example"}, UnexpectedResponse),
        ({"access_token": ""}, UnexpectedResponse),
        ({}, UnexpectedResponse),
    ],
)
async def test_a_login_that_fails_is_made_once_and_fails_for_all(
    answer: int | dict[str, Any], error: type[MsgConvError]
) -> None:
    """Every caller gets an error of its own, and the service one request."""
    seen = Seen(token=[answer] * 99)
    async with (
        Sandbox(fault=seen) as sandbox,
        ConversationSession(coalesce=False, base_url=sandbox.url) as session,
    ):
        who = account(sandbox)

        outcomes = await asyncio.gather(
            *(session.fetch(who, QUERY) for _ in range(5)), return_exceptions=True
        )

        assert {error} == {type(each) for each in outcomes}
        assert 5 == len({id(each) for each in outcomes})
        assert {who.id} == {getattr(each, "account_id", "") for each in outcomes}
        assert ["token"] == seen.paths


async def test_a_login_that_failed_is_made_again_by_the_next_call() -> None:
    """A failure is not remembered."""
    seen = Seen(token=[401])
    async with (
        Sandbox(fault=seen) as sandbox,
        ConversationSession(coalesce=False, base_url=sandbox.url) as session,
    ):
        with pytest.raises(Unauthorized):
            await session.fetch(account(sandbox), QUERY)

        await session.fetch(account(sandbox), QUERY)


@pytest.mark.parametrize("credentials", [CLIENT, USER], ids=["token", "login"])
async def test_a_throttled_login_waits_five_seconds(credentials: Any) -> None:
    """LivePerson asks for more patience with logins than with questions."""
    seen = Seen(token=[429], login=[429])
    async with Sandbox(fault=seen) as sandbox:
        async with ConversationSession(coalesce=False, base_url=sandbox.url, retry=EVEN) as session:
            await session.fetch(Account(sandbox.account_ids[0], credentials), QUERY)

    assert 5 <= seen.times[1] - seen.times[0] < 5.5


async def test_a_failing_login_is_retried_like_any_request() -> None:
    """5, 10 and 15 seconds, and no more tries than that."""
    seen = Seen(token=[503] * 99)
    async with Sandbox(fault=seen) as sandbox:
        async with ConversationSession(coalesce=False, base_url=sandbox.url, retry=EVEN) as session:
            with pytest.raises(ServerError):
                await session.fetch(account(sandbox), QUERY)

    assert [0, 5, 15, 30] == [round(at - seen.times[0], 1) for at in seen.times]


async def test_a_token_is_renewed_before_it_expires() -> None:
    """A minute before its end it is not used any more, and no request is refused for it."""
    seen = Seen()
    async with (
        Sandbox(fault=seen) as sandbox,
        ConversationSession(coalesce=False, base_url=sandbox.url) as session,
    ):
        who = account(sandbox)
        for at in [0, 3500, 3545, 3601, 3545 + 3545]:
            await asyncio.sleep(at - now())
            await session.fetch(who, QUERY)

    assert [0, 3545, 3545 + 3545] == [round(at) for at in seen.at("token")]
    assert 5 == seen.count("msgconversation")


async def test_a_short_lived_token_is_used_for_nine_tenths_of_its_life() -> None:
    """A token that lives for less than the usual margin is not renewed at every call."""
    seen = Seen()
    async with Sandbox(fault=seen, token_lifetime=30) as sandbox:
        async with ConversationSession(coalesce=False, base_url=sandbox.url) as session:
            for at in [0, 10, 26, 28, 40]:
                await asyncio.sleep(at - now())
                await session.fetch(account(sandbox), QUERY)

    assert [0, 28] == [round(at) for at in seen.at("token")]


async def test_tokens_that_have_expired_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accounts that are asked no more cost no memory once their tokens are of no use."""
    monkeypatch.setattr("msgconv_async.client.access.logins.SWEEP", 2)
    async with (
        Sandbox(accounts=4, token_lifetime=100) as sandbox,
        ConversationSession(coalesce=False, base_url=sandbox.url) as session,
    ):
        for number, at in enumerate([0, 50, 120, 120]):
            await asyncio.sleep(at - now())
            await session.fetch(account(sandbox, number), QUERY)

        assert session._net is not None
        held = session._net.requests._logins._held
        assert [account(sandbox, number) for number in (1, 2, 3)] == list(held)


async def test_a_token_s_life_begins_when_it_was_asked_for_last() -> None:
    """The waits of a login that was retried are not taken off its lifetime."""
    seen = Seen(token=[503, 503])
    async with Sandbox(fault=seen, token_lifetime=10) as sandbox:
        async with ConversationSession(coalesce=False, base_url=sandbox.url, retry=EVEN) as session:
            await session.fetch(account(sandbox), QUERY)

    assert 3 == seen.count("token")


async def test_a_token_that_ran_out_in_the_queue_is_renewed_in_turn() -> None:
    """A request that waited for longer than its token lives logs in again, and is not refused."""
    seen = Seen()
    async with Sandbox(fault=seen, token_lifetime=10) as sandbox:
        async with ConversationSession(coalesce=False, base_url=sandbox.url) as session:
            who = account(sandbox)
            async with asyncio.TaskGroup() as group:
                turns_taken = [session.pacer(who).turn() for _ in range(50)]
                for turn in turns_taken:
                    group.create_task(_hold(turn, 12))
                await asyncio.sleep(0)
                await session.fetch(who, QUERY, timeout=None)

    assert 1 == seen.count("msgconversation")


async def _hold(turn: Any, seconds: float) -> None:
    async with turn:
        await asyncio.sleep(seconds)


@pytest.mark.parametrize("status", [401, 429, 503])
async def test_a_login_in_turn_is_not_retried_twice_over(status: int) -> None:
    """What a login, made again in the request's turn, ends in, ends the call."""
    seen = Seen(msgconversation=[503])
    async with Sandbox(fault=seen, token_lifetime=4) as sandbox:
        async with ConversationSession(coalesce=False, base_url=sandbox.url, retry=EVEN) as session:
            call = asyncio.create_task(session.fetch(account(sandbox), QUERY, timeout=50))
            await asyncio.sleep(1)  # the token has run out when the retry after 5 seconds comes
            seen.answers["token"] = [status] * 99

            with pytest.raises({401: Unauthorized, 429: RateLimited, 503: ServerError}[status]):
                await call

    renewals = [at for at in seen.at("token") if at > 1]
    least = {401: 0, 429: 5, 503: 5}[status]
    assert {401: 1, 429: 9, 503: 4}[status] == len(renewals)
    assert all(after - before >= least for before, after in pairwise(renewals))


@pytest.mark.parametrize("credentials", [CLIENT, USER], ids=["token", "login"])
async def test_a_401_renews_the_login_and_the_call_is_tried_once_more(credentials: Any) -> None:
    """A token that the service forgot costs one refusal and no error."""
    seen = Seen()
    async with (
        Sandbox(fault=seen) as sandbox,
        ConversationSession(coalesce=False, base_url=sandbox.url) as session,
    ):
        who = Account(sandbox.account_ids[0], credentials)
        await session.fetch(who, QUERY)
        seen.answers["msgconversation"] = [401]

        await session.fetch(who, QUERY)

        assert 2 == sandbox.tokens[who.id]
        assert 3 == seen.count("msgconversation")


async def test_a_second_401_is_the_end() -> None:
    """What is refused with a new token is refused."""
    seen = Seen(msgconversation=[401] * 99)
    async with (
        Sandbox(fault=seen) as sandbox,
        ConversationSession(coalesce=False, base_url=sandbox.url) as session,
    ):
        with pytest.raises(Unauthorized):
            await session.fetch(account(sandbox), QUERY)

    assert ["token", "msgconversation"] * 2 == seen.paths


async def test_many_401_renew_the_login_once() -> None:
    """Requests refused together, for a token that all of them used, need one new token."""
    first: list[str] = []

    async def fault(request: web.Request) -> web.StreamResponse | None:
        used = request.headers.get("Authorization", "")
        if not request.path.endswith("/msgconversation"):
            return None
        first.append(used)
        await asyncio.sleep(1)
        return web.Response(status=401) if used == first[0] else None

    async with Sandbox(fault=fault) as sandbox:
        async with ConversationSession(coalesce=False, base_url=sandbox.url) as session:
            who = account(sandbox)

            await asyncio.gather(*(session.fetch(who, QUERY) for _ in range(5)))

            assert 1 < first.count(first[0])
            assert 2 == sandbox.tokens[who.id]


async def test_a_user_s_session_is_kept_alive_and_ended() -> None:
    """It is refreshed about every four minutes, never left to expire, and logged out on close."""
    seen = Seen()
    async with Sandbox(fault=seen) as sandbox:
        async with ConversationSession(coalesce=False, base_url=sandbox.url) as session:
            who = Account(sandbox.account_ids[0], USER)
            await session.fetch(who, QUERY)
            for _ in range(9 * 4):
                await asyncio.sleep(900)
                await session.fetch(who, QUERY)

        refreshed = seen.at("refresh")
        assert 1 == seen.count("login")
        assert ["logout"] == seen.paths[-1:]
        assert all(
            180 <= after - before <= 300
            for before, after in zip([0.0, *refreshed], refreshed, strict=False)
        )
        assert 9 * 3600 - 300 < refreshed[-1]
        assert client_tasks() == set()


async def test_a_session_that_cannot_be_refreshed_is_made_anew() -> None:
    """A refusal of the refresh costs the next call a login, and nothing else."""
    seen = Seen(refresh=[401])
    async with (
        Sandbox(fault=seen) as sandbox,
        ConversationSession(coalesce=False, base_url=sandbox.url) as session,
    ):
        who = Account(sandbox.account_ids[0], USER)
        await session.fetch(who, QUERY)
        await asyncio.sleep(250)
        assert client_tasks() == set()

        await session.fetch(who, QUERY)
        await asyncio.sleep(250)

        assert (2, 2) == (seen.count("login"), seen.count("refresh"))


async def test_a_refresh_that_does_not_get_through_is_made_again() -> None:
    """A broken connection says nothing about the session."""
    async with Sandbox() as sandbox:
        seen = Seen()

        async def fault(request: web.Request) -> web.StreamResponse | None:
            await seen(request)
            if request.path.endswith("/refresh") and seen.count("refresh") == 1:
                raise ConnectionError
            return None

        sandbox.fault = fault
        async with ConversationSession(coalesce=False, base_url=sandbox.url) as session:
            who = Account(sandbox.account_ids[0], USER)
            await session.fetch(who, QUERY)
            await asyncio.sleep(500)
            await session.fetch(who, QUERY)

    assert (1, 2) == (seen.count("login"), seen.count("refresh"))


async def test_a_dropped_session_is_refreshed_no_more() -> None:
    """After a 401 the old session's refreshes end with it."""
    seen = Seen()
    async with (
        Sandbox(fault=seen) as sandbox,
        ConversationSession(coalesce=False, base_url=sandbox.url) as session,
    ):
        who = Account(sandbox.account_ids[0], USER)
        await session.fetch(who, QUERY)
        seen.answers["msgconversation"] = [401]
        await session.fetch(who, QUERY)
        await asyncio.sleep(250)

        assert 1 == seen.count("refresh")
        assert ["Logins._keep_alive"] == list(client_tasks())


async def test_a_session_that_ran_out_is_replaced_and_logged_out() -> None:
    """A session too short to be refreshed is renewed by login; the old one is not left open."""
    short = {"bearer": "b", "csrf": "c", "sessionTTl": "60000"}
    seen = Seen(login=[short, short], msgconversation=[ANSWER, ANSWER], logout=[{}, {}])
    async with (
        Sandbox(fault=seen) as sandbox,
        ConversationSession(coalesce=False, base_url=sandbox.url) as session,
    ):
        who = Account(sandbox.account_ids[0], USER)
        await session.fetch(who, QUERY)
        await asyncio.sleep(61)
        await session.fetch(who, QUERY)

    assert ["login", "msgconversation", "login"] == seen.paths[:3]
    expected = ["login", "msgconversation", "logout"] * 2
    assert sorted(expected) == sorted(seen.paths)


async def test_sessions_replaced_after_a_401_are_logged_out() -> None:
    """Fifty users, all refused once: the server is left with none of the old sessions."""
    open_at_server: set[str] = set()
    refused: set[str] = set()

    async def service(request: web.BaseRequest) -> web.StreamResponse:
        *_, who, action = request.path.split("/")
        used = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if action == "login":
            bearer = f"{who}-{len(open_at_server)}-{who in refused}"
            open_at_server.add(bearer)
            return web.json_response({"bearer": bearer, "csrf": "c"})
        if action == "logout":
            open_at_server.discard(used)
        elif who not in refused:
            refused.add(who)
            return web.Response(status=401)
        return web.json_response(ANSWER)

    async with serving(service) as url, ConversationSession(base_url=url) as session:
        accounts = [Account(str(number), USER) for number in range(50)]
        await asyncio.gather(*(session.fetch(who, QUERY) for who in accounts))
        await asyncio.sleep(1)

        assert 50 == len(open_at_server)
        assert all(bearer.endswith("True") for bearer in open_at_server)
    assert set() == open_at_server


async def test_the_session_of_an_account_nobody_asks_any_more_is_logged_out() -> None:
    """After twenty minutes; whoever asks later logs in again."""
    seen = Seen()
    async with (
        Sandbox(fault=seen) as sandbox,
        ConversationSession(coalesce=False, base_url=sandbox.url) as session,
    ):
        who = Account(sandbox.account_ids[0], USER)
        await session.fetch(who, QUERY)
        await asyncio.sleep(1000)
        await session.fetch(who, QUERY)
        await asyncio.sleep(1100)
        assert 0 == seen.count("logout")
        await asyncio.sleep(1000)

        assert seen.at("logout")[0] == pytest.approx(1000 + 1200, abs=241)
        assert 1 == seen.count("logout")
        assert set() == client_tasks()
        await session.fetch(who, QUERY)
        assert 2 == seen.count("login")


async def test_of_two_logins_at_once_the_later_to_come_is_logged_out() -> None:
    """A login that hung may be overtaken by another: its session is not left open, nor used."""
    logins = 0
    ended: list[str] = []

    async def service(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal logins
        used = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if request.path.endswith("/login"):
            logins += 1
            mine = f"b{logins}"
            await asyncio.sleep(5 if logins == 1 else 0.1)
            return web.json_response({"bearer": mine, "csrf": "c"})
        if request.path.endswith("/logout"):
            ended.append(used)
        return web.json_response(ANSWER)

    async with (
        serving(service) as url,
        ConversationSession(coalesce=False, base_url=url) as session,
    ):
        who = Account("1", USER)
        slow = asyncio.create_task(session.fetch(who, QUERY))
        await asyncio.sleep(2)
        await session.fetch(who, QUERY)
        await slow
        await asyncio.sleep(4)

        assert ["b1"] == ended
    assert ["b1", "b2"] == ended


@pytest.mark.parametrize(
    ("told", "lifetime"),
    [
        ("3600", 3600),
        ("3600.5", 3600.5),
        ('"3600"', 3600),
        ("null", math.inf),
        ("0", math.inf),
        ("-1", math.inf),
        ('"0"', math.inf),
        ('""', math.inf),
        (f'"{"9" * 400}"', math.inf),
    ],
)
def test_a_lifetime_is_read_as_services_send_it(told: str, lifetime: float) -> None:
    """A number, one in a string, or nothing that says anything: then it lasts until refused."""
    token = f'{{"access_token": "t", "expires_in": {told}}}'.encode()
    session = f'{{"bearer": "t", "csrf": "c", "sessionTTl": {told}}}'.encode()

    assert lifetime == CLIENT.parse(Answer(token, NOW, {}), "1").lifetime
    assert lifetime / 1000 == USER.parse(Answer(session, NOW, {}), "1").lifetime


@pytest.mark.parametrize("told", ['"soon"', '"NaN"', "true", "[]", "{}", "9" * 400])
def test_a_lifetime_that_is_no_number_is_unexpected(told: str) -> None:
    """It is said of whose login, and where."""
    for credentials, name in ((CLIENT, "expires_in"), (USER, "sessionTTl")):
        body = f'{{"access_token": "t", "bearer": "t", "csrf": "c", "{name}": {told}}}'.encode()
        with pytest.raises(UnexpectedResponse, match=rf"account 1: login: .*\$\.{name}"):
            credentials.parse(Answer(body, NOW, {}), "1")


_ANY = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)


@given(
    st.binary()
    | st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(
            ["access_token", "expires_in", "bearer", "csrf", "sessionTTl"],
            _ANY | st.sampled_from(["token", "9" * 400, 10**400, [], {}]),
        ),
    ).map(lambda document: json.dumps(document).encode())
)
def test_whatever_a_login_is_answered_is_a_login_or_an_error_of_ours(body: bytes) -> None:
    """With a bearer that can stand in a header, and a lifetime above 0."""
    for credentials in (CLIENT, USER):
        with suppress(MsgConvError):
            login = credentials.parse(Answer(body, NOW, {}), "1")
            assert login.bearer
            assert login.bearer.isascii()
            assert login.lifetime > 0


@pytest.mark.parametrize("told", [0, -5, None, "3600", 1e-9, 0.5])
async def test_a_token_is_asked_for_once_whatever_lifetime_it_is_told_to_have(told: Any) -> None:
    """Three calls in one second, one token, although it took two to come."""
    tokens = 0

    async def service(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal tokens
        if request.path.endswith("/app/token"):
            tokens += 1
            await asyncio.sleep(2)
            return web.json_response({"access_token": "t", "expires_in": told})
        return web.json_response(ANSWER)

    async with (
        serving(service) as url,
        ConversationSession(coalesce=False, base_url=url) as session,
    ):
        for _ in range(3):
            await session.fetch(Account("1", CLIENT), QUERY)

    assert 1 == tokens


async def test_a_logout_that_is_not_answered_does_not_hold_up_closing() -> None:
    """Closing takes half a second at the most, however many users there are."""
    seen = Seen()
    async with Sandbox(accounts=3, fault=seen) as sandbox:
        session = ConversationSession(coalesce=False, base_url=sandbox.url)
        async with session:
            for each in sandbox.account_ids:
                await session.fetch(Account(each, USER), QUERY)
            seen.delay = 3600
            began = now()
        assert 0.4 < now() - began < 0.6
        assert 3 == seen.count("logout")


@pytest.mark.parametrize("answer", [401, 500, 302])
async def test_a_logout_that_is_refused_is_nobody_s_trouble(answer: int) -> None:
    """Closing raises nothing."""
    seen = Seen(logout=[answer])
    async with Sandbox(fault=seen) as sandbox:
        async with ConversationSession(coalesce=False, base_url=sandbox.url) as session:
            await session.fetch(Account(sandbox.account_ids[0], USER), QUERY)

    assert 1 == seen.count("logout")


async def test_cookies_go_back_as_they_came_and_to_their_own_account_only() -> None:
    """Two users of one host have two sessions; a value is not spelled anew."""
    cookies: list[tuple[str, str | None]] = []

    async def service(request: web.BaseRequest) -> web.StreamResponse:
        *_, who, action = request.path.split("/")
        cookies.append((f"{who} {action}", request.headers.get("Cookie")))
        response = web.json_response({"bearer": "b", "csrf": "c"} | ANSWER)
        if action == "login":
            response.headers.add("Set-Cookie", f"Session=a/b+{who}==; Path=/; HttpOnly")
            response.headers.add("Set-Cookie", 'Region="v a"; Path=/; Secure')
        return response

    async with serving(service) as url:
        async with ConversationSession(coalesce=False, base_url=url) as session:
            for who in ("1", "2"):
                await session.fetch(Account(who, USER), QUERY)

    expected = {
        "1 login": None,
        "1 msgconversation": None,
        "1 logout": 'Session=a/b+1==; Region="v a"',
        "2 login": None,
        "2 msgconversation": None,
        "2 logout": 'Session=a/b+2==; Region="v a"',
    }
    assert expected == dict(cookies)


async def test_the_cookie_jar_of_a_given_session_is_not_used() -> None:
    """It would carry one account's cookies to the next, whatever the credentials are."""
    cookies: list[tuple[str, str | None]] = []

    async def service(request: web.BaseRequest) -> web.StreamResponse:
        *_, who, action = request.path.replace("/app", "").split("/")
        cookies.append((f"{who} {action}", request.headers.get("Cookie")))
        response = web.json_response({"access_token": "t", "bearer": "b", "csrf": "c"} | ANSWER)
        response.headers.add("Set-Cookie", f"Session=of-{who}; Path=/")
        return response

    jar = aiohttp.CookieJar(unsafe=True)
    async with serving(service) as url, aiohttp.ClientSession(cookie_jar=jar) as http:
        jar.update_cookies({"Session": "of-nobody"}, URL(url))
        async with ConversationSession(coalesce=False, http=http, base_url=url) as session:
            for who in (Account("1", USER), Account("2", USER), Account("3", CLIENT)):
                await session.fetch(who, QUERY)
            await session.fetch(Account("4", BEARER), QUERY)

        assert ["of-nobody"] == [each.value for each in jar]

    sent = [(action, cookie) for action, cookie in cookies if cookie is not None]
    assert [("1 logout", "Session=of-1"), ("2 logout", "Session=of-2")] == sorted(sent)


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (ClientCredentials, ("", "secret")),
        (ClientCredentials, ("id", "")),
        (ClientCredentials, ("id", None)),
        (ClientCredentials, ("id", "\ud800")),
        (UserLogin, ("", "secret")),
        (UserLogin, ("name", "")),
        (UserLogin, ("name", "pass\udfffword")),
        (BearerToken, ("",)),
        (BearerToken, (None,)),
        (BearerToken, ("Bearer abc",)),
        (BearerToken, ("abc\r\nHost: evil.example",)),
        (BearerToken, ("abc\n",)),
        (BearerToken, ("tökën",)),
        (ApiKey, ("", "b", "c", "d")),
        (ApiKey, ("a", "b", "c", "")),
    ],
)
def test_credentials_that_cannot_work_are_refused(kind: Any, arguments: tuple[Any, ...]) -> None:
    """Nothing is sent; the class is named, and what was given is not shown."""
    with pytest.raises(ConfigurationError, match=kind.__name__) as caught:
        kind(*arguments)

    assert "evil" not in str(caught.value)
    assert "word" not in str(caught.value).removeprefix("UserLogin: password")


@pytest.mark.parametrize(
    "given", ["", "1/2", "../1", "1?x", "1#", "1 2", "1\r\n", "1\n", "ä", 1, None, "1" * 65]
)
def test_an_account_id_that_could_not_stand_in_a_url_is_refused(given: Any) -> None:
    """Neither a path nor a header can be smuggled in."""
    with pytest.raises(ConfigurationError, match="account id"):
        Account(given, BEARER)


def test_credentials_must_be_credentials() -> None:
    """A string is none of the four."""
    with pytest.raises(ConfigurationError, match="not str"):
        Account("1", "secret")  # type: ignore[arg-type]


def test_an_api_key_without_its_extra_says_what_to_install() -> None:
    """Oauthlib is asked for before it is needed."""
    program = (
        "import sys; sys.modules['oauthlib'] = None\n"
        "from msgconv_async import ApiKey, ConfigurationError\n"
        "try: ApiKey('a', 'b', 'c', 'd')\n"
        "except ConfigurationError as error: print(error)"
    )

    said = subprocess.run(  # noqa: S603 - the interpreter that runs the tests
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert "pip install 'oauthlib>=3.2'" in said.stdout


async def test_a_login_is_shared_between_equal_accounts_and_not_between_others() -> None:
    """Equal id and credentials are one login; other credentials are another."""
    async with (
        Sandbox() as sandbox,
        ConversationSession(coalesce=False, base_url=sandbox.url) as session,
    ):
        who = sandbox.account_ids[0]
        await session.fetch(Account(who, ClientCredentials(CLIENT_ID, CLIENT.client_secret)), QUERY)
        await session.fetch(Account(who, CLIENT), QUERY)
        assert 1 == sandbox.tokens[who]

        with pytest.raises(Unauthorized):
            await session.fetch(Account(who, ClientCredentials(CLIENT_ID, "wrong")), QUERY)
        with pytest.raises(Unauthorized):
            await session.fetch(Account(who, UserLogin(USERNAME, "wrong")), QUERY)


async def test_a_login_in_flight_ends_with_the_session() -> None:
    """Closing while a login is under way leaves no session that would be refreshed for ever."""
    seen = Seen()
    seen.delay = 2
    jar = aiohttp.DummyCookieJar()
    async with Sandbox(fault=seen) as sandbox, aiohttp.ClientSession(cookie_jar=jar) as http:
        async with ConversationSession(coalesce=False, base_url=sandbox.url, http=http) as session:
            call = asyncio.create_task(
                session.fetch(Account(sandbox.account_ids[0], USER), QUERY, timeout=None)
            )
            await asyncio.sleep(1)
        with pytest.raises(RuntimeError, match="closed"):
            await call
        await turns()

        assert client_tasks() == set()
        assert ["login"] == seen.paths


def test_credentials_show_their_names_and_no_secret() -> None:
    """An account can be printed."""
    shown = json.dumps([repr(Account("1", each)) for each in (CLIENT, USER, BEARER, KEY)])

    assert CLIENT_ID in shown
    assert USERNAME in shown
    for each in (CLIENT, USER, BEARER, KEY):
        assert all(secret not in shown.replace("sandbox-key'", "") for secret in each.secrets())
