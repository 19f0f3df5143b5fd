"""One question to one account, in its turn: pacing, credentials, retries, in that order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from msgconv_async.client.account import Account
from msgconv_async.client.auth import RequestCredentials
from msgconv_async.client.domains import REPORTING, Domains
from msgconv_async.client.logins import Logins
from msgconv_async.client.retry import Deadline, Repeatable, Retries, RetryPolicy
from msgconv_async.client.transport import JSON, Answer, Transport
from msgconv_async.errors import (
    ApiError,
    ConnectionFailed,
    DeadlineExceeded,
    RateLimited,
    ServerError,
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
        pacer: Returns an account's pacer, by the account's id.
    """

    def __init__(
        self,
        transport: Transport,
        policy: RetryPolicy,
        origin: str | None,
        pacer: Callable[[str], Pacer],
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
        domains, logins = self._domains, self._logins
        origin = domains.known(account.id, REPORTING, account.host)
        origin = origin or await domains.find(account.id, REPORTING, deadline)
        request = query.http_request(origin, account.id)
        if not logins.at_hand(account):
            await logins.log_in(account, deadline)
        pacer = self._pacer(account.id)  # not before: an account that is refused needs none

        def queueing() -> None:
            if asyncio.get_running_loop().time() + (wait := pacer.eta()) > deadline.at:
                raise DeadlineExceeded(
                    f"its turn would come in {wait:.1f} s at the earliest,"
                    f" after {pacer.waiting} others",
                    account_id=account.id,
                    timeout=deadline.timeout,
                )

        retries: Retries | None = None
        tries, renewed = 0, False
        while True:
            async with pacer.turn(queueing) as turn:
                pacer.retried += tries > 0
                tries += 1
                signer = logins.at_hand(account) or await logins.log_in(account, deadline)
                outcome = await self._exchange(turn, account, request, signer)
            if isinstance(outcome, Answer):
                return outcome
            if isinstance(outcome, Repeatable):
                retries = retries or Retries(
                    self._policy, deadline, self._policy.throttle_wait, pacer.eta
                )
                await asyncio.sleep(retries.wait_after(outcome))
            elif renewed or not logins.refused(account, signer):
                raise outcome
            else:
                renewed = True
                if not logins.at_hand(account):
                    await logins.log_in(account, deadline)

    async def _exchange(
        self, turn: Turn, account: Account, request: HttpRequest, signer: RequestCredentials
    ) -> Answer | ApiError | ConnectionFailed:
        """Make the exchange, tell the pacer how the service took it, and return what came of it."""
        auth = signer.headers(request)
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
            return error
        except (ServerError, ConnectionFailed) as error:
            return error
        except ApiError as error:
            turn.answered()
            if error.status == _UNAUTHORIZED:
                return error
            raise
        turn.answered()
        return answer
