"""A teardown of a thousand machines while EC2 throttles, and lists that name their owner."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest

from mesaform.aws import client
from mesaform.aws.resources.ec2_instances import Instances
from mesaform.aws.resources.owned import OwnedResource
from mesaform.aws.resources.sweep import BATCH_TRIES, Sweep, resource_kinds
from mesaform.common.errors import Retryable
from mesaform.topology.names import Tag

from .conftest import REGION, Cloud, tag_specification

pytestmark = pytest.mark.slow

NAME = "large"
OURS = {Tag.CLUSTER: NAME}


class Waits:
    """Virtual time: how long was waited."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        await asyncio.sleep(0)


def launch(cloud: Cloud, count: int) -> None:
    cloud.client("ec2").run_instances(
        ImageId="ami-12c6146b",
        MinCount=count,
        MaxCount=count,
        InstanceType="t3.micro",
        TagSpecifications=tag_specification("instance", NAME),
    )


class ThrottledKind:
    """Machines in memory; EC2 takes every so many calls."""

    kind: ClassVar[str] = "instance"
    service: ClassVar[str] = "ec2"
    depends_on: ClassVar[tuple[str, ...]] = ()
    batch_size: ClassVar[int] = Instances.batch_size

    def __init__(self, count: int, every: int = 4) -> None:
        self.every = every
        self.left = {f"i-{number}" for number in range(count)}
        self.calls = 0

    def list(self) -> list[OwnedResource]:
        return [OwnedResource("instance", name, OURS) for name in sorted(self.left)]

    def describe(self, resource: OwnedResource) -> str:
        return resource.id

    def remove(self, resource: OwnedResource) -> None:
        self.remove_batch([resource])

    def remove_batch(self, resources: Sequence[OwnedResource]) -> None:
        self.calls += 1
        if self.calls % self.every:
            raise Retryable("RequestLimitExceeded: Request limit exceeded.", after_s=5.0)
        self.left -= {resource.id for resource in resources}


async def test_a_thousand_machines_end_in_few_calls_while_ec2_throttles() -> None:
    kind, waits = ThrottledKind(1000), Waits()
    shown: list[str] = []
    sweep = Sweep([kind], NAME, sleep=waits)
    refused = await sweep.remove_all(kind.list(), shown.append)
    assert refused == {}
    assert kind.left == set()
    assert kind.calls == 2 * 4
    assert sum(waits.seconds) < 60
    assert any("RequestLimitExceeded: again in" in text for text in shown)
    assert shown[-1] == "1000 of 1000"


async def test_the_sweep_ends_a_thousand_machines_while_ec2_throttles() -> None:
    kind = ThrottledKind(1000)
    swept = await Sweep([kind], NAME, sleep=Waits()).run()
    assert swept.is_clean
    assert swept.removed_counts() == {"instance": 1000}
    assert kind.calls <= 12


async def test_what_is_throttled_for_long_is_refused_and_not_an_error() -> None:
    kind = ThrottledKind(2, every=10**6)
    refused = await Sweep([kind], NAME, sleep=Waits()).remove_all(kind.list())
    assert {error.what.partition(":")[0] for error in refused.values()} == {"RequestLimitExceeded"}
    assert len(refused) == 2
    assert kind.calls == BATCH_TRIES


async def test_one_machine_that_is_gone_does_not_keep_the_others(cloud: Cloud) -> None:
    launch(cloud, 3)
    sweep = Sweep(resource_kinds(NAME, REGION), NAME, sleep=Waits())
    machines = await sweep.inventory(["instance"])
    absent = type(machines[0])("instance", "i-0123456789abcdef0", machines[0].tags)
    assert await sweep.remove_all([machines[0], absent, *machines[1:]]) == {}
    assert await sweep.inventory(["instance"]) == []


def test_a_batch_is_no_larger_than_ec2_allows() -> None:
    assert 1 < Instances.batch_size <= 1000


@pytest.mark.parametrize(
    ("kind", "action", "owner"),
    [
        ("image", "DescribeImages", "Owner.1=self"),
        ("snapshot", "DescribeSnapshots", "Owner.1=self"),
    ],
)
async def test_images_and_snapshots_are_listed_of_the_account_alone(
    cloud: Cloud, kind: str, action: str, owner: str
) -> None:
    bodies: list[str] = []

    def note(request: Any, **_: Any) -> None:
        body = request.body
        bodies.append(body.decode() if isinstance(body, bytes) else str(body))

    events = client.client("ec2", REGION).meta.events
    events.register(f"before-send.ec2.{action}", note)
    try:
        await Sweep(resource_kinds(NAME, REGION), NAME).inventory([kind])
    finally:
        events.unregister(f"before-send.ec2.{action}", note)
    assert bodies
    assert all(owner in body for body in bodies)
