"""Decides when a request may start. It uses a clock and asyncio; it knows no HTTP."""
