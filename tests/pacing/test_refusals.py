"""Starts refused in a row, and when they are an outage."""

from __future__ import annotations

import math

import pytest

from msgconv_async.pacing.probe import Found
from msgconv_async.pacing.recent import RecentStarts, Start
from msgconv_async.pacing.refusals import Refusals


class Account:
    """Starts once a second, each refused after a tenth of one."""

    def __init__(self) -> None:
        self.recent = RecentStarts()
        self.refusals = Refusals()
        self.accept()

    def accept(self) -> Start:
        return self.recent.add(float(self.recent.seq), 1, "rate")

    def refuse(self, start: Start | None = None, retry_after: float = 0.0) -> float:
        start = start or self.accept()
        start.refused = True
        self.recent.end(start.at + 0.1)
        return self.refusals.add(start, self.recent, start.at + 0.1, retry_after, Found())


def test_two_in_a_row_are_no_outage_and_three_are() -> None:
    account = Account()
    assert [-math.inf, -math.inf] == [account.refuse(), account.refuse()]
    assert not account.refusals.is_outage
    assert 3.1 + 2.1 / 3 == pytest.approx(account.refuse())  # a third of the time so far
    assert account.refusals.is_outage


def test_it_waits_as_long_as_the_server_asks() -> None:
    account = Account()
    for _ in range(2):
        account.refuse()
    assert 3.1 + 17.0 == pytest.approx(account.refuse(retry_after=17.0))


def test_it_never_waits_longer_than_half_a_minute_unasked() -> None:
    account = Account()
    for _ in range(200):
        until = account.refuse()
    assert 200.1 + 30.0 == pytest.approx(until)


def test_refusals_count_in_any_order() -> None:
    """They arrive as the network has it; an answer in between makes them two runs."""
    account = Account()
    starts = [account.accept() for _ in range(3)]
    for start in (starts[2], starts[0]):
        account.refuse(start)
    assert 1 == account.refusals.count
    account.refuse(starts[1])
    assert 3 == account.refusals.count


def test_one_start_goes_first_and_only_one() -> None:
    account = Account()
    for _ in range(3):
        account.refuse()
    assert not account.refusals.is_returning
    assert 0.2 == pytest.approx(account.refusals.take_head_start())  # two of its round trips
    assert account.refusals.is_returning
    assert 0.0 == account.refusals.take_head_start()


@pytest.mark.parametrize("retry_after", [0.0, 4.0])
def test_it_ends_when_the_limit_turned(retry_after: float) -> None:
    """Between the last refusal, or the end of its Retry-After, and the start that was answered."""
    account = Account()
    for _ in range(3):
        account.refuse(retry_after=retry_after)
    answered = account.recent.add(10.0, 1, "rate")
    turned = (3.0 + 10.0) / 2 if not retry_after else (3.1 + 4.0 + 10.0) / 2
    ended = account.refusals.end(answered)
    assert (True, 9.0) == (ended.outage, ended.seconds)
    assert turned == pytest.approx(ended.turned)
    assert 0 == account.refusals.count
