"""Rules for resources: each one alone, and those of one task together."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

from mesaform.engine.validation.names import invalid_id, invalid_role, is_subrole
from mesaform.engine.validation.rules import first_of, first_true, prefixed
from mesaform.mesos.containers import Volume
from mesaform.mesos.messages import PortRange, ReservationInfo, Resource

_INT64_MIN = -(2**63)


def thousandths(value: float) -> int:
    """A scalar in the fixed point of Mesos (common/values.cpp): half is rounded away from zero.

    What does not fit into 64 bits is the smallest number, as in C++ on amd64.
    """
    scaled = value * 1000
    if not -(2.0**63) <= scaled < 2.0**63:  # also NaN
        return _INT64_MIN
    return int(math.copysign(math.floor(abs(scaled) + 0.5), scaled))


def amount_text(value: float) -> str:
    """A scalar as Mesos writes it into messages."""
    return f"{thousandths(value) / 1000:.15g}"


def resource_text(resource: Resource) -> str:
    """A resource as Mesos writes it into messages, such as `cpus(allocated: *):1`."""
    parts = [resource.name]
    if resource.allocation_info is not None:
        parts.append(f"(allocated: {resource.allocation_info.role or ''})")
    if reservations := reservations_of(resource):
        shown = ",".join(f"({entry.type},{entry.role})" for entry in reservations)
        parts.append(f"(reservations: [{shown}])")
    if resource.revocable is not None:
        parts.append("{REV}")
    if resource.shared is not None:
        parts.append("<SHARED>")
    return "".join(parts) + ":" + _value_text(resource)


def _value_text(resource: Resource) -> str:
    if resource.type == "RANGES":
        ranges = resource.ranges.range if resource.ranges is not None else []
        return "[" + ", ".join(f"{part.begin}-{part.end}" for part in ranges) + "]"
    if resource.type == "SET":
        return "{" + ", ".join(resource.set.item if resource.set is not None else []) + "}"
    return amount_text(resource.scalar.value if resource.scalar is not None else 0.0)


def reservations_of(resource: Resource) -> list[ReservationInfo]:
    """The reservations of a resource, also of one in the form of Mesos before 1.4 (`role`)."""
    if resource.reservations or resource.role in {None, "*"}:
        return resource.reservations
    kind = "DYNAMIC" if resource.reservation is not None else "STATIC"
    return [ReservationInfo(type=kind, role=resource.role)]  # type: ignore[arg-type]


# --- one resource


def invalid_resource(resource: Resource) -> str | None:
    """Why a resource is malformed."""
    if not resource.name:
        return "Empty resource name"
    return (
        _VALUE_RULES[resource.type](resource)
        or _invalid_disk(resource)
        or (
            _invalid_reservations(resource)
            if resource.reservations
            else _invalid_former_reservation(resource)
        )
        or _invalid_sharing(resource)
    )


def _invalid_sharing(resource: Resource) -> str | None:
    if resource.shared is None:
        return None
    if resource.name != "disk":
        return f"Resource {resource.name} cannot be shared"
    if resource.disk is None or resource.disk.persistence is None:
        return "Only persistent volumes can be shared"
    return None


def _has_other_value(resource: Resource, name: str) -> bool:
    values = ("scalar", "ranges", "set")
    return any((getattr(resource, value) is not None) != (value == name) for value in values)


def _invalid_scalar(resource: Resource) -> str | None:
    if _has_other_value(resource, "scalar"):
        return "Invalid scalar resource"
    value = resource.scalar.value if resource.scalar is not None else 0.0
    if value != 0 and thousandths(value) <= 0:
        return "Invalid scalar resource: value <= 0"
    return None


def _invalid_ranges(resource: Resource) -> str | None:
    if _has_other_value(resource, "ranges"):
        return "Invalid ranges resource"
    return _problem_of_ranges(resource.ranges.range if resource.ranges is not None else [])


def _problem_of_ranges(ranges: Sequence[PortRange]) -> str | None:
    """The problem of the first bad range.

    Mesos calls ranges overlapping only when a later one begins in an earlier one.
    """
    problem: str | None = None
    later_begins: list[int] = []
    for part in reversed(ranges):
        if part.begin > part.end:
            problem = "Invalid ranges resource: begin > end"
        elif bisect_left(later_begins, part.begin) < bisect_right(later_begins, part.end):
            problem = "Invalid ranges resource: overlapping ranges"
        insort(later_begins, part.begin)
    return problem


def _invalid_set(resource: Resource) -> str | None:
    if _has_other_value(resource, "set"):
        return "Invalid set resource"
    items = resource.set.item if resource.set is not None else []
    return "Invalid set resource: duplicated elements" if len(set(items)) < len(items) else None


def _unsupported_type(_resource: Resource) -> str:
    return "Unsupported resource type"


_VALUE_RULES: dict[str, Callable[[Resource], str | None]] = {
    "SCALAR": _invalid_scalar,
    "RANGES": _invalid_ranges,
    "SET": _invalid_set,
    "TEXT": _unsupported_type,
}


def _invalid_disk(resource: Resource) -> str | None:
    disk = resource.disk
    if disk is None:
        return None
    if resource.name != "disk":
        return f"DiskInfo should not be set for {resource.name} resource"
    source = disk.source
    if source is None:
        return None
    if source.type == "UNKNOWN":
        return "Unsupported 'DiskInfo.Source.Type' in 'UNKNOWN'"
    if source.type in {"BLOCK", "RAW"}:
        for name in ("mount", "path"):
            if getattr(source, name) is not None:
                return f"{name.title()} should not be set for {source.type} disk source"
    return None


def _invalid_former_reservation(resource: Resource) -> str | None:
    """The rules for `role` and `reservation`, the form of Mesos before 1.4."""
    role = "*" if resource.role is None else resource.role
    problem = invalid_role(role)
    if problem is not None or resource.reservation is None:
        return problem
    for name in ("type", "role"):
        if getattr(resource.reservation, name) is not None:
            return (
                f"'Resource.ReservationInfo.{name}' must not be set for"
                " the 'Resource.reservation' field"
            )
    if role == "*":
        return 'Invalid reservation: role "*" cannot be dynamically reserved'
    return None


def _invalid_reservations(resource: Resource) -> str | None:
    reservations = resource.reservations
    return (
        first_of(_invalid_reservation(entry) for entry in reservations)
        or first_of(_invalid_refinement(above, below) for above, below in pairwise(reservations))
        or _inconsistent_forms(resource)
    )


def _invalid_refinement(above: ReservationInfo, below: ReservationInfo) -> str | None:
    if below.type == "STATIC":
        return "Invalid refined reservation: A refined reservation cannot be STATIC"
    if not is_subrole(below.role or "", above.role or ""):
        return (
            f"Invalid refined reservation: role '{below.role}'"
            f" is not a refinement of '{above.role}'"
        )
    return None


def _invalid_reservation(reservation: ReservationInfo) -> str | None:
    for name in ("type", "role"):
        if getattr(reservation, name) is None:
            return f"Invalid reservation: 'Resource.ReservationInfo.{name}' field must be set."
    role = reservation.role or ""
    if role == "*":
        return 'Invalid reservation: role "*" cannot be reserved'
    return invalid_role(role)


def _inconsistent_forms(resource: Resource) -> str | None:
    """Whether `role` and `reservation` contradict `reservations`."""
    form = "Invalid resource format: "
    mismatch = f"{form}'Resource.role' does not match the role in 'Resource.reservations'"
    has_role, has_reservation = resource.role is not None, resource.reservation is not None
    if len(resource.reservations) > 1:
        if has_role or has_reservation:
            return form + "'Resource.role' and 'Resource.reservation' must not be set"
        return None
    single = resource.reservations[0]
    return first_true(
        (has_role and resource.role != single.role, mismatch),
        (
            single.type == "STATIC" and has_reservation,
            form + "'Resource.reservation' must not be set for a STATIC reservation",
        ),
        (
            single.type == "DYNAMIC" and has_role != has_reservation,
            form + "'Resource.role' and 'Resource.reservation' must both be set or not",
        ),
    )


def invalid_resources(resources: Iterable[Resource]) -> str | None:
    """The first malformed resource of a list."""
    for resource in resources:
        problem = invalid_resource(resource)
        if problem is not None:
            return f"Resource '{resource_text(resource)}' is invalid: {problem}"
    return None


# --- the resources of a task or an executor


def invalid_for_use(resources: Sequence[Resource]) -> str | None:
    """Why well-formed resources cannot be used by a task or an executor."""
    gpus = sum(
        thousandths(resource.scalar.value)
        for resource in resources
        if resource.name == "gpus" and resource.scalar is not None
    )
    if gpus % 1000:
        return "Invalid 'gpus' resource: The 'gpus' resource must be an unsigned integer"
    return prefixed("Invalid DiskInfo", first_of(map(_invalid_use_of_disk, resources))) or prefixed(
        "Invalid ReservationInfo", first_of(map(_revocable_reservation, resources))
    )


def _revocable_reservation(resource: Resource) -> str | None:
    if resource.revocable is None or not _is_dynamically_reserved(resource):
        return None
    return (
        f"Dynamically reserved resource {resource_text(resource)}"
        " cannot be created from revocable resources"
    )


def _is_dynamically_reserved(resource: Resource) -> bool:
    reservations = reservations_of(resource)
    return bool(reservations) and reservations[-1].type == "DYNAMIC"


def _invalid_use_of_disk(resource: Resource) -> str | None:
    disk = resource.disk
    if disk is None:
        return None
    if disk.persistence is not None:
        return _invalid_volume(resource, disk.persistence.id, disk.volume)
    return first_true(
        (disk.volume is not None, "Non-persistent volume not supported"),
        (disk.source is None, "DiskInfo is set but empty"),
    )


def _invalid_volume(resource: Resource, id_: str, volume: Volume | None) -> str | None:
    """Why a persistent volume is wrong."""
    kind = "revocable" if resource.revocable is not None else "unreserved"
    if resource.revocable is not None or not reservations_of(resource):
        return f"Persistent volumes cannot be created from {kind} resources"
    if volume is None:
        return "Expecting 'volume' to be set for persistent volume"
    if volume.host_path is not None:
        return "Expecting 'host_path' to be unset for persistent volume"
    return prefixed("Invalid persistence ID for persistent volume", invalid_id(id_))


def several_roles(resources: Iterable[Resource]) -> str | None:
    """Whether resources are allocated to more than one role."""
    roles = [
        resource.allocation_info.role if resource.allocation_info is not None else None
        for resource in resources
    ]
    if None in roles:
        return "The resources are not allocated to a role"
    other = next((role for role in roles if role != roles[0]), None)
    if other is None:
        return None
    return (
        f"The resources have multiple allocation roles ('{other}' and '{roles[0]}')"
        " but only one allocation role is allowed"
    )


def mixed_revocable(resources: Sequence[Resource]) -> str | None:
    """Whether a name occurs with and without `revocable`."""
    is_revocable: dict[str, bool] = {}
    for resource in resources:
        revocable = resource.revocable is not None
        if is_revocable.setdefault(resource.name, revocable) != revocable:
            return f"Cannot use both revocable and non-revocable '{resource.name}' at the same time"
    return None


def is_empty(resource: Resource) -> bool:
    """Whether a well-formed resource stands for nothing."""
    if resource.type == "RANGES":
        return not (resource.ranges and resource.ranges.range)
    if resource.type == "SET":
        return not (resource.set and resource.set.item)
    return resource.scalar is None or thousandths(resource.scalar.value) == 0


def is_never_offered(resource: Resource, role: str) -> bool:
    """Whether no offer in a role contains a resource, because this engine has none of its kind.

    Offers have unreserved scalars, and ranges of ports. They have no reserved, revocable, shared
    or persistent resources, no sets and no disks of a resource provider.
    """
    if is_empty(resource):
        return False
    allocation = resource.allocation_info
    extras = (resource.disk, resource.revocable, resource.shared, resource.provider_id)
    offered_type = "RANGES" if resource.name == "ports" else "SCALAR"
    return (
        any(extra is not None for extra in extras)
        or resource.type != offered_type
        or (allocation is not None and allocation.role != role)
        or bool(reservations_of(resource))
    )
