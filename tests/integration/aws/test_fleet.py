"""What the adapter does beyond the port's promises: how it asks, and what it makes of trouble."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest

from harness.autoscaler_builders import NOW, ZONES
from mesaform.aws.capacity_errors import describe, of_quota, of_zone
from mesaform.aws.create_fleet import fleet_request, launch_result
from mesaform.aws.fleet import AwsFleet
from mesaform.aws.ports import Quote
from mesaform.aws.pricing.market import Market
from mesaform.aws.pricing.price_cache import MemoryPriceCache
from mesaform.aws.rate_limiter import RateLimiter
from mesaform.common.errors import NotFound, NotOwned, Retryable
from mesaform.testing.fake_prices import FakePriceList, FakeSpotFeed
from mesaform.topology.names import Tag, launch_template_name
from tests.integration.aws.conftest import REGION
from tests.integration.aws.test_contract import a_request
from tests.unit.aws.test_fleet_result import a_request as plain_request
from tests.unit.aws.test_fleet_result import an_answer

SUBNETS = {zone: f"subnet-{zone[-1]}" for zone in ZONES}


def calls(cloud: Any) -> list[str]:
    """The names of the EC2 calls that are made from now on."""
    seen: list[str] = []
    cloud.meta.events.register(
        "before-call.ec2", lambda model, **_: seen.append(model.name), unique_id=f"seen-{id(seen)}"
    )
    return seen


def test_on_demand_offerings_are_asked_for_in_our_order_and_spot_is_left_to_ec2_to_weigh() -> None:
    request = plain_request()
    call = fleet_request(request, SUBNETS)
    overrides = call["LaunchTemplateConfigs"][0]["Overrides"]
    assert call["OnDemandOptions"] == {"AllocationStrategy": "prioritized"}
    assert [item["Priority"] for item in overrides] == [
        float(n) for n in range(len(request.offerings))
    ]
    assert [(item["InstanceType"], item["SubnetId"]) for item in overrides] == [
        (o.instance_type, SUBNETS[o.zone]) for o in request.offerings
    ]
    assert (
        call["Type"],
        call["ClientToken"],
        call["TargetCapacitySpecification"]["TotalTargetCapacity"],
    ) == ("instant", "ms-1", 2)


@pytest.mark.slow
def test_a_spot_call_lets_ec2_weigh_price_and_capacity(cloud: Any) -> None:
    call = fleet_request(a_request(AwsFleet(REGION), capacity="spot"), SUBNETS)
    assert call["SpotOptions"]["AllocationStrategy"] == "price-capacity-optimized"
    assert "OnDemandOptions" not in call
    assert all("Priority" not in item for item in call["LaunchTemplateConfigs"][0]["Overrides"])


def test_zones_without_a_subnet_are_not_asked_and_none_at_all_is_an_error() -> None:
    call = fleet_request(plain_request(), {ZONES[1]: "subnet-b"})
    assert {item["SubnetId"] for item in call["LaunchTemplateConfigs"][0]["Overrides"]} == {
        "subnet-b"
    }
    with pytest.raises(NotFound, match="no subnet"):
        fleet_request(plain_request(), {})


def test_errors_of_a_zone_or_quota_have_its_scope() -> None:
    answer = an_answer(
        "InsufficientFreeAddressesInSubnet", "VcpuLimitExceeded", "InsufficientInstanceCapacity"
    )
    result = launch_result(answer, plain_request(), {"subnet-a": ZONES[0]}, "here")
    assert result.without_capacity == (
        of_zone(ZONES[0]),
        of_quota("m5.large", "on-demand"),
        "m5.large/us-east-1a/on-demand",
    )
    assert [describe(key) for key in result.without_capacity] == [
        "addresses in us-east-1a",
        "the account's quota of standard types (on-demand)",
        "m5.large (on-demand) in us-east-1a",
    ]


def test_a_fleet_that_was_throttled_inside_says_nothing_of_its_offerings() -> None:
    result = launch_result(
        an_answer("RequestLimitExceeded"), plain_request(), {"subnet-a": ZONES[0]}, "here"
    )
    assert (result.machines, result.without_capacity) == ((), ())


@pytest.mark.slow
def test_hundreds_of_machines_are_terminated_in_few_calls(cloud: Any) -> None:
    fleet = AwsFleet(REGION)
    request = a_request(fleet, count=230)
    ids = [machine.instance_id for machine in fleet.launch(request).machines]
    seen = calls(cloud)
    fleet.terminate("toy", [*ids, *ids])
    assert seen == ["DescribeInstances", "DescribeInstances", "TerminateInstances"]
    assert {machine.state for machine in fleet.machines("toy") if machine.instance_id in ids} <= {
        "shutting-down",
        "terminated",
    }


@pytest.mark.slow
def test_a_look_at_the_catalogue_calls_nobody_until_something_is_due(cloud: Any) -> None:
    quotes = [Quote(NOW, "m5.large", ZONES[0], 0.05)]
    market = Market(
        REGION,
        FakePriceList({"m5.large": 0.1}),
        FakeSpotFeed(quotes),
        MemoryPriceCache(),
        lambda: NOW + 1,
    )
    fleet = AwsFleet(REGION, market)
    first = {o.key: o.usd_per_hour for o in fleet.offerings(["m5.large"], ZONES)}
    assert (first["m5.large/us-east-1a/on-demand"], first["m5.large/us-east-1a/spot"]) == (
        0.096,
        0.0384,
    )
    seen = calls(cloud)
    market.refresh(["m5.large"])
    again = {o.key: o.usd_per_hour for o in fleet.offerings(["m5.large"], ZONES)}
    assert (again["m5.large/us-east-1a/on-demand"], again["m5.large/us-east-1a/spot"]) == (
        0.1,
        0.05,
    )
    assert fleet.offerings(["m5.large"], ZONES) is fleet.offerings(["m5.large"], ZONES)
    assert seen == []


@pytest.mark.slow
def test_while_ec2_refuses_what_was_known_of_the_types_stays_in_use(cloud: Any) -> None:
    now, limiter = [0.0], RateLimiter(lambda: 0.0)
    fleet = AwsFleet(
        REGION, Market(REGION, None, None, MemoryPriceCache(), lambda: NOW), limiter, lambda: now[0]
    )
    first = fleet.offerings(["m5.large"], ZONES)
    for _ in range(99):
        with limiter.limit("DescribeInstanceTypes"):
            pass
    now[0] = 7200.0
    seen = calls(cloud)
    assert {o.key for o in first} == {o.key for o in fleet.offerings(["m5.large"], ZONES)}
    assert seen == []
    with pytest.raises(Retryable):
        fleet.offerings(["c5.large"], ZONES)


@pytest.mark.slow
def test_the_types_of_the_catalogue_are_read_again_after_an_hour(cloud: Any) -> None:
    now = [0.0]
    market = Market(REGION, None, None, MemoryPriceCache(), lambda: NOW)
    fleet = AwsFleet(REGION, market, RateLimiter(lambda: 0.0), lambda: now[0])
    fleet.offerings(["m5.large"], ZONES)
    seen = calls(cloud)
    now[0] = 3600.0
    fleet.offerings(["m5.large"], ZONES)
    assert seen == []
    now[0] = 3601.0
    fleet.offerings(["m5.large"], ZONES)
    assert seen == ["DescribeInstanceTypes", "DescribeInstanceTypeOfferings"]


@pytest.mark.slow
def test_versions_that_differ_only_in_tags_are_alike_and_a_new_image_is_not(cloud: Any) -> None:
    minutes = count(0, 61)
    fleet, name = (
        AwsFleet(REGION, clock=lambda: float(next(minutes))),
        launch_template_name("toy", "default"),
    )
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "team", "Value": "blue"}]}]
    data = cloud.describe_launch_template_versions(LaunchTemplateName=name)[
        "LaunchTemplateVersions"
    ][0]["LaunchTemplateData"]
    cloud.create_launch_template_version(
        LaunchTemplateName=name, LaunchTemplateData={**data, "TagSpecifications": tags}
    )
    assert (fleet.templates("toy")["default"].latest, fleet.templates("toy")["default"].alike) == (
        "2",
        {"1", "2"},
    )
    cloud.create_launch_template_version(
        LaunchTemplateName=name, LaunchTemplateData={**data, "UserData": "e30="}
    )
    assert (fleet.templates("toy")["default"].latest, fleet.templates("toy")["default"].alike) == (
        "3",
        {"3"},
    )
    seen = calls(cloud)
    fleet.templates("toy")
    assert seen == ["DescribeLaunchTemplates"]


@pytest.mark.slow
def test_machines_are_launched_into_the_network_of_their_deployment_only(cloud: Any) -> None:
    own, other = "aaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbb"
    subnets = {item["SubnetId"] for item in cloud.describe_subnets()["Subnets"] if item.get("Tags")}
    tag_with(cloud, own, *subnets)
    replace_template(cloud, own)
    vpc = cloud.create_vpc(CidrBlock="127.43.0.0/16")["Vpc"]["VpcId"]
    foreign = [
        cloud.create_subnet(
            VpcId=vpc, CidrBlock=f"127.43.{number * 32}.0/19", AvailabilityZone=zone
        )["Subnet"]["SubnetId"]
        for number, zone in enumerate(ZONES)
    ]
    cloud.create_tags(Resources=foreign, Tags=[{"Key": Tag.CLUSTER, "Value": "toy"}])
    tag_with(cloud, other, *foreign)
    fleet = AwsFleet(REGION)

    asked: set[str] = set()
    cloud.meta.events.register(
        "provide-client-params.ec2.CreateFleet",
        lambda params, **_: asked.update(subnets_of(params)),
    )

    (machine, *_) = fleet.launch(a_request(fleet)).machines

    assert asked
    assert asked <= subnets
    assert machine.tags[Tag.DEPLOYMENT] == own
    tag_with(cloud, other, machine.instance_id)
    with pytest.raises(NotOwned, match=Tag.DEPLOYMENT):
        fleet.terminate("toy", [machine.instance_id])


def replace_template(cloud: Any, deployment: str) -> None:
    """Create the cluster's template anew: moto shows only the tags of the creation."""
    (template,) = cloud.describe_launch_templates()["LaunchTemplates"]
    identity = template["LaunchTemplateId"]
    version = cloud.describe_launch_template_versions(LaunchTemplateId=identity)
    cloud.delete_launch_template(LaunchTemplateId=identity)
    tags = [*template["Tags"], {"Key": Tag.DEPLOYMENT, "Value": deployment}]
    cloud.create_launch_template(
        LaunchTemplateName=template["LaunchTemplateName"],
        LaunchTemplateData=version["LaunchTemplateVersions"][0]["LaunchTemplateData"],
        TagSpecifications=[{"ResourceType": "launch-template", "Tags": tags}],
    )


def test_a_launch_without_its_template_names_the_template_and_the_command_that_makes_it(
    cloud: Any,
) -> None:
    fleet = AwsFleet(REGION)
    fleet.templates("toy")
    cloud.delete_launch_template(LaunchTemplateName=launch_template_name("toy", "default"))
    with pytest.raises(NotFound) as raised:
        fleet.launch(a_request(fleet))
    assert raised.value.what == "launch template mesaform/toy/default is missing"
    assert raised.value.fix == "create it again: mesaform up"


def subnets_of(request: dict[str, Any]) -> set[str]:
    (configuration,) = request["LaunchTemplateConfigs"]
    return {override["SubnetId"] for override in configuration["Overrides"]}


def tag_with(cloud: Any, deployment: str, *ids: str) -> None:
    cloud.create_tags(Resources=list(ids), Tags=[{"Key": Tag.DEPLOYMENT, "Value": deployment}])


@pytest.mark.slow
def test_no_offering_has_gpus_which_no_image_can_use(cloud: Any) -> None:
    offerings = AwsFleet(REGION).offerings(["g4dn.xlarge"], ZONES)
    assert offerings
    assert {offering.resources.gpus for offering in offerings} == {0}
