"""The product's fleet adapter against the local cloud, with each of EC2's faults."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from harness.autoscaler_builders import ZONES, a_snapshot, a_spec, queued
from mesaform.autoscaler.daemon.executor import PlanExecutor
from mesaform.autoscaler.model.decision import Decision
from mesaform.autoscaler.model.planner_state import PlannerState
from mesaform.autoscaler.planner.planner import Plan, plan
from mesaform.aws.fleet import AwsFleet
from mesaform.aws.ports import LaunchRequest, Machine
from mesaform.aws.pricing.market import Market
from mesaform.aws.pricing.price_cache import MemoryPriceCache
from mesaform.aws.pricing.price_list import AwsPriceList
from mesaform.aws.pricing.spot import AwsSpotFeed
from mesaform.aws.rate_limiter import RateLimiter
from mesaform.common.errors import Retryable
from mesaform.topology.names import Tag, launch_template_name
from tests.integration.localcloud.conftest import (
    REGION,
    Cloud,
    eventually,
    operator_key,
    start_cloud,
    stop_cloud,
)
from tests.unit.autoscaler.world import Journal

pytestmark = pytest.mark.slow
NAME = "toy"
TYPES = ["m5.large", "r5.large"]
SPEC = a_spec(pools=[{"count": 0, "types": TYPES, "max": 30}])


class Network:
    """A cluster's network and template in the local cloud, with its machines."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        tags = [{"Key": Tag.CLUSTER, "Value": NAME}]
        cloud.ec2.create_tags(Resources=list(cloud.network()[1].values()), Tags=tags)
        cloud.ec2.create_launch_template(
            LaunchTemplateName=launch_template_name(NAME, "default"),
            LaunchTemplateData={"ImageId": cloud.base_image, "InstanceType": "m5.large"},
            TagSpecifications=[
                {
                    "ResourceType": "launch-template",
                    "Tags": [*tags, {"Key": Tag.POOL, "Value": "default"}],
                }
            ],
        )

    def fleet(self) -> AwsFleet:
        return AwsFleet(REGION)

    def alive(self) -> list[Machine]:
        return [
            machine
            for machine in AwsFleet(REGION).machines(NAME)
            if machine.state in {"pending", "running"}
        ]

    def request(self, token: str, count: int = 2, types: list[str] | None = None) -> LaunchRequest:
        offered = [
            o for o in self.fleet().offerings(types or TYPES, ZONES) if o.capacity == "on-demand"
        ]
        return LaunchRequest(NAME, "default", count, tuple(offered), token)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    cloud = start_cloud(tmp_path_factory.mktemp("launching"))
    yield cloud
    stop_cloud(cloud)


@pytest.fixture(scope="module")
def shared_network(cloud: Cloud) -> Iterator[Network]:
    with pytest.MonkeyPatch.context() as patch:
        _point_at(patch, cloud)
        yield Network(cloud)


@pytest.fixture
def network(
    shared_network: Network, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Network]:
    _point_at(monkeypatch, cloud)
    yield shared_network
    cloud.clear_faults()
    if left := [machine.instance_id for machine in shared_network.alive()]:
        cloud.ec2.terminate_instances(InstanceIds=left)


def _point_at(patch: pytest.MonkeyPatch, cloud: Cloud) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL": cloud.url,
        "AWS_ACCESS_KEY_ID": operator_key(cloud.root)["aws_access_key_id"],
        "AWS_SECRET_ACCESS_KEY": operator_key(cloud.root)["aws_secret_access_key"],
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        patch.setenv(name, value)


class Daemon:
    """Passes of planner and executor on a real adapter; without agents the demand stays."""

    def __init__(self, fleet: AwsFleet, wanted: int) -> None:
        self.fleet = fleet
        self.wanted = wanted
        self.now = time.time()
        self.journal = Journal()
        self.decisions: list[Decision] = []

    def pass_(self, after_s: float = 2.0) -> Plan:
        self.now += after_s
        actor = PlanExecutor(
            NAME, self.fleet, None, self.journal, self.decisions.append, lambda: self.now
        )  # type: ignore[arg-type]

        async def once() -> Plan:
            machines = self.fleet.machines(NAME)
            known: PlannerState = replace(self.journal.memory, leader_since=self.now - 99)
            memory, intents = await actor.recover(
                known, list(self.journal.launches.values()), machines
            )
            decision = plan(
                a_snapshot(
                    SPEC,
                    machines=machines,
                    agents=[],
                    queue=[queued(count=self.wanted, cpus=2)],
                    offerings={"default": tuple(self.fleet.offerings(TYPES, ZONES))},
                    state=memory,
                    intents=tuple(intents),
                ),
                self.now,
            )
            await actor.execute(decision)
            return decision

        return asyncio.run(once())

    def kinds(self) -> list[str]:
        return [decision.kind for decision in self.decisions]


def test_list_prices_and_spot_prices_come_through_the_api(network: Network) -> None:
    market = Market(
        REGION,
        AwsPriceList(REGION),
        AwsSpotFeed(REGION, RateLimiter(time.monotonic)),
        MemoryPriceCache(),
        time.time,
    )
    assert market.spot("m5.large", ZONES[0]) is None
    market.refresh(TYPES)
    assert market.on_demand("m5.large") == pytest.approx(0.096)
    assert market.note(TYPES) == ""
    for name, usd in (("m5.large", 0.096), ("r5.large", 0.126)):
        spot = market.spot(name, ZONES[0])
        assert spot is not None
        assert 0.30 * usd <= spot <= 0.40 * usd
    assert len({market.spot("m5.large", zone) for zone in ZONES}) == 3


def test_spot_prices_have_a_history_that_moves_slowly(network: Network) -> None:
    feed, now = AwsSpotFeed(REGION, RateLimiter(time.monotonic)), time.time()
    quotes = sorted(
        quote for quote in feed.quotes(["m5.large"], now - 6 * 3600) if quote.zone == ZONES[0]
    )
    assert 36 <= len(quotes) <= 38
    assert quotes[0].at <= now - 6 * 3600
    steps = [abs(b.usd_per_hour / a.usd_per_hour - 1) for a, b in pairwise(quotes)]
    assert 0 < max(steps) < 0.03
    assert len({quote.usd_per_hour for quote in quotes}) > 10


def test_a_throttled_launch_states_the_next_try_and_is_not_repeated_before(
    network: Network,
) -> None:
    now = [0.0]
    fleet, request = (
        AwsFleet(REGION, limiter=RateLimiter(lambda: now[0])),
        network.request("ms-throttled"),
    )
    network.cloud.fault(kind="throttle", actions=["CreateFleet"])
    with pytest.raises(Retryable, match="RequestLimitExceeded") as caught:
        fleet.launch(request)
    assert caught.value.after_s == 2.0
    network.cloud.clear_faults()
    with pytest.raises(Retryable, match="not made"):
        fleet.launch(request)
    assert network.alive() == []
    now[0] += 2.0
    assert len(fleet.launch(request).machines) == 2


def test_when_every_call_is_throttled_a_pass_buys_nothing_and_a_later_one_buys_once(
    network: Network,
) -> None:
    daemon = Daemon(network.fleet(), wanted=3)
    daemon.fleet.offerings(TYPES, ZONES)
    network.cloud.fault(kind="throttle")
    with pytest.raises(Retryable):
        daemon.pass_()
    network.cloud.clear_faults()

    def goes_on() -> bool:
        try:
            daemon.pass_()
        except Retryable:
            return False
        return True

    eventually(goes_on, "the calls are allowed again")
    daemon.pass_()
    assert len(network.alive()) == 3
    bought_at = {decision.at for decision in daemon.decisions if decision.kind == "buy"}
    assert len(bought_at) == 1


def test_capacity_errors_on_everything_are_few_calls_and_end_when_there_is_capacity_again(
    network: Network,
) -> None:
    daemon = Daemon(network.fleet(), wanted=4)
    network.cloud.fault(kind="capacity")
    asked: list[str] = []
    daemon.fleet._ec2.meta.events.register(
        "before-call.ec2.CreateFleet", lambda **_: asked.append("call"), unique_id="asked"
    )
    for _ in range(30):
        daemon.pass_(after_s=10.0)  # five minutes
    daemon.fleet._ec2.meta.events.unregister("before-call.ec2.CreateFleet", unique_id="asked")
    assert 2 <= len(asked) <= 8
    assert network.alive() == []
    assert "no_capacity" in daemon.kinds()
    network.cloud.clear_faults()
    for _ in range(70):
        daemon.pass_(after_s=10.0)
        if len(network.alive()) == 4:
            break
    assert len(network.alive()) == 4


def test_a_partial_fleet_keeps_its_machines_and_names_the_pools_without_capacity(
    network: Network,
) -> None:
    network.cloud.fault(kind="capacity", type="m5.large", zone=ZONES[0])
    network.cloud.fault(kind="capacity", type="m5.large", zone=ZONES[1])
    result = network.fleet().launch(network.request("ms-half", 3, ["m5.large"]))
    assert {machine.zone for machine in result.machines} == {ZONES[2]}
    assert set(result.without_capacity) == {f"m5.large/{zone}/on-demand" for zone in ZONES[:2]}


def test_a_fleet_avoids_a_zone_that_is_out(network: Network) -> None:
    daemon = Daemon(network.fleet(), wanted=6)
    network.cloud.fault(kind="zone_outage", zone=ZONES[0])
    daemon.pass_()
    daemon.pass_()
    assert len(network.alive()) == 6
    assert ZONES[0] not in {machine.zone for machine in network.alive()}
    assert all(key.split("/")[1] in {ZONES[0], "*"} for key in daemon.journal.memory.backoffs)


def test_a_stale_list_of_machines_causes_no_second_purchase(network: Network) -> None:
    daemon = Daemon(network.fleet(), wanted=2)
    network.cloud.fault(kind="lag", seconds=30)
    for _ in range(5):
        daemon.pass_()
    assert not [
        machine
        for machine in daemon.fleet.machines(NAME)
        if machine.state in {"pending", "running"}
    ]
    again = [daemon.fleet.launch(intent.request) for intent in daemon.journal.launches.values()]
    network.cloud.clear_faults()
    assert len(network.alive()) == 2
    assert {machine.instance_id for result in again for machine in result.machines} == {
        machine.instance_id for machine in network.alive()
    }


def test_an_ignored_termination_is_noticed_and_works_when_repeated(
    network: Network,
) -> None:
    fleet = network.fleet()
    ids = [
        machine.instance_id for machine in fleet.launch(network.request("ms-ignored", 2)).machines
    ]
    network.cloud.fault(kind="ignored_call", count=1)
    fleet.terminate(NAME, ids)
    assert {machine.instance_id for machine in network.alive()} == set(ids)
    fleet.terminate(NAME, ids)
    assert network.alive() == []


def test_machines_name_the_version_of_their_template(network: Network) -> None:
    fleet = network.fleet()
    assert fleet.templates(NAME)["default"].latest == "1"
    bought = fleet.launch(network.request("ms-version", 1)).machines[0]
    machine: Any = next(
        machine for machine in network.alive() if machine.instance_id == bought.instance_id
    )
    assert machine.tags[Tag.TEMPLATE_VERSION] == "1"


def test_one_call_buys_the_cheaper_architecture_from_its_own_template(
    network: Network, cloud: Cloud
) -> None:
    """A template with the image of the other architecture refuses its offerings, and only those."""
    ssm = cloud.client("ssm")
    parameter = "/aws/service/debian/release/12/latest/arm64"
    image = ssm.get_parameter(Name=parameter)["Parameter"]["Value"]
    tags = [{"Key": Tag.CLUSTER, "Value": NAME}, {"Key": Tag.POOL, "Value": "default"}]
    tags.append({"Key": Tag.ARCHITECTURE, "Value": "arm64"})
    name = launch_template_name(NAME, "default", "arm64")
    cloud.ec2.create_launch_template(
        LaunchTemplateName=name,
        LaunchTemplateData={"ImageId": cloud.base_image, "InstanceType": "m6g.large"},
        TagSpecifications=[{"ResourceType": "launch-template", "Tags": tags}],
    )
    both = ["m6g.large", "m5.large"]
    refused = network.fleet().launch(network.request("ms-wrong", 1, both))
    assert [machine.instance_type for machine in refused.machines] == ["m5.large"]
    assert {key.partition("/")[0] for key in refused.without_capacity} == {"m6g.large"}
    data = {"ImageId": image, "InstanceType": "m6g.large"}
    cloud.ec2.create_launch_template_version(LaunchTemplateName=name, LaunchTemplateData=data)
    result = network.fleet().launch(network.request("ms-right", 2, both))
    assert [machine.instance_type for machine in result.machines] == ["m6g.large"] * 2
    assert network.fleet().templates(NAME)["default.arm64"].latest == "2"


def test_types_that_boot_no_image_are_not_offered(network: Network) -> None:
    types = ["m5.metal", "hpc7g.4xlarge", "m6g.large"]
    offered = network.fleet().offerings(types, ZONES)
    assert {offering.instance_type for offering in offered} == {"m6g.large"}
