"""Logins, each made once for all who wait for it, renewed in time, and ended on close."""

from __future__ import annotations

import asyncio
import logging

import msgspec

from msgconv_async.client.account import Account
from msgconv_async.client.auth import (
    BearerToken,
    Login,
    LoginCredentials,
    RequestCredentials,
    UserLogin,
    bearer,
)
from msgconv_async.client.domains import Domains
from msgconv_async.client.flight import Flights
from msgconv_async.client.retry import Deadline, Retries, RetryPolicy, retrying
from msgconv_async.client.transport import JSON, Answer, Transport
from msgconv_async.errors import ConnectionFailed, MsgConvError
from msgconv_async.protocol.query import HttpRequest

RENEW_BEFORE = 60.0
"""Seconds before its end from which a login is renewed, or a tenth of its lifetime if that is less:
a request may wait its turn for so long and still arrive with a valid bearer."""

REFRESH_EVERY = 240.0
"""Seconds between refreshes of a user's session; the Login Service API asks for every 3 to 5
minutes."""

LOGOUT_WITHIN = 0.5
"""Seconds that a logout may take, so that an unreachable service holds nothing up."""

SWEEP = 1000
"""Logins from which on those that have expired are looked for."""

_LOG = logging.getLogger("msgconv_async")


class _Held:
    """A login in use. There may be one for each of many thousands of accounts."""

    __slots__ = ("renew_at", "signer")

    def __init__(self, login: Login, at: float) -> None:
        self.signer = BearerToken(login.bearer)
        self.renewed(login, at)

    def renewed(self, login: Login, at: float) -> None:
        self.renew_at = at + login.lifetime - min(RENEW_BEFORE, login.lifetime / 10)


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
        transport: Asks.
        policy: When to ask again.
        domains: Tells where.
    """

    def __init__(self, transport: Transport, policy: RetryPolicy, domains: Domains) -> None:
        self._transport = transport
        self._policy = policy
        self._domains = domains
        self._held: dict[Account, _Held] = {}
        self._sweep_at = SWEEP
        self._flights = Flights[RequestCredentials]()

    def at_hand(self, account: Account) -> RequestCredentials | None:
        """Return what signs the account's requests; None if it has to log in first."""
        credentials = account.credentials
        if isinstance(credentials, RequestCredentials):
            return credentials
        held = self._held.get(account)
        due = held is None or held.renew_at <= asyncio.get_running_loop().time()
        return None if held is None or due else held.signer

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
        """Take note that what this one signed was answered 401; tell if a new login may help."""
        held = self._held.get(account)
        if held is not None and held.signer is signer:
            self._drop(account)
        return signer is not account.credentials

    async def close(self) -> None:
        """End every user's session, as far as that is quickly done."""
        held, self._held = self._held, {}
        sessions = {
            account: each for account, each in held.items() if isinstance(each, _HeldSession)
        }
        for each in sessions.values():
            each.refresher.cancel()
        if sessions:
            await asyncio.wait([each.refresher for each in sessions.values()])
        await asyncio.gather(*(self._log_out(*each) for each in sessions.items()))

    async def _log_in(self, account: Account, deadline: Deadline) -> RequestCredentials:
        credentials = account.credentials
        assert isinstance(credentials, LoginCredentials)  # noqa: S101 - nobody else has to
        origin = self._domains.known(account.id, credentials.service)
        origin = origin or await self._domains.find(account.id, credentials.service, deadline)
        request, headers = credentials.login(origin, account.id)

        async def send() -> tuple[float, Answer]:
            asked_at = asyncio.get_running_loop().time()
            return asked_at, await self._transport.send(
                request, headers, account.id, secrets=credentials.secrets, login=True
            )

        asked_at, answer = await retrying(
            send, Retries(self._policy, deadline, self._policy.login_throttle_wait)
        )
        login = credentials.parse(answer, account.id)
        before = self._held.pop(account, None)
        held: _Held
        if isinstance(credentials, UserLogin):
            held = session = _HeldSession(login, asked_at, origin)
            session.refresher = asyncio.create_task(self._keep_alive(account, session))
        else:
            held = _Held(login, asked_at)
        self._held[account] = held
        self._sweep()
        if isinstance(before, _HeldSession):
            before.refresher.cancel()
            await self._log_out(account, before)
        return held.signer

    def _sweep(self) -> None:
        """Forget tokens that have expired, each time that as many again are held."""
        if len(self._held) < self._sweep_at:
            return
        now = asyncio.get_running_loop().time()
        self._held = {
            account: each
            for account, each in self._held.items()
            if now < each.renew_at or isinstance(each, _HeldSession)
        }
        self._sweep_at = max(SWEEP, 2 * len(self._held))

    async def _keep_alive(self, account: Account, held: _HeldSession) -> None:
        while True:
            await asyncio.sleep(REFRESH_EVERY)
            try:
                await self._post(account, held, "refresh")
            except ConnectionFailed:
                continue
            except MsgConvError as error:
                _LOG.info("%s; the next request logs in again", error)
                self._drop(account)
                return
            held.renewed(held.login, asyncio.get_running_loop().time())

    async def _log_out(self, account: Account, held: _HeldSession) -> None:
        try:
            async with asyncio.timeout(LOGOUT_WITHIN):
                await self._post(account, held, "logout")
        except TimeoutError:
            _LOG.info("account %s: the logout was not answered in time", account.id)
        except MsgConvError as error:
            _LOG.info("%s; the session will end by itself", error)

    async def _post(self, account: Account, held: _HeldSession, action: str) -> None:
        login = held.login
        await self._transport.send(
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
            login=True,
        )

    def _drop(self, account: Account) -> None:
        if isinstance(held := self._held.pop(account, None), _HeldSession):
            held.refresher.cancel()
