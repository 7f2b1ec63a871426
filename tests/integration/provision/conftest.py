"""The local cloud's endpoint for these tests, and clusters that are deployed to it."""

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
from mesaform.localcloud.layout import Layout
from mesaform.localcloud.operator_credentials import ACCESS_KEY_ID, read_credentials
from mesaform_images.lookup import recipe_digest
from tests.integration.provision.stub_files import cluster_text

ADDRESS = "127.60.200.1"
REGION = "us-east-1"


@dataclass(frozen=True)
class Aws:
    url: str
    secret: str

    @property
    def variables(self) -> dict[str, str]:
        """The operator's environment."""
        return endpoint_environment(self.url, REGION, ACCESS_KEY_ID, self.secret)

    def client(self, service: Any):
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=ACCESS_KEY_ID,
            aws_secret_access_key=self.secret,
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
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    folder, port = tmp_path_factory.mktemp("local-cloud"), free_port(ADDRESS)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    command = [sys.executable, "-m", "tests.integration.provision.aws_server"]
    with (folder / "endpoint.log").open("w") as log:
        server = subprocess.Popen(
            [*command, str(folder), ADDRESS, str(port)],
            stdout=log,
            stderr=log,
            env=environment,
            cwd=Path(__file__).parents[3],
        )
    deadline = time.monotonic() + 60
    while server.poll() is None and time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex((ADDRESS, port)) == 0:
                break
        time.sleep(0.05)  # a process's start can only be polled
    secret = read_credentials(Layout(folder)).secret_access_key
    yield Aws(f"http://{ADDRESS}:{port}", secret)
    server.terminate()
    server.wait(timeout=60)
    assert "unhandled_error" not in (folder / "endpoint.log").read_text()


@pytest.fixture
def cluster_file(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A name for each test's cluster, so that leftovers of a test do not affect others."""
    file = tmp_path / "cluster.yaml"
    file.write_text(cluster_text(f"t-{zlib.crc32(request.node.name.encode()):08x}"))
    return file


@pytest.fixture
def place(aws: Aws, cluster_file: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    """A cluster on the tests' endpoint, not yet deployed."""
    for key, value in aws.variables.items():
        monkeypatch.setenv(key, value)
    return open_context(str(cluster_file))
