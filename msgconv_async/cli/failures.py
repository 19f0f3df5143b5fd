"""Says which accounts failed. Many equal failures are summed up, or they would hide the others."""

from __future__ import annotations

import logging

from msgconv_async.cli.console import complain
from msgconv_async.client.many.checkpoint import Gap
from msgconv_async.errors import MsgConvError

SAID = 3
"""How many equal failures have a line each."""


class Failures:
    """Says failures as they come, and in the end how many more were equal."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def add(self, failure: MsgConvError | Gap) -> None:
        """Say that an account failed, or has a gap, unless enough was said of such."""
        if isinstance(failure, Gap):
            account_id, said, kind = failure.account.id, str(failure), "Gap"
        else:
            account_id, said = getattr(failure, "account_id", ""), str(failure)
            kind = type(failure).__name__
        what = said.removeprefix(f"account {account_id}: ")
        if excerpt := getattr(failure, "excerpt", ""):  # it may be another each time
            what = what.removesuffix(f": {excerpt}")
        if account_id:
            what = what.replace(account_id, "…")
        count = self._counts[what] = self._counts.get(what, 0) + 1
        if count <= SAID:
            complain(said, "error", account=account_id, kind=kind)

    def sum_up(self) -> None:
        """Say how many more there were of each kind, and begin anew."""
        counts, self._counts = self._counts, {}
        for what, count in counts.items():
            if (more := count - SAID) > 0:
                accounts = f"{more:,} more account{'' if more == 1 else 's'}"
                complain(f"and {accounts}: {what}", "error", accounts=more)


def log_to_stderr(level: int, failures: Failures | None = None) -> None:
    """Write the library's log to stderr: failures from WARNING on, throttling from INFO on.

    Args:
        level: The least level.
        failures: Says the failures of accounts, which are then summed up.
    """
    logger = logging.getLogger("msgconv_async")
    for handler in logger.handlers:
        if isinstance(handler, _Complaints):
            logger.removeHandler(handler)
    logger.addHandler(_Complaints(failures))
    logger.setLevel(level)


class _Complaints(logging.Handler):
    def __init__(self, failures: Failures | None) -> None:
        super().__init__()
        self._failures = failures

    def emit(self, record: logging.LogRecord) -> None:
        match record.args:
            case (MsgConvError() | Gap() as failure,) if self._failures and record.msg == "%s":
                self._failures.add(failure)
            case _:
                complain(self.format(record), record.levelname.lower())
