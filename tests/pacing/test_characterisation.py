"""Decisions do not change by accident."""

from __future__ import annotations

import pytest

from tests.pacing.characterisation import SCENARIOS, SEEDS, digest, kept, same_arithmetic


@pytest.mark.no_cover  # traced, millions of decisions would take four times as long
@pytest.mark.parametrize("name", SCENARIOS)
def test_every_decision_is_as_it_was(name: str) -> None:
    """Start times, refusals, answers and what follows from them are the same to the last bit."""
    if not same_arithmetic():
        pytest.skip("the mathematics library differs in its last bits, and so would the decisions")
    assert kept()[name][0] == digest(name, SEEDS[0])
