"""The operator API's JSON about frameworks, quota and the allocator as values of `model`. Pure, and forgiving as `wire` is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from mesaform.autoscaler.model.cluster_view import Constraint, Framework, Quota
from mesaform.autoscaler.model.shape import NOTHING, Shape, make, plus

Json = Mapping[str, Any]
PROBE = "mesaform-probe"
"""Name and role of the autoscaler's own framework (`probe`), which wants nothing and counts for nothing."""

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
    """One of GET_FRAMEWORKS with its metrics (by the part of their name after its id) and the refusals that stand, by role."""
    info = item.get("framework_info", {})
    framework_id = str(info.get("id", {}).get("value", ""))
    every = tuple(info.get("roles") or [info.get("role") or "*"])
    roles = tuple(role for role in every if not counters.get(f"roles/{role}/suppressed"))
    return Framework(
        framework_id=framework_id,
        name=info.get("name", framework_id),
        active=bool(item.get("active", False)) and bool(item.get("connected", True)),
        suppressed=not roles,
        roles=roles or every,
        minimal=smallest_useful(info.get("offer_filters") or {}, roles or every),
        task_shape=max(task_shapes, default=None),
        sent=int(counters.get("offers/sent", 0)),
        accepted=int(counters.get("offers/accepted", 0)),
        declined=int(counters.get("offers/declined", 0)),
        asked=int(counters.get("calls/revive", 0) + counters.get("calls/request", 0)),
        refusals=sum(refusals.get(role, 0) for role in roles),
        constraints=offer_constraints(item.get("offer_constraints") or {}, roles or every),
    )


def counters_of(metrics: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Metrics of frameworks by their id, named by what stands behind it. Names, which are percent-encoded, are passed over."""
    found: dict[str, dict[str, float]] = {}
    for name, value in metrics.items():
        if name.startswith("master/frameworks/"):
            parts = name.split("/", 4)
            if len(parts) == 5:
                found.setdefault(parts[3], {})[parts[4]] = value
    return found


def refusals_of(metrics: Mapping[str, float]) -> dict[str, int]:
    """How many refusals stand, by role."""
    start, end = "allocator/mesos/offer_filters/roles/", "/active"
    return {
        name[len(start) : -len(end)]: int(value)
        for name, value in metrics.items()
        if name.startswith(start) and name.endswith(end)
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
    """A framework's `offer_constraints` as constraints. Where any of several groups will do, the first stands for all."""
    for role in roles:
        groups = ((declared.get("role_constraints") or {}).get(role) or {}).get("groups") or []
        if groups:
            found = (_constraint(one) for one in groups[0].get("attribute_constraints") or [])
            return tuple(one for one in found if one is not None)
    return ()


def _constraint(item: Json) -> Constraint | None:
    selector, predicate = item.get("selector") or {}, item.get("predicate") or {}
    pseudo = {"HOSTNAME": "hostname", "ZONE": "zone"}.get(selector.get("pseudoattribute_type", ""))
    field = selector.get("attribute_name") or pseudo
    if not field:
        return None
    if "exists" in predicate or "not_exists" in predicate:
        return Constraint(field, "LIKE" if "exists" in predicate else "UNLIKE", ".*")
    for kind, operator in _OPERATORS.items():
        if (body := predicate.get(kind)) is not None:
            value = str(body.get("value", body.get("regex", "")))
            return Constraint(
                field, operator, re.escape(value) if kind == "text_not_equals" else value
            )
    return None


def reserved_for(resource: Json) -> str:
    """The role for which a resource is reserved, in Mesos' newer form or the older one; `*` when it is for everybody."""
    reservations = resource.get("reservations") or []
    return str(reservations[-1].get("role", "*") if reservations else resource.get("role") or "*")


def quotas(answer: Json, agents: Iterable[Json]) -> tuple[Quota, ...]:
    """GET_QUOTA with what each role holds by GET_AGENTS. Masters before 1.9 know guarantees only, which bound as limits do."""
    status = answer.get("status") or {}
    limits = {
        item["role"]: _amounts(item.get("limits"))
        for item in status.get("configs") or []
        if item.get("role")
    }
    if not status.get("configs"):
        limits = {
            item["role"]: _scalars(item.get("guarantee"))
            for item in status.get("infos") or []
            if item.get("role")
        }
    limits = {role: amounts for role, amounts in limits.items() if amounts}
    if not limits:
        return ()
    held = _held(agents)
    return tuple(
        Quota(role, _limit(amounts), _below(role, held)) for role, amounts in sorted(limits.items())
    )


def _limit(amounts: Mapping[str, float]) -> tuple[int | None, int | None, int | None, int | None]:
    cpus, mem, disk, gpus = (
        round(amounts[name] * 1000) if name in amounts else None for name in QUOTA_NAMES
    )
    return (cpus, mem, disk, gpus)


def _below(role: str, held: Mapping[str, Shape]) -> Shape:
    total = NOTHING
    for name, shape in held.items():
        if name == role or name.startswith(f"{role}/"):
            total = plus(total, shape)
    return total


def _held(agents: Iterable[Json]) -> dict[str, Shape]:
    """What runs, by role."""
    found: dict[str, dict[str, float]] = {}
    for agent in agents:
        for resource in agent.get("allocated_resources") or []:
            role = (resource.get("allocation_info") or {}).get("role", "*")
            amounts = found.setdefault(role, {})
            name = resource.get("name", "")
            amounts[name] = amounts.get(name, 0.0) + float(
                (resource.get("scalar") or {}).get("value", 0.0)
            )
    return {role: _shape(amounts) for role, amounts in found.items()}


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
