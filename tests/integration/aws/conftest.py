"""moto's server on a free port, with the network and launch template of a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from moto.server import ThreadedMotoServer

from harness.autoscaler_builders import ZONES
from mesaform.aws import client
from mesaform.topology.names import Tag, launch_template_name

REGION = "us-east-1"


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(
            "MOTO_EC2_LOAD_DEFAULT_AMIS", "false"
        )  # reading them takes seconds at each reset
        server = ThreadedMotoServer(ip_address="127.97.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
        server.stop()


@pytest.fixture
def cloud(moto_url: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An EC2 client of an account with one cluster; the environment points to the same server."""
    import urllib.request

    urllib.request.urlopen(
        urllib.request.Request(f"{moto_url}/moto-api/reset", method="POST")
    ).read()
    for name, value in {
        "AWS_ENDPOINT_URL": moto_url,
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    ec2 = client.client("ec2", REGION)
    tags = [{"Key": Tag.CLUSTER, "Value": "toy"}]
    vpc = ec2.create_vpc(CidrBlock="127.42.0.0/16")["Vpc"]["VpcId"]
    for number, zone in enumerate(ZONES):
        ec2.create_subnet(
            VpcId=vpc,
            CidrBlock=f"127.42.{number * 32}.0/19",
            AvailabilityZone=zone,
            TagSpecifications=[{"ResourceType": "subnet", "Tags": tags}],
        )
    image = ec2.register_image(Name="base")["ImageId"]
    ec2.create_launch_template(
        LaunchTemplateName=launch_template_name("toy", "default"),
        LaunchTemplateData={
            "ImageId": image,
            "InstanceType": "m5.large",
            "TagSpecifications": [{"ResourceType": "instance", "Tags": tags}],
        },
        TagSpecifications=[
            {
                "ResourceType": "launch-template",
                "Tags": [*tags, {"Key": Tag.POOL, "Value": "default"}],
            }
        ],
    )
    return ec2


@pytest.fixture
def bucket(cloud: Any) -> str:
    name = client.account_bucket(REGION)
    client.client("s3", REGION).create_bucket(Bucket=name)
    return name
