"""Fixtures of the gateway's tests."""

from tests.gateway.support import quick

__all__ = ["quick"]
