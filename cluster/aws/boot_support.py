"""Whether a machine of an instance type boots the images of this program, by what EC2 says. Pure.

Source: EC2 API reference, `InstanceTypeInfo`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mesaform.aws.ports import Capacity
from mesaform.common.architecture import ARCHITECTURES, architecture_of, boot_problem

TypeInfo = Mapping[str, Any]
"""An item of DescribeInstanceTypes."""

CAPACITIES: tuple[Capacity, ...] = ("on-demand", "spot")


def unbootable_reason(info: TypeInfo) -> str:
    """Return why no image boots on a type; empty if one does."""
    name = str(info["InstanceType"])
    if reason := boot_problem(name):
        return reason
    if info.get("BareMetal"):
        return "bare metal takes many minutes to start"
    offered = info.get("ProcessorInfo", {}).get("SupportedArchitectures", [architecture_of(name)])
    if not set(offered) & set(ARCHITECTURES):
        return f"its architecture is {', '.join(offered)}"
    if architecture_of(name) not in offered:
        return f"EC2 says {', '.join(offered)}, its name {architecture_of(name)}"
    if "ebs" not in info.get("SupportedRootDeviceTypes", ["ebs"]):
        return "it boots from no EBS volume"
    if "hvm" not in info.get("SupportedVirtualizationTypes", ["hvm"]):
        return "it boots paravirtual images only"
    if not sold_capacities(info):
        return "it is sold neither on demand nor as spot"
    return ""


def sold_capacities(info: TypeInfo) -> tuple[Capacity, ...]:
    """Return the capacity types in which a type is sold (`SupportedUsageClasses`)."""
    classes = info.get("SupportedUsageClasses", CAPACITIES)
    return tuple(capacity for capacity in CAPACITIES if capacity in classes)
