"""One exchange with a service, within a time of its own.

A request that is never answered must not hold up others for longer: the callers that need the
account's slot, and those that share the answer.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Mapping

from msgconv_async.client.http.deadlines import Deadline, Timed, Timer
from msgconv_async.client.http.transport import Answer, Transport
from msgconv_async.errors import ConnectionFailed
from msgconv_async.protocol.query import HttpRequest


class Exchanges:
    """Makes exchanges, and breaks off those that take too long.

    Args:
        transport: Makes them.
        seconds: How long each may take, or None.
    """

    def __init__(self, transport: Transport, seconds: float | None) -> None:
        self._transport = transport
        self._seconds = math.inf if seconds is None else seconds
        self._timer = Timer(asyncio.get_running_loop())

    def close(self) -> None:
        """Stop the timer, when nothing is under way any more."""
        self._timer.wake(math.inf)

    async def send(
        self,
        request: HttpRequest,
        headers: Mapping[str, str],
        account_id: str,
        *,
        deadline: Deadline | None = None,
        secrets: Callable[[], Iterable[str]] = tuple,
        login: bool = False,
        limit: int | None = None,
    ) -> Answer:
        """Make one exchange.

        Args:
            request: Method, URL and body.
            headers: Further headers.
            account_id: The account that an error names.
            deadline: The deadline of the call; it notes when the request was sent.
            secrets: Returns the secrets to blank out of an error's excerpt.
            login: Whether this asks for a token or a session, where a refusal means credentials.
            limit: As `Transport.send` takes it.

        Raises:
            ConnectionFailed: No answer in the time of one exchange, or as `Transport.send` says.
            MsgConvError: As `Transport.send` says.
        """
        if deadline is not None:
            deadline.sent(self._timer.loop.time())
        try:
            with Timed(self._timer, self._seconds):
                return await self._transport.send(
                    request, headers, account_id, secrets=secrets, login=login, limit=limit
                )
        finally:
            if deadline is not None:
                deadline.sent(None)
        raise ConnectionFailed(
            f"no answer in {self._seconds:g} s, the time of one try", account_id=account_id
        )
