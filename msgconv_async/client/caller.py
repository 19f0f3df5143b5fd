"""One question to one account, in its turn: pacing, credentials, retries, in that order."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable

from msgconv_async.client.account import Account
from msgconv_async.client.domains import REPORTING, Domains
from msgconv_async.client.logins import Logins
from msgconv_async.client.retry import Deadline, Repeatable, Retries, RetryPolicy
from msgconv_async.client.transport import JSON, Answer, Transport
from msgconv_async.errors import (
    ApiError,
    ConnectionFailed,
    DeadlineExceeded,
    RateLimited,
    Unauthorized,
)
from msgconv_async.pacing.pacer import Outcome, Pacer
from msgconv_async.protocol.query import ConversationQuery

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

        retries: Retries | None = None
        tries, renewed = 0, False
        while True:
            start = pacer.start_at_once()
            if start is None:
                _check_queue(pacer, account, deadline, again=tries > 0)
                start = await pacer.start_in_turn(again=tries > 0)
            outcome: Outcome = "neutral"
            asked = signer = None
            try:
                pacer.retried += tries > 0
                tries += 1
                signer = logins.at_hand(account) or await logins.log_in(account, deadline)
                auth = signer.headers(request)
                answer = await self._transport.send(
                    request,
                    auth if request.body is None else {**auth, **JSON},
                    account.id,
                    secrets=account.credentials.secrets,
                )
            except (ApiError, ConnectionFailed) as error:
                if signer is None:  # a login has retries of its own: these are not for it
                    raise
                failure = error
                outcome, asked = self._taken(error)
            else:
                outcome = "answered"
                return answer
            finally:
                pacer.finish(start, outcome, asked)
            if isinstance(failure, Repeatable):
                retries = retries or Retries(
                    self._policy,
                    deadline,
                    self._policy.throttle_wait,
                    functools.partial(pacer.eta, again=True),
                )
                await asyncio.sleep(retries.wait_after(failure))
            elif not renewed and _is_stale(failure) and logins.refused(account, signer):
                renewed = True
                if not logins.at_hand(account):
                    await logins.log_in(account, deadline)
            else:
                raise failure

    def _taken(self, error: ApiError | ConnectionFailed) -> tuple[Outcome, float | None]:
        """Tell how the service took a request that failed, and the pause that it asked for."""
        if isinstance(error, RateLimited):
            # Above the ceiling it ends this call; the account is not to stand still for so long.
            asked = error.retry_after or 0.0
            return "throttled", asked if 0 < asked <= self._policy.retry_after_ceiling else None
        return "neutral" if isinstance(error, Repeatable) else "answered", None


def _check_queue(pacer: Pacer, account: Account, deadline: Deadline, *, again: bool) -> None:
    wait = pacer.eta(again=again)
    if asyncio.get_running_loop().time() + wait > deadline.at:
        raise DeadlineExceeded(
            f"its turn would come in {wait:.1f} s at the present pace"
            + ("" if again else f", after {pacer.waiting} others"),
            account_id=account.id,
            timeout=deadline.timeout,
        )


def _is_stale(error: ApiError | ConnectionFailed) -> bool:
    return isinstance(error, Unauthorized) and error.status == _UNAUTHORIZED
