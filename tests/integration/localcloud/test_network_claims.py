"""Local clouds of first host use networks that do not overlap."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from mesaform.localcloud import daemon
from mesaform.localcloud.network_claims import NetworkClaims, default_networks, find_overlap
from tests.integration.localcloud.conftest import Cloud, start_cloud, stop_cloud

NETWORK = IPv4Network("127.63.0.0/16")


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A short path: a claim's name keeps only the end of a long folder's path."""
    with tempfile.TemporaryDirectory(prefix="m") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    cloud = start_cloud(tmp_path_factory.mktemp("claims"))
    yield cloud
    stop_cloud(cloud)


def default_vpc(cloud: Cloud) -> str:
    vpcs = cloud.ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    return str(vpcs[0]["CidrBlock"])


def test_a_network_has_one_claim_and_is_free_after_its_release(tmp_path: Path) -> None:
    first, second = NetworkClaims(tmp_path / "first"), NetworkClaims(tmp_path / "second")
    assert first.take(NETWORK) is None
    other = second.take(IPv4Network("127.63.4.0/24"))
    assert other is not None
    assert (other.network, other.root) == (NETWORK, str(first.root))
    first.release(NETWORK)
    assert second.take(NETWORK) is None
    second.release(NETWORK)
    assert find_overlap(NETWORK, tmp_path) is None


def test_a_network_claimed_twice_is_released_twice(tmp_path: Path) -> None:
    first, second = NetworkClaims(tmp_path / "first"), NetworkClaims(tmp_path / "second")
    assert first.take(NETWORK) is None
    assert first.take(NETWORK) is None
    first.release(NETWORK)
    assert second.take(NETWORK) is not None
    first.release(NETWORK)
    assert second.take(NETWORK) is None
    second.release(NETWORK)


def test_networks_outside_loopback_need_no_claim(tmp_path: Path) -> None:
    ten = IPv4Network("10.0.0.0/16")
    assert NetworkClaims(tmp_path / "first").take(ten) is None
    assert NetworkClaims(tmp_path / "second").take(ten) is None


def test_default_networks_are_many_and_differ_in_order(tmp_path: Path) -> None:
    first, second = (
        list(default_networks(tmp_path / "first")),
        list(default_networks(tmp_path / "second")),
    )
    assert len(set(first)) == len(first) > 50
    assert set(first) == set(second)


@pytest.mark.slow
def test_two_local_clouds_have_default_networks_of_their_own(cloud: Cloud, tmp_path: Path) -> None:
    second = start_cloud(tmp_path / "second")
    try:
        assert default_vpc(second) != default_vpc(cloud)
    finally:
        stop_cloud(second)


@pytest.mark.slow
def test_a_vpc_on_another_local_clouds_addresses_is_refused_and_names_it(
    cloud: Cloud, tmp_path: Path
) -> None:
    other = NetworkClaims(tmp_path / "other")
    assert other.take(NETWORK) is None
    with pytest.raises(cloud.ec2.exceptions.ClientError, match=str(other.root)):
        cloud.ec2.create_vpc(CidrBlock="127.63.8.0/24")
    other.release(NETWORK)
    vpc = cloud.ec2.create_vpc(CidrBlock="127.63.8.0/24")["Vpc"]["VpcId"]
    assert other.take(NETWORK) is not None
    cloud.ec2.delete_vpc(VpcId=vpc)
    assert other.take(NETWORK) is None
    other.release(NETWORK)


@pytest.mark.slow
def test_a_default_network_that_another_local_cloud_took_in_the_meantime_moves(
    tmp_path: Path,
) -> None:
    first = start_cloud(tmp_path / "first")
    before = default_vpc(first)
    assert first.subnet(), "each zone has a subnet outside the default VPC as well"
    daemon.stop(first.root)
    other = NetworkClaims(tmp_path / "other")
    assert other.take(IPv4Network(before)) is None
    running = daemon.start(first.root)
    again = Cloud(first.root, running.url, running.pid, first.cidr)
    try:
        assert default_vpc(again) != before
        assert (
            len(
                again.ec2.describe_subnets(
                    Filters=[{"Name": "default-for-az", "Values": ["true"]}]
                )["Subnets"]
            )
            >= 3
        )
    finally:
        stop_cloud(again)
        other.release(IPv4Network(before))
