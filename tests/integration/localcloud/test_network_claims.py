"""Local clouds of one host keep out of each other's addresses."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from mesaform.localcloud import daemon
from mesaform.localcloud.network_claims import NetworkClaims, default_networks, find_overlap
from tests.integration.localcloud.conftest import Cloud, end_cloud, raise_cloud

NETWORK = IPv4Network("127.63.0.0/16")


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A short one: a claim's name keeps only the end of a long folder's path."""
    with tempfile.TemporaryDirectory(prefix="m") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    raised = raise_cloud(tmp_path_factory.mktemp("claims"), "127.64.0.0/16")
    yield raised
    end_cloud(raised)


def default_vpc(cloud: Cloud) -> str:
    found = cloud.ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    return str(found[0]["CidrBlock"])


def test_a_network_is_claimed_by_one_and_free_again_afterwards(tmp_path: Path) -> None:
    one, two = NetworkClaims(tmp_path / "one"), NetworkClaims(tmp_path / "two")
    assert one.take(NETWORK) is None
    other = two.take(IPv4Network("127.63.4.0/24"))
    assert other is not None
    assert (other.network, other.root) == (NETWORK, str(one.root))
    one.release(NETWORK)
    assert two.take(NETWORK) is None
    two.release(NETWORK)
    assert find_overlap(NETWORK, tmp_path) is None


def test_a_network_taken_twice_is_given_back_twice(tmp_path: Path) -> None:
    one, two = NetworkClaims(tmp_path / "one"), NetworkClaims(tmp_path / "two")
    assert one.take(NETWORK) is None
    assert one.take(NETWORK) is None
    one.release(NETWORK)
    assert two.take(NETWORK) is not None
    one.release(NETWORK)
    assert two.take(NETWORK) is None
    two.release(NETWORK)


def test_networks_elsewhere_are_nobodys_business(tmp_path: Path) -> None:
    ten = IPv4Network("10.0.0.0/16")
    assert NetworkClaims(tmp_path / "one").take(ten) is None
    assert NetworkClaims(tmp_path / "two").take(ten) is None


def test_default_networks_are_many_and_differ_in_order(tmp_path: Path) -> None:
    one, two = list(default_networks(tmp_path / "one")), list(default_networks(tmp_path / "two"))
    assert len(set(one)) == len(one) > 50
    assert set(one) == set(two)


@pytest.mark.slow
def test_two_local_clouds_have_default_networks_of_their_own(cloud: Cloud, tmp_path: Path) -> None:
    second = raise_cloud(tmp_path / "second", "127.64.0.0/16")
    try:
        assert default_vpc(second) != default_vpc(cloud)
    finally:
        end_cloud(second)


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
def test_a_default_network_that_another_took_while_we_were_stopped_moves(tmp_path: Path) -> None:
    one = raise_cloud(tmp_path / "one", "127.64.0.0/16")
    before = default_vpc(one)
    daemon.stop(one.root)
    other = NetworkClaims(tmp_path / "other")
    assert other.take(IPv4Network(before)) is None
    running = daemon.start(one.root)
    again = Cloud(one.root, running.url, running.pid, one.cidr)
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
        end_cloud(again)
        other.release(IPv4Network(before))
