"""Options of a network that moto lacks: IPv6, NAT gateways, flow logs to S3, private zones.

Source of the behaviour: API references of EC2 and Route 53.
"""

from __future__ import annotations

from collections.abc import Callable

from moto.core.responses import ActionResult
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import nat_gateways, vpcs
from moto.ec2.models.flow_logs import FlowLogsBackend
from moto.ec2.models.nat_gateways import NatGatewayBackend
from moto.ec2.models.security_groups import SecurityGroupRule
from moto.ec2.models.subnets import Subnet
from moto.ec2.responses.egress_only_internet_gateways import EgressOnlyInternetGateway
from moto.ec2.utils import generic_filter
from moto.route53.responses import Route53

from mesaform.localcloud.moto_patches.moto_types import Ec2Response, MotoObject, Parameters

ENDPOINT_SERVICES_OF_MOTO = ("s3",)
"""The services whose endpoint moto describes by their own backend; the others are interfaces.

moto asks eleven backends, of which the product uses this one: loading them takes seconds and 60 MiB
at the first call that names an endpoint's service.
"""
_IPV6 = "ipv6-cidr-block-association."
_moto_create_zone = Route53.create_hosted_zone
_moto_subnet_filter = Subnet.get_filter_value


def _description(self: MotoObject) -> str | None:
    """A rule's text, which a rule for a group has too."""
    text: str | None = self.ip_range.get("Description") or self.source_group.get("Description")
    return text


def _subnet_filter(self: MotoObject, filter_name: str, method_name: str | None = None) -> object:
    associations = self.ipv6_cidr_block_associations.values()
    match filter_name.removeprefix(_IPV6):
        case "association-id":
            return [item["associationId"] for item in associations]
        case "ipv6-cidr-block":
            return [item["ipv6CidrBlock"] for item in associations]
        case _:
            return _moto_subnet_filter(self, filter_name, method_name)


def _ipv6_associations(self: MotoObject) -> list[Parameters]:
    """The associations of a subnet; moto nests the state twice."""
    return [
        {
            "ipv6CidrBlock": item["ipv6CidrBlock"],
            "associationId": item["associationId"],
            "ipv6CidrBlockState": {"state": item["ipv6CidrBlockState"]["State"]},
        }
        for item in self.ipv6_cidr_block_associations.values()
        if item["ipv6CidrBlockState"]["State"] == "associated"
    ]


def _describe_egress_only(self: Ec2Response) -> ActionResult:
    """Also by filters."""
    ids = self._get_param("EgressOnlyInternetGatewayIds", [])
    backend: MotoObject = self.ec2_backend
    gateways = backend.describe_egress_only_internet_gateways(ids)
    chosen = generic_filter(self._filters_from_querystring(), gateways)
    return ActionResult({"EgressOnlyInternetGateways": chosen})


def _create_flow_logs(original: Callable[..., MotoObject]) -> Callable[..., MotoObject]:
    """Accept a folder in a bucket as the destination."""

    def create(self: MotoObject, **named: str) -> MotoObject:
        destination = named["log_destination"]
        if named["log_destination_type"] == "s3":
            named["log_destination"] = destination.partition("/")[0]
        created, refused = original(self, **named)
        for flow_log in created:
            flow_log.log_destination = destination
        return created, refused

    return create


def _delete_nat_gateway(original: Callable[..., MotoObject]) -> Callable[..., MotoObject]:
    """Give back the gateway's interface, and end the association of its address."""

    def delete(self: MotoObject, nat_gateway_id: str) -> MotoObject:
        gateway = self.nat_gateways.get(nat_gateway_id)
        if gateway is None:
            raise EC2ClientError("NatGatewayNotFound", f"{nat_gateway_id} was not found")
        if gateway.state == "deleted":
            return gateway
        for address in gateway.address_set:
            if association := address.get("associationId"):
                self.disassociate_address(association_id=association)
        self.delete_network_interface(gateway.address_set[0]["networkInterfaceId"])
        return original(self, nat_gateway_id)

    return delete


def _create_hosted_zone(self: Ec2Response) -> ActionResult:
    """A zone that is created with a VPC is private, also where the request does not say so."""
    if self._get_param("VPC.VPCId"):
        self.params["HostedZoneConfig"] = {
            **(self.params.get("HostedZoneConfig") or {}),
            "PrivateZone": True,
        }
    return _moto_create_zone(self)


def apply() -> None:
    """Patch moto in this process."""
    for name in ("IMPLEMENTED_ENDPOINT_SERVICES", "COVERED_ENDPOINT_SERVICES"):
        setattr(vpcs, name, list(ENDPOINT_SERVICES_OF_MOTO))
    SecurityGroupRule.description = property(_description)
    Subnet.get_filter_value = _subnet_filter
    Subnet.ipv6_cidr_block_association_set = property(_ipv6_associations)
    EgressOnlyInternetGateway.describe_egress_only_internet_gateways = _describe_egress_only
    FlowLogsBackend.create_flow_logs = _create_flow_logs(FlowLogsBackend.create_flow_logs)
    for module in (nat_gateways, vpcs):
        module.random_private_ip = lambda: None  # the interface takes a free address
    NatGatewayBackend.delete_nat_gateway = _delete_nat_gateway(NatGatewayBackend.delete_nat_gateway)
    Route53.create_hosted_zone = _create_hosted_zone
