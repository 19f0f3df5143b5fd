"""The API's documents: the query, the buckets, the report. No I/O, no clock, no asyncio."""
