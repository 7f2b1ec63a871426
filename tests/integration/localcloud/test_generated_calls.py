"""Generated calls of every service, from botocore's models with odd values: never a 5xx answer."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import botocore.session
import pytest
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mesaform.common.json_types import as_object
from mesaform.localcloud import daemon
from mesaform.localcloud.layout import Layout
from mesaform.localcloud.operator_credentials import read_credentials
from tests.integration.localcloud.conftest import REGION, Cloud, start_cloud, stop_cloud

pytestmark = pytest.mark.slow
FORM = "application/x-www-form-urlencoded"
JSON = "application/x-amz-json-1.1"
QUERY_SERVICES = ("ec2", "iam", "sts")
JSON_TARGETS = {
    "ssm": "AmazonSSM",
    "sqs": "AmazonSQS",
    "events": "AWSEvents",
    "logs": "Logs_20140328",
}
ENDS_EVERYTHING = frozenset({"DeleteQueue"})


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    cloud = start_cloud(tmp_path_factory.mktemp("generated"))
    yield cloud
    stop_cloud(cloud)


generated = settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

odd_numbers = st.sampled_from(["-1", "0", "1", "1e400", "NaN", "9" * 400, "1.5", "2147483648", ""])
odd_texts = st.one_of(
    st.sampled_from(
        [
            *(
                "",
                " ",
                "null",
                "true",
                "[]",
                "{}",
                "{",
                "a" * 300,
                "../../etc/passwd",
                "%00",
                "\x00",
            ),
            *("vpc-1", "i-0123456789abcdef0", "arn:aws:iam::123456789012:role/x", "10.0.0.0/99"),
            *(
                "127.61.0.0/16",
                "us-east-1a",
                "m5.large",
                "2026-11-26T00:00:00Z",
                "ami-1",
                "*",
                "Ünï",
            ),
        ]
    ),
    st.text(max_size=12),
)
odd_values = st.one_of(odd_numbers, odd_texts)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), odd_values, st.integers(2**63, 2**200)
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(odd_texts, inner, max_size=3)
    ),
    max_leaves=6,
)


@cache
def operations(service: str) -> Mapping[str, tuple[str, ...]]:
    """Each operation of a service with the names of its members."""
    model = botocore.session.get_session().get_service_model(service)
    return {
        name: tuple(shape.members) if (shape := model.operation_model(name).input_shape) else ()
        for name in model.operation_names
        if name not in ENDS_EVERYTHING
    }


def send(cloud: Cloud, service: str, request: AWSRequest) -> tuple[int, bytes]:
    """Sign and send; status and body."""
    credentials = read_credentials(Layout(cloud.root))
    key = Credentials(credentials.access_key_id, credentials.secret_access_key)
    (S3SigV4Auth if service == "s3" else SigV4Auth)(key, service, REGION).add_auth(request)
    parts = urlsplit(cloud.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    try:
        target = request.url.removeprefix(cloud.url)
        connection.request(request.method, target, request.data, dict(request.headers.items()))
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def require_no_defect(cloud: Cloud, status: int, body: bytes) -> None:
    assert status < 500, (status, body[:500])
    health = daemon.ask(cloud.root, "health") or {}
    assert as_object(health["unhandled_errors"])["local"] == 0
    assert health["ok"]


@st.composite
def query_calls(draw: st.DrawFn) -> tuple[str, bytes]:
    service = draw(st.sampled_from(QUERY_SERVICES))
    names = operations(service)
    action = draw(st.sampled_from(sorted(names)))
    fields: dict[str, str] = {"Action": action, "Version": "2016-11-15"}
    for member in draw(st.lists(st.sampled_from(names[action] or ("X",)), max_size=5)):
        for end in draw(
            st.sampled_from([("",), (".1",), (".1.Name", ".1.Value.1"), (".member.1",)])
        ):
            fields[member + end] = draw(odd_values)
    return service, urlencode(fields, errors="replace").encode()


@given(call=query_calls())
@generated
def test_no_form_of_a_query_call_is_a_defect(cloud: Cloud, call: tuple[str, bytes]) -> None:
    service, body = call
    request = AWSRequest("POST", f"{cloud.url}/", data=body, headers={"Content-Type": FORM})
    require_no_defect(cloud, *send(cloud, service, request))


@st.composite
def json_calls(draw: st.DrawFn) -> tuple[str, str, bytes]:
    service = draw(st.sampled_from(sorted(JSON_TARGETS)))
    names = operations(service)
    action = draw(st.sampled_from(sorted(names)))
    members = draw(st.lists(st.sampled_from(names[action] or ("X",)), max_size=5))
    document = {member: draw(json_values) for member in members}
    return service, f"{JSON_TARGETS[service]}.{action}", json.dumps(document).encode()


@given(call=json_calls())
@generated
def test_no_document_of_a_json_call_is_a_defect(cloud: Cloud, call: tuple[str, str, bytes]) -> None:
    service, target, body = call
    headers = {"Content-Type": JSON, "X-Amz-Target": target}
    request = AWSRequest("POST", f"{cloud.url}/", data=body, headers=headers)
    require_no_defect(cloud, *send(cloud, service, request))


@given(
    method=st.sampled_from(["GET", "PUT", "POST", "DELETE", "HEAD", "OPTIONS", "PATCH"]),
    path=st.lists(odd_texts, max_size=3),
    query=st.dictionaries(
        st.sampled_from(
            [
                *("uploads", "uploadId", "partNumber", "versionId", "acl", "tagging", "delete"),
                *("list-type", "max-keys", "versioning", "lifecycle", "encryption", "policy"),
            ]
        ),
        odd_values,
        max_size=2,
    ),
    headers=st.dictionaries(
        st.sampled_from(
            ["Range", "x-amz-copy-source", "Content-MD5", "x-amz-meta-a", "If-Modified-Since"]
        ),
        st.text("abc019=-/, %", max_size=12),
        max_size=2,
    ),
    body=st.one_of(st.binary(max_size=30), st.sampled_from([b"<a>", b"<Delete/>", b"<Tagging/>"])),
)
@generated
def test_no_request_to_s3_is_a_defect(
    cloud: Cloud,
    method: str,
    path: list[str],
    query: dict[str, str],
    headers: dict[str, str],
    body: bytes,
) -> None:
    place = "/".join(quote(part, safe="", errors="replace") for part in path)
    text = urlencode(query, errors="replace")
    url = f"{cloud.url}/{place}" + (f"?{text}" if text else "")
    request = AWSRequest(method, url, data=body, headers=headers)
    require_no_defect(cloud, *send(cloud, "s3", request))
