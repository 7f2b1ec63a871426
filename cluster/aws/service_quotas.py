"""Values of Service Quotas, and the quota that the vCPUs of an instance type count against."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mesaform.aws.client import client
from mesaform.aws.resources.kind import call


@dataclass(frozen=True, slots=True)
class Quota:
    """A quota: the service's code, the quota's own code, and its name for people."""

    service: str
    code: str
    name: str


@dataclass(frozen=True, slots=True)
class Family:
    """Instance families that share vCPU quotas. `spot` is empty where they are not sold so."""

    name: str
    on_demand: str
    spot: str = ""

    def quota(self, *, is_spot: bool) -> Quota | None:
        """The quota of on-demand or spot vCPUs."""
        code = self.spot if is_spot else self.on_demand
        kind = "spot" if is_spot else "on-demand"
        return Quota("ec2", code, f"{kind} vCPUs of {self.name}") if code else None


STANDARD = Family("standard types", "L-1216C47A", "L-34B43A08")
_G = Family("G and VT types", "L-DB2E81BA", "L-3819A6DF")
_FAMILIES = {
    "g": _G,
    "gr": _G,
    "vt": _G,
    "p": Family("P types", "L-417A185B", "L-7212CCBC"),
    "f": Family("F types", "L-74FC7D96", "L-88CF9481"),
    "inf": Family("Inf types", "L-1945791B", "L-B5D1601B"),
    "x": Family("X types", "L-7295265B", "L-E3A00192"),
    "dl": Family("DL types", "L-6E869C2A", "L-85EED4F7"),
    "trn": Family("Trn types", "L-2C3B7624", "L-6B0D517C"),
    "u": Family("high memory types", "L-43DA4232"),
    "hpc": Family("HPC types", "L-F7808C92"),
}
"""By the letters that a type begins with; all others are standard (EC2 User Guide, "On-Demand
Instance limits" and "Spot Instance limits"; the codes are those of the Service Quotas console)."""

VPCS = Quota("vpc", "L-F678F1CE", "VPCs of the region")
INTERNET_GATEWAYS = Quota("vpc", "L-A4707A72", "internet gateways of the region")
GROUP_RULES = Quota("vpc", "L-0EA8095F", "rules of a security group")


def family_of(instance_type: str) -> Family:
    """The families with which a type shares its vCPU quotas."""
    letters = re.match(r"[a-z]+", instance_type)
    return _FAMILIES.get(letters.group() if letters else "", STANDARD)


def quota_value(region: str, quota: Quota) -> float:
    """The quota's value in this account and region.

    Raises:
        NotFound: the region has no such quota.
        CloudError: Service Quotas refused or did not answer.

    """
    answer = call(
        client("service-quotas", region),
        "get_service_quota",
        f"quota {quota.code}",
        ServiceCode=quota.service,
        QuotaCode=quota.code,
    )
    return float(answer["Quota"]["Value"])
