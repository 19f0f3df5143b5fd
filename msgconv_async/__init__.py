"""The asyncio client for LivePerson's Messaging Conversation metrics."""

from msgconv_async.client.access.account import Account
from msgconv_async.client.access.accounts_file import read_accounts
from msgconv_async.client.access.credentials import (
    ApiKey,
    BearerToken,
    ClientCredentials,
    UserLogin,
)
from msgconv_async.client.http.retry import RetryPolicy
from msgconv_async.client.many.checkpoint import Checkpoint, ClosedBucket, Failure, Gap, Move
from msgconv_async.client.many.checkpoint_store import CheckpointStore
from msgconv_async.client.many.fan_out import Outcome
from msgconv_async.client.many.follow import Following
from msgconv_async.client.session import ConversationSession
from msgconv_async.errors import (
    ApiError,
    BadRequest,
    ConfigurationError,
    ConnectionFailed,
    DeadlineExceeded,
    InvalidQuery,
    MsgConvError,
    RateLimited,
    ServerError,
    SessionUnusable,
    Unauthorized,
    UnexpectedResponse,
)
from msgconv_async.pacing.pacer import Pacer, PacerStats
from msgconv_async.protocol.decoding import decode_report
from msgconv_async.protocol.query import ConversationQuery
from msgconv_async.protocol.report import (
    AgentBreakdown,
    ConversationMetrics,
    ConversationReport,
    Interval,
    SkillBreakdown,
)
from msgconv_async.version import __version__ as __version__

__all__ = [
    "Account",
    "AgentBreakdown",
    "ApiError",
    "ApiKey",
    "BadRequest",
    "BearerToken",
    "Checkpoint",
    "CheckpointStore",
    "ClientCredentials",
    "ClosedBucket",
    "ConfigurationError",
    "ConnectionFailed",
    "ConversationMetrics",
    "ConversationQuery",
    "ConversationReport",
    "ConversationSession",
    "DeadlineExceeded",
    "Failure",
    "Following",
    "Gap",
    "Interval",
    "InvalidQuery",
    "Move",
    "MsgConvError",
    "Outcome",
    "Pacer",
    "PacerStats",
    "RateLimited",
    "RetryPolicy",
    "ServerError",
    "SessionUnusable",
    "SkillBreakdown",
    "Unauthorized",
    "UnexpectedResponse",
    "UserLogin",
    "decode_report",
    "read_accounts",
]

for _name in __all__:
    globals()[_name].__module__ = __name__
del _name
