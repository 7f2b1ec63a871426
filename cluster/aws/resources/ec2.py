"""One lister per kind of resource that a cluster can own: what there is, and how one goes away.

A lister lists only what carries its cluster's tag, asked of the cloud and checked again here. Calls block. Machines, the network
and everything else that EC2 answers for is here; IAM, SSM and logs are in `listers_other`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from mesaform.aws.resources.owned import (
    USD_PER_ADDRESS_HOUR,
    USD_PER_NAT_GATEWAY_HOUR,
    OwnedResource,
    is_ours,
    snapshot_usd_per_hour,
    volume_usd_per_hour,
)
from mesaform.common.errors import CloudError, NotFound, Permanent, Retryable
from mesaform.topology.naming import Tag

STILL_IN_USE = (
    "DependencyViolation",
    "InUse",
    "DeleteConflict",
    "IncorrectState",
    "IncorrectInstanceState",
    "Conflict",
)
THROTTLED = (
    "RequestLimitExceeded",
    "Throttl",
    "TooManyRequests",
    "SlowDown",
    "InternalError",
    "InternalFailure",
    "Unavailable",
)
GONE = ("NotFound", "NoSuchEntity", "NonExistentQueue", "InvalidAMIID.Unavailable")
FAULTS = (ClientError, BotoCoreError, ResponseParserError)
Found = list[OwnedResource]  # names for use where a method called `list` hides the builtin
Raw = dict[str, Any]
Raws = list[Raw]

FORBIDDEN = ("UnauthorizedOperation", "AccessDenied", "AuthFailure")


class Lister(Protocol):
    """One kind of resource."""

    kind: ClassVar[str]

    def list(self) -> Found:
        """What of this kind carries the cluster's tag now. May lag a change by seconds.

        Raises:
            Retryable: throttled or a server's fault.
            Permanent: the right to list is missing.

        """
        ...

    def describe(self, resource: OwnedResource) -> str:
        """One line for people."""
        ...

    def remove(self, resource: OwnedResource) -> None:
        """Ask for its removal, its attachments first. Idempotent: one that is gone is no error.

        Raises:
            Retryable: something still depends on it, or the cloud is busy.
            Permanent: it will not go; the message says why.

        """
        ...


def translate(error: Exception, doing: str) -> CloudError:
    """A botocore fault as one of ours."""
    if not isinstance(error, ClientError):
        return Retryable(f"{doing}: {error}", after_s=2.0, fix="is the cloud's endpoint reachable?")
    code = str(error.response.get("Error", {}).get("Code", ""))
    message = str(error.response.get("Error", {}).get("Message", ""))
    text = f"{doing}: {code}: {message}"
    if any(part in code for part in GONE):
        return NotFound(text)
    if any(part in code for part in STILL_IN_USE):
        return Retryable(text, after_s=1.0)
    if any(part in code for part in THROTTLED):
        return Retryable(text, after_s=2.0)
    if any(part in code for part in FORBIDDEN):
        return Permanent(
            text,
            fix="the credentials in use lack this right; grant it and run the same command again",
        )
    return Permanent(text)


def call(client: Any, operation: str, doing: str, **arguments: Any) -> Any:
    """One call with its faults translated."""
    try:
        return getattr(client, operation)(**arguments)
    except FAULTS as error:
        raise translate(error, doing) from error


def pages(client: Any, operation: str, doing: str, **arguments: Any) -> Iterator[Any]:
    """All pages of a list, with faults translated."""
    if not client.can_paginate(operation):
        yield call(client, operation, doing, **arguments)
        return
    try:
        yield from client.get_paginator(operation).paginate(**arguments)
    except FAULTS as error:
        raise translate(error, doing) from error


def tag_map(raw: Sequence[Mapping[str, str]] | None) -> dict[str, str]:
    """AWS' list of Key and Value as a dict."""
    return {item["Key"]: item["Value"] for item in raw or ()}


class Ec2Lister:
    """What all kinds that EC2 answers for have in common. Subclasses say the calls' names, and where the id is."""

    kind: ClassVar[str]
    operation: ClassVar[str]
    result: ClassVar[str]
    id_key: ClassVar[str]
    removal: ClassVar[str] = (
        ""  # the call that removes one by its id, if that is all there is to it
    )

    def __init__(self, ec2: Any, cluster: str) -> None:
        self._ec2 = ec2
        self._cluster = cluster

    def list(self) -> Found:
        return [
            self._owned(raw, tag_map(raw.get("Tags"))) for raw in self._raw() if self._counts(raw)
        ]

    def describe(self, resource: OwnedResource) -> str:
        parts = [resource.kind, resource.id]
        if resource.name != resource.id:
            parts.append(f"({resource.name})")
        return " ".join([*parts, resource.detail]).rstrip()

    def remove(self, resource: OwnedResource) -> None:
        try:
            self._remove(resource)
        except NotFound:
            return

    def _remove(self, resource: OwnedResource) -> None:
        self._call(self.removal, resource, **{self.id_key: resource.id})

    def _call(self, operation: str, resource: OwnedResource, **arguments: Any) -> Any:
        return call(self._ec2, operation, f"{operation} {resource.id}", **arguments)

    def _raw(self) -> Iterator[Raw]:
        filters = [{"Name": f"tag:{Tag.CLUSTER}", "Values": [self._cluster]}]
        for page in pages(self._ec2, self.operation, f"listing each {self.kind}", Filters=filters):
            yield from self._items(page)

    def _items(self, page: Any) -> Raws:
        return [*page.get(self.result, ())]

    def _counts(self, raw: Raw) -> bool:
        return is_ours(tag_map(raw.get("Tags")), self._cluster) and self._exists(raw)

    def _exists(self, raw: Raw) -> bool:
        """Whether it is still there, and can be removed by itself."""
        return raw.get("State") not in {"deleted", "deleting", "cancelled", "closed", "failed"}

    def _owned(self, raw: Raw, tags: dict[str, str]) -> OwnedResource:
        return OwnedResource(self.kind, str(raw[self.id_key]), tags, **self._more(raw))

    def _more(self, _raw: Raw) -> Raw:
        """`detail`, `usd_per_hour` and `deleted_with_instance`, where they are known."""
        return {}


class Instances(Ec2Lister):
    kind, operation, result, id_key = "instance", "describe_instances", "Reservations", "InstanceId"

    def _items(self, page: Any) -> Raws:
        return [
            instance
            for reservation in page.get("Reservations", ())
            for instance in reservation["Instances"]
        ]

    def _exists(self, raw: Raw) -> bool:
        return bool(raw["State"]["Name"] != "terminated")

    def _more(self, raw: Raw) -> Raw:
        zone = raw.get("Placement", {}).get("AvailabilityZone", "")
        return {
            "detail": f"{raw.get('InstanceType', '')} {zone} {raw['State']['Name']}",
            "usd_per_hour": None,
        }

    def _remove(self, resource: OwnedResource) -> None:
        self._call("terminate_instances", resource, InstanceIds=[resource.id])


class SpotRequests(Ec2Lister):
    kind, operation, result = (
        "spot request",
        "describe_spot_instance_requests",
        "SpotInstanceRequests",
    )
    id_key = "SpotInstanceRequestId"

    def _exists(self, raw: Raw) -> bool:
        return raw.get("State") in {"open", "active"}

    def _more(self, raw: Raw) -> Raw:
        return {"deleted_with_instance": raw.get("InstanceId", "")}

    def _remove(self, resource: OwnedResource) -> None:
        self._call("cancel_spot_instance_requests", resource, SpotInstanceRequestIds=[resource.id])


class NatGateways(Ec2Lister):
    kind, operation, result, id_key = (
        "nat gateway",
        "describe_nat_gateways",
        "NatGateways",
        "NatGatewayId",
    )
    removal = "delete_nat_gateway"

    def _raw(self) -> Iterator[Raw]:
        filters = [{"Name": f"tag:{Tag.CLUSTER}", "Values": [self._cluster]}]
        for page in pages(
            self._ec2, self.operation, "listing each nat gateway", Filter=filters
        ):  # Filter, not Filters
            yield from self._items(page)

    def _exists(self, raw: Raw) -> bool:
        return (
            raw.get("State") != "deleted"
        )  # while deleting it holds its address and its interface

    def _more(self, _raw: Raw) -> Raw:
        return {"usd_per_hour": USD_PER_NAT_GATEWAY_HOUR}


class VpcEndpoints(Ec2Lister):
    kind, operation, result, id_key = (
        "vpc endpoint",
        "describe_vpc_endpoints",
        "VpcEndpoints",
        "VpcEndpointId",
    )

    def _remove(self, resource: OwnedResource) -> None:
        self._call("delete_vpc_endpoints", resource, VpcEndpointIds=[resource.id])


class Addresses(Ec2Lister):
    kind, operation, result, id_key = (
        "elastic address",
        "describe_addresses",
        "Addresses",
        "AllocationId",
    )
    removal = "release_address"

    def _more(self, raw: Raw) -> Raw:
        return {"detail": raw.get("PublicIp", ""), "usd_per_hour": USD_PER_ADDRESS_HOUR}

    def _remove(self, resource: OwnedResource) -> None:
        found = self._call("describe_addresses", resource, AllocationIds=[resource.id]).get(
            "Addresses", ()
        )
        for association in [raw["AssociationId"] for raw in found if raw.get("AssociationId")]:
            self._call("disassociate_address", resource, AssociationId=association)
        super()._remove(resource)


class NetworkInterfaces(Ec2Lister):
    kind, operation, result = (
        "network interface",
        "describe_network_interfaces",
        "NetworkInterfaces",
    )
    id_key, removal = "NetworkInterfaceId", "delete_network_interface"

    def list(self) -> Found:
        return [
            self._owned(raw, tag_map(raw.get("TagSet")))
            for raw in self._raw()
            if self._counts({**raw, "Tags": raw.get("TagSet")})
        ]

    def _more(self, raw: Raw) -> Raw:
        attachment = raw.get("Attachment") or {}
        rides = attachment.get("InstanceId", "") if attachment.get("DeleteOnTermination") else ""
        return {"detail": raw.get("PrivateIpAddress", ""), "deleted_with_instance": rides}

    def _remove(self, resource: OwnedResource) -> None:
        found = self._call(
            "describe_network_interfaces", resource, NetworkInterfaceIds=[resource.id]
        ).get("NetworkInterfaces", ())
        for raw in found:
            attachment = raw.get("Attachment") or {}
            if (
                attachment.get("AttachmentId") and attachment.get("DeviceIndex", 0) != 0
            ):  # the first interface goes with its instance
                self._call(
                    "detach_network_interface",
                    resource,
                    AttachmentId=attachment["AttachmentId"],
                    Force=True,
                )
        super()._remove(resource)


class Volumes(Ec2Lister):
    kind, operation, result, id_key = "volume", "describe_volumes", "Volumes", "VolumeId"
    removal = "delete_volume"

    def _more(self, raw: Raw) -> Raw:
        attached = [
            item["InstanceId"]
            for item in raw.get("Attachments", ())
            if item.get("DeleteOnTermination")
        ]
        gib, volume_type = raw.get("Size", 0), raw.get("VolumeType", "gp3")
        return {
            "detail": f"{gib} GiB {volume_type}",
            "usd_per_hour": volume_usd_per_hour(volume_type, gib),
            "deleted_with_instance": attached[0] if attached else "",
        }


class Images(Ec2Lister):
    kind, operation, result, id_key = "image", "describe_images", "Images", "ImageId"
    removal = "deregister_image"

    def _more(self, raw: Raw) -> Raw:
        gib = sum(
            mapping.get("Ebs", {}).get("VolumeSize", 0)
            for mapping in raw.get("BlockDeviceMappings", ())
        )
        return {"detail": raw.get("Name", ""), "usd_per_hour": snapshot_usd_per_hour(gib)}

    def _remove(self, resource: OwnedResource) -> None:
        found = self._call("describe_images", resource, ImageIds=[resource.id]).get("Images", ())
        snapshots = [
            m["Ebs"]["SnapshotId"]
            for raw in found
            for m in raw.get("BlockDeviceMappings", ())
            if m.get("Ebs", {}).get("SnapshotId")
        ]
        super()._remove(resource)
        for snapshot in snapshots:  # an image's own snapshot is of no use without it, and carries no tag on some ways of making it
            try:
                self._call("delete_snapshot", resource, SnapshotId=snapshot)
            except NotFound:
                continue


class BakedImages(Images):
    """Images that `mesaform bake` made, for all clusters of the account: they carry a recipe's tag, and no cluster's."""

    def list(self) -> Found:
        filters = [{"Name": "tag-key", "Values": [Tag.RECIPE]}]
        found = pages(
            self._ec2, self.operation, "listing baked images", Owners=["self"], Filters=filters
        )
        return [
            self._owned(raw, tag_map(raw.get("Tags")))
            for page in found
            for raw in self._items(page)
            if Tag.RECIPE in tag_map(raw.get("Tags"))
        ]


class Snapshots(Ec2Lister):
    kind, operation, result, id_key = "snapshot", "describe_snapshots", "Snapshots", "SnapshotId"
    removal = "delete_snapshot"

    def _more(self, raw: Raw) -> Raw:
        gib = raw.get("VolumeSize", 0)
        return {"detail": f"{gib} GiB", "usd_per_hour": snapshot_usd_per_hour(gib)}


class LaunchTemplates(Ec2Lister):
    kind, operation, result = "launch template", "describe_launch_templates", "LaunchTemplates"
    id_key, removal = "LaunchTemplateId", "delete_launch_template"

    def _more(self, raw: Raw) -> Raw:
        return {"detail": raw.get("LaunchTemplateName", "")}


class KeyPairs(Ec2Lister):
    kind, operation, result, id_key = "key pair", "describe_key_pairs", "KeyPairs", "KeyName"
    removal = "delete_key_pair"


class SecurityGroups(Ec2Lister):
    kind, operation, result, id_key = (
        "security group",
        "describe_security_groups",
        "SecurityGroups",
        "GroupId",
    )
    removal = "delete_security_group"

    def _exists(self, raw: Raw) -> bool:
        return raw.get("GroupName") != "default"  # goes with its VPC, and only so

    def _more(self, raw: Raw) -> Raw:
        return {"detail": raw.get("GroupName", "")}

    def _remove(self, resource: OwnedResource) -> None:
        """Groups name each other in their rules, so the rules go first."""
        for raw in self._call("describe_security_groups", resource, GroupIds=[resource.id]).get(
            "SecurityGroups", ()
        ):
            for direction, rules in (
                ("ingress", raw.get("IpPermissions")),
                ("egress", raw.get("IpPermissionsEgress")),
            ):
                if between := [rule for rule in rules or () if rule.get("UserIdGroupPairs")]:
                    self._revoke(direction, resource, between)
        super()._remove(resource)

    def _revoke(self, direction: str, resource: OwnedResource, rules: Raws) -> None:
        try:
            self._call(
                f"revoke_security_group_{direction}",
                resource,
                GroupId=resource.id,
                IpPermissions=rules,
            )
        except NotFound:  # the rule, or the group that it names, went before it
            return


class Subnets(Ec2Lister):
    kind, operation, result, id_key = "subnet", "describe_subnets", "Subnets", "SubnetId"
    removal = "delete_subnet"

    def _more(self, raw: Raw) -> Raw:
        return {"detail": f"{raw.get('CidrBlock', '')} {raw.get('AvailabilityZone', '')}"}


class RouteTables(Ec2Lister):
    kind, operation, result, id_key = (
        "route table",
        "describe_route_tables",
        "RouteTables",
        "RouteTableId",
    )
    removal = "delete_route_table"

    def _exists(self, raw: Raw) -> bool:
        return not any(
            item.get("Main") for item in raw.get("Associations", ())
        )  # the main one goes with its VPC

    def _remove(self, resource: OwnedResource) -> None:
        for raw in self._call("describe_route_tables", resource, RouteTableIds=[resource.id]).get(
            "RouteTables", ()
        ):
            for association in raw.get("Associations", ()):
                self._call(
                    "disassociate_route_table",
                    resource,
                    AssociationId=association["RouteTableAssociationId"],
                )
        super()._remove(resource)


class InternetGateways(Ec2Lister):
    kind, operation, result = "internet gateway", "describe_internet_gateways", "InternetGateways"
    id_key, removal = "InternetGatewayId", "delete_internet_gateway"

    def _remove(self, resource: OwnedResource) -> None:
        for raw in self._call(
            "describe_internet_gateways", resource, InternetGatewayIds=[resource.id]
        ).get("InternetGateways", ()):
            for attachment in raw.get("Attachments", ()):
                self._call(
                    "detach_internet_gateway",
                    resource,
                    InternetGatewayId=resource.id,
                    VpcId=attachment["VpcId"],
                )
        super()._remove(resource)


class Vpcs(Ec2Lister):
    kind, operation, result, id_key = "vpc", "describe_vpcs", "Vpcs", "VpcId"
    removal = "delete_vpc"

    def _more(self, raw: Raw) -> Raw:
        return {"detail": raw.get("CidrBlock", "")}

    def _remove(self, resource: OwnedResource) -> None:
        try:
            super()._remove(resource)
        except Retryable as error:
            inside = [{"Name": "vpc-id", "Values": [resource.id]}]
            found = self._call("describe_network_interfaces", resource, Filters=inside).get(
                "NetworkInterfaces", ()
            )
            if foreign := [
                raw["NetworkInterfaceId"]
                for raw in found
                if not is_ours(tag_map(raw.get("TagSet")), self._cluster)
            ]:
                error.fix = f"in it stand {', '.join(foreign)}, which do not carry this cluster's tag: remove what they belong to"
            raise


EC2_LISTERS: tuple[type[Ec2Lister], ...] = (
    SpotRequests,
    Instances,
    NatGateways,
    VpcEndpoints,
    Addresses,
    NetworkInterfaces,
    Volumes,
    Images,
    Snapshots,
    LaunchTemplates,
    KeyPairs,
    SecurityGroups,
    Subnets,
    RouteTables,
    InternetGateways,
    Vpcs,
)
