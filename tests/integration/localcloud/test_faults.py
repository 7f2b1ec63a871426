"""A fault in force takes effect, and ends after its uses or its time."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import boto3
import pytest

from mesaform.common.errors import BadInput, MesaformError
from mesaform.localcloud.faults import (
    REGISTRY,
    Capacity,
    DelayedResponse,
    Due,
    FaultRegistry,
    Lag,
    RegistryState,
    SpotInterruption,
    Throttle,
    ZoneOutage,
    parse,
)
from tests.integration.localcloud.conftest import REGION, Cloud, eventually, operator_key

DELAY_S = 10.0
"""Longer than calls of a busy machine take that are made in the meantime."""


def test_a_capacity_fault_matches_what_it_names_and_nothing_else() -> None:
    registry = FaultRegistry()
    registry.add(Capacity(type="m5.large", zone="a"), 0.0)
    assert registry.refuses("m5.large", "a", "spot", 1.0)
    assert not registry.refuses("m5.large", "b", "spot", 1.0)
    assert not registry.refuses("m5.xlarge", "a", "spot", 1.0)


def test_a_fault_ends_after_its_uses() -> None:
    registry = FaultRegistry()
    registry.add(Capacity(count=2), 0.0)
    assert [registry.refuses("t", "z", "spot", 1.0) for _ in range(3)] == [True, True, False]


def test_a_fault_ends_after_its_time() -> None:
    registry = FaultRegistry()
    registry.add(Lag(seconds=3, duration_s=10), 0.0)
    assert [registry.lag_s(now) for now in (0.0, 9.9, 10.0)] == [3, 3, 0]


def test_a_throttle_with_a_rate_lets_that_many_through() -> None:
    registry = FaultRegistry()
    registry.add(Throttle(rate=2), 0.0)
    assert [registry.throttles("DescribeInstances", 0.0) for _ in range(3)] == [False, True, True]
    assert [registry.throttles("DescribeInstances", 1.0) for _ in range(3)] == [False, False, True]


def test_a_throttle_of_named_calls_leaves_the_others_alone() -> None:
    registry = FaultRegistry()
    registry.add(Throttle(actions=("CreateFleet",)), 0.0)
    assert registry.throttles("CreateFleet", 1.0)
    assert not registry.throttles("DescribeInstances", 1.0)


def test_an_interruption_is_announced_once_it_is_on_and_due_once() -> None:
    registry = FaultRegistry()
    registry.add(SpotInterruption(instance_id="i-1", after_s=120), 1000.0)
    fault = SpotInterruption(instance_id="i-1", after_s=120)
    assert registry.announced(1001.0) == [Due(fault, "fault-1", 1120.0, is_due=False)]
    assert registry.announced(1120.0) == [Due(fault, "fault-1", 1120.0, is_due=True)]
    assert registry.announced(1121.0) == []


def test_a_response_is_delayed_for_the_named_calls_and_as_often_as_the_count() -> None:
    registry = FaultRegistry()
    registry.add(DelayedResponse(actions=("CreateFleet",), seconds=7, count=1), 0.0)
    assert registry.response_delay_s("DescribeInstances", 1.0) == 0
    assert [registry.response_delay_s("CreateFleet", 1.0) for _ in range(2)] == [7, 0]


def test_a_zone_outage_refuses_launches_in_that_zone() -> None:
    registry = FaultRegistry()
    registry.add(ZoneOutage(zone="a"), 0.0)
    assert registry.refuses("m5.large", "a", "on-demand", 1.0)
    assert not registry.refuses("m5.large", "b", "on-demand", 1.0)


def stored(registry: FaultRegistry) -> RegistryState:
    """The registry's record, written and read."""
    state = REGISTRY.decode(REGISTRY.encode(registry.state()))
    assert isinstance(state, RegistryState)
    return state


def test_faults_of_the_format_without_a_schema_are_read() -> None:
    data = b'[3,[{"id":"fault-3","fault":{"kind":"lag","seconds":2},"since":5.0}]]'
    state = REGISTRY.decode(data)
    assert isinstance(state, RegistryState)
    assert FaultRegistry.of(state).lag_s(6.0) == 2.0


def test_a_registry_is_the_same_after_it_was_written_and_read() -> None:
    registry = FaultRegistry()
    registry.add(Capacity(type="m5.large", count=3), 5.0)
    registry.refuses("m5.large", "a", "spot", 6.0)
    assert FaultRegistry.of(stored(registry)).listing(7.0) == registry.listing(7.0)
    assert FaultRegistry.of(stored(registry)).add(Lag(seconds=1), 8.0) == "fault-2"


@pytest.mark.parametrize(
    "body", [b'{"kind":"capacty"}', b'{"kind":"lag"}', b'{"kind":"capacity","typo":1}', b"nonsense"]
)
def test_an_invalid_fault_is_refused(body: bytes) -> None:
    with pytest.raises(BadInput):
        parse(body)


@pytest.mark.slow
def test_a_launch_without_capacity_fails_and_creates_nothing(cloud: Cloud) -> None:
    cloud.fault(kind="capacity", zone="us-east-1a", count=1)
    before = len(cloud.ec2.describe_instances()["Reservations"])
    with pytest.raises(cloud.ec2.exceptions.ClientError, match="InsufficientInstanceCapacity"):
        cloud.launch()
    assert len(cloud.ec2.describe_instances()["Reservations"]) == before
    cloud.launch()


@pytest.mark.slow
def test_a_throttled_call_is_refused_in_the_form_that_boto3_retries(cloud: Cloud) -> None:
    cloud.fault(kind="throttle", actions=["DescribeVpcs"], count=1)
    with pytest.raises(cloud.ec2.exceptions.ClientError) as caught:
        cloud.ec2.describe_vpcs()
    assert caught.value.response["Error"]["Code"] == "RequestLimitExceeded"
    cloud.fault(kind="throttle", actions=["DescribeVpcs"], count=2)
    retrying = boto3.client(
        "ec2",
        endpoint_url=cloud.url,
        region_name=REGION,
        **operator_key(cloud.root),
    )
    assert retrying.describe_vpcs()["Vpcs"]


@pytest.mark.slow
def test_a_delayed_response_follows_the_executed_call_and_blocks_no_other_call(
    cloud: Cloud,
) -> None:
    cloud.fault(kind="delayed_response", actions=["CreateTags"], seconds=DELAY_S, count=1)
    vpc = cloud.ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    began = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(
            cloud.ec2.create_tags, Resources=[vpc], Tags=[{"Key": "late", "Value": "yes"}]
        )
        tagged = [{"Name": "tag:late", "Values": ["yes"]}]
        eventually(lambda: cloud.ec2.describe_vpcs(Filters=tagged)["Vpcs"], "it is tagged")
        assert not call.done()
        call.result(60)
    assert time.monotonic() - began >= DELAY_S


@pytest.mark.slow
def test_with_lag_a_new_instance_is_not_described_yet_though_it_boots(cloud: Cloud) -> None:
    image, subnet = cloud.image(), cloud.subnet()
    cloud.fault(kind="lag", seconds=DELAY_S)
    began = time.monotonic()
    instance = cloud.launch(image, SubnetId=subnet)

    def listed() -> bool:
        filters = [{"Name": "instance-id", "Values": [instance]}]
        return bool(cloud.ec2.describe_instances(Filters=filters)["Reservations"])

    assert not listed()
    eventually(listed, "it is described")
    assert time.monotonic() - began >= DELAY_S
    cloud.node_facts(instance)


@pytest.mark.slow
def test_a_zone_outage_kills_its_machines_and_no_others(cloud: Cloud) -> None:
    in_zone = cloud.launch(cloud.image(), SubnetId=cloud.subnet("us-east-1c"))
    elsewhere = cloud.launch(cloud.image())
    cloud.node_facts(in_zone)
    cloud.wait_state(in_zone, "running")
    cloud.wait_state(elsewhere, "running")
    cloud.fault(kind="zone_outage", zone="us-east-1c")
    terminated = cloud.wait_state(in_zone, "terminated")
    assert terminated["StateReason"]["Code"] == "Server.InternalError"
    assert "stopped in order" not in cloud.console(in_zone)
    assert cloud.state(elsewhere) == "running"
    with pytest.raises(cloud.ec2.exceptions.ClientError, match="InsufficientInstanceCapacity"):
        cloud.launch(SubnetId=cloud.subnet("us-east-1c"))


@pytest.mark.slow
def test_only_spot_instances_are_interrupted(cloud: Cloud) -> None:
    instance = cloud.launch()
    with pytest.raises(MesaformError, match="is not a spot instance"):
        cloud.fault(kind="spot_interruption", instance_id=instance, after_s=0)
