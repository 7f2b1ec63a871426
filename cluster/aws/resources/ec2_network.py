"""The VPC and all in it: gateways, endpoints, addresses, interfaces, groups, subnets, flow logs."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from mesaform.aws.pricing.rates import BOOK
from mesaform.aws.resources.ec2 import Ec2Kind
from mesaform.aws.resources.kind import Raw, tag_map
from mesaform.aws.resources.owned import OwnedResource, is_ours
from mesaform.aws.resources.registry import register
from mesaform.common.errors import NotFound, Retryable


@register
class NatGateways(Ec2Kind):
    kind = "nat gateway"
    depends_on = ("instance",)
    operation, result, id_key = "describe_nat_gateways", "NatGateways", "NatGatewayId"
    removal = "delete_nat_gateway"
    filter_argument = "Filter"

    def _exists(self, raw: Raw) -> bool:
        return raw.get("State") != "deleted"  # while deleting it holds its address and interface

    def _details(self, _raw: Raw) -> Raw:
        return {"usd_per_hour": BOOK.nat_gateway_usd_per_hour}


@register
class VpcEndpoints(Ec2Kind):
    kind = "vpc endpoint"
    depends_on = ("instance",)
    operation, result, id_key = "describe_vpc_endpoints", "VpcEndpoints", "VpcEndpointId"

    def _details(self, raw: Raw) -> Raw:
        """An interface endpoint is billed in each zone, which is one subnet; a gateway is free."""
        usd = BOOK.endpoint_usd_per_hour * len(raw.get("SubnetIds") or ())
        is_interface = raw.get("VpcEndpointType") == "Interface"
        return {"detail": raw.get("ServiceName", ""), "usd_per_hour": usd if is_interface else 0.0}

    def _remove(self, resource: OwnedResource) -> None:
        self._call("delete_vpc_endpoints", resource.id, VpcEndpointIds=[resource.id])


@register
class Addresses(Ec2Kind):
    kind = "elastic address"
    depends_on = ("instance", "load balancer", "nat gateway")
    operation, result, id_key = "describe_addresses", "Addresses", "AllocationId"
    removal = "release_address"

    def _details(self, raw: Raw) -> Raw:
        return {"detail": raw.get("PublicIp", ""), "usd_per_hour": BOOK.address_usd_per_hour}

    def _remove(self, resource: OwnedResource) -> None:
        for raw in self._lookup(resource.id, "AllocationIds"):
            if association := raw.get("AssociationId"):
                self._call("disassociate_address", resource.id, AssociationId=association)
        super()._remove(resource)


@register
class NetworkInterfaces(Ec2Kind):
    kind = "network interface"
    depends_on = ("instance", "load balancer", "nat gateway", "vpc endpoint", "elastic address")
    operation, result = "describe_network_interfaces", "NetworkInterfaces"
    id_key, removal, tags_key = "NetworkInterfaceId", "delete_network_interface", "TagSet"

    def _details(self, raw: Raw) -> Raw:
        attachment = raw.get("Attachment") or {}
        instance = attachment.get("InstanceId", "") if attachment.get("DeleteOnTermination") else ""
        return {"detail": raw.get("PrivateIpAddress", ""), "deleted_with_instance": instance}

    def _remove(self, resource: OwnedResource) -> None:
        for raw in self._lookup(resource.id, "NetworkInterfaceIds"):
            attachment = raw.get("Attachment") or {}
            is_primary = attachment.get("DeviceIndex", 0) == 0  # EC2 detaches no primary interface
            if attachment.get("AttachmentId") and not is_primary:
                self._call(
                    "detach_network_interface",
                    resource.id,
                    AttachmentId=attachment["AttachmentId"],
                    Force=True,
                )
        super()._remove(resource)


@register
class SecurityGroups(Ec2Kind):
    kind = "security group"
    depends_on = (
        *("instance", "network interface", "load balancer", "vpc endpoint"),
        "launch template",
    )
    operation, result, id_key = "describe_security_groups", "SecurityGroups", "GroupId"
    removal = "delete_security_group"

    def _exists(self, raw: Raw) -> bool:
        return raw.get("GroupName") != "default"  # EC2 deletes it only with its VPC

    def _details(self, raw: Raw) -> Raw:
        return {"detail": raw.get("GroupName", "")}

    def _remove(self, resource: OwnedResource) -> None:
        """Revoke the rules that refer to groups, then delete: groups refer to each other."""
        for raw in self._lookup(resource.id, "GroupIds"):
            self._revoke("ingress", resource, raw.get("IpPermissions") or ())
            self._revoke("egress", resource, raw.get("IpPermissionsEgress") or ())
        super()._remove(resource)

    def _revoke(self, direction: str, resource: OwnedResource, rules: Iterable[Raw]) -> None:
        operation = f"revoke_security_group_{direction}"
        if between_groups := [rule for rule in rules if rule.get("UserIdGroupPairs")]:
            with suppress(NotFound):  # the rule or the other group is already deleted
                self._call(
                    operation, resource.id, GroupId=resource.id, IpPermissions=between_groups
                )


@register
class Subnets(Ec2Kind):
    kind = "subnet"
    depends_on = ("instance", "network interface", "load balancer", "nat gateway", "vpc endpoint")
    operation, result, id_key = "describe_subnets", "Subnets", "SubnetId"
    removal = "delete_subnet"

    def _details(self, raw: Raw) -> Raw:
        return {"detail": f"{raw.get('CidrBlock', '')} {raw.get('AvailabilityZone', '')}"}

    def _remove(self, resource: OwnedResource) -> None:
        """Delete the reservations of addresses first: they carry no tag."""
        answer = self._call("get_subnet_cidr_reservations", resource.id, SubnetId=resource.id)
        for raw in answer.get("SubnetIpv4CidrReservations", ()):
            reservation = raw["SubnetCidrReservationId"]
            with suppress(NotFound):
                self._call(
                    "delete_subnet_cidr_reservation",
                    resource.id,
                    SubnetCidrReservationId=reservation,
                )
        super()._remove(resource)


@register
class RouteTables(Ec2Kind):
    kind = "route table"
    depends_on = ("subnet",)
    operation, result, id_key = "describe_route_tables", "RouteTables", "RouteTableId"
    removal = "delete_route_table"

    def _exists(self, raw: Raw) -> bool:
        is_main = any(item.get("Main") for item in raw.get("Associations", ()))
        return not is_main  # EC2 deletes the main table only with its VPC

    def _remove(self, resource: OwnedResource) -> None:
        for raw in self._lookup(resource.id, "RouteTableIds"):
            for association in raw.get("Associations", ()):
                association_id = association["RouteTableAssociationId"]
                self._call("disassociate_route_table", resource.id, AssociationId=association_id)
        super()._remove(resource)


@register
class InternetGateways(Ec2Kind):
    kind = "internet gateway"
    depends_on = ("elastic address", "route table")
    operation, result = "describe_internet_gateways", "InternetGateways"
    id_key, removal = "InternetGatewayId", "delete_internet_gateway"

    def _remove(self, resource: OwnedResource) -> None:
        for raw in self._lookup(resource.id, "InternetGatewayIds"):
            for attachment in raw.get("Attachments", ()):
                self._call(
                    "detach_internet_gateway",
                    resource.id,
                    InternetGatewayId=resource.id,
                    VpcId=attachment["VpcId"],
                )
        super()._remove(resource)


@register
class EgressOnlyGateways(Ec2Kind):
    kind = "egress-only gateway"
    depends_on = ("route table",)
    operation = "describe_egress_only_internet_gateways"
    result, id_key = "EgressOnlyInternetGateways", "EgressOnlyInternetGatewayId"
    removal = "delete_egress_only_internet_gateway"


@register
class FlowLogs(Ec2Kind):
    kind = "flow log"
    depends_on = ("instance",)
    operation, result, id_key = "describe_flow_logs", "FlowLogs", "FlowLogId"
    filter_argument = "Filter"

    def _details(self, raw: Raw) -> Raw:
        place = raw.get("LogDestination") or raw.get("LogGroupName", "")
        return {"detail": f"to {place}", "usd_per_hour": None}

    def _remove(self, resource: OwnedResource) -> None:
        self._call("delete_flow_logs", resource.id, FlowLogIds=[resource.id])


@register
class Vpcs(Ec2Kind):
    kind = "vpc"
    depends_on = (
        *("internet gateway", "egress-only gateway", "route table", "security group", "subnet"),
        *("flow log", "hosted zone", "target group"),
    )
    operation, result, id_key = "describe_vpcs", "Vpcs", "VpcId"
    removal = "delete_vpc"

    def _details(self, raw: Raw) -> Raw:
        return {"detail": raw.get("CidrBlock", "")}

    def _remove(self, resource: OwnedResource) -> None:
        try:
            super()._remove(resource)
        except Retryable as error:
            if foreign := self._foreign_interfaces(resource):
                error.fix = (
                    f"it contains {', '.join(foreign)}, which do not carry this cluster's tag: "
                    "remove what they belong to"
                )
            raise

    def _foreign_interfaces(self, vpc: OwnedResource) -> list[str]:
        """Ids of the network interfaces in the VPC that are not the cluster's."""
        filters = [{"Name": "vpc-id", "Values": [vpc.id]}]
        answer = self._call("describe_network_interfaces", vpc.id, Filters=filters)
        return [
            raw["NetworkInterfaceId"]
            for raw in answer.get("NetworkInterfaces", ())
            if not is_ours(tag_map(raw.get("TagSet")), self._cluster)
        ]
