"""A full disk under the local account: calls fail at once, and nothing is half done afterwards."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from mesaform.localcloud import daemon
from tests.integration.localcloud.conftest import (
    Cloud,
    cloud_config,
    eventually,
    start_cloud,
    stop_cloud,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system"),
]
SIZE = "24m"


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    folder = tmp_path_factory.mktemp("small")
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)], check=True)
    try:
        cloud = start_cloud(folder / "local")
        cloud.ec2.describe_vpcs()  # makes the default VPC
        yield cloud
        (folder / "filler").unlink(missing_ok=True)
        stop_cloud(cloud)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(path: Path) -> None:
    """Leave no byte on the file system of the path."""
    with path.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    assert os.statvfs(path).f_bavail == 0


@pytest.fixture
def full(cloud: Cloud) -> Iterator[Path]:
    """The file that fills the file system of the local cloud."""
    filler = cloud.root.parent / "filler"
    fill(filler)
    yield filler
    filler.unlink(missing_ok=True)


def refusal(error: pytest.ExceptionInfo[ClientError]) -> tuple[int, str]:
    response = error.value.response
    return response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"]


def test_calls_that_cannot_be_stored_fail_at_once_and_change_nothing(
    cloud: Cloud, full: Path
) -> None:
    vpcs = cloud.ec2.describe_vpcs()["Vpcs"]
    with pytest.raises(ClientError) as ec2:
        cloud.ec2.create_vpc(CidrBlock=cloud.cidr)
    with pytest.raises(ClientError) as ssm:
        cloud.client("ssm").put_parameter(Name="/full", Value="x" * 4000, Type="String")
    with pytest.raises(ClientError) as iam:
        cloud.client("iam").create_role(RoleName="full", AssumeRolePolicyDocument="{}")
    answer = (507, "InsufficientStorage")
    assert refusal(ec2) == refusal(ssm) == refusal(iam) == answer
    assert cloud.ec2.describe_vpcs()["Vpcs"] == vpcs
    health = daemon.ask(cloud.root, "health") or {}
    assert (health["ok"], health["storage_error"]) == (False, "No space left on device")
    assert daemon.status(cloud.root)["storage_error"] == "No space left on device"


def test_the_account_is_saved_again_when_there_is_space(cloud: Cloud, full: Path) -> None:
    with pytest.raises(ClientError):
        cloud.client("ssm").put_parameter(Name="/full", Value="x" * 4000, Type="String")
    full.unlink()
    eventually(
        lambda: (daemon.ask(cloud.root, "health") or {})["ok"], "the account is saved again", 5
    )
    cloud.client("ssm").put_parameter(Name="/full", Value="v", Type="String")
    assert cloud.client("ssm").get_parameter(Name="/full")["Parameter"]["Version"] == 1


def test_machines_on_a_full_disk_end_and_are_reported_when_there_is_space(
    cloud: Cloud, full: Path
) -> None:
    full.unlink()
    instance = cloud.launch(user_data=cloud_config({}, ["true"]))
    cloud.wait_state(instance, "running")
    fill(full)
    with pytest.raises(ClientError) as refused:
        cloud.ec2.terminate_instances(InstanceIds=[instance])
    assert refusal(refused)[0] == 507
    assert cloud.state(instance) == "running"
    full.unlink()
    cloud.ec2.terminate_instances(InstanceIds=[instance])
    cloud.wait_state(instance, "terminated")
