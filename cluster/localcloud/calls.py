"""What kind of call an HTTP request is: service, action, and whether it changes the account. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

_SCOPE = re.compile(r"Credential=[^/,]+/\d{8}/([^/]+)/([^/]+)/aws4_request")
_READS = re.compile(
    r"^(Describe|Get|List|Head|Search|Lookup|Filter|Query|Scan|BatchGet|Decode|Simulate|Validate)"
)


@dataclass(frozen=True, slots=True)
class Call:
    """One request. `action` is S3's method and path where there is no name for it."""

    service: str
    action: str
    region: str
    mutating: bool


def classify(environ: Mapping[str, Any], body: bytes) -> Call:
    """Read a WSGI request, signed in its headers, presigned in its query, or not at all (then it is S3's)."""
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


def _named_action(environ: Mapping[str, Any], query: Mapping[str, list[str]], body: bytes) -> str:
    if target := str(environ.get("HTTP_X_AMZ_TARGET", "")):
        return target.rsplit(".", 1)[-1]
    if str(environ.get("CONTENT_TYPE", "")).startswith("application/x-www-form-urlencoded"):
        found = re.search(rb"(?:^|&)Action=([A-Za-z0-9]+)", body)
        if found:
            return found.group(1).decode()
    return query["Action"][0] if "Action" in query else ""


def without_wait(body: bytes) -> tuple[float, bytes]:
    """A ReceiveMessage request with its `WaitTimeSeconds` taken out, and that wait."""
    try:
        request = json.loads(body)
        wait_s = float(request.get("WaitTimeSeconds", 0))
    except (ValueError, TypeError, AttributeError):
        return 0.0, body
    return min(20.0, max(0.0, wait_s)), json.dumps({**request, "WaitTimeSeconds": 0}).encode()
