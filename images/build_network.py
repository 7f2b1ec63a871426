"""Where a builder runs: a named subnet, a default subnet, or a temporary VPC.

Accounts of companies often have no default VPC. A temporary VPC has one public subnet. It is
removed with the builder, and `leftovers` removes that of a killed bake.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from mesaform.common.errors import MissingPrerequisite, Retryable
from mesaform.topology.names import Tag
from mesaform_images.ec2_calls import (
    BUILDER_TAGS,
    call_unless_absent,
    call_with_retry,
    tag_filters,
    tag_list,
    uninterrupted,
)

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ec2.literals import ResourceTypeType
    from mypy_boto3_ec2.type_defs import (
        FilterTypeDef,
        InternetGatewayTypeDef,
        SubnetTypeDef,
        TagSpecificationTypeDef,
        VpcTypeDef,
    )

TEMPORARY_CIDR = "10.255.255.0/26"
"""Of temporary VPCs: they are connected with no other network."""

ANYWHERE = "0.0.0.0/0"


@dataclass(frozen=True, slots=True)
class WantedNetwork:
    """The subnet that an operator names, and the addresses of a temporary VPC."""

    subnet_id: str = ""
    temporary_cidr: str = TEMPORARY_CIDR


ANY_NETWORK = WantedNetwork()


@dataclass(frozen=True, slots=True)
class Site:
    """The subnet of a builder, and whether the builder needs a public address there."""

    subnet_id: str
    vpc_id: str
    has_public_address: bool


@contextmanager
def site(ec2: EC2Client, wanted: WantedNetwork, instance_type: str, name: str) -> Iterator[Site]:
    """Find a subnet whose zone sells a type, or create one for the duration of the block.

    In a named subnet the builder has a public address only if the subnet gives one: a private
    subnet has another way out.

    Raises:
        CloudError: EC2 refused, for example because the named subnet does not exist.
        MissingPrerequisite: there is no default subnet, and no zone of the region sells the type.

    """
    if wanted.subnet_id:
        subnet = call_with_retry(
            f"subnet {wanted.subnet_id}",
            lambda: ec2.describe_subnets(SubnetIds=[wanted.subnet_id])["Subnets"],
        )[0]
        is_public = bool(subnet.get("MapPublicIpOnLaunch"))
        yield Site(subnet["SubnetId"], subnet["VpcId"], is_public)
        return
    zones = zones_of(ec2, instance_type)
    defaults = [subnet for subnet in _default_subnets(ec2) if subnet["AvailabilityZone"] in zones]
    if defaults:
        subnet = min(defaults, key=lambda subnet: subnet["AvailabilityZone"])
        yield Site(subnet["SubnetId"], subnet["VpcId"], has_public_address=True)
        return
    try:
        yield _create(ec2, wanted.temporary_cidr, min(zones), name)
    finally:
        with uninterrupted():
            remove_network(ec2, name)


def zones_of(ec2: EC2Client, instance_type: str) -> set[str]:
    """Return the zones that sell an instance type.

    Raises:
        MissingPrerequisite: no zone does.

    """
    filters: list[FilterTypeDef] = [{"Name": "instance-type", "Values": [instance_type]}]
    offered = call_with_retry(
        "ec2 DescribeInstanceTypeOfferings",
        lambda: ec2.describe_instance_type_offerings(
            LocationType="availability-zone", Filters=filters
        )["InstanceTypeOfferings"],
    )
    zones = {item["Location"] for item in offered}
    if not zones:
        raise MissingPrerequisite(
            f"no zone of this region sells {instance_type}, the builder's type",
            where="ec2 DescribeInstanceTypeOfferings",
            fix="name another under [builder] in images/recipe.toml",
        )
    return zones


def temporary_names(ec2: EC2Client) -> set[str]:
    """Return the names of temporary networks, of which a VPC or a gateway exists."""
    filters = tag_filters(BUILDER_TAGS)
    resources: list[VpcTypeDef | InternetGatewayTypeDef] = [
        *call_with_retry("ec2 DescribeVpcs", lambda: ec2.describe_vpcs(Filters=filters)["Vpcs"]),
        *_gateways(ec2, filters),
    ]
    tags = [tag for resource in resources for tag in resource.get("Tags", ())]
    return {tag["Value"] for tag in tags if tag["Key"] == Tag.NAME}


def remove_network(ec2: EC2Client, name: str) -> bool:
    """Remove a temporary network by its name; return False while a machine still uses it."""
    filters = tag_filters({**BUILDER_TAGS, Tag.NAME: name})
    try:
        for subnet in call_with_retry(
            "ec2 DescribeSubnets", lambda: ec2.describe_subnets(Filters=filters)["Subnets"]
        ):
            delete_subnet = partial(ec2.delete_subnet, SubnetId=subnet["SubnetId"])
            call_unless_absent("ec2 DeleteSubnet", delete_subnet)
        for gateway in _gateways(ec2, filters):
            _remove_gateway(ec2, gateway)
        for vpc in call_with_retry(
            "ec2 DescribeVpcs", lambda: ec2.describe_vpcs(Filters=filters)["Vpcs"]
        ):
            call_unless_absent("ec2 DeleteVpc", partial(ec2.delete_vpc, VpcId=vpc["VpcId"]))
    except Retryable:
        return False
    return True


def _gateways(ec2: EC2Client, filters: list[FilterTypeDef]) -> list[InternetGatewayTypeDef]:
    return call_with_retry(
        "ec2 DescribeInternetGateways",
        lambda: ec2.describe_internet_gateways(Filters=filters)["InternetGateways"],
    )


def _remove_gateway(ec2: EC2Client, gateway: InternetGatewayTypeDef) -> None:
    gateway_id = gateway["InternetGatewayId"]
    for attachment in gateway.get("Attachments", ()):
        vpc_id = attachment["VpcId"]
        detach = partial(ec2.detach_internet_gateway, InternetGatewayId=gateway_id, VpcId=vpc_id)
        call_unless_absent("ec2 DetachInternetGateway", detach)
    delete = partial(ec2.delete_internet_gateway, InternetGatewayId=gateway_id)
    call_unless_absent("ec2 DeleteInternetGateway", delete)


def _default_subnets(ec2: EC2Client) -> list[SubnetTypeDef]:
    filters: list[FilterTypeDef] = [{"Name": "default-for-az", "Values": ["true"]}]
    return call_with_retry(
        "ec2 DescribeSubnets", lambda: ec2.describe_subnets(Filters=filters)["Subnets"]
    )


def _create(ec2: EC2Client, cidr: str, zone: str, name: str) -> Site:
    """Create a VPC with one public subnet; its main route table leads to the internet gateway."""

    def tagged(kind: ResourceTypeType) -> list[TagSpecificationTypeDef]:
        return [{"ResourceType": kind, "Tags": tag_list({**BUILDER_TAGS, Tag.NAME: name})}]

    vpc_id = call_with_retry(
        "ec2 CreateVpc",
        lambda: ec2.create_vpc(CidrBlock=cidr, TagSpecifications=tagged("vpc")),
    )["Vpc"]["VpcId"]
    gateway_id = call_with_retry(
        "ec2 CreateInternetGateway",
        lambda: ec2.create_internet_gateway(TagSpecifications=tagged("internet-gateway")),
    )["InternetGateway"]["InternetGatewayId"]
    call_with_retry(
        "ec2 AttachInternetGateway",
        lambda: ec2.attach_internet_gateway(InternetGatewayId=gateway_id, VpcId=vpc_id),
    )
    subnet_id = call_with_retry(
        "ec2 CreateSubnet",
        lambda: ec2.create_subnet(
            VpcId=vpc_id, CidrBlock=cidr, AvailabilityZone=zone, TagSpecifications=tagged("subnet")
        ),
    )["Subnet"]["SubnetId"]
    filters: list[FilterTypeDef] = [
        {"Name": "vpc-id", "Values": [vpc_id]},
        {"Name": "association.main", "Values": ["true"]},
    ]
    tables = call_with_retry(
        "ec2 DescribeRouteTables",
        lambda: ec2.describe_route_tables(Filters=filters)["RouteTables"],
    )
    call_with_retry(
        "ec2 CreateRoute",
        lambda: ec2.create_route(
            RouteTableId=tables[0]["RouteTableId"],
            DestinationCidrBlock=ANYWHERE,
            GatewayId=gateway_id,
        ),
    )
    return Site(subnet_id, vpc_id, has_public_address=True)
