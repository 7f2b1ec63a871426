"""Launches, as EC2 merges a launch template with a request. RunInstances and CreateFleet share it.

A specification is a dictionary with RunInstances' parameter names. moto only creates the objects.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

from moto.ec2.exceptions import EC2ClientError, InvalidSecurityGroupNotFoundError
from moto.ec2.utils import convert_tag_spec, parse_user_data

from mesaform.localcloud.faults import FaultRegistry
from mesaform.localcloud.moto_patches import account, network, profiles, states
from mesaform.localcloud.moto_patches.moto_types import (
    Ec2Backend,
    Image,
    LaunchTemplateVersion,
    MotoObject,
    Parameters,
    PatchedInstance,
    Reservation,
    Tags,
)

Spec = Parameters
MERGED_BY_KEY = ("MetadataOptions", "Placement", "InstanceMarketOptions", "PrivateDnsNameOptions")
"""Request values that add to the template's, key by key; every other value replaces it."""
DEFAULT_VOLUME_GIB = 8
"""The size of a volume that has neither a size nor a snapshot: the base image's root disk."""


class CapacityCheck:
    """Where launches ask about capacity; set by the endpoint's composition."""

    faults: FaultRegistry = FaultRegistry()
    now: Callable[[], float] = staticmethod(lambda: 0.0)


def template_version(backend: Ec2Backend, reference: Mapping[str, str]) -> LaunchTemplateVersion:
    """The launch template's version that a request names.

    Raises:
        EC2ClientError: EC2's error for a template or version that does not exist.

    """
    if identity := reference.get("LaunchTemplateId"):
        template = backend.get_launch_template(identity)
    else:
        template = backend.get_launch_template_by_name(reference.get("LaunchTemplateName"))
    return template.get_version(reference.get("Version") or "$Default")


def merge(template: Parameters, request: Parameters) -> Spec:
    """A launch template's data with a request laid over it."""
    given = _without_empty(request)
    merged: Spec = copy.deepcopy({**template, **given})
    for key in MERGED_BY_KEY:
        if key in template and key in given:
            merged[key] = {**template[key], **given[key]}
    layers = (template, given)
    merged["TagSpecifications"] = _merge_tags(*(_tags_of(layer) for layer in layers))
    if "BlockDeviceMappings" in template and "BlockDeviceMappings" in given:
        merged["BlockDeviceMappings"] = _merge_devices(*layers)
    return merged


def _without_empty(request: Parameters) -> Parameters:
    return {key: value for key, value in request.items() if value not in (None, "", [], {})}


def _tags_of(spec: Spec) -> list[Parameters]:
    return spec.get("TagSpecifications") or []


def _merge_devices(*specs: Parameters) -> list[Parameters]:
    """The block device mappings of all specifications; a later one replaces its device."""
    devices = {item["DeviceName"]: item for spec in specs for item in spec["BlockDeviceMappings"]}
    return copy.deepcopy(list(devices.values()))


def _merge_tags(*specifications: list[Parameters]) -> list[Parameters]:
    merged: dict[str, Tags] = {}
    for specification in specifications:
        for resource, tags in convert_tag_spec(specification).items():
            merged.setdefault(resource, {}).update(tags)
    return [tag_specification(resource, tags) for resource, tags in merged.items()]


def tag_specification(resource: str, tags: Tags) -> Parameters:
    """Tags in the form of the parameter TagSpecifications."""
    pairs = [{"Key": key, "Value": value} for key, value in tags.items()]
    return {"ResourceType": resource, "Tags": pairs}


def resolve(backend: Ec2Backend, request: Parameters) -> Spec:
    """A request with its launch template, if it names one; AWS's tags of the template are added."""
    reference = request.get("LaunchTemplate")
    if not reference:
        return merge({}, request)
    version = template_version(backend, reference)
    merged = merge(version.data, request)
    own = {
        "aws:ec2launchtemplate:id": version.template.id,
        "aws:ec2launchtemplate:version": str(version.number),
    }
    merged["TagSpecifications"] = _merge_tags(
        merged["TagSpecifications"], [tag_specification("instance", own)]
    )
    return merged


def lifecycle(spec: Spec) -> str:
    """`spot` or `on-demand`."""
    market = (spec.get("InstanceMarketOptions") or {}).get("MarketType")
    return "spot" if market == "spot" else "on-demand"


def place(backend: Ec2Backend, spec: Spec) -> str:
    """Choose the subnet and write it into the specification; the answer is its zone."""
    nics = spec.get("NetworkInterfaces") or []
    primary = next((nic for nic in nics if int(nic.get("DeviceIndex") or 0) == 0), None)
    if primary is None:
        subnet_id = spec.get("SubnetId") or _default_subnet(backend, spec)
        spec["SubnetId"] = subnet_id
    elif interface_id := primary.get("NetworkInterfaceId"):
        return backend.get_network_interface(interface_id).subnet.availability_zone
    else:
        subnet_id = _place_interfaces(backend, spec, primary)
    return str(backend.get_subnet(subnet_id).availability_zone)


def _place_interfaces(backend: Ec2Backend, spec: Spec, primary: Parameters) -> str:
    primary["DeviceIndex"] = 0
    asked = spec.pop("SubnetId", None) or primary.get("SubnetId")
    subnet_id = str(asked or _default_subnet(backend, spec))
    primary["SubnetId"] = subnet_id
    for nic in spec["NetworkInterfaces"]:
        nic.setdefault("SubnetId", subnet_id)
    return subnet_id


def _default_subnet(backend: Ec2Backend, spec: Spec) -> str:
    zone = (spec.get("Placement") or {}).get("AvailabilityZone")
    defaults = backend.get_default_subnets()
    if zone is not None and zone not in defaults:
        raise EC2ClientError("InvalidInput", f"No default subnet for availability zone: '{zone}'.")
    if not defaults:
        raise EC2ClientError(
            "MissingInput", "No subnets found for the default VPC. Please specify a subnet."
        )
    return str(defaults[zone or min(defaults)].id)


def require_launchable(backend: Ec2Backend, spec: Spec) -> None:
    """Check what a dry run checks: image, groups, profile, subnet, and where the type is sold.

    Raises:
        EC2ClientError: EC2 would refuse the launch.

    """
    _require_image(backend, spec.get("ImageId"))
    _security_groups(backend, spec)
    profiles.require(backend, spec.get("IamInstanceProfile"))
    account.require_sold(str(spec.get("InstanceType")), place(backend, spec))


def require_capacity(spec: Spec, zone: str) -> None:
    """Raise Unsupported or InsufficientInstanceCapacity if a fault says so."""
    instance_type = str(spec.get("InstanceType"))
    account.require_sold(instance_type, zone)
    if CapacityCheck.faults.refuses(instance_type, zone, lifecycle(spec), CapacityCheck.now()):
        raise insufficient(instance_type, zone)


def insufficient(instance_type: str, zone: str) -> EC2ClientError:
    """EC2's error for a lack of capacity."""
    return EC2ClientError(
        "InsufficientInstanceCapacity",
        f"We currently do not have sufficient {instance_type} capacity in the Availability Zone "
        f"you requested ({zone}). "
        "Our system will be working on provisioning additional capacity.",
    )


def launch(backend: Ec2Backend, spec: Spec, count: int, zone: str) -> Reservation:
    """Create `count` pending instances: all of them or, after an error, none."""
    image = _require_image(backend, spec.get("ImageId"))
    _require_architecture(image, str(spec.get("InstanceType") or ""))
    groups = _security_groups(backend, spec)
    profile = profiles.require(backend, spec.get("IamInstanceProfile"))
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
        _complete(instance, spec, tags)
        if profile is not None:
            backend.associate_iam_instance_profile(
                instance_id=instance.id, iam_instance_profile_arn=profile.arn
            )
        for device in _devices(spec, image.root_device_name):
            _attach_volume(backend, instance, device, tags.get("volume", {}))
    return reservation


def _plain(value: MotoObject) -> MotoObject:
    """User data from a template is moto's own wrapper; from a request it is text or bytes."""
    return value.as_bytes() if hasattr(value, "as_bytes") else value


def _moto_arguments(
    backend: Ec2Backend, spec: Spec, groups: list[object], zone: str
) -> dict[str, object]:
    """The keyword arguments of moto's `run_instances`. Volumes are attached afterwards."""
    optional = {
        "ebs_optimized": (spec.get("EbsOptimized"), False),
        "disable_api_stop": (spec.get("DisableApiStop"), False),
        "disable_api_termination": (spec.get("DisableApiTermination"), False),
        "hibernation_options": (spec.get("HibernationOptions"), {}),
        "metadata_options": (spec.get("MetadataOptions"), {}),
        "nics": (spec.get("NetworkInterfaces"), []),
        "instance_type": (spec.get("InstanceType"), "m1.small"),
    }
    is_monitored = (spec.get("Monitoring") or {}).get("Enabled")
    return {
        **{name: value or default for name, (value, default) in optional.items()},
        "is_instance_type_default": not spec.get("InstanceType"),
        "placement": zone,
        "placement_hostid": None,
        "region_name": backend.region_name,
        "subnet_id": spec.get("SubnetId"),
        "key_name": spec.get("KeyName"),
        "security_group_ids": groups,
        "private_ip": spec.get("PrivateIpAddress"),
        "associate_public_ip": None,
        "instance_market_options": lifecycle(spec) == "spot",
        "instance_initiated_shutdown_behavior": spec.get("InstanceInitiatedShutdownBehavior"),
        "monitoring_state": "enabled" if is_monitored else "disabled",
        "ipv6_address_count": spec.get("Ipv6AddressCount"),
        "client_token": spec.get("ClientToken"),
        "block_device_mappings": [],
    }


def _require_image(backend: Ec2Backend, image_id: str | None) -> Image:
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


def _require_architecture(image: Image, instance_type: str) -> None:
    """Raise EC2's error if the type cannot boot the image."""
    from moto.ec2.models.instance_types import INSTANCE_TYPES

    described = INSTANCE_TYPES.get(instance_type) or {}
    offered = described.get("ProcessorInfo", {}).get("SupportedArchitectures", [])
    if not offered or not image.architecture or image.architecture in offered:
        return
    raise EC2ClientError(
        "InvalidParameterValue",
        f"The architecture '{','.join(offered)}' of the specified instance type does not match the"
        f" architecture '{image.architecture}' of the specified AMI. Specify an instance type and"
        " an AMI that have matching architectures, and try again. You can use"
        " 'describe-instance-types' or 'describe-images' to discover the architecture of the"
        " instance type or AMI.",
    )


def _security_groups(backend: Ec2Backend, spec: Spec) -> list[object]:
    groups = []
    for name in (*(spec.get("SecurityGroupIds") or ()), *(spec.get("SecurityGroups") or ())):
        group = backend.get_security_group_by_name_or_id(name)
        if group is None:
            raise InvalidSecurityGroupNotFoundError(name)
        groups.append(group)
    return groups


def _require_addresses(backend: Ec2Backend, spec: Spec, count: int) -> None:
    for target in (spec, *(spec.get("NetworkInterfaces") or ())):
        subnet_id, address = target.get("SubnetId"), target.get("PrivateIpAddress")
        if not subnet_id or not address:
            continue
        if count > 1:
            raise EC2ClientError(
                "InvalidParameterCombination",
                "A private address can be given to one instance only.",
            )
        network.require_free(backend.get_subnet(subnet_id), address)


def _complete(instance: PatchedInstance, spec: Spec, tags: Mapping[str, Tags]) -> None:
    """Set what moto leaves out: state, lifecycle, the interfaces' end and tags."""
    states.begin_pending(instance)
    instance.lifecycle = "spot" if lifecycle(spec) == "spot" else None
    asked = {int(nic.get("DeviceIndex") or 0): nic for nic in spec.get("NetworkInterfaces") or ()}
    for index, nic in instance.nics.items():
        wanted = asked.get(index, {})
        is_new = not wanted.get("NetworkInterfaceId")
        nic.delete_on_termination = wanted.get("DeleteOnTermination", is_new) is True
        if is_new:
            nic.add_tags(tags.get("network-interface", {}))
    primary = instance.nics[0]
    instance._placement.zone = primary.subnet.availability_zone  # noqa: SLF001 - moto has no setter
    instance.security_groups = list(primary.group_set)


def _devices(spec: Spec, root: str) -> list[tuple[str, Parameters, bool]]:
    """Name, parameters and `is_root` of each volume; the root volume always exists."""
    devices: dict[str, Parameters] = {root: {}}
    for mapping in spec.get("BlockDeviceMappings") or ():
        if mapping.get("NoDevice") is None and not mapping.get("VirtualName"):
            devices[mapping["DeviceName"]] = mapping.get("Ebs") or {}
    return [(name, ebs, name == root) for name, ebs in devices.items()]


def _attach_volume(
    backend: Ec2Backend,
    instance: PatchedInstance,
    device: tuple[str, Parameters, bool],
    tags: Tags,
) -> None:
    name, ebs, is_root = device
    snapshot_id = ebs.get("SnapshotId")
    volume = backend.create_volume(
        size=ebs.get("VolumeSize") or (None if snapshot_id else DEFAULT_VOLUME_GIB),
        zone_name=instance.placement.zone,
        snapshot_id=snapshot_id,
        encrypted=ebs.get("Encrypted") in (True, "true"),
        kms_key_id=ebs.get("KmsKeyId"),
        volume_type=ebs.get("VolumeType") or "gp3",
        iops=ebs.get("Iops"),
        throughput=ebs.get("Throughput"),
    )
    outlives_instance = ebs.get("DeleteOnTermination", is_root) in (False, "false")
    backend.attach_volume(volume.id, instance.id, name, not outlives_instance)
    if tags:
        volume.add_tags(dict(tags))
