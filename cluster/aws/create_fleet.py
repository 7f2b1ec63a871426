"""The request of CreateFleet `instant` and the meaning of its answer. Pure but for the launch time.

Source: EC2 API reference, `CreateFleet`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from mesaform.aws import capacity_errors
from mesaform.aws.errors import Fault, classify
from mesaform.aws.ports import Capacity, LaunchRequest, LaunchResult, Machine
from mesaform.common.architecture import Architecture, architecture_of
from mesaform.common.errors import NotFound, Permanent
from mesaform.topology.names import Tag, launch_template_name

Answer = Mapping[str, Any]

SPOT_OPTIONS = {
    "SpotOptions": {
        "AllocationStrategy": "price-capacity-optimized",
        "InstanceInterruptionBehavior": "terminate",
    }
}
OF_ONE_OFFERING = frozenset({"InvalidParameterValue"})
"""Codes with which EC2 refuses one offering, such as a type that cannot boot the image.

The other offerings of the request stay usable. A request of one offering is refused as a whole.
"""

ON_DEMAND_OPTIONS = {"OnDemandOptions": {"AllocationStrategy": "prioritized"}}


def fleet_request(request: LaunchRequest, subnets: Mapping[str, str]) -> dict[str, Any]:
    """Return the arguments of CreateFleet.

    On demand EC2 takes the offerings in their order, which is by price; for spot it weighs price
    and capacity.

    Args:
        request: the launch.
        subnets: ids of the cluster's subnets by zone.

    Raises:
        NotFound: no zone of the offerings has a subnet.

    """
    capacity = request.offerings[0].capacity
    tags = [{"Key": key, "Value": value} for key, value in launch_tags(request).items()]
    return {
        "Type": "instant",
        "ClientToken": request.token,
        "LaunchTemplateConfigs": list(_template_configs(request, subnets)),
        "TargetCapacitySpecification": {
            "TotalTargetCapacity": request.count,
            "DefaultTargetCapacityType": capacity,
        },
        "TagSpecifications": [{"ResourceType": "instance", "Tags": tags}],
        **(ON_DEMAND_OPTIONS if capacity == "on-demand" else SPOT_OPTIONS),
    }


def _template_configs(
    request: LaunchRequest, subnets: Mapping[str, str]
) -> Iterator[dict[str, object]]:
    """A launch template for each architecture, with the offerings that its image boots on.

    Priorities count across the templates. The cheapest offering's template comes first.
    """
    located = [offering for offering in request.offerings if offering.zone in subnets]
    if not located:
        zones = ", ".join(sorted({offering.zone for offering in request.offerings}))
        raise NotFound(
            f"no subnet tagged {Tag.CLUSTER}={request.cluster} in {zones}",
            fix="deploy the network stack: mesaform up",
        )
    overrides: dict[Architecture, list[dict[str, object]]] = {}
    for order, offering in enumerate(located):
        override: dict[str, object] = {
            "InstanceType": offering.instance_type,
            "SubnetId": subnets[offering.zone],
        }
        if offering.capacity == "on-demand":
            override["Priority"] = float(order)
        overrides.setdefault(architecture_of(offering.instance_type), []).append(override)
    for architecture, own in overrides.items():
        name = launch_template_name(request.cluster, request.pool, architecture)
        template = {"LaunchTemplateName": name, "Version": "$Latest"}
        yield {"LaunchTemplateSpecification": template, "Overrides": own}


def is_missing_template(code: str) -> bool:
    """Whether an error code says that a launch template, or a version of one, does not exist."""
    return code.startswith("InvalidLaunchTemplate") and "NotFound" in code


def missing_template(request: LaunchRequest) -> NotFound:
    """The error of a launch whose launch template somebody deleted, with the template's name."""
    architectures = dict.fromkeys(architecture_of(o.instance_type) for o in request.offerings)
    names = (launch_template_name(request.cluster, request.pool, a) for a in architectures)
    return NotFound(
        f"launch template {' or '.join(names)} is missing", fix="create it again: mesaform up"
    )


def launch_tags(request: LaunchRequest) -> dict[str, str]:
    """Return the tags of the launched machines."""
    return {
        **request.tags,
        Tag.CLUSTER: request.cluster,
        Tag.ROLE: "agent",
        Tag.POOL: request.pool,
        Tag.MANAGED_BY: "autoscaler",
        Tag.LAUNCH: request.token,
        Tag.NAME: f"mesaform-{request.cluster}-{request.pool}-auto",
    }


def without_capacity(request: LaunchRequest, code: str) -> LaunchResult:
    """The result of a launch that EC2 refused as a whole for want of capacity."""
    scopes = (capacity_errors.of_error(code, offering.key) for offering in request.offerings)
    return LaunchResult((), tuple(dict.fromkeys(scopes)))


def launch_result(
    answer: Answer, request: LaunchRequest, zones: Mapping[str, str], where: str
) -> LaunchResult:
    """Return the result of a launch.

    Args:
        answer: what CreateFleet returned.
        request: the launch.
        zones: zones by id of the subnet.
        where: names the call in errors.

    Raises:
        NotFound: EC2 launched nothing, because a launch template is missing.
        Permanent: EC2 launched nothing for a reason other than capacity.

    """
    machines = tuple(_launched_machines(answer, request, zones))
    scopes: list[str] = []
    for item in answer.get("Errors", []):
        code = str(item["ErrorCode"])
        fault = classify(code)
        if fault in {Fault.THROTTLED, Fault.SERVER}:
            # Says nothing of the offering. The same token gets the same answer, so the next pass
            # uses another.
            continue
        kind, zone = _type_and_zone(item, zones)
        key = f"{kind}/{zone}/{request.offerings[0].capacity}"
        is_of_offering = code in OF_ONE_OFFERING and len(request.offerings) > 1
        if fault is not Fault.NO_CAPACITY and not machines and not is_of_offering:
            raise _refused(item, request, f"{where} {key}")
        scopes.append(capacity_errors.of_error(code, key))
    return LaunchResult(machines, tuple(dict.fromkeys(scopes)))


def _refused(item: Answer, request: LaunchRequest, where: str) -> Permanent | NotFound:
    """The error of a launch that EC2 refused for a reason other than capacity."""
    code = str(item["ErrorCode"])
    if is_missing_template(code):
        return missing_template(request)
    return Permanent(f"{code}: {item.get('ErrorMessage', '')}", where=where)


def _launched_machines(
    answer: Answer, request: LaunchRequest, zones: Mapping[str, str]
) -> Iterator[Machine]:
    for item in answer.get("Instances", []):
        capacity: Capacity = "spot" if item.get("Lifecycle") == "spot" else "on-demand"
        for instance_id in item["InstanceIds"]:
            yield Machine(
                instance_id=instance_id,
                instance_type=item["InstanceType"],
                zone=_type_and_zone(item, zones)[1],
                capacity=capacity,
                state="pending",
                private_address="",
                public_address="",
                launched_at=time.time(),
                tags=launch_tags(request),
            )


def _type_and_zone(item: Answer, zones: Mapping[str, str]) -> tuple[str, str]:
    override = item.get("LaunchTemplateAndOverrides", {}).get("Overrides", {})
    zone = override.get("AvailabilityZone") or zones.get(override.get("SubnetId", ""), "")
    return str(override.get("InstanceType", "")), str(zone)
