"""The asyncio client for LivePerson's Messaging Conversation metrics."""

__version__ = "0.1.0"
