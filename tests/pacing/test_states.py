"""The states of the adaptive limit, as the table at the head of its module has them."""

from __future__ import annotations

from msgconv_async.pacing.adaptive import AdaptiveLimit


class Client:
    """One request at a time, five a second."""

    def __init__(self) -> None:
        self.limit = AdaptiveLimit()
        self.now = 0.0
        for _ in range(20):
            self.answered()

    def state(self) -> str:
        return self.limit.state

    def answered(self) -> str:
        start = self.limit.started(self.now, 1, "rate")
        self.limit.answered(start, self.now + 0.1)
        self.now += 0.2
        return self.limit.state

    def refused(self) -> str:
        start = self.limit.started(self.now, 1, "rate")
        self.limit.throttled(start, self.now + 0.1, None)
        self.now += 0.2
        return self.limit.state

    def probing(self) -> str:
        answers = 0
        while self.answered() == "resting":
            answers += 1
            assert answers < 1000
        return self.limit.state


def test_it_is_cold_until_something_is_refused() -> None:
    client = Client()
    assert "cold" == client.state()
    assert "refused" == client.refused()
    assert "resting" == client.answered()


def test_a_rest_ends_in_a_probe_and_a_probe_in_a_refusal() -> None:
    client = Client()
    client.refused()
    client.answered()
    assert "probing" == client.probing()
    assert "refused" == client.refused()
    assert "resting" == client.answered()


def test_refused_in_a_rest_it_gives_way() -> None:
    client = Client()
    client.refused()
    client.answered()
    client.probing()
    client.refused()
    client.answered()
    before = client.limit.rate
    assert "refused" == client.refused()
    assert "resting" == client.answered()
    assert client.limit.rate < before


def test_three_refused_in_a_row_are_an_outage_until_one_is_answered() -> None:
    client = Client()
    assert ["refused", "refused", "outage"] == [client.refused() for _ in range(3)]
    assert client.limit.paused_until > client.now - 0.2
    client.now = client.limit.paused_until
    first = client.limit.started(client.now, 1, "rate")
    assert "returning" == client.state()
    assert client.limit.paused_until > client.now  # the others wait for what becomes of it
    client.limit.throttled(first, client.now + 0.1, None)
    assert "outage" == client.state()
    client.now = client.limit.paused_until
    assert "resting" == client.answered()
    assert client.limit.paused_until <= client.now
