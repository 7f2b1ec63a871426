"""What EC2 says about an account's region: opt-in, zones, instance types, vCPUs in use, disks.

Every call blocks, changes nothing and translates errors (`aws.errors.translate_errors`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mesaform.aws import boot_support
from mesaform.aws.client import client
from mesaform.aws.ports import Capacity
from mesaform.aws.resources.kind import Raw, call, pages, tag_map
from mesaform.topology.names import Tag

FILTER_VALUES = 200
"""Values that EC2 accepts in one filter."""
COUNTED_STATES = ("pending", "running", "stopping", "shutting-down")
"""States whose machines still use the vCPU quota."""


@dataclass(frozen=True, slots=True)
class Zone:
    """An availability zone. `opt_in` is `opt-in-not-required`, `opted-in` or `not-opted-in`."""

    name: str
    state: str
    opt_in: str


@dataclass(frozen=True, slots=True)
class TypeFacts:
    """What matters about an instance type before it is launched.

    `capacities` are those in which it is sold; `unbootable` is why no image boots on it, or empty;
    `is_burstable` says that it earns credits for less than its vCPUs.
    """

    name: str
    vcpus: int
    capacities: tuple[Capacity, ...]
    unbootable: str
    is_burstable: bool
    gpus: int


@dataclass(frozen=True, slots=True)
class RunningMachine:
    """A machine that uses the vCPU quota."""

    instance_type: str
    vcpus: int
    is_spot: bool
    tags: Mapping[str, str]


def region_opt_in(region: str, asked_in: str) -> str:
    """The opt-in status of a region, asked in another one; empty if there is no such region."""
    answer = call(
        client("ec2", asked_in),
        "describe_regions",
        f"ec2 DescribeRegions in {asked_in}",
        AllRegions=True,
        Filters=[{"Name": "region-name", "Values": [region]}],
    )
    return next((str(item["OptInStatus"]) for item in answer["Regions"]), "")


def availability_zones(region: str) -> list[Zone]:
    """The region's availability zones as this account sees them, without local zones."""
    answer = call(
        client("ec2", region),
        "describe_availability_zones",
        "ec2 DescribeAvailabilityZones",
        AllAvailabilityZones=True,
        Filters=[{"Name": "zone-type", "Values": ["availability-zone"]}],
    )
    return [
        Zone(item["ZoneName"], item.get("State", ""), item.get("OptInStatus", ""))
        for item in answer["AvailabilityZones"]
    ]


def instance_types(region: str, names: Sequence[str]) -> dict[str, TypeFacts]:
    """The facts of instance types; types that the region does not know are left out."""
    ec2 = client("ec2", region)
    return {
        item["InstanceType"]: _type_facts(item)
        for filters in _by_type(names)
        for page in pages(
            ec2, "describe_instance_types", "ec2 DescribeInstanceTypes", Filters=filters
        )
        for item in page["InstanceTypes"]
    }


def sold_places(region: str, names: Sequence[str]) -> frozenset[tuple[str, str]]:
    """The (type, zone) pairs that EC2 sells."""
    ec2 = client("ec2", region)
    return frozenset(
        (item["InstanceType"], item["Location"])
        for filters in _by_type(names)
        for page in pages(
            ec2,
            "describe_instance_type_offerings",
            "ec2 DescribeInstanceTypeOfferings",
            LocationType="availability-zone",
            Filters=filters,
        )
        for item in page["InstanceTypeOfferings"]
    )


def running_machines(region: str) -> list[RunningMachine]:
    """All machines of the account in the region that use the vCPU quota."""
    filters = [{"Name": "instance-state-name", "Values": list(COUNTED_STATES)}]
    ec2 = client("ec2", region)
    return [
        _running(raw)
        for page in pages(ec2, "describe_instances", "ec2 DescribeInstances", Filters=filters)
        for reservation in page["Reservations"]
        for raw in reservation["Instances"]
    ]


def default_disk_key(region: str) -> str:
    """The KMS key of disks that are encrypted without naming one, such as `alias/aws/ebs`."""
    answer = call(client("ec2", region), "get_ebs_default_kms_key_id", "ec2 GetEbsDefaultKmsKeyId")
    return str(answer.get("KmsKeyId", ""))


def is_encrypted_by_default(region: str) -> bool:
    """Whether EC2 encrypts every new disk."""
    answer = call(
        client("ec2", region), "get_ebs_encryption_by_default", "ec2 GetEbsEncryptionByDefault"
    )
    return bool(answer["EbsEncryptionByDefault"])


def vpc_count(region: str) -> int:
    """How many VPCs the region has."""
    listed = pages(client("ec2", region), "describe_vpcs", "ec2 DescribeVpcs")
    return sum(len(page["Vpcs"]) for page in listed)


def tagged_vpcs(region: str, cluster: str) -> list[str]:
    """The ids of the VPCs that carry a cluster's tag."""
    filters = [{"Name": f"tag:{Tag.CLUSTER}", "Values": [cluster]}]
    listed = pages(client("ec2", region), "describe_vpcs", "ec2 DescribeVpcs", Filters=filters)
    return [str(raw["VpcId"]) for page in listed for raw in page["Vpcs"]]


def public_access_block(region: str) -> str:
    """The region's block of internet gateways: `off`, `block-ingress` or `block-bidirectional`."""
    answer = call(
        client("ec2", region),
        "describe_vpc_block_public_access_options",
        "ec2 DescribeVpcBlockPublicAccessOptions",
    )
    return str(answer["VpcBlockPublicAccessOptions"].get("InternetGatewayBlockMode", "off"))


def _by_type(names: Sequence[str]) -> Iterable[list[dict[str, object]]]:
    unique = sorted(set(names))
    for start in range(0, len(unique), FILTER_VALUES):
        yield [{"Name": "instance-type", "Values": unique[start : start + FILTER_VALUES]}]


def _type_facts(item: Raw) -> TypeFacts:
    gpus = item.get("GpuInfo", {}).get("Gpus", ())
    return TypeFacts(
        name=item["InstanceType"],
        vcpus=int(item["VCpuInfo"]["DefaultVCpus"]),
        capacities=boot_support.sold_capacities(item),
        unbootable=boot_support.unbootable_reason(item),
        is_burstable=bool(item.get("BurstablePerformanceSupported")),
        gpus=sum(int(gpu.get("Count", 0)) for gpu in gpus),
    )


def _running(raw: Raw) -> RunningMachine:
    options = raw.get("CpuOptions", {})
    vcpus = int(options.get("CoreCount") or 0) * int(options.get("ThreadsPerCore") or 0)
    is_spot = raw.get("InstanceLifecycle") == "spot"
    return RunningMachine(raw["InstanceType"], vcpus, is_spot, tag_map(raw.get("Tags")))
