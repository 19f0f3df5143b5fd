"""One exchange with a service, within a time of its own.

A request that is never answered must not hold up others for longer: the callers that need the
account's slot, and those that share the answer.
"""

from __future__ import annotations

import asyncio
import copy
import math
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any

from msgspec.structs import replace
from yarl import URL

from msgconv_async.client.http.deadlines import Deadline, Timed, Timer
from msgconv_async.client.http.transport import Answer, Transport
from msgconv_async.errors import ApiError, ConnectionFailed, MsgConvError
from msgconv_async.events import Attempt, Emit, Purpose
from msgconv_async.protocol.query import HttpRequest

_OK = 200


class Exchanges:
    """Makes exchanges, and breaks off those that take too long.

    Args:
        transport: Makes them.
        seconds: How long each may take, or None.
        emit: Takes the events; None if nobody listens.

    Attributes:
        emit: As given.
    """

    def __init__(
        self, transport: Transport, seconds: float | None, emit: Emit | None = None
    ) -> None:
        self.emit = emit
        self._transport = transport
        self._seconds = math.inf if seconds is None else seconds
        self._timer = Timer(asyncio.get_running_loop())

    def close(self) -> None:
        """Stop the timer, when nothing is under way any more."""
        self._timer.wake(math.inf)

    def send(
        self,
        request: HttpRequest,
        headers: Mapping[str, str],
        account_id: str,
        *,
        deadline: Deadline | None = None,
        secrets: Callable[[], Iterable[str]] = tuple,
        purpose: Purpose = "question",
        limit: int | None = None,
        number: int = 1,
        queued: float = 0.0,
    ) -> Coroutine[Any, Any, Answer]:
        """Make one exchange.

        Args:
            request: Method, URL and body.
            headers: Further headers.
            account_id: The account that an error names.
            deadline: The deadline of the call; it notes when the request was sent.
            secrets: Returns the secrets to blank out of an error's excerpt.
            purpose: What it is for. Where a login is refused, that means credentials.
            limit: As `Transport.send` takes it.
            number: The number of the attempt, for its event.
            queued: Seconds that it waited for its turn, for its event.

        Returns:
            The exchange, to be awaited at once.

        Raises:
            ConnectionFailed: No answer in the time of one exchange, or as `Transport.send` says.
            MsgConvError: As `Transport.send` says.
        """
        # Without a listener the exchange is handed out as it is: a coroutine around it would cost
        # every request something.
        exchange = self._send(
            request,
            headers,
            account_id,
            deadline=deadline,
            secrets=secrets,
            purpose=purpose,
            limit=limit,
        )
        if self.emit is None:
            return exchange
        url = URL(request.url, encoded=True)
        about = Attempt(
            account_id=account_id,
            purpose=purpose,
            number=number,
            method=request.method,
            host=url.host or "",
            port=url.port or 0,
            queued=queued,
            seconds=0.0,
        )
        return self._watched(exchange, about, self.emit)

    async def _watched(
        self, exchange: Coroutine[Any, Any, Answer], about: Attempt, emit: Emit
    ) -> Answer:
        """Make an exchange, and tell how it ended."""
        began = self._timer.loop.time()
        status: int | None = None
        failure: MsgConvError | None = None
        cancelled = True
        try:
            answer = await exchange
            status, cancelled = _OK, False
        except MsgConvError as error:
            failure, cancelled = copy.copy(error), False
            status = error.status if isinstance(error, ApiError) else None
            raise
        finally:
            seconds = self._timer.loop.time() - began
            told = {"status": status, "error": failure, "cancelled": cancelled}
            emit(replace(about, seconds=seconds, **told))
        return answer

    async def _send(
        self,
        request: HttpRequest,
        headers: Mapping[str, str],
        account_id: str,
        *,
        deadline: Deadline | None,
        secrets: Callable[[], Iterable[str]],
        purpose: Purpose,
        limit: int | None,
    ) -> Answer:
        if deadline is not None:
            deadline.sent(self._timer.loop.time())
        try:
            with Timed(self._timer, self._seconds):
                return await self._transport.send(
                    request,
                    headers,
                    account_id,
                    secrets=secrets,
                    login=purpose == "login",
                    limit=limit,
                )
        finally:
            if deadline is not None:
                deadline.sent(None)
        raise ConnectionFailed(
            f"no answer in {self._seconds:g} s, the time of one try", account_id=account_id
        )
