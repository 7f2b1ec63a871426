"""The pure parts: the hypervisor's decisions, the classification of calls, paths of cloud-init."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mesaform.localcloud.aws_request import AwsRequest
from mesaform.localcloud.calls import Call, classify
from mesaform.localcloud.cloudinit import BadUserDataError, content_of, parse, place
from mesaform.localcloud.protocol import Machine, StateReport
from mesaform.localcloud.reconcile import (
    SHUTDOWN,
    Boot,
    Busy,
    Down,
    Failed,
    Forget,
    Kill,
    Observation,
    Report,
    Step,
    Up,
    next_step,
)
from mesaform.localcloud.signatures import parse_signature


def machine(**changes: Any) -> Machine:
    facts: dict[str, Any] = {
        "instance_id": "i-1",
        "image_id": "ami-1",
        "instance_type": "m5.large",
        "account_id": "1",
        "region": "us-east-1",
        "zone": "us-east-1a",
        "address": "127.61.0.1",
        "public_address": "",
        "state": "running",
        "boots": 1,
        "hard": False,
        "launched_at": 100.0,
        "vcpus": 2,
        "mem_mib": 8192,
        "user_data": "",
        "profile_arn": "",
        "profile_id": "",
        "lifecycle": "on-demand",
        "shutdown_behavior": "stop",
        "tokens_required": True,
        "metadata_tags": {},
        "notice": None,
    }
    return Machine(**{**facts, **changes})


TERMINATED = StateReport("terminated", 1, *SHUTDOWN)


@pytest.mark.parametrize(
    ("wanted", "observed", "step"),
    [
        (machine(state="pending"), None, Boot(0.0)),
        (machine(state="running"), None, Boot(0.0)),
        (machine(state="pending"), Up(1), Report(StateReport("running", 1))),
        (machine(state="running"), Up(1), "nothing"),
        (machine(state="running", boots=2), Up(1), Kill()),
        (machine(state="pending", boots=2), Down(1, 0), Forget()),
        (
            machine(state="running"),
            Down(1, 0),
            Report(StateReport("stopped", 1, *SHUTDOWN), forget=True),
        ),
        (
            machine(state="running", shutdown_behavior="terminate"),
            Down(1, 0),
            Report(TERMINATED, forget=True),
        ),
        (machine(state="running"), Down(1, -9), Report(TERMINATED, forget=True)),
        (machine(state="running"), Down(1, None), Report(TERMINATED, forget=True)),
        (machine(state="shutting-down"), Up(1), Kill()),
        (machine(state="shutting-down", hard=True), Up(1), Kill(hard=True)),
        (machine(state="shutting-down"), None, Report(StateReport("terminated", 1), forget=True)),
        (machine(state="stopping"), Down(1, -9), Report(StateReport("stopped", 1), forget=True)),
        (machine(state="stopped"), Up(1), Kill()),
        (machine(state="stopped"), None, "nothing"),
        (machine(state="running"), Busy(), "nothing"),
        (None, Up(1), Kill()),
        (None, Down(1, 0), Forget()),
        (None, None, "nothing"),
    ],
)
def test_the_next_step_makes_the_processes_match_ec2s_state(
    wanted: Machine | None, observed: Observation, step: Step
) -> None:
    assert next_step(wanted, observed, now=200.0) == step


def test_a_boot_waits_for_what_is_left_of_the_delay() -> None:
    assert next_step(machine(state="pending"), None, now=103.0, boot_delay_s=10.0) == Boot(7.0)
    assert next_step(machine(state="running"), None, now=103.0, boot_delay_s=10.0) == Boot(0.0)


def test_a_failed_boot_terminates_the_instance_with_the_reason() -> None:
    step = next_step(machine(state="pending"), Failed(1, "no folder"), now=200.0)
    assert isinstance(step, Report)
    assert (step.report.state, step.report.code) == ("terminated", "Server.InternalError")
    assert step.report.message.endswith("no folder")


SIGNED = (
    "AWS4-HMAC-SHA256 Credential=local/20261121/us-east-1/{}/aws4_request, "
    f"SignedHeaders=host, Signature={'0' * 64}"
)


def signed(service: str, **headers: str) -> AwsRequest:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    sent = {"Authorization": SIGNED.format(service), "X-Amz-Date": "20261121T000000Z", **named}
    return AwsRequest("POST", "/", tuple(sent.items()))


FORM = "application/x-www-form-urlencoded"
PRESIGNED = (
    "/b/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=local%2F20261121%2Feu-west-1%2Fs3"
    "%2Faws4_request&X-Amz-Date=20261121T000000Z&X-Amz-Expires=60&X-Amz-SignedHeaders=host"
    "&X-Amz-Signature=x"
)


@pytest.mark.parametrize(
    ("request_", "body", "call"),
    [
        (
            signed("ec2", Content_Type=FORM),
            b"Action=RunInstances&Version=1",
            Call("ec2", "RunInstances", "us-east-1", mutating=True),
        ),
        (
            signed("ec2", Content_Type=FORM),
            b"Version=1&Action=DescribeInstances",
            Call("ec2", "DescribeInstances", "us-east-1", mutating=False),
        ),
        (
            signed("ssm", X_Amz_Target="AmazonSSM.PutParameter"),
            b"{}",
            Call("ssm", "PutParameter", "us-east-1", mutating=True),
        ),
        (
            AwsRequest("PUT", PRESIGNED),
            b"x",
            Call("s3", "PUT /b/k", "eu-west-1", mutating=True),
        ),
        (AwsRequest("GET", "/b/k"), b"", Call("s3", "GET /b/k", "", mutating=False)),
    ],
)
def test_a_request_is_recognised(request_: AwsRequest, body: bytes, call: Call) -> None:
    assert classify(replace(request_, body=body), parse_signature(request_)) == call


def test_cloud_init_reads_only_its_own_user_data() -> None:
    assert parse('{"version":1}') == {}
    assert parse('#cloud-config\n{"runcmd":[["true"]]}') == {"runcmd": [["true"]]}
    with pytest.raises(BadUserDataError, match="not JSON"):
        parse("#cloud-config\nruncmd: [true]")


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "/opt/mesaform/../../etc/passwd", "/opt/mesaformer/x", "opt/mesaform/x"]
)
def test_cloud_init_writes_nowhere_else(path: str) -> None:
    with pytest.raises(BadUserDataError):
        place(path, Path("/root"))


def test_cloud_init_writes_below_the_machines_root() -> None:
    assert place("/opt/mesaform/venv", Path("/machine")) == Path("/machine/opt/mesaform/venv")
    assert content_of({"content": "aGk=", "encoding": "b64"}) == b"hi"
    with pytest.raises(BadUserDataError, match="gzip"):
        content_of({"content": "", "encoding": "gzip"})
