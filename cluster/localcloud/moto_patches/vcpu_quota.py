"""Launches beyond the account's quota of vCPUs are refused, as far as a fault sets the quota."""

from __future__ import annotations

import math

from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.instance_types import INSTANCE_TYPES

from mesaform.aws.service_quotas import Quota, family_of
from mesaform.localcloud.faults import QuotaValue
from mesaform.localcloud.moto_patches import launch
from mesaform.localcloud.moto_patches.account import AccountSettings
from mesaform.localcloud.moto_patches.moto_types import Ec2Backend, instances_of


def require(backend: Ec2Backend, spec: launch.Spec, count: int) -> None:
    """Check that the quota of the type's family holds so many more machines.

    Raises:
        EC2ClientError: it does not.

    """
    name, is_spot = str(spec.get("InstanceType")), launch.lifecycle(spec) == "spot"
    quota = family_of(name).quota(is_spot=is_spot)
    value = _value_of(quota)
    if _used(backend, quota) + count * vcpus_of(name) > value:
        code = "MaxSpotInstanceCountExceeded" if is_spot else "VcpuLimitExceeded"
        raise EC2ClientError(
            code,
            f"You have requested more vCPU capacity than your current vCPU limit of "
            f"{value:.0f} allows for the instance bucket that the specified instance type "
            "belongs to.",
        )


def _value_of(quota: Quota | None) -> float:
    """The value that a fault sets; without one there is no limit."""
    code = quota.code if quota else ""
    given = [item.value for item in AccountSettings.get(QuotaValue) if item.code == code]
    return given[-1] if given else math.inf


def _used(backend: Ec2Backend, quota: Quota | None) -> int:
    return sum(
        vcpus_of(instance.instance_type)
        for _, instance in instances_of([backend])
        if instance.state in {"pending", "running"}
        and family_of(instance.instance_type).quota(is_spot=instance.lifecycle == "spot") == quota
    )


def vcpus_of(name: str) -> int:
    """The default vCPUs of a type; 0 for an unknown one."""
    described = INSTANCE_TYPES.get(name)
    return int(described["VCpuInfo"]["DefaultVCpus"]) if described else 0
