"""Signatures of version 4: those that botocore makes are accepted, and nothing else."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from mesaform.localcloud.aws_request import AwsRequest
from mesaform.localcloud.signatures import is_valid, parse_signature

KEY = Credentials("AKID", "secret", None)
SESSION = Credentials("ASIA", "secret", "token/+=")
HOST = "127.0.0.1:5566"

paths = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="/?#\\", exclude_categories=["C"])),
    max_size=3,
).map(lambda parts: "/" + "/".join(part for part in parts if part not in {".", ".."}))
"""Keys of S3; botocore normalises dots and repeated slashes for other services only."""


def as_sent(request: AWSRequest) -> AwsRequest:
    """The request as it arrives at a server."""
    prepared = request.prepare()
    parts = urlsplit(prepared.url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    headers = [
        (name, value if isinstance(value, str) else value.decode())
        for name, value in prepared.headers.items()
    ]
    body = prepared.body if isinstance(prepared.body, bytes) else (prepared.body or "").encode()
    return AwsRequest(prepared.method, target, (("Host", HOST), *headers), body)


def signed(service: str, method: str, path: str, body: bytes, key: Credentials) -> AwsRequest:
    from urllib.parse import quote

    request = AWSRequest(method, f"http://{HOST}{quote(path, safe='/~')}", data=body)
    request.context["payload_signing_enabled"] = True
    signer = S3SigV4Auth if service == "s3" else SigV4Auth
    signer(key, service, "us-east-1").add_auth(request)
    return as_sent(request)


def accepted(request: AwsRequest, secret: str = "secret") -> bool:
    signature = parse_signature(request)
    return signature is not None and is_valid(request, signature, secret)


@given(paths, st.binary(max_size=20), st.sampled_from(["GET", "PUT", "POST"]))
def test_a_request_signed_by_botocore_is_accepted_for_s3(path: str, body: bytes, method: str):
    request = signed("s3", method, path, body, SESSION)
    assert accepted(request)
    assert not accepted(request, "another secret")


@given(st.binary(max_size=20), st.sampled_from(["ec2", "iam", "ssm", "sqs"]))
def test_a_request_signed_by_botocore_is_accepted_for_other_services(body: bytes, service: str):
    request = signed(service, "POST", "/", body, KEY)
    assert accepted(request)
    assert not accepted(AwsRequest("POST", "/", request.headers, body + b"x"))
    assert not accepted(AwsRequest("GET", "/", request.headers, body))
    assert not accepted(AwsRequest("POST", "/?Action=Other", request.headers, body))


@given(paths)
def test_a_presigned_url_of_botocore_is_accepted_until_it_ends(path: str):
    from urllib.parse import quote

    request = AWSRequest("PUT", f"http://{HOST}{quote(path, safe='/~')}?partNumber=1")
    S3SigV4QueryAuth(SESSION, "s3", "us-east-1", expires=60).add_auth(request)
    sent = as_sent(request)
    signature = parse_signature(sent)
    assert signature is not None
    assert is_valid(sent, signature, "secret")
    assert signature.token == SESSION.token
    assert not signature.has_expired(signature.valid_from + 59)
    assert signature.has_expired(signature.valid_from + 61)


@given(st.text(max_size=200))
def test_any_text_as_an_authorization_is_no_error(text: str):
    parse_signature(AwsRequest("GET", "/", (("Authorization", text),)))


@pytest.mark.parametrize(
    "query",
    [
        "X-Amz-Expires=1e400",
        "X-Amz-Expires=-1",
        "X-Amz-Expires=",
        "X-Amz-Date=20261399T999999Z",
        "X-Amz-Credential=a/b",
    ],
)
def test_a_presigned_url_with_an_odd_parameter_is_not_signed(query: str):
    parameters = {
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": "k/20261121/us-east-1/s3/aws4_request",
        "X-Amz-Date": "20261121T000000Z",
        "X-Amz-Expires": "60",
        "X-Amz-SignedHeaders": "host",
        "X-Amz-Signature": "0" * 64,
    }
    name, _, value = query.partition("=")
    text = "&".join(f"{key}={item}" for key, item in {**parameters, name: value}.items())
    assert parse_signature(AwsRequest("GET", f"/?{text}")) is None
