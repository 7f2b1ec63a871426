"""The network of every mode, with each number of zones and masters, on the JSON for Terraform."""

from __future__ import annotations

import ast
import json

import pytest

from mesaform.config.parser import parse
from mesaform.topology.endpoints import CALLED_SERVICES
from tests.support import aws_calls
from tests.support.machine_modules import modules_of_machines
from tests.support.synthesis import Stacks, example_files, synthesize

pytestmark = [pytest.mark.slow]

MODES = {
    "public": "mode: public",
    "per-zone": "mode: private",
    "single": "mode: private, nat: single",
    "endpoints": "mode: private, nat: none",
    "existing": "mode: existing, existing: {subnet_tags: {tier: private}}",
}
OPTIONS = "ipv6: true, flow_logs: cloudwatch, load_balancer: {}, private_dns: drawn.internal"
EXISTING_OPTIONS = "load_balancer: {}, private_dns: drawn.internal"
SIZES = {
    "public": ((1, 1), (2, 3)),
    "per-zone": ((4, 5),),
    "single": ((2, 3),),
    "endpoints": ((4, 5),),
    "existing": ((2, 3),),
}
"""Numbers of zones and masters of each mode."""


def cluster_file(mode: str, zones: int, masters: int, options: str = "") -> str:
    named = ", ".join(f"us-east-1{letter}" for letter in "abcd"[:zones])
    return (
        "name: drawn\ntarget: aws\nengine: embedded\n"
        f"network: {{{MODES[mode]}, zones: [{named}], operator_cidrs: [203.0.113.0/24]"
        f"{options and ', '}{options}}}\n"
        f"masters: {{count: {masters}}}\nagents: [{{count: 1, max: 3}}]\n"
    )


def clusters() -> dict[str, str]:
    """Every mode, with the least and most zones and masters, and once with every option."""
    files = {
        f"{mode}-{zones}-{masters}": cluster_file(mode, zones, masters)
        for mode, sizes in SIZES.items()
        for zones, masters in sizes
    }
    for mode in MODES:
        options = EXISTING_OPTIONS if mode == "existing" else OPTIONS
        files[f"{mode}-2-3-options"] = cluster_file(mode, 2, 3, options)
    return files


@pytest.fixture(scope="module")
def synthesized(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Stacks]:
    return synthesize(tmp_path_factory.mktemp("modes"), clusters())


def resources(stack: dict, kind: str) -> dict[str, dict]:
    return stack["resource"].get(kind, {})


def test_no_group_has_sixty_rules_and_none_is_open_to_the_world(synthesized):
    for name, stacks in synthesized.items():
        rules = resources(stacks["network"], "aws_vpc_security_group_ingress_rule").values()
        groups = [rule["security_group_id"] for rule in rules]
        assert max(groups.count(group) for group in groups) < 60, name
        for rule in rules:
            assert rule["description"], name
            assert rule.get("cidr_ipv4") in {None, "203.0.113.0/24"}, name
            assert "cidr_ipv6" not in rule, name
            assert rule["to_port"] - rule["from_port"] <= 1000, name
            assert rule["ip_protocol"] == "tcp", name
        for rule in resources(stacks["network"], "aws_vpc_security_group_egress_rule").values():
            assert rule["description"], name


def test_every_resource_that_takes_tags_carries_the_deployment(synthesized):
    without_tags = {
        "aws_route",
        "aws_route_table_association",
        "aws_ec2_subnet_cidr_reservation",
        "aws_lb_target_group_attachment",
        "aws_route53_record",
        "aws_iam_role_policy",
        "aws_cloudwatch_event_target",
    }
    for name, stacks in synthesized.items():
        for stack in stacks.values():
            for kind, declared in stack["resource"].items():
                if kind in without_tags:
                    continue
                for resource in declared.values():
                    assert resource["tags"]["mesaform:deployment"] == "0123456789abcdef", name


def test_machines_leave_as_the_mode_says(synthesized):
    for name, stacks in synthesized.items():
        network, zones = stacks["network"], int(name.rsplit("-")[-2 if "opt" not in name else -3])
        mode = next(mode for mode in MODES if name.startswith(mode))
        routes = resources(network, "aws_route").values()
        out = [route for route in routes if route.get("destination_cidr_block") == "0.0.0.0/0"]
        nat = [route["nat_gateway_id"] for route in out if "nat_gateway_id" in route]
        expected = {"per-zone": zones, "single": 1}.get(mode, 0)
        assert len(resources(network, "aws_nat_gateway")) == expected, name
        assert len(resources(network, "aws_eip")) == expected, name
        assert (len(nat), len(set(nat))) == ((zones, expected) if expected else (0, 0)), name
        assert bool(resources(network, "aws_internet_gateway")) == (
            mode in {"public", "per-zone", "single"}
        ), name
        public = [
            subnet
            for subnet in resources(network, "aws_subnet").values()
            if subnet["map_public_ip_on_launch"]
        ]
        assert len(public) == (zones if mode == "public" else 0), name


def test_each_machine_subnet_has_one_route_table_and_a_reservation_for_masters(synthesized):
    for name, stacks in synthesized.items():
        network = stacks["network"]
        subnets = {f"${{aws_subnet.{key}.id}}" for key in resources(network, "aws_subnet")}
        associations = resources(network, "aws_route_table_association").values()
        assert sorted(item["subnet_id"] for item in associations) == sorted(subnets), name
        machine = {subnet for subnet in subnets if ".service-" not in subnet}
        reserved = resources(network, "aws_ec2_subnet_cidr_reservation").values()
        assert {item["subnet_id"] for item in reserved} == machine, name
        services = [
            subnet
            for subnet in resources(network, "aws_subnet").values()
            if subnet["tags"].get("mesaform:role") == "services"
        ]
        assert len(services) == len(subnets) - len(machine), name


def test_without_nat_each_called_service_has_an_endpoint_behind_its_own_group(synthesized):
    network = synthesized["endpoints-4-5"]["network"]
    declared = resources(network, "aws_vpc_endpoint").values()
    by_kind = {
        kind: {item["service_name"] for item in declared if item["vpc_endpoint_type"] == kind}
        for kind in ("Gateway", "Interface")
    }
    prefix = "com.amazonaws.us-east-1."
    assert by_kind["Gateway"] == {f"{prefix}s3"}
    assert by_kind["Interface"] == {
        f"{prefix}{service}" for service in ("ec2", "sqs", "ssm", "sts", "pricing.api")
    }
    for item in declared:
        if item["vpc_endpoint_type"] == "Interface":
            assert item["private_dns_enabled"] is True
            assert len(item["subnet_ids"]) == 4
            assert item["security_group_ids"] == ["${aws_security_group.endpoints.id}"]
    (vpc,) = resources(network, "aws_vpc").values()
    assert vpc["enable_dns_hostnames"] is True


def test_every_service_that_machines_call_has_an_endpoint() -> None:
    """IAM, which has no endpoint in a region, is called by operators only."""
    called = {
        service
        for path in modules_of_machines()
        for service in aws_calls.services_of(ast.parse(path.read_text()))
    }
    assert called == {*CALLED_SERVICES, "s3", "pricing"}


def test_masters_are_spread_over_the_zones_and_know_each_other(synthesized):
    for name, stacks in synthesized.items():
        masters = list(resources(stacks["masters"], "aws_instance").values())
        documents = [json.loads(master["user_data"]) for master in masters]
        ensemble = documents[0]["zookeeper"]
        assert [member["id"] for member in ensemble] == list(range(1, len(masters) + 1)), name
        assert len({member["address"] for member in ensemble}) == len(masters), name
        assert all(document["zookeeper"] == ensemble for document in documents), name
        if not name.startswith("existing"):
            assert [m["private_ip"] for m in masters] == [m["address"] for m in ensemble], name
            counts = [m["subnet_id"] for m in masters]
            spread = [counts.count(subnet) for subnet in set(counts)]
            assert max(spread) - min(spread) <= 1, name


def test_in_an_existing_vpc_only_interfaces_groups_and_machines_are_made(synthesized):
    stacks = synthesized["existing-2-3"]
    assert set(stacks["network"]["resource"]) == {
        "aws_ebs_volume",
        "aws_network_interface",
        "aws_security_group",
        "aws_vpc_security_group_egress_rule",
        "aws_vpc_security_group_ingress_rule",
    }
    assert len(stacks["network"]["data"]["aws_subnet"]) == 2
    for subnet in stacks["network"]["data"]["aws_subnet"].values():
        assert {item["name"] for item in subnet["filter"]} == {"tag:tier", "availability-zone"}
    masters = resources(stacks["masters"], "aws_instance").values()
    for master in masters:
        assert "subnet_id" not in master
        assert len(master["network_interface"]) == 1
    (template,) = resources(stacks["agents"], "aws_launch_template").values()
    assert template["user_data"].startswith("${base64encode(local.")
    (document,) = map(json.loads, stacks["agents"]["locals"].values())
    assert [member["address"] for member in document["zookeeper"]] == [
        member["address"] for member in json.loads(next(iter(masters))["user_data"])["zookeeper"]
    ]


def test_masters_may_launch_into_the_subnets_of_others_by_id_only(synthesized):
    (policy,) = resources(synthesized["existing-2-3"]["masters"], "aws_iam_role_policy").values()
    statements = {item["Sid"]: item for item in json.loads(policy["policy"])["Statement"]}
    subnets = statements["LaunchIntoExistingSubnets"]
    assert len(subnets["Resource"]) == 2
    assert all(":subnet/${" in arn for arn in subnets["Resource"])
    assert all("*" not in arn for arn in subnets["Resource"])
    (own,) = resources(synthesized["public-2-3"]["masters"], "aws_iam_role_policy").values()
    assert "LaunchIntoExistingSubnets" not in own["policy"]


def test_a_load_balancer_reaches_each_master_at_the_ports_of_operators(synthesized):
    for name, stacks in synthesized.items():
        network = stacks["network"]
        if "options" not in name:
            assert not resources(network, "aws_lb"), name
            continue
        (balancer,) = resources(network, "aws_lb").values()
        assert balancer["load_balancer_type"] == "network"
        assert balancer["internal"] is (name.startswith(("existing", "endpoints"))), name
        listeners = resources(network, "aws_lb_listener").values()
        assert {(item["port"], item["protocol"]) for item in listeners} == {
            (5050, "TCP"),
            (8080, "TCP"),
            (9550, "TCP"),
        }
        targets = resources(network, "aws_lb_target_group_attachment").values()
        ensemble = json.loads(
            next(iter(resources(stacks["masters"], "aws_instance").values()))["user_data"]
        )
        assert len(targets) == 9, name
        if not name.startswith("existing"):
            assert {target["target_id"] for target in targets} == {
                member["address"] for member in ensemble["zookeeper"]
            }, name
        assert "drawn-masters-*.elb.us-east-1.amazonaws.com" in ensemble["host_names"]
        assert "master-1.drawn.internal" in ensemble["host_names"]


def test_options_add_ipv6_flow_logs_and_names(synthesized):
    for mode in ("public", "per-zone", "single", "endpoints"):
        network = synthesized[f"{mode}-2-3-options"]["network"]
        (vpc,) = resources(network, "aws_vpc").values()
        assert vpc["assign_generated_ipv6_cidr_block"] is True
        numbers = [
            subnet["ipv6_cidr_block"] for subnet in resources(network, "aws_subnet").values()
        ]
        assert len(set(numbers)) == len(numbers)
        (log,) = resources(network, "aws_flow_log").values()
        assert (log["traffic_type"], log["log_destination_type"]) == ("ALL", "cloud-watch-logs")
        ways = [
            route
            for route in resources(network, "aws_route").values()
            if route.get("destination_ipv6_cidr_block") == "::/0"
        ]
        has_egress_only = bool(resources(network, "aws_egress_only_internet_gateway"))
        assert has_egress_only is (mode in {"per-zone", "single"})
        assert bool(ways) is (mode != "endpoints")
    records = resources(network, "aws_route53_record").values()
    assert {record["name"] for record in records} == {
        *(f"master-{number}.drawn.internal" for number in (1, 2, 3)),
        *(f"{name}.drawn.internal" for name in ("masters", "services", "autoscaler")),
    }


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Stacks]:
    return synthesize(tmp_path_factory.mktemp("examples"), example_files())


def test_with_a_certificate_the_load_balancer_ends_tls_and_speaks_it_to_masters(examples):
    spec = parse(example_files()["production"])
    network = examples["production"]["network"]
    listeners = resources(network, "aws_lb_listener").values()
    assert {item["port"] for item in listeners} == {5050, 8080, 9550}
    for listener in listeners:
        assert listener["protocol"] == "TLS"
        assert listener["certificate_arn"] == spec.network.load_balancer.certificate_arn
        assert listener["ssl_policy"] == "ELBSecurityPolicy-TLS13-1-2-2021-06"
    to_masters = ("TLS", "HTTPS") if spec.tls else ("TCP", "HTTP")
    for group in resources(network, "aws_lb_target_group").values():
        assert (group["protocol"], group["health_check"]["protocol"]) == to_masters


def test_every_example_is_valid_and_becomes_stacks(examples):
    files = example_files()
    assert {"minimal", "production", "private", "existing-vpc", "spot-arm"} <= set(files)
    for name, stacks in examples.items():
        assert set(stacks) == {"network", "notices", "masters", "agents"}, name
        assert parse(files[name]).target == "aws"
        assert resources(stacks["masters"], "aws_instance"), name
