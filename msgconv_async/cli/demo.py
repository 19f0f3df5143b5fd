"""``msgconv demo``: asks fifty accounts for a day, and shows how the client found their pace."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from statistics import median

import aiohttp
from rich.console import Console
from rich.table import Table
from rich.text import Text

from msgconv_async.cli import show
from msgconv_async.cli.asking import Asking
from msgconv_async.cli.chart import chart
from msgconv_async.cli.failures import log_to_stderr
from msgconv_async.cli.figures import COUNTS, LONG_HEADINGS, MILLISECONDS, TOTAL_TIME, Figures
from msgconv_async.cli.progress import Ticker
from msgconv_async.client.access.account import Account
from msgconv_async.client.access.credentials import ClientCredentials
from msgconv_async.client.session import ConversationSession
from msgconv_async.export import TABLES
from msgconv_async.names import Names
from msgconv_async.pacing.pacer import Pacer
from msgconv_async.protocol.query import ConversationQuery
from msgconv_async.protocol.report import ConversationMetrics, ConversationReport
from msgconv_async.sandbox import CLIENT_ID, CLIENT_SECRET, Sandbox

ACCOUNTS = 50
LIMIT = 6
"""Requests at once that the server answers for each account. The client does not know it."""
LATENCY = 0.5
REPEATS = 30
"""How often the last hour is asked for: one request per account leaves the pacing nothing to
find."""
IN_FLIGHT = 2 * LIMIT * ACCOUNTS
SHOWN = 10

LAST_DAY = ConversationQuery(1440, interval=5, skill_ids="all", agent_ids="all")
LAST_HOUR = ConversationQuery(60)


@dataclass
class DayTotals:
    """The answers of the accounts about their day, added up.

    Counts and total times add up, averages do not: the averages shown are computed from the sums.
    """

    by_account: dict[str, Counter[str]] = field(default_factory=dict)
    by_bucket: Counter[datetime] = field(default_factory=Counter)
    rows: int = 0

    def add(self, account_id: str, report: ConversationReport) -> None:
        """Add an account's report, which was asked for by all skills."""
        self.rows += sum(1 for table in TABLES for _ in table.rows(account_id, report))
        sums = self.by_account[account_id] = Counter()
        for interval in report.intervals:
            if interval.skills is not None:
                totals = interval.skills.totals
                sums.update({name: getattr(totals, name) or 0 for name in (*COUNTS, TOTAL_TIME)})
                if interval.complete:
                    self.by_bucket[interval.start] += totals.total_resolved_conversations or 0


async def run() -> int:
    """Ask, show, and return the exit code."""
    log_to_stderr(logging.WARNING)
    console = show.Screen(highlight=False)
    async with (
        Sandbox(accounts=ACCOUNTS, concurrency=LIMIT, latency=LATENCY) as sandbox,
        # No bound on connections: nothing but the pacing should hold requests back.
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http,
        ConversationSession(http=http, base_url=sandbox.url) as session,
    ):
        credentials = ClientCredentials(CLIENT_ID, CLIENT_SECRET)
        accounts = [Account(account_id, credentials) for account_id in sandbox.account_ids]
        console.print(
            f"A server of {ACCOUNTS} accounts, in this process. It answers no more than {LIMIT}"
            f" requests of an account at once, each in {LATENCY} s, and refuses others with 429."
            " The client does not know this.\n"
        )
        day, began = DayTotals(), time.monotonic()
        asking = Asking(accounts, LAST_DAY, max_in_flight=IN_FLIGHT)
        code = await _ask(session, asking, "24 hours of every account", day.add)
        seconds = time.monotonic() - began
        table = _accounts(day, sandbox.names)
        console.print(table, MILLISECONDS, "", _chart(day, console), sep="\n")

        asking = Asking(accounts * REPEATS, LAST_HOUR, max_in_flight=IN_FLIGHT)
        code = await _ask(session, asking, f"the last hour, {REPEATS} times over") or code
        pacers = [session.pacer(account) for account in accounts]
        console.print("", _outcome(pacers, day.rows, seconds, time.monotonic() - began), sep="\n")
    return code


async def _ask(
    session: ConversationSession,
    asking: Asking,
    task: str,
    take: Callable[[str, ConversationReport], None] = lambda _id, _report: None,
) -> int:
    """Ask, hand out the answers, and return the exit code."""
    with Ticker(task, len(asking.accounts), announced=True) as ticker:
        answered, _ = await asking.reports(session, take, ticker)
    return asking.exit_code(answered)


def _accounts(day: DayTotals, names: Names) -> Table:
    """Show the busiest accounts, the others together, and all of them."""
    table = show.grid(
        "24 hours in intervals of 5 minutes, by skill and agent: resolved conversations",
        "account",
        *LONG_HEADINGS,
    )
    busiest = sorted(day.by_account.items(), key=lambda account: -account[1][COUNTS[0]])
    others = _sum(sums for _, sums in busiest[SHOWN:])
    for account_id, sums in busiest[:SHOWN]:
        table.add_row(names.account(account_id), *_cells(sums))
    table.add_row(f"{len(busiest) - SHOWN} others", *_cells(others), end_section=True)
    everything = _sum(day.by_account.values())
    table.add_row(f"all {len(busiest)}", *_cells(everything), style="bold")
    return table


def _sum(many: Iterable[Counter[str]]) -> Counter[str]:
    total = Counter[str]()
    for sums in many:
        total.update(sums)
    return total


def _cells(sums: Counter[str]) -> list[str]:
    metrics = ConversationMetrics(**{name: sums[name] for name in (*COUNTS, TOTAL_TIME)})
    return Figures.of_metrics(metrics).written()


def _chart(day: DayTotals, console: Console) -> Text:
    """Draw the conversations that all accounts resolved in each closed bucket."""
    starts = sorted(day.by_bucket)
    ticks = [start for start in starts if not start.minute and not start.hour % 3]
    return chart(
        "resolved conversations of all accounts, per 5 minutes (UTC)",
        [day.by_bucket[start] for start in starts],
        {starts.index(start): f"{start:%H:%M}" for start in ticks},
        console,
    )


def _middle(believed: Sequence[float]) -> str:
    return f"{median(believed):.3g}"


def _outcome(pacers: Sequence[Pacer], rows: int, for_rows: float, seconds: float) -> Table:
    """Show the cost, and the limits that the client believes in next to the true ones."""
    sent = sum(pacer.sent for pacer in pacers)
    throttled = sum(pacer.throttled for pacer in pacers)
    slots = [pacer.concurrency for pacer in pacers]
    rates = [pacer.rate for pacer in pacers]
    asked = sorted(min(rate, held / LATENCY) for rate, held in zip(rates, slots, strict=True))
    table = show.grid("What it cost, and what it found", "", "")
    table.show_header = False
    table.add_row("requests", f"{sent:,}")
    table.add_row("answered 429, and asked again", f"{throttled:,} ({throttled / sent:.1%})")
    table.add_row("seconds", f"{seconds:.1f}")
    table.add_row("rows of the 24 hours", f"{rows:,}")
    table.add_row(
        "rows per second, from question to row", f"{rows / for_rows:,.0f}", end_section=True
    )
    table.add_row("requests of an account at once: the true limit", f"{LIMIT}")
    table.add_row(f"and so a second, as each takes {LATENCY} s", f"{LIMIT / LATENCY:g}")
    table.add_row("what the client now believes: at once", _middle(slots), style="bold")
    table.add_row("what the client now believes: a second", _middle(rates), style="bold")
    held = Counter(pacer.stats().limited_by for pacer in pacers)
    table.add_row(
        "accounts held by how many at once, and by how many a second",
        f"{held['concurrency']} and {held['rate']}",
    )
    table.add_row("and so asks a second, as the tighter one holds", _middle(asked), style="bold")
    table.add_row(
        "the lowest and the highest of the accounts", f"{asked[0]:.3g} to {asked[-1]:.3g}"
    )
    return table
