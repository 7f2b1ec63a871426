"""Settings of the network that fit together, and those that do not."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesaform.common.errors import BadInput
from mesaform.config.network import (
    MAX_GROUP_RULES,
    OPERATOR_PORTS,
    OTHER_MASTER_RULES,
    agent_capacity,
)
from mesaform.config.parser import parse
from mesaform.config.schema import ClusterSpec, Network
from mesaform.topology import addresses, ports
from mesaform.topology.hourly_items import hourly_items

TWO_ZONES = "mode: existing, zones: [us-east-1a, us-east-1b]"
EXISTING = "mode: existing, zones: [us-east-1a], existing: {subnet_tags: {a: b}}"
CERTIFICATE = "arn:aws:acm:us-east-1:111122223333:certificate/0123-4567"

ELSEWHERE = CERTIFICATE.replace("us-east-1", "eu-west-1")


def spec_of(network: str, rest: str = "") -> ClusterSpec:
    return parse(
        "name: a\ntarget: aws\nengine: embedded\n"
        f"network: {{operator_cidrs: [203.0.113.0/24], {network}}}\n{rest}"
    )


@pytest.mark.parametrize(
    ("network", "complaint"),
    [
        ("nat: single", "network.nat: only for network.mode private, this is public"),
        ("existing: {subnet_tags: {a: b}}", "network.existing: only for network.mode existing"),
        (
            EXISTING + ", ipv6: true",
            "network.ipv6: only for network.mode public or private",
        ),
        (
            EXISTING + ", flow_logs: s3",
            "network.flow_logs: only for",
        ),
        ("mode: existing, zones: [us-east-1a]", "network.existing: must have subnet_ids or"),
        (
            "mode: existing, existing: {subnet_tags: {a: b}}",
            "network.zones: must name the zones of the subnets",
        ),
        (
            TWO_ZONES + ", existing: {subnet_ids: [subnet-0123456789abcdef0]}",
            "1 subnets for 2 zones: name one subnet of each zone",
        ),
        (
            "mode: existing, zones: [us-east-1a], existing: {subnet_ids: [vpc-1]}",
            "'vpc-1' is not a subnet's id",
        ),
        (
            "mode: private, nat: none, load_balancer: {internal: false}",
            "load_balancer.internal: must be true with nat none",
        ),
        (
            f"load_balancer: {{certificate_arn: '{CERTIFICATE}'}}",
            "certificate_arn and host_name need each other",
        ),
        (
            f"load_balancer: {{host_name: a.b, certificate_arn: '{ELSEWHERE}'}}",
            "the certificate is of eu-west-1, the cluster of us-east-1",
        ),
    ],
)
def test_settings_that_do_not_fit_are_named(network: str, complaint: str) -> None:
    with pytest.raises(BadInput) as caught:
        spec_of(network)
    assert complaint in str(caught.value)


def test_operator_networks_are_refused_before_a_group_has_sixty_rules() -> None:
    def of(count: int) -> ClusterSpec:
        cidrs = [f"10.{number}.0.0/24" for number in range(count)]
        return parse(
            "name: a\ntarget: aws\nengine: embedded\n"
            f"network: {{load_balancer: {{}}, operator_cidrs: [{', '.join(cidrs)}]}}\n"
        )

    def rules(spec: ClusterSpec) -> int:
        return sum(rule.group == "master" for rule in ports.ingress_rules(spec))

    most = (MAX_GROUP_RULES - 1 - OTHER_MASTER_RULES) // OPERATOR_PORTS
    assert rules(of(most)) == OPERATOR_PORTS * most + OTHER_MASTER_RULES < MAX_GROUP_RULES
    with pytest.raises(BadInput, match=f"{most + 1} networks make 61 rules"):
        of(most + 1)


def test_the_refusal_says_how_far_networks_can_be_merged() -> None:
    cidrs = ", ".join(f"10.0.{number}.0/24" for number in range(16))
    with pytest.raises(BadInput, match="the same addresses make 1 networks"):
        parse(f"name: a\ntarget: aws\nnetwork: {{operator_cidrs: [{cidrs}]}}\n")


def test_a_network_of_operators_is_named_once() -> None:
    with pytest.raises(BadInput, match=r"203.0.113.0/24 named more than once"):
        parse("name: a\ntarget: aws\nnetwork: {operator_cidrs: [203.0.113.0/24, 203.0.113.0/24]}\n")


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.integers(16, 25), st.integers(1, 4), st.sampled_from((1, 3, 5)))
def test_masters_and_the_promised_agents_fit_into_the_subnets(
    prefix: int, zones: int, masters: int
) -> None:
    spec = parse(
        f"name: a\ntarget: aws\nnetwork: {{mode: private, cidr: 10.0.0.0/{prefix},"
        f" operator_cidrs: [203.0.113.0/24],"
        f" zones: [{', '.join(f'us-east-1{letter}' for letter in 'abcd'[:zones])}]}}\n"
        f"masters: {{count: {masters}}}\nagents: [{{count: 0, max: 1}}]\n"
    )
    subnets = addresses.subnets(spec)
    assert len(subnets) == zones
    free = 0
    for subnet in subnets:
        usable = set(subnet)
        usable -= {*list(subnet)[:4], subnet.broadcast_address}
        usable -= set(addresses.reserved_for_masters(subnet))
        free += len(usable)
    assert agent_capacity(IPv4Network(spec.network.cidr), zones) == free
    fixed = addresses.master_addresses(spec)
    assert len(set(fixed)) == masters
    for address, zone in zip(fixed, addresses.master_zones(spec), strict=True):
        reserved = addresses.reserved_for_masters(subnets[spec.zones.index(zone)])
        assert address in reserved
        assert address != subnets[spec.zones.index(zone)].broadcast_address
    everything = [*subnets, *addresses.service_subnets(spec)]
    assert len(set(everything)) == 2 * zones
    assert not any(a.overlaps(b) for a in everything for b in everything if a != b)


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        ("mode: public", {}),
        (
            "mode: private",
            {"NAT gateway": 3, "address of NAT gateways": 3},
        ),
        (
            "mode: private, nat: single, load_balancer: {}, private_dns: a.internal",
            {
                "NAT gateway": 1,
                "address of NAT gateways": 1,
                "load balancer": 1,
                "address of load balancer": 3,
                "private hosted zone": 1,
            },
        ),
        ("mode: private, nat: none", {"interface endpoint": 15}),
        (
            EXISTING + ", load_balancer: {}",
            {"load balancer": 1},
        ),
    ],
)
def test_what_the_network_costs_by_the_hour_is_listed_by_kind(
    network: str, expected: dict[str, int]
) -> None:
    items = hourly_items(spec_of(network))
    assert {f"{item.kind} {item.purpose}".rstrip(): item.count for item in items} == expected


def test_a_load_balancer_is_internal_only_where_nobody_comes_in_or_where_it_is_asked() -> None:
    assert not spec_of("load_balancer: {}").network.is_balancer_internal
    assert spec_of("load_balancer: {internal: true}").network.is_balancer_internal
    assert spec_of("mode: private, nat: none, load_balancer: {}").network.is_balancer_internal
    assert not spec_of("mode: private, load_balancer: {}").network.is_balancer_internal
    assert Network().is_balancer_internal is False
