"""Subnets of an existing VPC: one in each zone, of one VPC, with free addresses."""

from __future__ import annotations

import pytest

from mesaform.aws.subnet_routes import SubnetFacts
from mesaform.doctor.finding import Level, errors
from mesaform.doctor.internet import assess_existing

ZONES = ("us-east-1a", "us-east-1b")


def subnet(zone: str, *, vpc: str = "vpc-1", way_out: str = "nat-1", free: int = 200):
    return SubnetFacts(f"subnet-{zone[-1]}", vpc, zone, way_out, {}, free)


GOOD = [subnet(zone) for zone in ZONES]


def test_one_subnet_in_each_zone_of_one_vpc_is_fine():
    assert [item.level for item in assess_existing(GOOD, ZONES)] == [Level.OK]


@pytest.mark.parametrize(
    ("subnets", "words"),
    [
        ([GOOD[0]], "0 subnets match in us-east-1b: none"),
        ([*GOOD, GOOD[1]], "2 subnets match in us-east-1b: subnet-b, subnet-b"),
        ([GOOD[0], subnet(ZONES[1], vpc="vpc-2")], "the subnets are of 2 VPCs"),
        ([GOOD[0], subnet(ZONES[1], free=3)], "subnet-b has 3 free addresses"),
    ],
)
def test_what_does_not_fit_is_an_error_before_anything_is_created(subnets, words):
    assert words in [item.detail for item in errors(list(assess_existing(subnets, ZONES)))]


def test_a_subnet_without_a_default_route_may_have_endpoints():
    found = list(assess_existing([GOOD[0], subnet(ZONES[1], way_out="")], ZONES))
    assert errors(found) == []
    assert any("no route" in item.detail for item in found)
