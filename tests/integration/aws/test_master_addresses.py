"""Verbs reach masters at the addresses that EC2 names now; Terraform's state is a substitute."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from mesaform.cli.context import Context
from mesaform.cli.masters import hosts_of, masters_of, services_of
from mesaform.common.errors import ClusterUnreachable
from mesaform.config.schema import ClusterSpec, Network
from mesaform.topology.names import Tag
from tests.support.terraform_state import write_state

from .conftest import REGION

RECORDED = ["198.51.100.1", "198.51.100.2", "198.51.100.3"]


def cluster_spec() -> ClusterSpec:
    network = Network(operator_cidrs=("203.0.113.7/32",))
    return ClusterSpec(name="toy", target="aws", region=REGION, network=network)


@pytest.fixture
def context(tmp_path: Path) -> Context:
    """A cluster on AWS whose state has the addresses of the last `mesaform up`."""
    context = Context(cluster_spec(), tmp_path / "cluster.yaml", tmp_path)
    write_state(
        context.cluster_dir,
        "masters",
        [("aws_instance", {"id": "i-1"})],
        {"public_addresses": RECORDED},
    )
    return context


def launch_masters(ec2: Any) -> list[str]:
    """Three masters with public addresses, the last one first; ids in the order of their names."""
    subnet = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
    image = ec2.describe_images(Owners=["self"])["Images"][0]["ImageId"]
    ids = [
        ec2.run_instances(
            ImageId=image,
            MinCount=1,
            MaxCount=1,
            InstanceType="t3.medium",
            NetworkInterfaces=[
                {"DeviceIndex": 0, "SubnetId": subnet, "AssociatePublicIpAddress": True}
            ],
            TagSpecifications=[
                {
                    "ResourceType": "instance",
                    "Tags": [
                        {"Key": Tag.CLUSTER, "Value": "toy"},
                        {"Key": Tag.ROLE, "Value": "master"},
                        {"Key": Tag.NAME, "Value": f"mesaform-toy-master-{number}"},
                    ],
                }
            ],
        )["Instances"][0]["InstanceId"]
        for number in (3, 2, 1)
    ]
    return ids[::-1]


def public_addresses(ec2: Any, ids: list[str]) -> list[str]:
    return [
        ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0][
            "PublicIpAddress"
        ]
        for instance in ids
    ]


def test_verbs_follow_masters_whose_public_addresses_were_replaced(
    cloud: Any, context: Context
) -> None:
    ids = launch_masters(cloud)
    before = public_addresses(cloud, ids)
    assert hosts_of(context) == before
    cloud.stop_instances(InstanceIds=ids[:1])
    assert hosts_of(context) == before[1:], "a stopped machine has no address"
    cloud.start_instances(InstanceIds=ids[:1])
    after = public_addresses(cloud, ids)
    assert hosts_of(context) == after
    assert not {*after, *before} & set(RECORDED)
    assert masters_of(context) == [f"http://{address}:5050" for address in after]
    assert services_of(context) == [f"http://{address}:8080" for address in after]


def test_the_state_serves_while_ec2_does_not_answer(
    cloud: Any, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch_masters(cloud)
    with socket.socket() as refusing:  # bound and not listening
        refusing.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{refusing.getsockname()[1]}")
        assert hosts_of(context) == RECORDED


def test_a_cluster_that_neither_ec2_nor_the_state_knows_is_named(
    cloud: Any, tmp_path: Path
) -> None:
    del cloud
    with pytest.raises(ClusterUnreachable, match="no masters"):
        hosts_of(Context(cluster_spec(), tmp_path / "cluster.yaml", tmp_path))
