"""Guards of the account's bucket: its owner is expected in every call, and TLS is required."""

from __future__ import annotations

import json

import boto3
import pytest
from moto import mock_aws

from mesaform.aws.bucket import TLS_ONLY, require_tls
from mesaform.aws.client import client

BUCKET = "mesaform-123456789012-us-east-1"


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch):
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(key, "test")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        yield client("s3", "us-east-1")


def sent_headers(s3) -> list[dict[str, str]]:
    headers: list[dict[str, str]] = []
    s3.meta.events.register(
        "before-call.s3", lambda params, **_: headers.append(dict(params["headers"]))
    )
    return headers


def test_calls_to_the_bucket_name_the_account_that_must_own_it(s3):
    s3.create_bucket(Bucket=BUCKET)
    headers = sent_headers(s3)
    s3.put_object(Bucket=BUCKET, Key="a", Body=b"")
    s3.head_bucket(Bucket=BUCKET)
    list(s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET))
    assert {sent["x-amz-expected-bucket-owner"] for sent in headers} == {"123456789012"}


def test_a_presigned_url_demands_no_header(s3):
    url = s3.generate_presigned_url("put_object", Params={"Bucket": BUCKET, "Key": "a"})
    assert "expected-bucket-owner" not in url


def test_the_bucket_refuses_requests_without_tls_and_keeps_other_statements(s3):
    boto3.client("s3", region_name="us-east-1").create_bucket(Bucket=BUCKET)
    own = {
        "Sid": "Own",
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:DeleteBucket",
        "Resource": f"arn:aws:s3:::{BUCKET}",
    }
    document = {"Version": "2012-10-17", "Statement": [own]}
    s3.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps(document))
    require_tls(s3, BUCKET, "us-east-1")
    require_tls(s3, BUCKET, "us-east-1")
    statements = json.loads(s3.get_bucket_policy(Bucket=BUCKET)["Policy"])["Statement"]
    assert [statement["Sid"] for statement in statements] == ["Own", TLS_ONLY]
    assert statements[1]["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
