"""Conversion of the operator API's frameworks, quotas and allocator metrics to values of `model`.

Pure. An absent field has its default. Depends on `autoscaler.model` only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from mesaform.autoscaler.model.cluster_view import Framework, Quota
from mesaform.autoscaler.model.shape import NOTHING, Shape, make, plus
from mesaform.common.json_types import as_list, as_object
from mesaform.common.printable import printable
from mesaform.placement.constraints import Constraint
from mesaform.placement.task_labels import TaskLabels, read_labels

Json = Mapping[str, Any]
PROBE = "mesaform-probe"
"""Name and role of the autoscaler's own framework (`probe`), which has no demand."""

LONGEST_TEXT = 2048
"""Longest address that is read of a framework; longer ones are cut, and so lead nowhere."""

LONGEST_NAME = 200
"""Longest name of a framework that is read; longer ones are cut."""

QUOTA_NAMES = ("cpus", "mem", "disk", "gpus")
_OPERATORS = {
    "text_equals": "IS",
    "text_not_equals": "UNLIKE",
    "text_matches": "LIKE",
    "text_not_matches": "UNLIKE",
}


def framework(
    item: Json,
    task_shapes: Iterable[Shape],
    counters: Mapping[str, float],
    refusals: Mapping[str, int],
) -> Framework:
    """Convert an entry of GET_FRAMEWORKS.

    `counters` are the framework's metrics by the part of their name after its id.
    `refusals` are the active refusals by role.
    """
    info = item.get("framework_info", {})
    framework_id = str(info.get("id", {}).get("value", ""))
    every_role = _roles(info)
    unsuppressed = tuple(
        role for role in every_role if not counters.get(f"roles/{role}/suppressed")
    )
    roles = unsuppressed or every_role
    labels = _labels(info)
    return Framework(
        framework_id=framework_id,
        name=_name(info, framework_id),
        active=_is_active(item),
        suppressed=not unsuppressed,
        roles=roles,
        minimal=smallest_useful(info.get("offer_filters") or {}, roles),
        task_shape=max(task_shapes, default=None),
        sent=int(counters.get("offers/sent", 0)),
        accepted=int(counters.get("offers/accepted", 0)),
        declined=int(counters.get("offers/declined", 0)),
        asked=int(counters.get("calls/revive", 0) + counters.get("calls/request", 0)),
        refusals=sum(refusals.get(role, 0) for role in unsuppressed),
        constraints=(
            *offer_constraints(item.get("offer_constraints") or {}, roles),
            *labels.constraints,
        ),
        webui_url=_text(info.get("webui_url")),
        hostname=_text(info.get("hostname")),
        held=len(as_list(item.get("offers"))),
        labels=labels,
    )


def _name(info: Json, framework_id: str) -> str:
    """The framework's name, printable and cut."""
    return printable(_text(info.get("name")), LONGEST_NAME) or framework_id


def _text(value: object) -> str:
    """A text that a framework states, cut; empty for another type."""
    return value[:LONGEST_TEXT] if isinstance(value, str) else ""


def _labels(info: Json) -> TaskLabels:
    """The framework's labels for Mesaform."""
    stated = as_list(as_object(info.get("labels")).get("labels"))
    pairs = (as_object(label) for label in stated)
    return read_labels({str(pair.get("key")): str(pair.get("value", "")) for pair in pairs})


def _roles(info: Json) -> tuple[str, ...]:
    return tuple(info.get("roles") or [info.get("role") or "*"])


def _is_active(item: Json) -> bool:
    return bool(item.get("active", False)) and bool(item.get("connected", True))


def counters_of(metrics: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Group the metrics of frameworks by framework id, named by the part after the id.

    The framework's name in the metric is percent-encoded and is skipped.
    """
    counters: dict[str, dict[str, float]] = {}
    for name, value in metrics.items():
        if name.startswith("master/frameworks/"):
            parts = name.split("/", 4)
            if len(parts) == 5:
                counters.setdefault(parts[3], {})[parts[4]] = value
    return counters


def refusals_of(metrics: Mapping[str, float]) -> dict[str, int]:
    """Count the active offer filters by role."""
    start, end = "allocator/mesos/offer_filters/roles/", "/active"
    return {
        name[len(start) : -len(end)]: int(value)
        for name, value in metrics.items()
        if name.startswith(start) and name.endswith(end) and isinstance(value, int | float)
    }


def smallest_useful(filters: Json, roles: Iterable[str]) -> Shape | None:
    """The smallest of the offers that a framework declared useful, over these roles."""
    quantities = (
        quantity
        for role in roles
        for quantity in ((filters.get(role) or {}).get("min_allocatable_resources") or {}).get(
            "quantities", []
        )
    )
    return min(
        (_shape(_amounts(quantity.get("quantities"))) for quantity in quantities), default=None
    )


def offer_constraints(declared: Json, roles: Iterable[str]) -> tuple[Constraint, ...]:
    """Convert a framework's `offer_constraints`.

    The first role with groups counts. Mesos accepts any of a role's groups; only the first is used.
    """
    groups = next(filter(None, (_groups(declared, role) for role in roles)), None)
    if not groups:
        return ()
    constraints = (_constraint(item) for item in groups[0].get("attribute_constraints") or [])
    return tuple(constraint for constraint in constraints if constraint is not None)


def _groups(declared: Json, role: str) -> list[Json]:
    by_role = declared.get("role_constraints") or {}
    groups: list[Json] = (by_role.get(role) or {}).get("groups") or []
    return groups


def _constraint(item: Json) -> Constraint | None:
    field = _constrained_field(item.get("selector") or {})
    if not field:
        return None
    predicate = item.get("predicate") or {}
    if "exists" in predicate:
        return Constraint(field, "LIKE", ".*")
    if "not_exists" in predicate:
        return Constraint(field, "UNLIKE", ".*")
    return _text_constraint(field, predicate)


def _constrained_field(selector: Json) -> str | None:
    pseudo = {"HOSTNAME": "hostname", "ZONE": "zone"}.get(selector.get("pseudoattribute_type", ""))
    return selector.get("attribute_name") or pseudo


def _text_constraint(field: str, predicate: Json) -> Constraint | None:
    for kind, operator in _OPERATORS.items():
        operand = predicate.get(kind)
        if operand is not None:
            value = str(operand.get("value", operand.get("regex", "")))
            is_literal_pattern = kind == "text_not_equals"
            return Constraint(field, operator, re.escape(value) if is_literal_pattern else value)
    return None


def reserved_for(resource: Json) -> str:
    """Return the role for which a resource is reserved; `*` when it is unreserved.

    Reads `reservations` (Mesos 1.4 and later) and the older field `role`.
    """
    reservations = resource.get("reservations") or []
    return str(reservations[-1].get("role", "*") if reservations else resource.get("role") or "*")


def quotas(answer: Json, agents: Iterable[Json]) -> tuple[Quota, ...]:
    """Convert GET_QUOTA, with the resources that each role has allocated by GET_AGENTS.

    Masters before 1.9 report guarantees only. They bound a role as limits do.
    """
    limits = {role: amounts for role, amounts in _quota_limits(answer).items() if amounts}
    if not limits:
        return ()
    allocated = _allocated_by_role(agents)
    return tuple(
        Quota(role, _limit(amounts), _allocated_below(role, allocated))
        for role, amounts in sorted(limits.items())
    )


def _quota_limits(answer: Json) -> dict[str, dict[str, float]]:
    """Return the bounds of each role. A later entry of a role replaces an earlier one."""
    status = answer.get("status") or {}
    if status.get("configs"):
        return {
            item["role"]: _amounts(item.get("limits"))
            for item in status["configs"]
            if item.get("role")
        }
    return {
        item["role"]: _scalars(item.get("guarantee"))
        for item in status.get("infos") or []
        if item.get("role")
    }


def _limit(amounts: Mapping[str, float]) -> tuple[int | None, int | None, int | None, int | None]:
    cpus, mem, disk, gpus = (
        round(amounts[name] * 1000) if name in amounts else None for name in QUOTA_NAMES
    )
    return (cpus, mem, disk, gpus)


def _allocated_below(role: str, allocated: Mapping[str, Shape]) -> Shape:
    """Add up what a role and the roles below it have allocated."""
    total = NOTHING
    for name, shape in allocated.items():
        if name == role or name.startswith(f"{role}/"):
            total = plus(total, shape)
    return total


def _allocated_by_role(agents: Iterable[Json]) -> dict[str, Shape]:
    by_role: dict[str, dict[str, float]] = {}
    for agent in agents:
        for resource in agent.get("allocated_resources") or []:
            role = (resource.get("allocation_info") or {}).get("role", "*")
            amounts = by_role.setdefault(role, {})
            name = resource.get("name", "")
            amounts[name] = amounts.get(name, 0.0) + float(
                (resource.get("scalar") or {}).get("value", 0.0)
            )
    return {role: _shape(amounts) for role, amounts in by_role.items()}


def _shape(amounts: Mapping[str, float]) -> Shape:
    return make(
        amounts.get("cpus", 0),
        amounts.get("mem", 0),
        amounts.get("disk", 0),
        amounts.get("gpus", 0),
    )


def _amounts(quantities: Any) -> dict[str, float]:
    return {name: float(amount.get("value", 0)) for name, amount in (quantities or {}).items()}


def _scalars(resources: Any) -> dict[str, float]:
    return {
        item["name"]: float(item["scalar"]["value"]) for item in resources or [] if "scalar" in item
    }
