"""What an account holds: an inventory by kind, apart from the project's own list of kinds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from ipaddress import IPv4Network
from typing import Any

Client = Callable[[str], Any]
Inventory = Mapping[str, frozenset[str]]

EC2_KINDS = (
    ("describe_vpcs", "Vpcs", "VpcId"),
    ("describe_subnets", "Subnets", "SubnetId"),
    ("describe_security_groups", "SecurityGroups", "GroupId"),
    ("describe_route_tables", "RouteTables", "RouteTableId"),
    ("describe_internet_gateways", "InternetGateways", "InternetGatewayId"),
    (
        "describe_egress_only_internet_gateways",
        "EgressOnlyInternetGateways",
        "EgressOnlyInternetGatewayId",
    ),
    ("describe_nat_gateways", "NatGateways", "NatGatewayId"),
    ("describe_addresses", "Addresses", "AllocationId"),
    ("describe_vpc_endpoints", "VpcEndpoints", "VpcEndpointId"),
    ("describe_network_interfaces", "NetworkInterfaces", "NetworkInterfaceId"),
    ("describe_volumes", "Volumes", "VolumeId"),
    ("describe_launch_templates", "LaunchTemplates", "LaunchTemplateId"),
    ("describe_flow_logs", "FlowLogs", "FlowLogId"),
    ("describe_key_pairs", "KeyPairs", "KeyPairId"),
)
OTHER_KINDS = (
    ("elbv2", "describe_load_balancers", "LoadBalancers", "LoadBalancerArn"),
    ("elbv2", "describe_target_groups", "TargetGroups", "TargetGroupArn"),
    ("iam", "list_roles", "Roles", "Arn"),
    ("iam", "list_instance_profiles", "InstanceProfiles", "Arn"),
    ("ssm", "describe_parameters", "Parameters", "Name"),
    ("logs", "describe_log_groups", "logGroups", "logGroupName"),
    ("events", "list_rules", "Rules", "Name"),
    ("route53", "list_hosted_zones", "HostedZones", "Id"),
)
ENDED = {"terminated", "deleted"}
SERVICE_ROLES = "/aws-service-role/"
"""Path of roles that AWS keeps for the account: the first spot pool creates one for all."""


def take_inventory(client: Client) -> dict[str, frozenset[str]]:
    """The ids of everything that lives in the region of the clients, by kind.

    Parts of the default VPC are left out: the local cloud makes another one when it starts.
    """
    ec2 = client("ec2")
    default = {item["VpcId"] for item in ec2.describe_vpcs()["Vpcs"] if item["IsDefault"]}
    inventory = {
        kind: _ids((item for item in getattr(ec2, call)()[kind] if not _is_in(item, default)), key)
        for call, kind, key in EC2_KINDS
    }
    for service, call, kind, key in OTHER_KINDS:
        inventory[kind] = _ids(getattr(client(service), call)()[kind], key)
    reservations = ec2.describe_instances()["Reservations"]
    machines = [machine for item in reservations for machine in item["Instances"]]
    inventory["Instances"] = frozenset(
        machine["InstanceId"] for machine in machines if machine["State"]["Name"] not in ENDED
    )
    inventory["Queues"] = frozenset(client("sqs").list_queues().get("QueueUrls", ()))
    return inventory


def _is_in(item: Mapping[str, Any], vpcs: set[str]) -> bool:
    attached = [entry.get("VpcId") for entry in item.get("Attachments", ())]
    return bool(vpcs.intersection([item.get("VpcId"), *attached]))


def _ids(items: Iterable[Mapping[str, Any]], key: str) -> frozenset[str]:
    return frozenset(
        str(item[key])
        for item in items
        if item.get("State") not in ENDED
        and not str(item.get("Path", "")).startswith(SERVICE_ROLES)
    )


def differences(before: Inventory, after: Inventory) -> list[str]:
    """What came and what went between two inventories, as lines."""
    lines = []
    for kind in before:
        lines += [f"{kind}: {item} is left" for item in sorted(after[kind] - before[kind])]
        lines += [f"{kind}: {item} is gone" for item in sorted(before[kind] - after[kind])]
    return lines


def create_landing_zone(client: Client, cidr: str, zones: Iterable[str]) -> None:
    """The VPC of another owner for mode existing, with a subnet `tier: private` in each zone."""
    ec2 = client("ec2")
    vpc = ec2.create_vpc(CidrBlock=cidr)["Vpc"]["VpcId"]
    blocks = IPv4Network(cidr).subnets(new_prefix=20)
    for zone, block in zip(zones, blocks, strict=False):
        subnet = ec2.create_subnet(VpcId=vpc, CidrBlock=str(block), AvailabilityZone=zone)
        tags = [{"Key": "tier", "Value": "private"}]
        ec2.create_tags(Resources=[subnet["Subnet"]["SubnetId"]], Tags=tags)
