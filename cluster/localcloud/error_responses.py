"""Refusals in each protocol's own form, so that SDKs see the error they would see on AWS."""

from __future__ import annotations

import json
import secrets
from typing import NamedTuple
from urllib.parse import parse_qs
from xml.sax.saxutils import escape


class Answer(NamedTuple):
    """An HTTP answer: the status line's text, headers, body."""

    status: str
    headers: list[tuple[str, str]]
    body: bytes


def throttled(service: str, action: str) -> Answer:
    """Too many calls: EC2 says RequestLimitExceeded, S3 SlowDown, the others Throttling."""
    if service == "ec2":
        return _ec2("503 Service Unavailable", "RequestLimitExceeded", "Request limit exceeded.")
    if service == "s3":
        text = f"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message><RequestId>{_request_id()}</RequestId></Error>"
        return Answer("503 Slow Down", [("Content-Type", "application/xml")], text.encode())
    if service in {"iam", "sts"}:
        text = (
            f"<ErrorResponse><Error><Type>Sender</Type><Code>Throttling</Code><Message>Rate exceeded for {escape(action)}</Message></Error>"
            f"<RequestId>{_request_id()}</RequestId></ErrorResponse>"
        )
        return Answer("400 Bad Request", [("Content-Type", "text/xml")], text.encode())
    body = json.dumps({"__type": "ThrottlingException", "message": "Rate exceeded"}).encode()
    return Answer("400 Bad Request", [("Content-Type", "application/x-amz-json-1.1")], body)


def terminating(body: bytes) -> Answer:
    """What TerminateInstances answers when all goes well, whether or not anything was done."""
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
        '<?xml version="1.0" encoding="UTF-8"?><TerminateInstancesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">'
        f"<requestId>{_request_id()}</requestId><instancesSet>{items}</instancesSet></TerminateInstancesResponse>"
    )
    return Answer("200 OK", [("Content-Type", "text/xml;charset=UTF-8")], text.encode())


def _ec2(status: str, code: str, message: str) -> Answer:
    text = (
        '<?xml version="1.0" encoding="UTF-8"?>'
        f"<Response><Errors><Error><Code>{code}</Code><Message>{escape(message)}</Message></Error></Errors>"
        f"<RequestID>{_request_id()}</RequestID></Response>"
    )
    return Answer(status, [("Content-Type", "text/xml;charset=UTF-8")], text.encode())


def as_json(document: bytes, status: str = "200 OK") -> Answer:
    return Answer(status, [("Content-Type", "application/json")], document)


def _request_id() -> str:
    return secrets.token_hex(16)
