"""One owner per account: a process that any number of clients ask in the API's own language.

It needs the extra ``gateway``. See the README beside this file.
"""

from msgconv_async.gateway.app import MAX_WAIT, gateway

__all__ = ["MAX_WAIT", "gateway"]
