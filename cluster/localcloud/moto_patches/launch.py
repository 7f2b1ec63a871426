"""Launching, the way EC2 merges a launch template with a request. RunInstances and CreateFleet share it.

A specification is a dictionary with RunInstances' own parameter names. moto's part is only to make the objects.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from moto.ec2.exceptions import EC2ClientError, InvalidSecurityGroupNotFoundError
from moto.ec2.utils import convert_tag_spec, filter_iam_instance_profiles, parse_user_data

from mesaform.localcloud.faults import FaultRegistry
from mesaform.localcloud.moto_patches import network, states

Spec = dict[str, Any]
# Request values that add to the template's, key by key; everything else replaces it.
MERGED_BY_KEY = ("MetadataOptions", "Placement", "InstanceMarketOptions", "PrivateDnsNameOptions")


class Switch:
    """Where launches ask about capacity: the fault board and the clock, put here by the endpoint's composition."""

    board: FaultRegistry = FaultRegistry()
    now: Any = staticmethod(lambda: 0.0)


def template_version(backend: Any, reference: Mapping[str, Any]) -> Any:
    """The launch template's version that a request names.

    Raises EC2's own errors for what does not exist.
    """
    if identity := reference.get("LaunchTemplateId"):
        template = backend.get_launch_template(identity)
    else:
        template = backend.get_launch_template_by_name(reference.get("LaunchTemplateName"))
    return template.get_version(reference.get("Version") or "$Default")


def merge(template: Mapping[str, Any], request: Mapping[str, Any]) -> Spec:
    """A launch template's data with a request laid over it."""
    given = {key: value for key, value in request.items() if value not in (None, "", [], {})}
    merged = copy.deepcopy({**template, **given})
    for key in MERGED_BY_KEY:
        if key in template and key in given:
            merged[key] = {**template[key], **given[key]}
    merged["TagSpecifications"] = _merge_tags(
        template.get("TagSpecifications") or [], given.get("TagSpecifications") or []
    )
    if "BlockDeviceMappings" in template and "BlockDeviceMappings" in given:
        devices = {item["DeviceName"]: item for item in template["BlockDeviceMappings"]}
        devices.update({item["DeviceName"]: item for item in given["BlockDeviceMappings"]})
        merged["BlockDeviceMappings"] = list(devices.values())
    return merged


def _merge_tags(*specifications: list[dict[str, Any]]) -> list[dict[str, Any]]:
    tags: dict[str, dict[str, str]] = {}
    for specification in specifications:
        for kind, found in convert_tag_spec(specification).items():
            tags.setdefault(kind, {}).update(found)
    return [
        {
            "ResourceType": kind,
            "Tags": [{"Key": key, "Value": value} for key, value in found.items()],
        }
        for kind, found in tags.items()
    ]


def resolve(backend: Any, request: Mapping[str, Any]) -> Spec:
    """A request with its launch template, if it names one, merged in; the template's AWS tags are added."""
    reference = request.get("LaunchTemplate")
    if not reference:
        return merge({}, request)
    version = template_version(backend, reference)
    merged = merge(version.data, request)
    marks = {
        "aws:ec2launchtemplate:id": version.template.id,
        "aws:ec2launchtemplate:version": str(version.number),
    }
    own = [
        {
            "ResourceType": "instance",
            "Tags": [{"Key": key, "Value": value} for key, value in marks.items()],
        }
    ]
    merged["TagSpecifications"] = _merge_tags(merged["TagSpecifications"], own)
    return merged


def lifecycle(spec: Mapping[str, Any]) -> str:
    return (
        "spot"
        if (spec.get("InstanceMarketOptions") or {}).get("MarketType") == "spot"
        else "on-demand"
    )


def place(backend: Any, spec: Spec) -> str:
    """Settle where the machine goes: an explicit subnet in `SubnetId` or in its first interface. The answer is the zone."""
    nics = spec.get("NetworkInterfaces") or []
    primary = next((nic for nic in nics if int(nic.get("DeviceIndex") or 0) == 0), None)
    if primary is not None:
        if primary.get("NetworkInterfaceId"):
            return str(
                backend.get_network_interface(
                    primary["NetworkInterfaceId"]
                ).subnet.availability_zone
            )
        primary["DeviceIndex"] = 0
        subnet_id = (
            spec.pop("SubnetId", None) or primary.get("SubnetId") or _default_subnet(backend, spec)
        )
        primary["SubnetId"] = subnet_id
        for nic in nics:
            nic.setdefault("SubnetId", subnet_id)
    else:
        subnet_id = spec.get("SubnetId") or _default_subnet(backend, spec)
        spec["SubnetId"] = subnet_id
    return str(backend.get_subnet(subnet_id).availability_zone)


def _default_subnet(backend: Any, spec: Mapping[str, Any]) -> str:
    zone = (spec.get("Placement") or {}).get("AvailabilityZone")
    defaults = backend.get_default_subnets()
    if zone is not None and zone not in defaults:
        raise EC2ClientError("InvalidInput", f"No default subnet for availability zone: '{zone}'.")
    if not defaults:
        raise EC2ClientError(
            "MissingInput", "No subnets found for the default VPC. Please specify a subnet."
        )
    return str(defaults[zone or min(defaults)].id)


def require_capacity(spec: Mapping[str, Any], zone: str) -> None:
    """Raise InsufficientInstanceCapacity if the fault switch says so."""
    kind = str(spec.get("InstanceType"))
    if Switch.board.refuses(kind, zone, lifecycle(spec), Switch.now()):
        raise insufficient(kind, zone)


def insufficient(instance_type: str, zone: str) -> EC2ClientError:
    return EC2ClientError(
        "InsufficientInstanceCapacity",
        f"We currently do not have sufficient {instance_type} capacity in the Availability Zone you requested ({zone}). "
        "Our system will be working on provisioning additional capacity.",
    )


def launch(backend: Any, spec: Spec, count: int, zone: str) -> Any:
    """Make `count` instances, pending. All of them or, after an error, none. The answer is moto's Reservation."""
    image = _require_image(backend, spec.get("ImageId"))
    groups = _security_groups(backend, spec)
    profile = _profile(backend, spec.get("IamInstanceProfile"))
    _require_addresses(backend, spec, count)
    tags = convert_tag_spec(spec.get("TagSpecifications") or [])
    before = set(backend.reservations)
    try:
        reservation = backend.run_instances(
            image.id,
            count,
            parse_user_data(_plain(spec.get("UserData"))),
            [],
            **_moto_arguments(backend, spec, groups, zone),
            tags={"instance": tags.get("instance", {})},
        )
    except Exception:
        for key in set(backend.reservations) - before:
            del backend.reservations[key]
        raise
    for instance in reservation.instances:
        _complete(backend, instance, spec, tags, profile, image)
    return reservation


def _plain(value: Any) -> Any:
    """User data from a template is moto's own wrapper; from a request it is text or bytes."""
    return value.as_bytes() if hasattr(value, "as_bytes") else value


def _moto_arguments(
    backend: Any, spec: Mapping[str, Any], groups: list[Any], zone: str
) -> dict[str, Any]:
    return {
        "instance_type": spec.get("InstanceType") or "m1.small",
        "is_instance_type_default": not spec.get("InstanceType"),
        "placement": zone,
        "placement_hostid": None,
        "region_name": backend.region_name,
        "subnet_id": spec.get("SubnetId"),
        "key_name": spec.get("KeyName"),
        "security_group_ids": groups,
        "nics": spec.get("NetworkInterfaces") or [],
        "private_ip": spec.get("PrivateIpAddress"),
        "associate_public_ip": None,
        "ebs_optimized": spec.get("EbsOptimized") or False,
        "disable_api_stop": spec.get("DisableApiStop") or False,
        "disable_api_termination": spec.get("DisableApiTermination") or False,
        "instance_market_options": lifecycle(spec) == "spot",
        "instance_initiated_shutdown_behavior": spec.get("InstanceInitiatedShutdownBehavior"),
        "hibernation_options": spec.get("HibernationOptions") or {},
        "monitoring_state": "enabled"
        if (spec.get("Monitoring") or {}).get("Enabled")
        else "disabled",
        "ipv6_address_count": spec.get("Ipv6AddressCount"),
        "metadata_options": spec.get("MetadataOptions") or {},
        "client_token": spec.get("ClientToken"),
        "block_device_mappings": [],  # made by `_attach_volumes`, with all that was asked
    }


def _require_image(backend: Any, image_id: Any) -> Any:
    if not image_id:
        raise EC2ClientError("MissingParameter", "The request must contain the parameter ImageId")
    image = backend.amis.get(image_id)
    if image is None or image.state == "disabled":
        raise EC2ClientError("InvalidAMIID.NotFound", f"The image id '[{image_id}]' does not exist")
    if image.state != "available":
        raise EC2ClientError(
            "InvalidAMIID.Unavailable",
            f"The image ID '{image_id}' is not available: it is {image.state}",
        )
    return image


def _security_groups(backend: Any, spec: Mapping[str, Any]) -> list[Any]:
    found = []
    for name in (*(spec.get("SecurityGroupIds") or ()), *(spec.get("SecurityGroups") or ())):
        group = backend.get_security_group_by_name_or_id(name)
        if group is None:
            raise InvalidSecurityGroupNotFoundError(name)
        found.append(group)
    return found


def _profile(backend: Any, reference: Any) -> Any:
    if not reference:
        return None
    try:
        found = filter_iam_instance_profiles(
            backend.account_id, backend.partition, reference.get("Arn"), reference.get("Name")
        )
    except Exception:  # moto raises IAM's error; EC2 answers in its own words
        found = None
    if found is None:
        named = reference.get("Arn") or reference.get("Name")
        raise EC2ClientError(
            "InvalidParameterValue",
            f"Value ({named}) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance Profile",
        )
    return found


def _require_addresses(backend: Any, spec: Mapping[str, Any], count: int) -> None:
    wanted = [(spec.get("SubnetId"), spec.get("PrivateIpAddress"))]
    wanted += [
        (nic.get("SubnetId"), nic.get("PrivateIpAddress"))
        for nic in spec.get("NetworkInterfaces") or ()
    ]
    for subnet_id, address in wanted:
        if subnet_id and address:
            if count > 1:
                raise EC2ClientError(
                    "InvalidParameterCombination",
                    "A private address can be given to one instance only.",
                )
            network.require_free(backend.get_subnet(subnet_id), address)


def _complete(
    backend: Any,
    instance: Any,
    spec: Mapping[str, Any],
    tags: Mapping[str, Any],
    profile: Any,
    image: Any,
) -> None:
    """What moto leaves out: state, lifecycle, interfaces that end with the instance, the profile on every instance, volumes."""
    states.begin_pending(instance)
    instance.lifecycle = "spot" if lifecycle(spec) == "spot" else None
    asked = {int(nic.get("DeviceIndex") or 0): nic for nic in spec.get("NetworkInterfaces") or ()}
    for index, nic in instance.nics.items():
        wanted = asked.get(index, {})
        nic.delete_on_termination = (
            wanted.get("DeleteOnTermination", not wanted.get("NetworkInterfaceId")) is True
        )
        if not wanted.get("NetworkInterfaceId"):
            nic.add_tags(tags.get("network-interface", {}))
    primary = instance.nics[0]
    instance._placement.zone = primary.subnet.availability_zone  # noqa: SLF001
    instance.security_groups = list(primary.group_set)
    if profile is not None:
        backend.associate_iam_instance_profile(
            instance_id=instance.id, iam_instance_profile_arn=profile.arn
        )
    _attach_volumes(backend, instance, spec, tags.get("volume", {}), image)


def _attach_volumes(
    backend: Any, instance: Any, spec: Mapping[str, Any], tags: Mapping[str, str], image: Any
) -> None:
    root = image.root_device_name
    devices: dict[str, dict[str, Any]] = {root: {}}
    for mapping in spec.get("BlockDeviceMappings") or ():
        if mapping.get("NoDevice") is None and not mapping.get("VirtualName"):
            devices[mapping["DeviceName"]] = mapping.get("Ebs") or {}
    for name, ebs in devices.items():
        volume = backend.create_volume(
            size=ebs.get("VolumeSize") or (None if ebs.get("SnapshotId") else 8),
            zone_name=instance.placement.zone,
            snapshot_id=ebs.get("SnapshotId"),
            encrypted=ebs.get("Encrypted") in (True, "true"),
            kms_key_id=ebs.get("KmsKeyId"),
            volume_type=ebs.get("VolumeType") or "gp3",
            iops=ebs.get("Iops"),
            throughput=ebs.get("Throughput"),
        )
        keep = ebs.get("DeleteOnTermination", name == root) in (False, "false")
        backend.attach_volume(volume.id, instance.id, name, not keep)
        if tags:
            volume.add_tags(dict(tags))
