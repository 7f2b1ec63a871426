"""Signatures of AWS calls, version 4, in the headers or in the query of a presigned URL. Pure.

Forms: "AWS Signature Version 4 for API requests" (IAM user guide), "Authenticating requests: using
query parameters" (Amazon S3 API reference). S3 does not accept version 2 for buckets that were made
after June 2020, and neither does this module.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote, unquote_to_bytes

from mesaform.localcloud.aws_request import AwsRequest

ALGORITHM = "AWS4-HMAC-SHA256"
MAX_PRESIGNED_S = 7 * 86400
"""The longest validity of a presigned URL of version 4."""
UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"
_UNRESERVED = "-_.~"
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 +Credential=(?P<credential>[^,\s]+), *"
    r"SignedHeaders=(?P<headers>[^,\s]+), *Signature=(?P<signature>[0-9a-f]{64})"
)
_CREDENTIAL = re.compile(
    r"(?P<key>[^/]+)/(?P<date>\d{8})/(?P<region>[^/]+)/(?P<service>[^/]+)/aws4_request"
)
_PAYLOAD_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Signature:
    """A request's claim of who sent it.

    Attributes:
        signed_headers: their names in lower case.
        valid_from, valid_s: of a presigned URL, in seconds since the epoch and seconds; 0 if the
            signature is in a header.

    """

    key_id: str
    value: str
    token: str
    date: str
    region: str
    service: str
    timestamp: str
    signed_headers: tuple[str, ...]
    is_presigned: bool = False
    valid_from: float = 0.0
    valid_s: float = 0.0

    def has_expired(self, now: float) -> bool:
        """Whether a presigned URL is no longer valid."""
        return self.is_presigned and now > self.valid_from + self.valid_s


def parse_signature(request: AwsRequest) -> Signature | None:
    """The signature of a request; None if it has none that can be read."""
    authorization = request.header("Authorization")
    if authorization:
        return _from_header(request, authorization)
    if request.query_value("X-Amz-Algorithm") == ALGORITHM:
        return _from_query(request)
    return None


def _from_header(request: AwsRequest, authorization: str) -> Signature | None:
    match = _AUTHORIZATION.fullmatch(authorization.strip())
    scope = _CREDENTIAL.fullmatch(match["credential"]) if match else None
    timestamp = request.header("X-Amz-Date")
    if match is None or scope is None or _seconds(timestamp) is None:
        return None
    return Signature(
        key_id=scope["key"],
        value=match["signature"],
        token=request.header("X-Amz-Security-Token"),
        date=scope["date"],
        region=scope["region"],
        service=scope["service"],
        timestamp=timestamp,
        signed_headers=tuple(match["headers"].split(";")),
    )


def _from_query(request: AwsRequest) -> Signature | None:
    scope = _CREDENTIAL.fullmatch(request.query_value("X-Amz-Credential"))
    timestamp = request.query_value("X-Amz-Date")
    began, valid = _seconds(timestamp), request.query_value("X-Amz-Expires")
    if scope is None or began is None or not re.fullmatch(r"\d{1,6}", valid):
        return None
    return Signature(
        key_id=scope["key"],
        value=request.query_value("X-Amz-Signature"),
        token=request.query_value("X-Amz-Security-Token"),
        date=scope["date"],
        region=scope["region"],
        service=scope["service"],
        timestamp=timestamp,
        signed_headers=tuple(request.query_value("X-Amz-SignedHeaders").split(";")),
        is_presigned=True,
        valid_from=began,
        valid_s=min(float(valid), MAX_PRESIGNED_S),
    )


def _seconds(timestamp: str) -> float | None:
    """A time such as `20261126T120000Z` in seconds since the epoch."""
    if not re.fullmatch(r"\d{8}T\d{6}Z", timestamp):
        return None
    try:
        moment = datetime.strptime(timestamp, "%Y%m%dT%H%M%S%z")
    except ValueError:
        return None
    return moment.timestamp()


def is_valid(request: AwsRequest, signature: Signature, secret: str) -> bool:
    """Whether the holder of `secret` signed exactly this request."""
    if not _matches_payload(request, signature):
        return False
    expected = signature_value(request, signature, secret)
    return hmac.compare_digest(
        expected.encode(), signature.value.encode("utf-8", "surrogateescape")
    )


def _matches_payload(request: AwsRequest, signature: Signature) -> bool:
    """Whether the digest that was signed is the body's; streams and unsigned payloads have none."""
    stated = request.header("X-Amz-Content-Sha256")
    if signature.is_presigned or not _PAYLOAD_DIGEST.fullmatch(stated):
        return True
    return stated == hashlib.sha256(request.body).hexdigest()


def signature_value(request: AwsRequest, signature: Signature, secret: str) -> str:
    """The value that the holder of `secret` would have set; the signature's own is not used."""
    scope = f"{signature.date}/{signature.region}/{signature.service}/aws4_request"
    digest = hashlib.sha256(_canonical_request(request, signature).encode()).hexdigest()
    text = f"{ALGORITHM}\n{signature.timestamp}\n{scope}\n{digest}"
    key = f"AWS4{secret}".encode()
    for part in (signature.date, signature.region, signature.service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def _canonical_request(request: AwsRequest, signature: Signature) -> str:
    headers = "".join(
        f"{name}:{' '.join(request.header(name).split())}\n" for name in signature.signed_headers
    )
    return "\n".join(
        (
            request.method,
            _canonical_path(request.raw_path, signature.service),
            _canonical_query(request),
            headers,
            ";".join(signature.signed_headers),
            _payload_digest(request, signature),
        )
    )


def _canonical_path(raw_path: str, service: str) -> str:
    """S3 signs the path as it is sent, encoded once; the other services encode it again."""
    plain = unquote_to_bytes(raw_path)
    encoded = quote(plain, safe="/" + _UNRESERVED)
    if service == "s3":
        return encoded
    return quote(encoded, safe="/" + _UNRESERVED)


def _canonical_query(request: AwsRequest) -> str:
    pairs = sorted(
        (quote(name, safe=_UNRESERVED), quote(value, safe=_UNRESERVED))
        for name, value in request.query
        if name != "X-Amz-Signature"
    )
    return "&".join(f"{name}={value}" for name, value in pairs)


def _payload_digest(request: AwsRequest, signature: Signature) -> str:
    stated = request.header("X-Amz-Content-Sha256")
    if stated:
        return stated
    if signature.is_presigned and signature.service == "s3":
        return UNSIGNED_PAYLOAD
    return hashlib.sha256(request.body).hexdigest()
