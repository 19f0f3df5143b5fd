"""One question to one account, in its turn: pacing, credentials, retries, in that order."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import NamedTuple

from msgconv_async.client.access.account import Account
from msgconv_async.client.access.credentials import RequestCredentials
from msgconv_async.client.access.domains import REPORTING, Domains
from msgconv_async.client.access.logins import Logins
from msgconv_async.client.http.deadlines import Deadline
from msgconv_async.client.http.exchanges import Exchanges
from msgconv_async.client.http.retry import (
    Failed,
    Repeatable,
    Retries,
    RetryPolicy,
    RetryQuota,
)
from msgconv_async.client.http.transport import JSON, Answer, Transport
from msgconv_async.errors import (
    ApiError,
    ConnectionFailed,
    DeadlineExceeded,
    RateLimited,
    Unauthorized,
)
from msgconv_async.events import Emit
from msgconv_async.pacing.pacer import Ending, Pacer
from msgconv_async.protocol.query import ConversationQuery, HttpRequest

ANSWERING = 10.0
"""Seconds. A 429 within them after the account's last answer is a matter of its pace: its pacer
slows down, and repeating costs nothing. An account that gave no answer for longer has failed, as
with 503."""

_UNAUTHORIZED, _TOO_MANY = 401, 429


class Requests:
    """Sends questions, at each account's own pace.

    Args:
        transport: Makes the exchanges.
        policy: When to ask again.
        origin: The origin of all services, if they share one.
        pacer: Returns an account's pacer, by the account's id.
        emit: Takes the events; None if nobody listens.
    """

    def __init__(
        self,
        transport: Transport,
        policy: RetryPolicy,
        origin: str | None,
        pacer: Callable[[str], Pacer],
        emit: Emit | None = None,
    ) -> None:
        self._policy = policy
        self._quota = RetryQuota()
        self._exchanges = Exchanges(transport, policy.attempt_timeout, emit)
        self._domains = Domains(self._exchanges, policy, self._quota, origin)
        self._logins = Logins(self._exchanges, policy, self._quota, self._domains)
        self._pacer = pacer

    async def close(self) -> None:
        """Log users out."""
        await self._logins.close()
        self._exchanges.close()

    async def ask(self, account: Account, query: ConversationQuery, deadline: Deadline) -> Answer:
        """Ask, and ask again as the policy, the quota and the deadline allow.

        Besides, ask once more with new credentials if the present ones are refused, and once more
        at the account's new host if it has moved.

        It begins no wait that would overrun the deadline. The caller enforces the deadline.

        Raises:
            MsgConvError: As `ConversationSession.fetch` says.
        """
        domains, logins = self._domains, self._logins
        origin = domains.known(account.id, REPORTING, account.host)
        origin = origin or await domains.find(account.id, REPORTING, deadline)
        request = query.http_request(origin, account.id)
        if not logins.at_hand(account):
            await logins.log_in(account, deadline)
        pacer = self._pacer(account.id)  # not before: an account that is refused needs none

        tried = await self._try(pacer, account, request, deadline, number=1)
        if isinstance(tried.result, Answer):
            self._quota.answered(spent=0)
            return tried.result

        eta = functools.partial(pacer.eta, again=True)
        retries = Retries(
            *(self._policy, self._quota, deadline, self._policy.throttle_wait),
            eta=eta,
            emit=self._exchanges.emit,
        )
        renewed = moved = False
        while True:
            failure = tried.result
            if not renewed and _is_stale(failure) and logins.refused(account, tried.signer):
                renewed = True
                retries.pay_after(failure)
                retries.repeats(failure)
                if not logins.at_hand(account):
                    await logins.log_in(account, deadline)
            elif not moved and (
                new := await domains.moved(
                    account.id, REPORTING, origin, failure, deadline, host=account.host
                )
            ):
                moved = True
                retries.repeats(failure)
                request = query.http_request(new, account.id)
            elif isinstance(failure, Repeatable):
                paced = isinstance(failure, RateLimited) and _is_answering(pacer)
                await retries.wait_after(failure, free=paced)
            else:
                raise failure
            tried = await self._try(pacer, account, request, deadline, number=retries.number)
            if isinstance(tried.result, Answer):
                retries.answered()
                return tried.result

    async def _try(
        self,
        pacer: Pacer,
        account: Account,
        request: HttpRequest,
        deadline: Deadline,
        *,
        number: int,
    ) -> _Try:
        """Make one exchange in the account's turn.

        Args:
            pacer: The account's pacer.
            account: The account.
            request: What to send.
            deadline: The caller's.
            number: 1, or more where it repeats one that failed.

        Raises:
            MsgConvError: The exchange was not made: the turn would come too late, or the login that
                it needed failed, which has retries of its own.
        """
        again, queued = number > 1, 0.0
        start = pacer.start_at_once()
        if start is None:
            _check_queue(pacer, account, deadline, again=again)
            queued = -asyncio.get_running_loop().time()
            start = await pacer.start_in_time(lambda: deadline.ends, again=again)
            if start is None:
                raise DeadlineExceeded(
                    f"its turn came too late: an answer takes up to {pacer.holding:.1f} s",
                    account_id=account.id,
                    timeout=deadline.timeout,
                )
            queued += start.at
        pacer.retried += again
        outcome: Ending = "neutral"
        asked: float | None = None
        try:
            signer = self._logins.at_hand(account) or await self._logins.log_in(account, deadline)
            result = await self._exchange(
                account, request, signer, deadline, number=number, queued=queued
            )
            outcome, asked = self._taken(result)
            if isinstance(result, Answer) and result.by_gateway:
                pacer.open()
        finally:
            pacer.finish(start, outcome, asked)
        return _Try(result, signer)

    async def _exchange(
        self,
        account: Account,
        request: HttpRequest,
        signer: RequestCredentials,
        deadline: Deadline,
        *,
        number: int,
        queued: float,
    ) -> Answer | Failed:
        auth = signer.headers(request)
        try:
            return await self._exchanges.send(
                request,
                auth if request.body is None else {**auth, **JSON},
                account.id,
                deadline=deadline,
                secrets=lambda: (*account.credentials.secrets(), *signer.secrets()),
                number=number,
                queued=queued,
            )
        except (ApiError, ConnectionFailed) as error:
            return error

    def _taken(self, result: Answer | Failed) -> tuple[Ending, float | None]:
        """Tell how the service took a request, and the pause that it asked for."""
        if isinstance(result, RateLimited) and result.status == _TOO_MANY:
            # A pause above the ceiling ends this call; the account does not wait for so long.
            asked = result.retry_after or 0.0
            return "throttled", asked if 0 < asked <= self._policy.retry_after_ceiling else None
        return "neutral" if isinstance(result, Repeatable) else "answered", None


class _Try(NamedTuple):
    """The result of one exchange, and the credentials that signed it."""

    result: Answer | Failed
    signer: RequestCredentials


def _is_answering(pacer: Pacer) -> bool:
    return asyncio.get_running_loop().time() - pacer.answered_at < ANSWERING


def _check_queue(pacer: Pacer, account: Account, deadline: Deadline, *, again: bool) -> None:
    wait = pacer.eta(again=again)
    turn = asyncio.get_running_loop().time() + wait
    too_late = turn > deadline.at
    if too_late or (wait and turn + pacer.holding > deadline.ends):
        raise DeadlineExceeded(
            f"its turn would come in {wait:.1f} s at the present pace"
            + ("" if again else f", after {pacer.waiting} others")
            + ("" if too_late else f", and an answer takes up to {pacer.holding:.1f} s"),
            account_id=account.id,
            timeout=deadline.timeout,
        )


def _is_stale(error: Failed) -> bool:
    return isinstance(error, Unauthorized) and error.status == _UNAUTHORIZED
