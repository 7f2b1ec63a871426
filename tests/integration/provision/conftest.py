"""An AWS endpoint of the tests' own, and clusters that are deployed to it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from harness.ports import free_port
from mesaform.cli.context import Context, endpoint_environment, open_context
from mesaform_images.lookup import recipe_digest
from tests.integration.provision.stub_files import cluster_text

ADDRESS = "127.60.200.1"
REGION = "us-east-1"


@dataclass(frozen=True)
class Aws:
    url: str

    def client(self, service: Any):
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id="local",
            aws_secret_access_key="local",
        )

    def bake(self) -> str:
        """Register an image as if `mesaform bake` had made it from this checkout."""
        ec2 = self.client("ec2")
        image_id = ec2.register_image(
            Name=f"baked-{time.monotonic_ns()}",
            RootDeviceName="/dev/xvda",
            VirtualizationType="hvm",
            Architecture="x86_64",
            BlockDeviceMappings=[{"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 8}}],
        )["ImageId"]
        ec2.create_tags(
            Resources=[image_id], Tags=[{"Key": "mesaform:recipe", "Value": recipe_digest()}]
        )
        return image_id

    def instances(self, cluster: str) -> list[dict]:
        filters = [
            {"Name": "tag:mesaform:cluster", "Values": [cluster]},
            {"Name": "instance-state-name", "Values": ["pending", "running"]},
        ]
        return [
            i
            for r in self.client("ec2").describe_instances(Filters=filters)["Reservations"]
            for i in r["Instances"]
        ]


@pytest.fixture(scope="session")
def aws() -> Iterator[Aws]:
    port = free_port(ADDRESS)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.integration.provision.aws_server", ADDRESS, str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**environment, "AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"},
        cwd=Path(__file__).parents[3],
    )
    deadline = time.monotonic() + 60
    while server.poll() is None and time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex((ADDRESS, port)) == 0:
                break
        time.sleep(0.05)  # a process's start can only be polled
    yield Aws(f"http://{ADDRESS}:{port}")
    server.terminate()
    server.wait(timeout=60)


@pytest.fixture
def cluster_file(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A name for each test's cluster, so that leftovers of a test do not affect others."""
    file = tmp_path / "cluster.yaml"
    file.write_text(cluster_text(f"t-{zlib.crc32(request.node.name.encode()):08x}"))
    return file


@pytest.fixture
def place(aws: Aws, cluster_file: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    """A cluster on the tests' endpoint, not yet deployed."""
    for key, value in endpoint_environment(aws.url, REGION, "local", "local").items():
        monkeypatch.setenv(key, value)
    return open_context(str(cluster_file))
