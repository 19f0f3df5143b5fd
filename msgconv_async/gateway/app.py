"""The gateway as an aiohttp application: one session inside, spoken to in the API's language."""

from __future__ import annotations

import asyncio
import hmac
import logging
import math
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl

from aiohttp import web
from aiohttp.hdrs import ALLOW, AUTHORIZATION, CACHE_CONTROL

from msgconv_async import checks
from msgconv_async.client.access.account import Account
from msgconv_async.client.http.retry import RetryPolicy
from msgconv_async.client.many.follow_arguments import each_once
from msgconv_async.client.session import ConversationSession, Shared
from msgconv_async.errors import (
    ConfigurationError,
    ConnectionFailed,
    MsgConvError,
    ServerError,
)
from msgconv_async.gateway import answers, parameters, state
from msgconv_async.gateway.answers import Refusal
from msgconv_async.gateway.metrics import CONTENT_TYPE, AccountMetrics, Metrics
from msgconv_async.gateway.page.browser_sessions import comes_from_elsewhere
from msgconv_async.gateway.page.live import Live
from msgconv_async.gateway.page.routes import Page
from msgconv_async.names import Names
from msgconv_async.pacing.adaptive import Belief
from msgconv_async.pacing.pacer import Pacer, PacerStats
from msgconv_async.protocol.query import ConversationQuery

MAX_WAIT = 15.0
"""Seconds in the queue: below the 20 that a client's `RetryPolicy` gives one try."""

LATELY = 30.0
"""Seconds for which a failure of the service counts against readiness. Not for ever: a gateway that
is not ready is asked nothing, and would not find out that the service is back."""

SAVE_EVERY = 5.0
"""Seconds between two writings of what was learnt."""

TOKEN_LIFETIME = 3600
"""Seconds that a token of the token endpoint is said to live; it is only a password in disguise."""

_METRICS = "/operations/api/account/{account}/msgconversation"
_DOMAINS = "/api/account/{account}/service"
_TOKENS = "/sentinel/api/v2/account/{account}/app/token"
_SERVICES = ("agentVep", "leDataReporting", "sentinel")
_LARGEST_BODY = 1024 * 1024
_LOG = logging.getLogger("msgconv_async")


def gateway(
    accounts: Iterable[Account],
    *,
    base_url: str | None = None,
    fresh_for: float = 0.0,
    max_wait: float = MAX_WAIT,
    token: str | None = None,
    state: str | os.PathLike[str] | None = None,
    page: bool = True,
    names: Names | None = None,
    pacer: Callable[[], Pacer] = Pacer,
) -> web.Application:
    """Make a gateway to some accounts, for one's own server.

    Run it with ``handler_cancellation=True``, so that a client that hangs up ends its request, and
    with a ``shutdown_timeout`` in which requests in flight may end. Your server decides who may
    reach it; `msgconv gateway` refuses what is unsafe.

    Args:
        accounts: Those that may be asked about, each once, with the credentials that the clients
            then do without.
        base_url: As `ConversationSession` takes it.
        fresh_for: Seconds for which an answer may be given again, never across a five-minute edge.
        max_wait: Seconds. A question whose turn would come later is refused with 503: at once,
            or, where nobody knows the account's limit yet, when they are over.
        token: What clients must send as ``Authorization: Bearer``, or trade for such a token as
            their client secret; None asks for nothing.
        state: A file that keeps what was learnt about the accounts' limits over restarts.
        page: Serve the live page at ``/``. While somebody looks at it, every account is followed,
            with two requests each five minutes; otherwise it sends nothing.
        names: What the live page shows beside the ids of accounts, skills and agents.
        pacer: Makes each account's pacer.

    Raises:
        ConfigurationError: There is no account, one is given twice, or a setting cannot work.
    """
    checks.switch("page", page)
    if names is not None:
        checks.instance("names", names, Names, "Names, such as read_names returns, or None")
    checks.number("max_wait", max_wait, "above 0 seconds, and finite", above=True)
    given: object = token
    if given is not None and not (isinstance(given, str) and given.strip()):
        # Not shown, as the sentences of `checks` would: it may be a secret.
        raise ConfigurationError("token: it must be a string that is not empty, or None")
    if state is not None:
        checks.path("state", state)
    served = {account.id: account for account in each_once(accounts)}
    session = ConversationSession(
        base_url=base_url,
        # A failure is told at once, and repeated by the client, which knows how long an answer may
        # take. Where both did it, one request would become sixteen in the middle of an outage.
        retry=RetryPolicy(waits=()),
        pacer=pacer,
        fresh_for=fresh_for,
    )
    kept = None if state is None else Path(state)
    token = None if token is None else token.strip()
    served_by = _Gateway(served, session, max_wait, token, kept)
    return served_by.application(page=page, names=names or Names())


class _Asked(NamedTuple):
    """An account that was asked, or whose limit was learnt before."""

    account: Account
    pacer: Pacer
    metrics: AccountMetrics


class _Gateway:
    def __init__(
        self,
        accounts: dict[str, Account],
        session: ConversationSession,
        max_wait: float,
        token: str | None,
        state: Path | None,
    ) -> None:
        self._accounts = accounts
        self._session = session
        self._max_wait = max_wait
        # What a request may take in all: its wait, and then one exchange.
        self._timeout = max_wait + (RetryPolicy().attempt_timeout or 0.0)
        self._token = token
        self._state = state
        self._asked: dict[str, _Asked] = {}
        self._metrics = Metrics(self._paced)
        self._reached_at = self._failed_at = -math.inf
        self._failure: Refusal | None = None
        self._told: dict[str, str] = {}  # by account, the kind of failure since its last answer

    def application(self, *, page: bool, names: Names) -> web.Application:
        app = web.Application(middlewares=[_in_json], client_max_size=_LARGEST_BODY)
        app.add_routes(
            [
                web.get(_METRICS, self._get, allow_head=False),
                web.post(_METRICS, self._post),
                web.get(f"{_DOMAINS}/baseURI.json", self._hosts, allow_head=False),
                web.get(f"{_DOMAINS}/{{service}}/baseURI.json", self._host, allow_head=False),
                web.post(_TOKENS, self._trade),
                web.get("/healthz", self._healthy),
                web.get("/readyz", self._ready),
                web.get("/metrics", self._tell_metrics),
            ]
        )
        app.cleanup_ctx.append(self._open)
        if page:
            self._add_page(app, names)
        return app

    def _add_page(self, app: web.Application, names: Names) -> None:
        accounts = self._accounts.values()
        live = Live(self._session, accounts, lambda id_: self._of(id_).pacer, names)

        async def follow(_: web.Application) -> AsyncIterator[None]:
            following = asyncio.create_task(live.run())
            try:
                yield
            finally:
                following.cancel()
                await asyncio.wait([following])

        async def end(_: web.Application) -> None:
            live.close()

        app.add_routes(Page(live, self._token).routes())
        app.cleanup_ctx.append(follow)  # inside of the session: it is closed later
        app.on_shutdown.append(end)  # or a stream would use up the grace

    async def _open(self, _: web.Application) -> AsyncIterator[None]:
        async with self._session:
            learnt = None if self._state is None else state.load(self._state)
            if self._state is None or learnt is None:
                yield
                return
            for account_id, belief in learnt.items():
                if account_id in self._accounts:
                    self._of(account_id).pacer.believe(belief)
            saving = asyncio.create_task(self._keep_saving(self._state))
            try:
                yield
            finally:
                saving.cancel()
                await asyncio.wait([saving])
                state.save(self._state, self._beliefs())

    async def _keep_saving(self, path: Path) -> None:
        saved = self._beliefs()
        while True:
            await asyncio.sleep(SAVE_EVERY)
            learnt = self._beliefs()
            if learnt != saved and await asyncio.to_thread(state.save, path, learnt):
                saved = learnt

    def _beliefs(self) -> dict[str, Belief]:
        return {
            account_id: belief
            for account_id, asked in self._asked.items()
            if (belief := asked.pacer.belief()) is not None
        }

    def _paced(self) -> Iterator[tuple[str, PacerStats]]:
        for account_id, asked in self._asked.items():
            yield account_id, asked.pacer.stats()

    def _of(self, account_id: str) -> _Asked:
        """Return an account that is served, with its one pacer, which is held on to."""
        asked = self._asked.get(account_id)
        if asked is None:
            account = self._accounts[account_id]
            asked = self._asked[account_id] = _Asked(
                account, self._session.pacer(account), self._metrics.of(account_id)
            )
        return asked

    # ------------------------------------------------------------------ questions

    async def _get(self, request: web.Request) -> web.Response:
        return await self._ask(request, lambda: _now(request.rel_url.raw_query_string))

    async def _post(self, request: web.Request) -> web.Response:
        async def read() -> ConversationQuery:
            return parameters.from_json(await request.read())

        return await self._ask(request, read)

    async def _ask(
        self, request: web.Request, read: Callable[[], Awaitable[ConversationQuery]]
    ) -> web.Response:
        given: Shared | Refusal
        loop = asyncio.get_running_loop()
        began = loop.time()
        account_id = request.match_info["account"]
        if refused := self._not_let_in(request, account_id):
            known = account_id if account_id in self._accounts else None
            self._metrics.refused(known, refused.kind)
            return refused.response()
        asked = self._of(account_id)
        try:
            query = await read()
            given = self._too_late(asked, query) or await self._fetch(asked, query)
        except parameters.WrongParameters as error:
            given = Refusal(400, "question", str(error))
        except MsgConvError as error:
            given = self._failed(asked, error)
        asked.metrics.seconds.observe(loop.time() - began)
        if isinstance(given, Refusal):
            self._metrics.refused(account_id, given.kind)
            return given.response()
        asked.metrics.documents[given.source].inc()
        return answers.document(given)

    def _too_late(self, asked: _Asked, query: ConversationQuery) -> Refusal | None:
        """Refuse what would wait in the queue for longer than anybody is to wait."""
        wait = asked.pacer.eta()
        if wait <= self._max_wait or self._session.at_hand(asked.account, query):
            return None
        return Refusal(
            503,
            "busy",
            f"account {asked.account.id}: its turn would come in {wait:.1f} s, and nothing waits"
            f" here for more than {self._max_wait:g} s",
            wait - self._max_wait,
        )

    async def _fetch(self, asked: _Asked, query: ConversationQuery) -> Shared:
        shared = await self._session.fetch_shared(
            asked.account, query, timeout=self._timeout, max_wait=self._max_wait
        )
        if shared.source != "hit":
            self._reached_at = asyncio.get_running_loop().time()
            self._told.pop(asked.account.id, None)
        return shared

    def _failed(self, asked: _Asked, error: MsgConvError) -> Refusal:
        """Take note of a failure, in the log as well if it is another one than the last."""
        refused = answers.refusal(error)
        if isinstance(error, ServerError | ConnectionFailed):
            self._failed_at = asyncio.get_running_loop().time()
            self._failure = refused
        if self._told.get(asked.account.id) != refused.kind:
            self._told[asked.account.id] = refused.kind
            _LOG.warning("%s", error)
        return refused

    def _not_let_in(self, request: web.Request, account_id: str) -> Refusal | None:
        if comes_from_elsewhere(request):
            return Refusal(403, "site", "a page of another site may not ask")
        if not self._is_let_in(request):
            return Refusal(401, "token", "the token is missing or not the gateway's")
        if account_id not in self._accounts:
            return Refusal(401, "account", f"account {account_id[:64]} is not served here")
        return None

    def _is_let_in(self, request: web.Request) -> bool:
        if self._token is None:
            return True
        scheme, _, given = request.headers.get(AUTHORIZATION, "").partition(" ")
        return scheme.lower() == "bearer" and _is_same(given.strip(), self._token)

    # ------------------------------------------------------------------ hosts and tokens

    async def _hosts(self, request: web.Request) -> web.Response:
        if refused := _wrong_version(request) or self._not_served(request):
            return refused.response()
        return web.json_response({"baseURIs": [_home(request, name) for name in _SERVICES]})

    async def _host(self, request: web.Request) -> web.Response:
        service = request.match_info["service"]
        if service not in _SERVICES:
            known = ", ".join(_SERVICES)
            reason = f"there is no such service; known are {known}"
            return Refusal(400, "question", reason).response()
        if refused := _wrong_version(request) or self._not_served(request):
            return refused.response()
        return web.json_response(_home(request, service))

    async def _trade(self, request: web.Request) -> web.Response:
        """Trade client credentials for a token: if the gateway has one, the secret must be it."""
        if refused := self._not_served(request):
            return refused.response()
        form = dict(parse_qsl((await request.read()).decode(errors="replace")))
        if self._token is not None and not _is_same(form.get("client_secret", ""), self._token):
            return Refusal(401, "token", "the client secret is not the gateway's token").response()
        return web.json_response(
            {
                "access_token": self._token or "gateway",
                "token_type": "Bearer",
                "expires_in": TOKEN_LIFETIME,
            },
            headers={CACHE_CONTROL: "no-store"},
        )

    def _not_served(self, request: web.Request) -> Refusal | None:
        if request.match_info["account"] in self._accounts:
            return None
        return Refusal(401, "account", "this account is not served here")

    # ------------------------------------------------------------------ health and metrics

    async def _healthy(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def _ready(self, request: web.Request) -> web.Response:
        """Tell whether the service answered lately, or was at least not seen to fail."""
        lately = asyncio.get_running_loop().time() - LATELY
        failing = self._failed_at > max(lately, self._reached_at) and self._reached_at < lately
        body: dict[str, object] = {"ready": not failing, "accounts": len(self._accounts)}
        if failing and self._failure is not None:
            told = self._failure
            body["reason"] = told.reason if self._is_let_in(request) else told.kind
        return web.json_response(body, status=503 if failing else 200)

    async def _tell_metrics(self, request: web.Request) -> web.Response:
        if not self._is_let_in(request):
            return Refusal(401, "token", "the token is missing or not the gateway's").response()
        return web.Response(body=self._metrics.text(), headers={"Content-Type": CONTENT_TYPE})


async def _now(text: str) -> ConversationQuery:
    return parameters.from_query_string(text)


def _is_same(given: str, token: str) -> bool:
    """Compare in a time that tells nothing about the token."""
    return hmac.compare_digest(given.encode(errors="surrogateescape"), token.encode())


def _wrong_version(request: web.Request) -> Refusal | None:
    if request.query.get("version") == "1.0":
        return None
    return Refusal(400, "question", "version must be 1.0")


def _home(request: web.Request, service: str) -> dict[str, str]:
    return {
        "service": service,
        "account": request.match_info["account"],
        "baseURI": request.host,
    }


@web.middleware
async def _in_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Say in the gateway's own form what aiohttp refuses, such as a path that there is not."""
    try:
        return await handler(request)
    except web.HTTPClientError as error:
        allow = error.headers.get(ALLOW)
        refused = Refusal(error.status, "request", error.reason)
        return refused.response({ALLOW: allow} if allow else None)
    except web.HTTPException:
        raise
    except Exception:  # noqa: BLE001 - the answer must be told, whatever went wrong
        _LOG.exception("a question could not be answered: this is a fault of the gateway's own")
        reason = "a fault of the gateway's own; its log has more"
        return Refusal(500, "fault", reason, answers.UPSTREAM_WAIT).response()
