"""A service that answers some accounts with anything at all, and the others as it should.

What it answers is drawn: raw bytes, or an answer that is right but for one thing, in its document,
its headers or its framing. Instants are written relative to the bucket that is filling when the
answer is sent, so that what was drawn does not depend on when it is served.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import re
import time
import zlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from hypothesis import strategies as st

EDGE = re.compile(rb'"?@([+-][0-9]{10})@"?')
"""Stands for the end of the bucket that is filling, moved by so many milliseconds."""

_BUCKET = 300_000
_ACCOUNT = re.compile(r"/account/([A-Za-z0-9_-]+)")


def edge(milliseconds: int = 0) -> str:
    """Return what is served as the end of the bucket that is filling, moved by so much."""
    return f"@{milliseconds:+011d}@"


@dataclass(frozen=True)
class Reply:
    """What is sent, and what becomes of the connection then: "close", "keep", "reset" or "hang"."""

    wire: bytes
    then: str = "close"

    def rendered(self) -> bytes:
        """Return the bytes to send now."""
        filling = int(time.time() * 1000) // _BUCKET * _BUCKET + _BUCKET
        return EDGE.sub(lambda match: b"%d" % (filling + int(match[1])), self.wire)


@dataclass(frozen=True)
class Script:
    """What one account meets: at the login, for its metrics, and at the Domain API."""

    login: Reply
    metrics: Reply
    domain: Reply


def whole(body: bytes, status: bytes = b"200 OK", **headers: str) -> bytes:
    """Return an answer as it should be."""
    lines = [b"HTTP/1.1 " + status, b"Content-Type: application/json"]
    lines += [f"{name.replace('_', '-')}: {value}".encode() for name, value in headers.items()]
    # An instant is as long as what stands for it, less the quotes around that.
    length = len(body) - 2 * len(EDGE.findall(body))
    return b"\r\n".join([*lines, b"Content-Length: %d" % length, b"", body])


# -- What is right ---------------------------------------------------------------------------------


def metrics(count: int) -> dict[str, Any]:
    """Return the metrics of so many conversations."""
    return {
        "totalResolvedConversations": count,
        "totalHandlingTime_resolvedConversations": 1000 * count,
        "avgTime_resolvedConversations": 1000.0,
    }


def sections(count: int) -> dict[str, Any]:
    """Return every section of so many conversations."""
    agents = {"metricsPerAgent": {"7": metrics(count)}, "metricsTotals": metrics(count)}
    skills = {"metricsPerSkill": {"1": agents}, "metricsTotals": metrics(count)}
    return {
        "skillsMetricsPerAgent": skills,
        "agentsMetrics": agents,
        "metricsTotals": metrics(count),
    }


def document(count: int, timeframe: int = 10, interval: int | None = 5) -> dict[str, Any]:
    """Return an answer's document: each interval, and the whole, of so many conversations."""
    found = sections(count)
    if interval is not None:
        found["metricsByIntervals"] = [
            {"timestamp": edge(-place * interval * 60_000), "metricsData": sections(count)}
            for place in range(timeframe // interval + 1)
        ]
    return found


def encoded(tree: Any) -> bytes:
    """Return a document as JSON."""
    return json.dumps(tree).encode()


TOKEN = {"access_token": "a-token-of-the-hostile", "expires_in": 3600}
USER = {"bearer": "a-bearer-of-the-hostile", "csrf": "c", "sessionTTl": "28800000"}
GOOD_LOGIN = Reply(whole(encoded(TOKEN | USER), Set_Cookie="Session_id=1; Path=/"), "keep")


# -- What is drawn ---------------------------------------------------------------------------------

ODD_JSON = st.sampled_from(
    [
        *("null", "true", "[]", "{}", "[[]]", "[null]", '""', '"a"', '"NaN"', '"1"', '"\\ud800"'),
        *("NaN", "-Infinity", "1e999", "-0", "21.0", "0.5", "1e3", "-1", "0", "01", "1.", "+1"),
        *("9" * 400, "-" + "9" * 5000, "0." + "1" * 5000, '"' + "9" * 400 + '"'),
        *(str(2**53 + 1), str(2**63), str(-(2**63) - 1), str(2**64), "253402300800000", "1e15"),
        *("[" * 3000, "[" * 500 + "]" * 500, '{"a":' * 300 + "1" + "}" * 300),
        *('{"metricsTotals": null}', '{"error": "overloaded"}', '{"1": 1, "1": 2}'),
        *('"\u202eright to left"', '"\\u0000"', "", ",", "}", "\ufeff1", "\x00"),
    ]
)
ODD_KEYS = st.sampled_from(
    ["", "-1", "1.0", "NaN", " 1", "1_0", "٣", str(2**63), str(-(2**63) - 1), "9" * 400, "1e3"]
)
ODD_INSTANTS = st.one_of(
    st.sampled_from([-1, 0, 253_402_300_799_999, 253_402_300_800_000, 2**63 - 1, -(2**63), 2**64]),
    st.integers(-5, 5).map(lambda buckets: edge(buckets * _BUCKET)),
    st.sampled_from([edge(3_600_000), edge(-86_400_000), edge(1), edge(-150_000)]),
)
ODD_LATER = st.sampled_from(
    [
        *("0", "1", "3600", "9" * 400, "-1", "1.5", "NaN", "", " ", "soon", "+1", "1e3", "٣"),
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "Fri, 31 Dec 9999 23:59:59 -2359",
        "Mon, 01 Jan 0001 00:00:00 +2359",
        "Thu, 01 Jan 1970 00:00:00 GMT",
        "Wed, 30 Feb 2026 25:61:61 GMT",
        "Wednesday, 04-Mar-99 08:00:00 GMT",
        "Wed, 04 Mar 2026 08:00:00 +9999999999",
    ]
)
_ODD_HEADERS = st.one_of(
    st.tuples(st.sampled_from(["Date", "Retry-After", "Expires"]), ODD_LATER),
    st.tuples(
        st.just("Content-Encoding"),
        st.sampled_from(["gzip", "deflate", "br", "zstd", "identity", "gzip, gzip", "x", "", "\t"]),
    ),
    st.tuples(
        st.just("Content-Type"),
        st.sampled_from(["", "text/html; charset=utf-16", "application/json; charset=x", ";;;"]),
    ),
    st.tuples(
        st.just("Set-Cookie"),
        st.sampled_from(["", "=", "a", "a=b; Domain=.com", "Session_id=\x01", "é=é", "a=" * 900]),
    ),
    st.tuples(
        st.sampled_from(["Content-Length", "Transfer-Encoding", "Connection", "Upgrade"]),
        st.sampled_from(["0", "5", "-1", "+5", "9" * 30, "chunked", "close", "websocket", "x, y"]),
    ),
    st.tuples(
        st.sampled_from(["Location", "WWW-Authenticate", "X-A", "", " ", "a b", "é", "X\x00"]),
        st.sampled_from(["", "http://127.0.0.1:1/", "//", "\x00", "é", "a" * 9000, "a\r\n b"]),
    ),
)
_STATUS = st.one_of(
    st.sampled_from(["200 OK"] * 6),
    st.sampled_from([f"{code} X" for code in (100, 101, 204, 206, 302, 304, 400, 401, 403, 404)]),
    st.sampled_from([f"{code} X" for code in (408, 421, 425, 429, 451, 500, 503, 599, 600, 999)]),
    st.sampled_from(["", "0", "20", "2000 X", "-200 X", "200", "200\tOK", "2OO OK", "200 " * 999]),
)
_VERSION = st.sampled_from(["HTTP/1.1 "] * 9 + ["HTTP/1.0 ", "HTTP/2 ", "HTTP/1.1", "", "ICY "])
_THEN = st.sampled_from(["close"] * 12 + ["keep"] * 4 + ["reset"] * 3 + ["hang"])


_CHANGES = st.sampled_from(["odd", "odd", "gone", "again", "instant", "renamed", "more"])


@st.composite
def broken(draw: st.DrawFn, tree: Any) -> bytes:
    """Draw a document that is right but for one place, or for none."""
    tree = json.loads(json.dumps(tree))
    odd = ""
    for _ in range(draw(st.integers(0, 2))):
        places = list(_places(tree))
        holder, key = draw(st.sampled_from(places))
        change = draw(
            st.sampled_from(["odd", "odd", "gone", "again", "instant", "renamed", "more"])
        )
        if change == "gone":
            del holder[key]
        elif change == "again" and isinstance(holder, list):
            holder.extend([holder[key]] * draw(st.sampled_from([1, 2, 300])))
        elif change == "instant":
            holder["timestamp" if isinstance(holder, dict) else key] = draw(ODD_INSTANTS)
        elif change == "renamed" and isinstance(holder, dict):
            holder[draw(ODD_KEYS)] = holder.pop(key)
        elif change == "more" and isinstance(holder, dict):
            holder["unknown"] = [{}] * draw(st.sampled_from([1, 2000]))
        else:
            odd = odd or draw(ODD_JSON)
            holder[key] = "@odd@"
        if not tree:
            break
    body = json.dumps(tree).replace('"@odd@"', odd).encode("utf-8", "surrogatepass")
    start = draw(st.sampled_from([b""] * 9 + [b"\xef\xbb\xbf", b"\xff\xfe", b" ", b")]}',\n"]))
    end = draw(st.sampled_from([b""] * 9 + [b"\n", b"\x00", b"}", b"x" * 9999, b"\xff"]))
    body = start + body + end
    return body[: draw(st.integers(0, len(body)))] if draw(st.integers(0, 9)) == 0 else body


def _places(tree: Any) -> Any:
    for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
        yield tree, key
        if isinstance(tree[key], (dict, list)):
            yield from _places(tree[key])


@st.composite
def framed(draw: st.DrawFn, bodies: st.SearchStrategy[bytes]) -> bytes:
    """Draw an answer with such a body."""
    body = draw(bodies)
    status = (draw(_VERSION) + draw(_STATUS)).encode("latin-1", "replace")
    headers = [("Content-Type", "application/json")]
    headers += draw(st.lists(_ODD_HEADERS, max_size=2))
    if draw(st.integers(0, 30)) == 0:
        headers += [(f"X-{number}", "a" * 20) for number in range(draw(st.sampled_from([9, 3000])))]
    packing = draw(st.sampled_from(["none"] * 6 + ["gzip", "zlib", "cut", "tail"]))
    if packing != "none":
        packed = zlib.compress(body) if packing == "zlib" else gzip.compress(body, mtime=0)
        tail = draw(st.sampled_from([b"\0" * 40, b"x", packed]))
        body = {"cut": packed[:-9], "tail": packed + tail}.get(packing, packed)
        headers.append(("Content-Encoding", "deflate" if packing == "zlib" else "gzip"))
    framing = draw(st.sampled_from(["length"] * 6 + ["short", "long", "chunks", "bad", "cut", ""]))
    size = len(body) - 2 * len(EDGE.findall(body))
    if framing in {"length", "short", "long"}:
        more = {"length": 0, "short": -1, "long": 7}[framing]
        headers.append(("Content-Length", str(max(0, size + more))))
    elif framing:
        headers.append(("Transfer-Encoding", "chunked"))
        chunk = b"%x\r\n%s\r\n" % (size, body)
        ends = {"chunks": b"0\r\n\r\n", "cut": b"", "bad": b"-5\r\nxx\r\n"}
        body = chunk + ends[framing]
    head = b"".join(
        name.encode("utf-8") + b": " + value.encode("utf-8") + b"\r\n" for name, value in headers
    )
    return status + b"\r\n" + head + b"\r\n" + body


def replies(tree: Any) -> st.SearchStrategy[Reply]:
    """Draw what is sent where this document is due."""
    bodies = st.one_of(broken(tree), broken(tree), ODD_JSON.map(str.encode), st.binary(max_size=60))
    wire = st.one_of(framed(bodies), framed(bodies), bodies.map(whole), st.binary(max_size=200))
    return st.builds(Reply, wire, _THEN)


HOSTS = st.sampled_from(
    ["va.data.example.net", "localhost", "127.1", "0x7f.1", "2130706433", "[::1]", "a b", "é.net"]
)
SCRIPTS = st.builds(
    Script,
    login=st.one_of(st.just(GOOD_LOGIN), replies(TOKEN | USER)),
    metrics=replies(document(13)),
    domain=st.one_of(
        HOSTS.map(lambda host: Reply(whole(encoded({"baseURI": host})))),
        replies({"service": "leDataReporting", "baseURI": "va.data.example.net"}),
    ),
)


# -- The service -----------------------------------------------------------------------------------


class Service:
    """Answers what the scripts of some accounts say, and all others rightly.

    Attributes:
        url: Where it listens.
        open: How many connections are open.
    """

    def __init__(self, scripts: Mapping[str, Script]) -> None:
        self._scripts = scripts
        self._speaking: set[asyncio.Task[None]] = set()
        self.url = ""
        self.open = 0

    async def speak(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection."""
        task = asyncio.current_task()
        assert task is not None
        self._speaking.add(task)
        self.open += 1
        try:
            with contextlib.suppress(OSError, EOFError, asyncio.LimitOverrunError):
                while await self._answer(reader, writer):
                    pass
        finally:
            self.open -= 1
            self._speaking.discard(task)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        length = re.search(r"(?im)^content-length: *(\d+)", head)
        await reader.readexactly(int(length[1]) if length else 0)
        target = head.split(" ", 2)[1]
        reply = self._reply(target)
        writer.write(reply.rendered())
        await writer.drain()
        if reply.then == "hang":
            await reader.read()  # until the client gives up
        elif reply.then == "reset":
            writer.transport.abort()
        return reply.then == "keep"

    def _reply(self, target: str) -> Reply:
        parts = urlsplit(target)
        match = _ACCOUNT.search(parts.path)
        account_id = match[1] if match else ""
        script = self._scripts.get(account_id)
        if "baseURI.json" in parts.path and script is not None:
            return script.domain
        if not parts.path.endswith("/msgconversation"):
            is_login = parts.path.endswith(("/token", "/login", "/refresh"))
            return script.login if script is not None and is_login else GOOD_LOGIN
        if script is not None:
            return script.metrics
        asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
        tree = document(int(account_id), int(asked["timeframe"]), int(asked.get("interval", "5")))
        wanted = {"metricsByIntervals"}
        wanted |= {"skillsMetricsPerAgent"} if "skillIds" in asked else set()
        wanted |= {"agentsMetrics"} if "agentIds" in asked else set()
        if not wanted & {"skillsMetricsPerAgent", "agentsMetrics"}:
            wanted.add("metricsTotals")
        tree = {name: value for name, value in tree.items() if name in wanted}
        for each in tree["metricsByIntervals"]:
            each["metricsData"] = {k: v for k, v in each["metricsData"].items() if k in wanted}
        return Reply(whole(encoded(tree)), "keep")

    async def end(self) -> None:
        """Hang up on all."""
        for each in list(self._speaking):
            each.cancel()
        await asyncio.gather(*self._speaking, return_exceptions=True)


@contextlib.asynccontextmanager
async def serving(scripts: Mapping[str, Script]) -> AsyncIterator[Service]:
    """Answer the accounts of these scripts as they say, and all others rightly."""
    service = Service(scripts)
    server = await asyncio.start_server(service.speak, "127.0.0.1", 0)
    async with server:
        service.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield service
        finally:
            await service.end()


def named(scripts: Sequence[Script]) -> dict[str, Script]:
    """Give each script an account, from 1001 on."""
    return {str(1001 + number): script for number, script in enumerate(scripts)}
