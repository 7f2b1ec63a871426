"""The sweep, against a real EC2 API: what carries the tag goes, and nothing else does."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError
from moto.ec2.models.subnets import SubnetBackend

from mesaform.aws.client import client
from mesaform.aws.resources.owned import OwnedResource
from mesaform.aws.resources.registry import registered_kinds
from mesaform.aws.resources.sweep import Sweep, resource_kinds
from mesaform.common.errors import NotOwned, Permanent, Retryable
from mesaform.localcloud.moto_patches import reservations

from .conftest import REGION, Cloud, one_of_everything

pytestmark = pytest.mark.slow


async def no_time(_: float) -> None:
    return None


def sweep_of(cluster: str) -> Sweep:
    return Sweep(resource_kinds(cluster, REGION), cluster, sleep=no_time, rounds=20)


def test_the_sweep_looks_at_every_registered_kind(cloud: Cloud) -> None:
    assert sweep_of("one").kinds == tuple(registered_kinds())


async def test_everything_tagged_is_listed_and_removed_and_nothing_else(cloud: Cloud) -> None:
    ours = one_of_everything(cloud, "one", suffix="one", octet=10)
    theirs = one_of_everything(cloud, "one-more", suffix="one-more", octet=11)
    one_of_everything(cloud, None, suffix="nobody", octet=12)
    sweep, other = sweep_of("one"), sweep_of("one-more")
    listed = {(entry.kind, entry.id) for entry in await sweep.inventory()}
    assert set(ours.items()) <= listed
    before = {entry.key for entry in await other.inventory()}

    swept = await sweep.run(images=True)

    assert swept.remaining == []
    assert await sweep.inventory() == []
    assert set(ours.items()) <= {entry.key for entry in swept.removed}
    assert {entry.key for entry in await other.inventory()} == before
    assert set(theirs.items()) <= before
    ec2 = cloud.client("ec2")
    strangers = [{"Name": "tag:Name", "Values": ["stranger"]}]
    assert len(ec2.describe_vpcs(Filters=strangers)["Vpcs"]) == 1
    assert len(ec2.describe_volumes(Filters=strangers)["Volumes"]) == 2
    assert len(cloud.client("iam").list_roles()["Roles"]) == 2


async def test_the_public_images_and_snapshots_of_others_are_not_asked_for(cloud: Cloud) -> None:
    """A list of all that is public takes longer than a call may."""
    asked: dict[str, Any] = {}

    def note(params: dict[str, Any], model: Any, **_: Any) -> None:
        asked[model.name] = params.get("Owners") or params.get("OwnerIds")

    sweep, events = sweep_of("one"), client("ec2", REGION).meta.events
    events.register("provide-client-params.ec2", note)
    try:
        await sweep.inventory()
    finally:
        events.unregister("provide-client-params.ec2", note)
    owners = {asked["DescribeImages"][0], asked["DescribeSnapshots"][0]}
    assert owners == {"self"}


async def test_a_subnet_goes_with_its_reservations_of_addresses(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing = reservations.refusing(SubnetBackend.delete_subnet)
    monkeypatch.setattr(SubnetBackend, "delete_subnet", refusing)
    subnet = one_of_everything(cloud, "one", suffix="one", octet=10)["subnet"]
    ec2 = cloud.client("ec2")
    for block in ("10.10.1.0/28", "10.10.1.32/28"):
        ec2.create_subnet_cidr_reservation(SubnetId=subnet, Cidr=block, ReservationType="explicit")
    with pytest.raises(ClientError, match="DependencyViolation"):
        ec2.delete_subnet(SubnetId=subnet)
    swept = await sweep_of("one").run()
    assert swept.remaining == []
    assert ("subnet", subnet) in {entry.key for entry in swept.removed}


async def test_images_and_snapshots_stay_unless_asked(cloud: Cloud) -> None:
    one_of_everything(cloud, "one", suffix="one", octet=10)
    sweep = sweep_of("one")
    assert (await sweep.run()).is_clean
    assert {entry.kind for entry in await sweep.inventory()} == {"image", "snapshot"}


async def test_a_second_sweep_finds_nothing_to_do(cloud: Cloud) -> None:
    one_of_everything(cloud, "one", suffix="one", octet=10)
    await sweep_of("one").run(images=True)
    again = await sweep_of("one").run(images=True)
    assert (again.removed, again.remaining, again.rounds) == ([], [], 1)


async def test_removing_twice_is_no_error(cloud: Cloud) -> None:
    one_of_everything(cloud, "one", suffix="one", octet=10)
    sweep = sweep_of("one")
    listed = await sweep.inventory()
    await sweep.run(images=True)
    for resource in listed:
        sweep.remove(resource)


async def test_what_is_not_ours_is_refused(cloud: Cloud) -> None:
    stranger = OwnedResource("vpc", "vpc-1", {"mesaform:cluster": "other"})
    with pytest.raises(NotOwned):
        sweep_of("one").remove(stranger)


class Stubborn:
    """A kind whose one resource goes only after some refusals."""

    kind = "vpc"
    service = "ec2"
    depends_on = ()
    batch_size = 1

    def __init__(self, refusals: list[Exception]) -> None:
        self._refusals = refusals
        self._there = True

    def list(self) -> list[OwnedResource]:
        return [OwnedResource("vpc", "vpc-1", {"mesaform:cluster": "one"})] if self._there else []

    def describe(self, resource: OwnedResource) -> str:
        return resource.id

    def remove(self, resource: OwnedResource) -> None:
        if self._refusals:
            raise self._refusals.pop(0)
        self._there = False


def alone(kind: Any, rounds: int = 10) -> Sweep:
    return Sweep([kind], "one", sleep=no_time, rounds=rounds)


async def test_a_dependency_that_lingers_is_waited_for() -> None:
    swept = await alone(Stubborn([Retryable("DependencyViolation", after_s=1)] * 5)).run()
    assert swept.is_clean
    assert swept.removed_counts() == {"vpc": 1}


async def test_what_will_not_go_is_returned_with_the_reason_after_a_bounded_time() -> None:
    swept = await alone(Stubborn([Retryable("DependencyViolation", after_s=1)] * 99)).run()
    assert swept.rounds == 10
    assert [item.reason for item in swept.remaining] == ["DependencyViolation"]


async def test_a_missing_right_is_not_tried_for_ever() -> None:
    swept = await alone(Stubborn([Permanent("UnauthorizedOperation")] * 99)).run()
    assert swept.rounds == 4
    assert [item.reason for item in swept.remaining] == ["UnauthorizedOperation"]
