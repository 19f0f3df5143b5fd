"""LivePerson's Messaging Conversation API as a local server: for tests, demos and newcomers."""

from msgconv_async.sandbox.app import Fault
from msgconv_async.sandbox.clock import Clock
from msgconv_async.sandbox.credentials import (
    ACCESS_TOKEN,
    ACCESS_TOKEN_SECRET,
    APP_KEY,
    APP_SECRET,
    CLIENT_ID,
    CLIENT_SECRET,
    PASSWORD,
    USERNAME,
)
from msgconv_async.sandbox.events import Conversation, Recorded, Source, Synthetic
from msgconv_async.sandbox.server import Sandbox

__all__ = [
    "ACCESS_TOKEN",
    "ACCESS_TOKEN_SECRET",
    "APP_KEY",
    "APP_SECRET",
    "CLIENT_ID",
    "CLIENT_SECRET",
    "PASSWORD",
    "USERNAME",
    "Clock",
    "Conversation",
    "Fault",
    "Recorded",
    "Sandbox",
    "Source",
    "Synthetic",
]
