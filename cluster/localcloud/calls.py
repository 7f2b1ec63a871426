"""What AWS call an HTTP request is: service, action, and whether it changes the account. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs

from mesaform.common.json_types import as_object

_SCOPE = re.compile(r"Credential=[^/,]+/\d{8}/([^/]+)/([^/]+)/aws4_request")
_READS = re.compile(
    r"^(Describe|Get|List|Head|Search|Lookup|Filter|Query|Scan|BatchGet|Decode|Simulate|Validate)"
)
MAX_RECEIVE_WAIT_S = 20.0
"""SQS's longest long poll."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request. `action` is the method and path for S3, whose calls name no action."""

    service: str
    action: str
    region: str
    mutating: bool


def classify(environ: Mapping[str, object], body: bytes) -> Call:
    """The call of a WSGI request, signed in its headers or its query; one not signed is S3's."""
    method = str(environ.get("REQUEST_METHOD", "GET"))
    query = parse_qs(str(environ.get("QUERY_STRING", "")))
    presigned = "Credential=" + query["X-Amz-Credential"][0] if "X-Amz-Credential" in query else ""
    scope = _SCOPE.search(str(environ.get("HTTP_AUTHORIZATION", "")) or presigned)
    region, service = (scope.group(1), scope.group(2)) if scope else ("", "s3")
    action = _named_action(environ, query, body)
    if not action:
        return Call(
            service,
            f"{method} {environ.get('PATH_INFO', '')}",
            region,
            mutating=method in {"PUT", "POST", "DELETE", "PATCH"},
        )
    return Call(service, action, region, mutating=not _READS.match(action))


def _named_action(
    environ: Mapping[str, object], query: Mapping[str, list[str]], body: bytes
) -> str:
    if target := str(environ.get("HTTP_X_AMZ_TARGET", "")):
        return target.rsplit(".", 1)[-1]
    if str(environ.get("CONTENT_TYPE", "")).startswith("application/x-www-form-urlencoded"):
        action = re.search(rb"(?:^|&)Action=([A-Za-z0-9]+)", body)
        if action:
            return action.group(1).decode()
    return query["Action"][0] if "Action" in query else ""


def without_wait(body: bytes) -> tuple[float, bytes]:
    """The wait of a ReceiveMessage request in seconds, and the request with no wait."""
    try:
        request = as_object(json.loads(body))
        wait_s = float(str(request.get("WaitTimeSeconds", 0)))
    except ValueError:
        return 0.0, body
    return min(MAX_RECEIVE_WAIT_S, max(0.0, wait_s)), json.dumps(
        {**request, "WaitTimeSeconds": 0}
    ).encode()
