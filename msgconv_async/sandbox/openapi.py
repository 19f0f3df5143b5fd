"""The OpenAPI document of the sandbox: its routes, what they take, and all that they answer.

What no schema can say stands in descriptions: an interval must divide the time frame.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from msgconv_async.protocol.report import ConversationMetrics
from msgconv_async.sandbox.credentials import CLIENT_ID, CLIENT_SECRET, PASSWORD, USERNAME
from msgconv_async.sandbox.parameters import MAX_TIMEFRAME, MIN_INTERVAL

SERVICES = ("agentVep", "leDataReporting", "sentinel")
"""The services that the Domain API knows."""

SESSION_COOKIE = "Session_id"
"""The cookie of a user's login."""

Document = dict[str, Any]

_IDS = r"^(all|-?[0-9]{1,19}(,-?[0-9]{1,19})*)$"
_TEXT: Document = {"type": "string"}
_QUESTION: dict[str, Document] = {
    "v": {"type": "integer", "enum": [1]},
    "timeframe": {
        "type": "integer",
        "minimum": 1,
        "maximum": MAX_TIMEFRAME,
        "description": "Minutes back from now.",
    },
    "interval": {
        "type": "integer",
        "minimum": MIN_INTERVAL,
        "maximum": MAX_TIMEFRAME,
        "description": "Minutes of an interval; it must divide the time frame.",
    },
    "skillIds": {"type": "string", "pattern": _IDS, "description": 'Ids, or "all".'},
    "agentIds": {"type": "string", "pattern": _IDS, "description": 'Ids, or "all".'},
    "groupIds": {"type": "string", "pattern": _IDS, "description": 'Ids, or "all".'},
}
_REQUIRED = ("v", "timeframe")
_REFUSALS = {
    "400": "The request is malformed.",
    "401": "There is no such account, or the credentials are not accepted.",
    "413": "The body is too large.",
}


def document(account_ids: Sequence[str]) -> Document:
    """Return the OpenAPI 3.1 document of a sandbox of some accounts."""
    metrics = {
        "operationId": "metrics",
        "summary": "Messaging Conversation metrics",
        "security": [{"bearer": []}, {"oauth1": []}],
    }
    answered = _answers("Answer", throttled=True)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Messaging Conversation, as the sandbox of msgconv_async serves it",
            "version": "1",
        },
        "servers": [{"url": "/"}],
        "paths": {
            "/operations/api/account/{account}/msgconversation": {
                "parameters": [_reference("parameters", "account")],
                "get": metrics
                | {
                    "parameters": [
                        _parameter(name, schema, required=name in _REQUIRED)
                        for name, schema in _QUESTION.items()
                    ],
                    "responses": answered,
                },
                "post": metrics
                | {
                    "operationId": "metricsByBody",
                    "requestBody": _body("application/json", _reference("schemas", "Question")),
                    "responses": answered,
                },
            },
            "/api/account/{account}/service/baseURI.json": _domain(
                "hosts", _object({"baseURIs": _array(_reference("schemas", "Host"))})
            ),
            "/api/account/{account}/service/{service}/baseURI.json": _domain(
                "host",
                _reference("schemas", "Host"),
                _parameter("service", {"enum": SERVICES}, place="path"),
            ),
            "/sentinel/api/v2/account/{account}/app/token": _login(
                "token",
                _body(
                    "application/x-www-form-urlencoded",
                    _object(
                        {
                            "grant_type": {"enum": ["client_credentials"]},
                            "client_id": {"enum": [CLIENT_ID]},
                            "client_secret": {"enum": [CLIENT_SECRET]},
                        }
                    ),
                ),
                "Token",
            ),
            "/api/account/{account}/login": _login(
                "login",
                _body(
                    "application/json",
                    _object({"username": {"enum": [USERNAME]}, "password": {"enum": [PASSWORD]}}),
                ),
                "Session",
                _parameter("v", {"enum": ["1.3"]}),
            ),
            "/api/account/{account}/refresh": _login("refresh", _CSRF, "Session", of_session=True),
            "/api/account/{account}/logout": _login("logout", _CSRF, None, of_session=True),
        },
        "components": {
            "parameters": {
                "account": _parameter("account", {"enum": list(account_ids)}, place="path")
            },
            "schemas": _schemas(),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "oauth1": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "Authorization",
                    "description": "An OAuth 1.0 signature (RFC 5849) by HMAC-SHA1.",
                },
                "session": {"type": "apiKey", "in": "cookie", "name": SESSION_COOKIE},
            },
        },
    }


def _schemas() -> dict[str, Document]:
    figures = {
        field.encode_name: {"type": "number" if "avgTime" in field.encode_name else "integer"}
        for field in msgspec.structs.fields(ConversationMetrics)
    }
    metrics, agents = (_reference("schemas", name) for name in ("Metrics", "Agents"))
    sections = {
        "metricsTotals": metrics,
        "agentsMetrics": agents,
        "skillsMetricsPerAgent": _reference("schemas", "Skills"),
    }
    interval = {
        "timestamp": {"type": "integer", "description": "The end, in epoch milliseconds."},
        "metricsData": _object(sections, required=()),
    }
    question = {
        name: schema if name in _REQUIRED else schema | {"type": [schema["type"], "null"]}
        for name, schema in _QUESTION.items()
    }
    return {
        "Question": {
            "type": "object",
            "properties": question,
            "required": list(_REQUIRED),
            "description": "Null is as good as left out. Numbers have no decimal point.",
        },
        "Metrics": _object(figures),
        "Agents": _object({"metricsPerAgent": _by_id(metrics), "metricsTotals": metrics}),
        "Skills": _object({"metricsPerSkill": _by_id(agents), "metricsTotals": metrics}),
        "Answer": _object(
            sections
            | {
                "metricsByIntervals": _array(_object(interval))
                | {"description": "The newest first."}
            },
            required=(),
        ),
        "Host": _object({"service": {"enum": SERVICES}, "account": _TEXT, "baseURI": _TEXT}),
        "Token": _object(
            {
                "access_token": _TEXT,
                "token_type": {"enum": ["Bearer"]},
                "expires_in": {"type": "integer", "description": "Seconds."},
            }
        ),
        "Session": _object(
            {
                "csrf": _TEXT,
                "sessionTTl": {"type": "string", "description": "Milliseconds."},
                "bearer": _TEXT,
            }
        ),
        "Refusal": _object({"status": {"type": "integer"}, "reason": _TEXT}),
    }


def _object(properties: Mapping[str, Document], required: Sequence[str] | None = None) -> Document:
    """Return an object of these members; all of them are always there, unless said otherwise."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties if required is None else required),
    }


def _array(items: Document) -> Document:
    return {"type": "array", "items": items}


def _by_id(value: Document) -> Document:
    return {
        "type": "object",
        "propertyNames": {"pattern": "^-?[0-9]{1,19}$"},
        "additionalProperties": value,
    }


def _reference(kind: str, name: str) -> Document:
    return {"$ref": f"#/components/{kind}/{name}"}


def _parameter(
    name: str, schema: Document, *, place: str = "query", required: bool = True
) -> Document:
    return {"name": name, "in": place, "required": required, "schema": schema}


def _body(media: str, schema: Document) -> Document:
    return {"required": True, "content": {media: {"schema": schema}}}


_CSRF = _body("application/json", _object({"csrf": _TEXT}))


def _answers(schema: str | Document | None, *, throttled: bool = False) -> Document:
    told = _REFUSALS | ({"429": "A limit refuses the request."} if throttled else {})
    refusal = {"application/json": {"schema": _reference("schemas", "Refusal")}}
    good = _reference("schemas", schema) if isinstance(schema, str) else schema or _object({})
    return {
        "200": {"description": "The answer.", "content": {"application/json": {"schema": good}}}
    } | {status: {"description": what, "content": refusal} for status, what in told.items()}


def _domain(name: str, schema: Document, *parameters: Document) -> Document:
    return {
        "parameters": [_reference("parameters", "account"), *parameters],
        "get": {
            "operationId": name,
            "summary": "Where an account's services are (Domain API)",
            "parameters": [_parameter("version", {"enum": ["1.0"]})],
            "responses": _answers(schema),
        },
    }


def _login(
    name: str,
    body: Document,
    schema: str | None,
    *parameters: Document,
    of_session: bool = False,
) -> Document:
    return {
        "parameters": [_reference("parameters", "account"), *parameters],
        "post": {
            "operationId": name,
            "requestBody": body,
            "security": [{"session": []}] if of_session else [],
            "responses": _answers(schema),
        },
    }
