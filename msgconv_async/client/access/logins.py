"""Logins: one for all callers that wait for it, renewed in time, and ended on close."""

from __future__ import annotations

import asyncio
import logging

import msgspec

from msgconv_async.client.access.account import Account
from msgconv_async.client.access.credentials import (
    BearerToken,
    Login,
    LoginCredentials,
    RequestCredentials,
    UserLogin,
    bearer,
)
from msgconv_async.client.access.domains import Domains
from msgconv_async.client.http.deadlines import Deadline
from msgconv_async.client.http.exchanges import Exchanges
from msgconv_async.client.http.retry import Retries, RetryPolicy, RetryQuota, retrying
from msgconv_async.client.http.single_flight import SingleFlight
from msgconv_async.client.http.transport import JSON, Answer
from msgconv_async.errors import ApiError, ConnectionFailed, MsgConvError
from msgconv_async.protocol.query import HttpRequest

RENEW_BEFORE = 60.0
"""A login is renewed from this many seconds before its end on, or from a tenth of its lifetime if
that is less. A request may wait its turn for so long and still arrive with a valid bearer."""

AT_LEAST = 1.0
"""A login is used for at least this many seconds, even if it expires sooner: the call that made it
has its turn by then, and need not log in twice."""

REFRESH_EVERY = 240.0
"""Seconds between refreshes of a user's session; the Login Service API asks for every 3 to 5
minutes."""

UNUSED_FOR = 1200.0
"""Seconds. A user's session is logged out, and not refreshed, when its account was not asked for so
long. That is four rounds of `follow`, so neither a round that failed nor a job every quarter of an
hour costs a login."""

LOGOUT_WITHIN = 0.5
"""Seconds that a logout may take, so that an unreachable service holds nothing up."""

SWEEP = 1000
"""From this number of logins on, expired ones are looked for."""

_LOG = logging.getLogger("msgconv_async")


class _Held:
    """A login in use. There may be one for each of many thousands of accounts."""

    __slots__ = ("renew_at", "signer", "used_at")

    def __init__(self, login: Login, at: float) -> None:
        self.used_at = at
        self.signer = BearerToken(login.bearer)
        self.renewed(login, at)

    def renewed(self, login: Login, at: float) -> None:
        due = at + login.lifetime - min(RENEW_BEFORE, login.lifetime / 10)
        self.renew_at = max(due, asyncio.get_running_loop().time() + AT_LEAST)


class _HeldSession(_Held):
    """A user's session in use, and the task that keeps it alive."""

    __slots__ = ("login", "origin", "refresher")

    def __init__(self, login: Login, at: float, origin: str) -> None:
        super().__init__(login, at)
        self.login = login
        self.origin = origin
        self.refresher: asyncio.Task[None]


class Logins:
    """Holds the current login of each account.

    Args:
        exchanges: Makes the requests.
        policy: When to ask again.
        quota: Pays for retries.
        domains: Knows the origins to log in at.
    """

    def __init__(
        self, exchanges: Exchanges, policy: RetryPolicy, quota: RetryQuota, domains: Domains
    ) -> None:
        self._exchanges = exchanges
        self._policy = policy
        self._quota = quota
        self._domains = domains
        self._held: dict[Account, _Held] = {}
        self._replaced: dict[Account, RequestCredentials] = {}
        self._sweep_at = SWEEP
        self._flights = SingleFlight[RequestCredentials](cancel_lost=False)
        self._logouts: set[asyncio.Task[None]] = set()

    def at_hand(self, account: Account) -> RequestCredentials | None:
        """Return what signs the account's requests; None if the account has to log in first."""
        credentials = account.credentials
        if isinstance(credentials, RequestCredentials):
            return self._replaced.get(account, credentials) if self._replaced else credentials
        if (held := self._held.get(account)) is None:
            return None
        held.used_at = now = asyncio.get_running_loop().time()
        return held.signer if now < held.renew_at else None

    async def log_in(self, account: Account, deadline: Deadline) -> RequestCredentials:
        """Log in, and return what signs the account's requests.

        Raises:
            Unauthorized: The credentials are not accepted.
            MsgConvError: The login failed in another way.
        """
        return await self._flights.join(
            account, lambda until: self._log_in(account, until), deadline
        )

    def refused(self, account: Account, signer: RequestCredentials) -> bool:
        """Note a 401 for a request that `signer` signed; tell whether others may help.

        They are a new login, or what the files of secrets hold by now.

        Raises:
            ConfigurationError: Such a file cannot be read, or holds no secret.
        """
        credentials = account.credentials
        if isinstance(credentials, RequestCredentials):
            current = credentials.current()
            if current != signer:
                self._replaced[account] = current
            return current != signer
        held = self._held.get(account)
        if held is not None and held.signer is signer:
            self._drop(account)
        return True

    async def close(self) -> None:
        """End every user's session, as far as that can be done quickly."""
        await self._flights.close()
        for account in list(self._held):
            self._drop(account)
        if self._logouts:
            await asyncio.wait(self._logouts)

    async def _log_in(self, account: Account, deadline: Deadline) -> RequestCredentials:
        assert isinstance(account.credentials, LoginCredentials)  # noqa: S101 - only these log in
        credentials = account.credentials.current()
        service = credentials.service
        before = self._held.get(account)
        known = self._domains.known(account.id, service)
        origin = known or await self._domains.find(account.id, service, deadline)

        retries = Retries(
            *(self._policy, self._quota, deadline, self._policy.login_throttle_wait),
            emit=self._exchanges.emit,
        )

        async def send() -> tuple[float, Answer]:
            request, headers = credentials.login(origin, account.id)
            asked_at = asyncio.get_running_loop().time()
            return asked_at, await self._exchanges.send(
                request,
                headers,
                account.id,
                deadline=deadline,
                secrets=credentials.secrets,
                purpose="login",
                number=retries.number,
            )

        async def send_where_it_lives() -> tuple[float, Answer]:
            nonlocal origin
            try:
                return await send()
            except (ApiError, ConnectionFailed) as error:
                failure = error
            moved = await self._domains.moved(account.id, service, origin, failure, deadline)
            if moved is None:
                raise failure
            origin = moved
            retries.repeats(failure)
            return await send()

        asked_at, answer = await retrying(send_where_it_lives, retries)
        login = credentials.parse(answer, account.id)
        held: _Held
        if isinstance(credentials, UserLogin):
            held = session = _HeldSession(login, asked_at, origin)
            session.refresher = asyncio.create_task(self._keep_alive(account, session))
        else:
            held = _Held(login, asked_at)
        if self._held.get(account) is not before and (signer := self.at_hand(account)) is not None:
            self._end(account, held)  # a login that was begun later was quicker, and is in use
            return signer
        self._drop(account)
        self._held[account] = held
        self._sweep()
        return held.signer

    def _sweep(self) -> None:
        """Forget expired tokens, each time that the number of logins has doubled."""
        if len(self._held) < self._sweep_at:
            return
        now = asyncio.get_running_loop().time()
        self._held = {
            account: held
            for account, held in self._held.items()
            if now < held.renew_at or isinstance(held, _HeldSession)
        }
        self._sweep_at = max(SWEEP, 2 * len(self._held))

    async def _keep_alive(self, account: Account, held: _HeldSession) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(REFRESH_EVERY)
            if loop.time() - held.used_at >= UNUSED_FOR:
                self._drop(account)
                return
            try:
                await self._post(account, held, "refresh")
            except ConnectionFailed:
                continue
            except MsgConvError as error:
                _LOG.info("%s; the next request logs in again", error)
                self._drop(account)
                return
            held.renewed(held.login, loop.time())

    def _drop(self, account: Account) -> None:
        """Forget an account's login, and end it."""
        if (held := self._held.pop(account, None)) is not None:
            self._end(account, held)

    def _end(self, account: Account, held: _Held) -> None:
        """Let a login go; if it is a user's session, log it out meanwhile."""
        if isinstance(held, _HeldSession):
            held.refresher.cancel()
            logout = asyncio.create_task(self._log_out(account, held))
            self._logouts.add(logout)
            logout.add_done_callback(self._logouts.discard)

    async def _log_out(self, account: Account, held: _HeldSession) -> None:
        await asyncio.wait([held.refresher])
        try:
            async with asyncio.timeout(LOGOUT_WITHIN):
                await self._post(account, held, "logout")
        except TimeoutError:
            _LOG.info("account %s: the logout was not answered in time", account.id)
        except MsgConvError as error:
            _LOG.info("%s; the session will end by itself", error)

    async def _post(self, account: Account, held: _HeldSession, action: str) -> None:
        login = held.login
        await self._exchanges.send(
            HttpRequest(
                "POST",
                f"{held.origin}/api/account/{account.id}/{action}",
                msgspec.json.encode({"csrf": login.csrf}),
            ),
            {
                **JSON,
                **bearer(login.bearer),
                "Cookie": "; ".join(f"{name}={value}" for name, value in login.cookies.items()),
            },
            account.id,
            secrets=lambda: (
                *account.credentials.secrets(),
                login.bearer,
                login.csrf,
                *login.cookies.values(),
            ),
            purpose="login",
        )
