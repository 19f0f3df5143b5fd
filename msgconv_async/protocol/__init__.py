"""What the API says: the query, the buckets, the report. No I/O, no clock, no asyncio."""
