"""The endpoint's port: who may use it, malformed requests, and requests that used to do harm."""

from __future__ import annotations

import asyncio
import json
import socket
import stat
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import psutil
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from mesaform.common.errors import MesaformError
from mesaform.common.json_types import as_object
from mesaform.localcloud import daemon
from mesaform.localcloud.layout import METADATA_PORT, Layout
from mesaform.localcloud.operator_credentials import read_credentials
from tests.integration.localcloud.conftest import (
    REGION,
    Cloud,
    eventually,
    start_cloud,
    stop_cloud,
)
from tests.support import raw_http
from tests.support.port_attacks import Port, attack_connection, attack_slowly

pytestmark = pytest.mark.slow
MIB = 1024 * 1024
FORM = "application/x-www-form-urlencoded"
Answer = tuple[int, dict[str, str], bytes]


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """Without files of machines, which have the modes that their programs give them."""
    cloud = start_cloud(tmp_path_factory.mktemp("boundary"))
    yield cloud
    stop_cloud(cloud)


def send(
    cloud: Cloud, path: str, *, method: str = "GET", body: bytes | None = None, **headers: Any
) -> Answer:
    """One request without a signature."""
    named = {name.replace("_", "-"): str(value) for name, value in headers.items()}
    request = urllib.request.Request(cloud.url + path, data=body, method=method, headers=named)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read()


def call(cloud: Cloud, service: str, body: bytes, *, path: str = "/", **headers: Any) -> Answer:
    """A POST that the operator signed."""
    credentials = read_credentials(Layout(cloud.root))
    key = Credentials(credentials.access_key_id, credentials.secret_access_key)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = AWSRequest("POST", cloud.url + path, data=body, headers=named)
    SigV4Auth(key, service, REGION).add_auth(request)
    return send(cloud, path, method="POST", body=body, **dict(request.headers.items()))


def raw(cloud: Cloud, data: bytes, *, closes: bool = True) -> bytes:
    """What comes back for these bytes; without `closes` only its first part."""
    parts = urlsplit(cloud.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=60) as connection:
        connection.sendall(data)
        if not closes:
            return connection.recv(65536)
        connection.shutdown(socket.SHUT_WR)
        chunks = []
        while chunk := connection.recv(65536):
            chunks.append(chunk)
    return b"".join(chunks)


def unhandled_errors(cloud: Cloud) -> object:
    health = daemon.ask(cloud.root, "health") or {}
    return as_object(health["unhandled_errors"])["local"]


def test_a_chunked_body_that_ends_early_costs_no_memory(cloud: Cloud) -> None:
    endpoint = psutil.Process(cloud.child("endpoint"))
    cloud.ec2.describe_vpcs()  # loads what the first call needs
    before = endpoint.memory_info().rss
    body = (
        b"POST / HTTP/1.1\r\nHost: ab\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFFFFF\r\n"
    )
    assert len(body) == 79
    for host in (b"ab", b"127.0.0.1"):
        raw(cloud, body.replace(b"Host: ab", b"Host: " + host))
    assert cloud.ec2.describe_vpcs()
    assert endpoint.memory_info().rss - before < 20 * MIB
    assert endpoint.is_running()


def test_moto_itself_cannot_be_reached(cloud: Cloud) -> None:
    vpc = cloud.network()[0]
    for path in ("/moto-api/reset", "/moto-api/data.json", "/moto-api/seed", "/moto-api"):
        for method in ("GET", "POST"):
            assert send(cloud, path, method=method, body=b"")[0] == 403
            status, _, _ = call(cloud, "moto_api", b"", path=path)
            assert status == 400
    assert cloud.ec2.describe_vpcs(VpcIds=[vpc])["Vpcs"]


@pytest.mark.parametrize("route", ["health", "faults", "machines"])
def test_the_own_routes_need_the_token_of_the_owner(cloud: Cloud, route: str) -> None:
    wrong: dict[str, Any] = {"Authorization": "Bearer " + "x" * 40}
    assert send(cloud, f"/_mesaform/{route}")[0] == 403
    assert send(cloud, f"/_mesaform/{route}", **wrong)[0] == 403
    assert daemon.ask(cloud.root, route) is not None
    fault = b'{"kind":"zone_outage","zone":"us-east-1a"}'
    assert send(cloud, "/_mesaform/faults", method="POST", body=fault)[0] == 403
    assert (daemon.ask(cloud.root, "faults") or {})["faults"] == []


def test_a_page_of_another_origin_or_host_is_refused_even_with_the_token(cloud: Cloud) -> None:
    token = read_credentials(Layout(cloud.root)).control_token
    known: dict[str, Any] = {"Authorization": f"Bearer {token}"}
    fault = b'{"kind":"lag","seconds":1}'
    path = "/_mesaform/faults"
    origin = {"Origin": "http://evil.example"}
    assert send(cloud, path, method="POST", body=fault, **known, **origin)[0] == 403
    assert send(cloud, path, method="POST", body=fault, **known, Host="evil.example")[0] == 421
    assert (daemon.ask(cloud.root, "faults") or {})["faults"] == []


def test_secrets_and_logs_are_closed_to_other_users(cloud: Cloud) -> None:
    cloud.network()
    modes = {
        path.relative_to(cloud.root).as_posix(): stat.S_IMODE(path.stat().st_mode)
        for path in cloud.root.rglob("*")
        if path.is_file()
    }
    assert modes["credentials.json"] == modes["account/account.json"] == 0o600
    open_to_all = {name for name, mode in modes.items() if mode & 0o007}
    assert open_to_all <= {"identity/certificate.pem"}
    assert stat.S_IMODE((cloud.root / "account").stat().st_mode) == 0o700


def test_a_request_that_is_not_signed_by_a_known_key_is_refused(cloud: Cloud) -> None:
    def code(key_id: str, secret: str, token: str | None = None) -> str:
        sts = boto3.client(
            "sts",
            endpoint_url=cloud.url,
            region_name=REGION,
            aws_access_key_id=key_id,
            aws_secret_access_key=secret,
            aws_session_token=token,
        )
        with pytest.raises(ClientError) as caught:
            sts.get_caller_identity()
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
        return caught.value.response["Error"]["Code"]

    assert code("local", "local") == "SignatureDoesNotMatch"
    assert code("AKIAIOSFODNN7EXAMPLE", "x") == "InvalidClientTokenId"
    assert code("local", "local", "a token") == "InvalidClientTokenId"
    assert send(cloud, "/a-bucket")[0] == 403
    assert send(cloud, "/", method="POST", body=b"Action=DescribeVpcs")[0] == 403


def test_a_user_of_the_account_may_call(cloud: Cloud) -> None:
    cloud.client("iam").create_user(UserName="caller")
    key = cloud.client("iam").create_access_key(UserName="caller")["AccessKey"]
    sts = boto3.client(
        "sts",
        endpoint_url=cloud.url,
        region_name=REGION,
        aws_access_key_id=key["AccessKeyId"],
        aws_secret_access_key=key["SecretAccessKey"],
    )
    assert sts.get_caller_identity()["Arn"].endswith("user/caller")


def test_a_presigned_url_needs_no_other_credentials_until_it_ends(cloud: Cloud) -> None:
    s3 = cloud.client("s3")
    s3.create_bucket(Bucket="mesaform-presigned")
    where = {"Bucket": "mesaform-presigned", "Key": "a key/ü"}
    from botocore.config import Config

    signer = boto3.client(
        "s3",
        endpoint_url=cloud.url,
        region_name=REGION,
        aws_access_key_id=read_credentials(Layout(cloud.root)).access_key_id,
        aws_secret_access_key=read_credentials(Layout(cloud.root)).secret_access_key,
        config=Config(signature_version="s3v4"),
    )
    url = signer.generate_presigned_url("put_object", Params=where, ExpiresIn=60)
    path = url.removeprefix(cloud.url)
    assert send(cloud, path, method="PUT", body=b"content")[0] == 200
    assert s3.get_object(**where)["Body"].read() == b"content"
    assert send(cloud, path + "x", method="PUT", body=b"other")[0] == 403
    ended = signer.generate_presigned_url("get_object", Params=where, ExpiresIn=1)
    eventually(lambda: send(cloud, ended.removeprefix(cloud.url))[0] == 403, "the URL has ended")


@pytest.mark.parametrize("wait", ["1e400", "-1", "21", '"soon"', "null", "true", "1.5", "[]"])
def test_a_receive_with_an_odd_wait_is_refused_at_once(cloud: Cloud, wait: str) -> None:
    url = cloud.client("sqs").create_queue(QueueName="odd-waits")["QueueUrl"]
    body = f'{{"QueueUrl":"{url}","WaitTimeSeconds":{wait}}}'.encode()
    headers = {
        "X-Amz-Target": "AmazonSQS.ReceiveMessage",
        "Content-Type": "application/x-amz-json-1.0",
    }
    status, _, text = call(cloud, "sqs", body, **headers)
    assert (status, json.loads(text)["__type"]) == (400, "InvalidParameterValue")


MALFORMED: dict[str, tuple[str, bytes, dict[str, str]]] = {
    "no such action": ("ec2", b"Action=Nonsense&Version=2016-11-15", {}),
    "no action": ("ec2", b"Version=2016-11-15", {}),
    "not a number": ("ec2", b"Action=RunInstances&MinCount=a&MaxCount=b", {}),
    "400 digits": ("ec2", b"Action=RunInstances&MinCount=1&MaxCount=" + b"9" * 400, {}),
    "not UTF-8": ("ec2", b"Action=DescribeVpcs&VpcId.1=%ff%fe", {}),
    "raw bytes": ("ec2", b"Action=DescribeVpcs&VpcId.1=\xff\xfe", {}),
    "a bad network": ("ec2", b"Action=CreateVpc&CidrBlock=nonsense", {}),
    "no network": ("ec2", b"Action=CreateVpc", {}),
    "a bad subnet": ("ec2", b"Action=CreateSubnet&VpcId=vpc-1&CidrBlock=300.0.0.0/99", {}),
    "a bad fleet": (
        "ec2",
        b"Action=CreateFleet&TargetCapacitySpecification.TotalTargetCapacity=x",
        {},
    ),
    "a bad time": ("ec2", b"Action=DescribeSpotPriceHistory&StartTime=yesterday", {}),
    "a bad template": ("ec2", b"Action=CreateLaunchTemplate&LaunchTemplateName=x", {}),
    "bad tags": ("ec2", b"Action=CreateTags&ResourceId.1=x&Tag.1.Value=y", {}),
    "a bad index": ("ec2", b"Action=CreateTags&ResourceId.x=y&Tag.a.Key=b", {}),
    "no role": ("iam", b"Action=CreateRole", {}),
    "a bad duration": ("sts", b"Action=AssumeRole&RoleArn=x&DurationSeconds=y", {}),
    "compressed": ("ec2", b"\x1f\x8b nonsense", {"Content-Encoding": "gzip"}),
    "broken JSON": ("ssm", b'{"Name":', {"X-Amz-Target": "AmazonSSM.GetParameter"}),
    "nested JSON": ("ssm", b"[" * 5000, {"X-Amz-Target": "AmazonSSM.GetParameter"}),
    "a JSON list": ("ssm", b"[1]", {"X-Amz-Target": "AmazonSSM.PutParameter"}),
    "wrong types": (
        "ssm",
        b'{"Name":{"a":1},"Value":[]}',
        {"X-Amz-Target": "AmazonSSM.PutParameter"},
    ),
    "no fields": ("sqs", b"{}", {"X-Amz-Target": "AmazonSQS.SendMessage"}),
    "a bad queue": ("sqs", b'{"QueueUrl":7}', {"X-Amz-Target": "AmazonSQS.ReceiveMessage"}),
    "a queue without a name": (
        "sqs",
        b'{"QueueName":null}',
        {"X-Amz-Target": "AmazonSQS.CreateQueue"},
    ),
    "a bad pattern": (
        "events",
        b'{"Name":"r","EventPattern":"{"}',
        {"X-Amz-Target": "AWSEvents.PutRule"},
    ),
    "bad filters": (
        "pricing",
        b'{"Filters":[7]}',
        {"X-Amz-Target": "AWSPriceListService.GetProducts"},
    ),
    "no such service": ("dynamodb", b"{}", {"X-Amz-Target": "DynamoDB_20120810.ListTables"}),
    "no bucket": ("s3", b"x", {}),
    "S3 XML": ("s3", b"<Delete><Object>", {}),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_call_is_answered_as_the_callers_error_in_the_form_of_aws(
    cloud: Cloud, name: str
) -> None:
    service, body, headers = MALFORMED[name]
    if service != "s3":
        is_json = "X-Amz-Target" in headers
        headers = {"Content-Type": "application/x-amz-json-1.1" if is_json else FORM, **headers}
    status, _, text = call(
        cloud, service, body, path="/a-bucket?delete" if service == "s3" else "/", **headers
    )
    assert 400 <= status < 500, (status, text[:300])
    if "X-Amz-Target" in headers:
        assert json.loads(text)["__type"]
    else:
        assert b"<Code>" in text, text[:300]
    assert "Traceback" not in (cloud.root / "log" / "endpoint.log").read_text()
    assert unhandled_errors(cloud) == 0


def test_a_call_that_fails_halfway_changes_nothing(cloud: Cloud) -> None:
    before = cloud.ec2.describe_vpcs()["Vpcs"]
    status, _, _ = call(
        cloud,
        "ec2",
        b"Action=CreateVpc&CidrBlock=127.62.0.0/16&TagSpecification.1.ResourceType=vpc"
        b"&TagSpecification.1.Tag.1.Value=x",
        Content_Type=FORM,
    )
    after = cloud.ec2.describe_vpcs()["Vpcs"]
    assert after == before if status >= 400 else len(after) == len(before) + 1


def test_a_body_above_the_limit_is_refused_before_it_is_read(cloud: Cloud) -> None:
    credentials = read_credentials(Layout(cloud.root))
    key = Credentials(credentials.access_key_id, credentials.secret_access_key)
    request = AWSRequest("PUT", cloud.url + "/b/k", data=b"")
    SigV4Auth(key, "s3", REGION).add_auth(request)
    lines = [f"{name}: {value}" for name, value in request.headers.items()]
    host = urlsplit(cloud.url).netloc
    head = "\r\n".join(
        ["PUT /b/k HTTP/1.1", f"Host: {host}", *lines, "Content-Length: 99999999999"]
    )
    answer = raw(cloud, head.encode() + b"\r\n\r\n", closes=False)
    assert answer.startswith(b"HTTP/1.1 413")


async def test_the_endpoint_and_the_metadata_service_withstand_odd_connections(
    cloud: Cloud,
) -> None:
    instance = cloud.launch(MetadataOptions={"HttpTokens": "required"})
    address = cloud.wait_state(instance, "running")["PrivateIpAddress"]
    endpoint = urlsplit(cloud.url)
    unsigned, unproven = frozenset({403}), frozenset({401})
    ports = [
        Port(endpoint.hostname or "", endpoint.port or 0, "/b/k", "/b/k", "PUT", unsigned),
        Port(
            address,
            METADATA_PORT,
            "/latest/meta-data/instance-id",
            "/latest/api/token",
            "PUT",
            unproven,
        ),
    ]
    assert [fault for port in ports for fault in await attack_connection(port)] == []
    async with asyncio.TaskGroup() as group:
        slow = [group.create_task(attack_slowly(port)) for port in ports]
    assert [fault for task in slow for fault in task.result()] == []
    health = daemon.ask(cloud.root, "health") or {}
    assert health["unhandled_errors"] == {"local": 0, "imds": 0}


def test_a_daemon_that_is_asked_with_a_lost_token_says_so(tmp_path: Path) -> None:
    running = daemon.start(tmp_path, port=0)
    try:
        path = Layout(tmp_path).credentials
        Path(path).rename(path.with_suffix(".away"))
        with pytest.raises(MesaformError, match="credentials of the local cloud cannot be read"):
            daemon.ask(tmp_path, "health")
        Path(path.with_suffix(".away")).rename(path)
        assert (daemon.ask(tmp_path, "health") or {})["ok"] is True
    finally:
        daemon.stop(tmp_path)
    assert running.url


def test_the_account_is_readable_by_its_owner_alone(cloud: Cloud) -> None:
    s3 = cloud.client("s3")
    s3.create_bucket(Bucket="mesaform-mode")
    s3.put_object(Bucket="mesaform-mode", Key="large", Body=b"x" * 10_000)
    account = cloud.root / "account"
    objects = list((account / "objects").iterdir())
    assert objects
    files = [account / "account.json", *objects]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


@pytest.mark.parametrize(
    "credential",
    [
        b"Bearer \xff",
        b"AWS4-HMAC-SHA256 Credential=\xff/1/r/s/aws4_request, SignedHeaders=host, Signature=\xff",
    ],
)
@pytest.mark.parametrize("path", ["/_mesaform/faults", "/"])
def test_a_credential_that_is_no_text_is_refused(
    cloud: Cloud, path: str, credential: bytes
) -> None:
    host, _, port = cloud.url.removeprefix("http://").partition(":")
    data = raw_http.request("POST", path, b"{}", host=host)
    data = data.replace(b"Connection: close", b"Connection: close\r\nAuthorization: " + credential)
    assert 400 <= asyncio.run(raw_http.send(host, int(port), data)).status < 500
