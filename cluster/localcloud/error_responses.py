"""Error responses in the form of each AWS protocol, which SDKs recognise."""

from __future__ import annotations

import json
import secrets
from typing import NamedTuple
from urllib.parse import parse_qs
from xml.sax.saxutils import escape


class Answer(NamedTuple):
    """An HTTP response: the text of the status line, headers, body."""

    status: str
    headers: list[tuple[str, str]]
    body: bytes


def throttled(service: str, action: str) -> Answer:
    """The response to one call too many; its code depends on the service."""
    if service == "ec2":
        return _ec2("503 Service Unavailable", "RequestLimitExceeded", "Request limit exceeded.")
    if service == "s3":
        text = (
            "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message>"
            f"<RequestId>{_request_id()}</RequestId></Error>"
        )
        return Answer("503 Slow Down", [("Content-Type", "application/xml")], text.encode())
    if service in {"iam", "sts"}:
        text = (
            "<ErrorResponse><Error><Type>Sender</Type><Code>Throttling</Code>"
            f"<Message>Rate exceeded for {escape(action)}</Message></Error>"
            f"<RequestId>{_request_id()}</RequestId></ErrorResponse>"
        )
        return Answer("400 Bad Request", [("Content-Type", "text/xml")], text.encode())
    body = json.dumps({"__type": "ThrottlingException", "message": "Rate exceeded"}).encode()
    return Answer("400 Bad Request", [("Content-Type", "application/x-amz-json-1.1")], body)


def terminating(body: bytes) -> Answer:
    """The response of a TerminateInstances call that succeeds."""
    ids = [
        value
        for key, values in parse_qs(body.decode()).items()
        if key.startswith("InstanceId.")
        for value in values
    ]
    states = (
        "<currentState><code>32</code><name>shutting-down</name></currentState>"
        "<previousState><code>16</code><name>running</name></previousState>"
    )
    items = "".join(f"<item><instanceId>{escape(name)}</instanceId>{states}</item>" for name in ids)
    text = (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<TerminateInstancesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">'
        f"<requestId>{_request_id()}</requestId><instancesSet>{items}</instancesSet>"
        "</TerminateInstancesResponse>"
    )
    return Answer("200 OK", [("Content-Type", "text/xml;charset=UTF-8")], text.encode())


def _ec2(status: str, code: str, message: str) -> Answer:
    text = (
        '<?xml version="1.0" encoding="UTF-8"?>'
        f"<Response><Errors><Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>"
        f"</Errors><RequestID>{_request_id()}</RequestID></Response>"
    )
    return Answer(status, [("Content-Type", "text/xml;charset=UTF-8")], text.encode())


def as_json(document: bytes, status: str = "200 OK") -> Answer:
    """A JSON document as a response."""
    return Answer(status, [("Content-Type", "application/json")], document)


def _request_id() -> str:
    return secrets.token_hex(16)
