"""When a request may start. Knows a clock and asyncio; knows no HTTP."""
