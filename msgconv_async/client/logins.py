"""Logins, each made once for all who wait for it, renewed in time, and ended on close."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

import msgspec

from msgconv_async.client.account import Account
from msgconv_async.client.auth import Login, LoginCredentials, UserLogin, bearer
from msgconv_async.client.domains import Domains
from msgconv_async.client.flight import Flights
from msgconv_async.client.retry import Deadline, RetryPolicy, retrying
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

_LOG = logging.getLogger("msgconv_async")


class _Held:
    """A login in use, and the task that keeps a user's session alive."""

    def __init__(self, login: Login, origin: str, at: float) -> None:
        self.login = login
        self.origin = origin
        self.refresher: asyncio.Task[None] | None = None
        self.renewed(at)

    def renewed(self, at: float) -> None:
        margin = min(RENEW_BEFORE, self.login.lifetime / 10)
        self.renew_at = at + self.login.lifetime - margin

    def cancel(self) -> None:
        if self.refresher is not None:
            self.refresher.cancel()


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
        self._flights = Flights[_Held]()

    async def ready(self, account: Account, deadline: Deadline) -> None:
        """See to it that the account is logged in, where its credentials need that.

        Raises:
            Unauthorized: The credentials are not accepted.
            MsgConvError: The login failed in another way.
        """
        if isinstance(account.credentials, LoginCredentials):
            await self._current(account, account.credentials, deadline)

    async def headers(
        self, account: Account, request: HttpRequest, deadline: Deadline
    ) -> dict[str, str]:
        """Return the headers that authorize a request, logging in again where that is due.

        Raises:
            MsgConvError: As `ready`.
        """
        credentials = account.credentials
        if isinstance(credentials, LoginCredentials):
            held = await self._current(account, credentials, deadline)
            return bearer(held.login.bearer)
        return credentials.headers(request)

    def refused(self, account: Account, headers: Mapping[str, str]) -> bool:
        """Take note that these headers were answered 401; tell whether a new login may help."""
        if not isinstance(account.credentials, LoginCredentials):
            return False
        held = self._held.get(account)
        if held is not None and bearer(held.login.bearer) == headers:
            self._drop(account)
        return True

    async def close(self) -> None:
        """End every user's session, as far as that is quickly done."""
        held, self._held = self._held, {}
        refreshers = [each.refresher for each in held.values() if each.refresher]
        if refreshers:
            for refresher in refreshers:
                refresher.cancel()
            await asyncio.wait(refreshers)
        await asyncio.gather(
            *(self._log_out(account, each) for account, each in held.items() if each.refresher)
        )

    async def _current(
        self, account: Account, credentials: LoginCredentials, deadline: Deadline
    ) -> _Held:
        held = self._held.get(account)
        if held is not None and asyncio.get_running_loop().time() < held.renew_at:
            return held
        return await self._flights.join(
            account, lambda until: self._log_in(account, credentials, until), deadline
        )

    async def _log_in(
        self, account: Account, credentials: LoginCredentials, deadline: Deadline
    ) -> _Held:
        origin = await self._domains.origin(account.id, credentials.service, deadline)
        request, headers = credentials.login(origin, account.id)

        async def send() -> tuple[float, Answer]:
            asked_at = asyncio.get_running_loop().time()
            return asked_at, await self._transport.send(
                request, headers, account.id, secrets=credentials.secrets, login=True
            )

        asked_at, answer = await retrying(
            send,
            self._policy,
            deadline,
            throttle_wait=self._policy.login_throttle_wait,
        )
        login = credentials.parse(answer, account.id)
        before = self._held.pop(account, None)
        held = self._held[account] = _Held(login, origin, asked_at)
        if isinstance(credentials, UserLogin):
            held.refresher = asyncio.create_task(self._keep_alive(account, held))
        if before is not None and before.refresher is not None:
            before.cancel()
            await self._log_out(account, before)
        return held

    async def _keep_alive(self, account: Account, held: _Held) -> None:
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
            held.renewed(asyncio.get_running_loop().time())

    async def _log_out(self, account: Account, held: _Held) -> None:
        try:
            async with asyncio.timeout(LOGOUT_WITHIN):
                await self._post(account, held, "logout")
        except TimeoutError:
            _LOG.info("account %s: the logout was not answered in time", account.id)
        except MsgConvError as error:
            _LOG.info("%s; the session will end by itself", error)

    async def _post(self, account: Account, held: _Held, action: str) -> None:
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
        if (held := self._held.pop(account, None)) is not None:
            held.cancel()
