"""The accounts file, read again while a command goes on."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from msgconv_async.cli.console import complain
from msgconv_async.client.access.account import Account
from msgconv_async.client.access.accounts_file import read_accounts
from msgconv_async.errors import ConfigurationError


def hears_sighup() -> bool:
    """Tell whether SIGHUP means to read the accounts file again, and not that a terminal closed."""
    return hasattr(signal, "SIGHUP") and not sys.stderr.isatty()


def read_again(path: Path | None, before: Sequence[Account]) -> Sequence[Account] | None:
    """Read an accounts file again, and say what has changed.

    Returns:
        The accounts; None if there is no such file or it has a mistake, which is said.
    """
    if path is None:
        complain("there is no accounts file to read again: the accounts stay as they were")
        return None
    try:
        accounts = read_accounts(path)
    except ConfigurationError as error:
        complain(f"{error}; the accounts stay as they were", "error")
        return None
    old, new = ({account.id: account for account in each} for each in (before, accounts))
    changed = sum(account != new.get(id_, account) for id_, account in old.items())
    complain(
        f"{path} was read again: {len(new.keys() - old.keys())} added,"
        f" {len(old.keys() - new.keys())} removed, {changed} changed, {len(new):,} in all"
    )
    return accounts
