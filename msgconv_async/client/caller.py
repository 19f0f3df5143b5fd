"""One question to one account, in its turn: pacing, credentials, retries, in that order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from msgconv_async.client.account import Account
from msgconv_async.client.domains import REPORTING, Domains
from msgconv_async.client.logins import Logins
from msgconv_async.client.retry import Deadline, RetryPolicy, retrying
from msgconv_async.client.transport import JSON, Answer, Transport
from msgconv_async.errors import (
    ApiError,
    DeadlineExceeded,
    MsgConvError,
    RateLimited,
    ServerError,
    Unauthorized,
)
from msgconv_async.pacing.pacer import Pacer, Turn
from msgconv_async.protocol.query import ConversationQuery, HttpRequest

_UNAUTHORIZED = 401


class Caller:
    """Asks, at each account's own pace.

    Args:
        transport: Makes the exchanges.
        policy: When to ask again.
        origin: Where every service lives, if they all live in one place.
        pacer: Makes each account's pacer.
    """

    def __init__(
        self,
        transport: Transport,
        policy: RetryPolicy,
        origin: str | None,
        pacer: Callable[[Account], Pacer],
    ) -> None:
        self._transport = transport
        self._policy = policy
        self._domains = Domains(transport, policy, origin)
        self._logins = Logins(transport, policy, self._domains)
        self._pacer = pacer

    async def close(self) -> None:
        """Log users out."""
        await self._logins.close()

    async def ask(self, account: Account, query: ConversationQuery, deadline: Deadline) -> Answer:
        """Ask with the credentials at hand and, if those are refused, once more with new ones.

        No wait is begun that would overrun the deadline; enforcing it is the caller's business.

        Raises:
            MsgConvError: Whatever `ConversationSession.fetch` says.
        """
        origin = await self._domains.origin(account.id, REPORTING, deadline, host=account.host)
        request = query.http_request(origin, account.id)
        await self._logins.ready(account, deadline)
        pacer = self._pacer(account)  # not before: an account that is refused needs none
        used: dict[str, str] = {}

        def queueing() -> None:
            if asyncio.get_running_loop().time() + (wait := pacer.eta()) > deadline.at:
                raise DeadlineExceeded(
                    f"its turn would come in {wait:.1f} s at the earliest,"
                    f" after {pacer.waiting} others",
                    account_id=account.id,
                    timeout=deadline.timeout,
                )

        async def send() -> Answer | MsgConvError:
            async with pacer.turn(queueing) as turn:
                pacer.retried += bool(used)
                try:
                    used.update(await self._logins.headers(account, request, deadline))
                except MsgConvError as error:
                    return error  # a login has retries of its own: these are not for it
                return await self._exchange(turn, account, request, used)

        renewed = False
        while True:
            try:
                answer = await retrying(
                    send, self._policy, deadline, self._policy.throttle_wait, pacer.eta
                )
            except Unauthorized as error:
                stale = error.status == _UNAUTHORIZED and self._logins.refused(account, used)
                if renewed or not stale:
                    raise
                renewed = True
                await self._logins.ready(account, deadline)
                continue
            if isinstance(answer, MsgConvError):
                raise answer
            return answer

    async def _exchange(
        self, turn: Turn, account: Account, request: HttpRequest, auth: dict[str, str]
    ) -> Answer:
        """Make the exchange and tell the pacer how the service took it."""
        try:
            answer = await self._transport.send(
                request,
                auth if request.body is None else {**auth, **JSON},
                account.id,
                secrets=lambda: (
                    *account.credentials.secrets(),
                    auth["Authorization"].rpartition(" ")[2],
                ),
            )
        except RateLimited as error:
            # Above the ceiling it ends this call; the account is not to stand still for so long.
            asked = error.retry_after or 0.0
            turn.throttled(asked if 0 < asked <= self._policy.retry_after_ceiling else None)
            raise
        except ServerError:
            raise
        except ApiError:
            turn.answered()
            raise
        turn.answered()
        return answer
