"""``msgconv demo --web``: the live page of fifty invented accounts, until it is stopped."""

from __future__ import annotations

import itertools
import logging

import anyio

from msgconv_async.cli.console import OK, complain
from msgconv_async.cli.demo import ACCOUNTS, LATENCY, LIMIT
from msgconv_async.cli.failures import log_to_stderr
from msgconv_async.client.access.account import Account
from msgconv_async.client.access.credentials import BearerToken, ClientCredentials
from msgconv_async.client.session import ConversationSession
from msgconv_async.errors import MsgConvError
from msgconv_async.gateway import gateway
from msgconv_async.gateway.serve import Address, for_this_machine, serving, stop_signal
from msgconv_async.protocol.query import MAX_TIMEFRAME, ConversationQuery
from msgconv_async.sandbox import CLIENT_ID, CLIENT_SECRET, Sandbox

BUSY = 3
"""Accounts that workers ask without a pause: else there is no pace to be seen."""

WORKERS = 2 * LIMIT
"""Workers of a busy account: twice as many as are answered at once, so that there is a queue."""

_GRACE = 1.0
_AFTER_FAILURE = 1.0


async def run(port: int) -> int:
    """Serve until SIGINT (Ctrl-C) or SIGTERM."""
    log_to_stderr(logging.WARNING)
    place = Address(port=port)
    place.check(None)
    stopped = stop_signal()
    async with Sandbox(accounts=ACCOUNTS, concurrency=LIMIT, latency=LATENCY) as sandbox:
        credentials = ClientCredentials(CLIENT_ID, CLIENT_SECRET)
        accounts = [Account(account_id, credentials) for account_id in sandbox.account_ids]
        app = gateway(accounts, base_url=sandbox.url, names=sandbox.names)
        app.middlewares.append(for_this_machine)
        async with serving(app, place, _GRACE) as url:
            print(f"listening on {url}", flush=True)  # noqa: T201 - it is what a command does
            complain(
                f"open it in a browser: {ACCOUNTS} invented accounts, each closing a bucket every"
                f" five minutes; workers ask {BUSY} of them for more than the {LIMIT} requests at"
                " once that are answered; Ctrl-C stops"
            )
            async with (
                ConversationSession(base_url=url) as session,
                anyio.create_task_group() as group,
            ):
                for account_id in sandbox.account_ids[:BUSY]:
                    worker = Account(account_id, BearerToken("none"))
                    for number in range(WORKERS):
                        group.start_soon(_work, session, worker, number)
                await stopped.wait()
                group.cancel_scope.cancel()
    return OK


async def _work(session: ConversationSession, account: Account, number: int) -> None:
    """Ask one question after the other, no two workers the same: else they would share it."""
    for minutes in itertools.cycle(range(1 + number, MAX_TIMEFRAME // 10, WORKERS)):
        try:
            await session.fetch(account, ConversationQuery(minutes))
        except MsgConvError:
            await anyio.sleep(_AFTER_FAILURE)
