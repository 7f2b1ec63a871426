"""Signs fuzzed calls as the local cloud's operator, so that they pass its first check."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from mesaform.localcloud.aws_request import AwsRequest
from mesaform.localcloud.layout import Layout
from mesaform.localcloud.operator_credentials import read_credentials
from mesaform.localcloud.signatures import Signature, signature_value
from tests.fuzz.exchange import Request

DATE, TIMESTAMP = "20260101", "20260101T000000Z"
_SERVICE = re.compile(rb"/([a-z0-9-]+)/aws4_request")


def signed(request: Request, host: str, root: Path) -> Request:
    """The request with a valid signature in place of the one that it has; without one, as it is."""
    stated = next((value for name, value in request.headers if name == "Authorization"), b"")
    if (match := _SERVICE.search(stated)) is None:
        return request
    service, credentials = match[1].decode(), read_credentials(Layout(root))
    signature = Signature(
        key_id=credentials.access_key_id,
        value="",
        token="",
        date=DATE,
        region="us-east-1",
        service=service,
        timestamp=TIMESTAMP,
        signed_headers=("host",),
    )
    received = AwsRequest(
        request.method, request.path.decode("latin-1"), (("Host", host),), request.body
    )
    value = signature_value(received, signature, credentials.secret_access_key)
    scope = f"{credentials.access_key_id}/{DATE}/us-east-1/{service}/aws4_request"
    text = f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature={value}"
    others = [item for item in request.headers if item[0] != "Authorization"]
    headers = (*others, ("Authorization", text.encode()), ("X-Amz-Date", TIMESTAMP.encode()))
    return replace(request, headers=headers)


def with_token(request: Request, root: Path) -> Request:
    """The request with the token of the local cloud's own routes."""
    token = read_credentials(Layout(root)).control_token
    return replace(
        request, headers=(*request.headers, ("Authorization", f"Bearer {token}".encode()))
    )
