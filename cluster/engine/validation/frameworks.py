"""Rules for FrameworkInfo, and for the change of one."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from mesaform.engine.validation.names import invalid_id, invalid_role
from mesaform.engine.validation.rules import first_of, prefixed
from mesaform.mesos.messages import Capability, FrameworkInfo, OfferFilters
from mesaform.mesos.scheduler_api import AttributeConstraint, OfferConstraints

_NANOSECONDS = 1e9
_MULTI_ROLE = Capability(type="MULTI_ROLE")
_SMALLEST_NORMAL = 2.2250738585072014e-308


def roles_of(info: FrameworkInfo) -> tuple[str, ...]:
    """The roles that a framework subscribes to.

    They are `roles` of a multi-role framework, otherwise `role`, otherwise the default role.
    """
    if info.roles or _MULTI_ROLE in info.capabilities:
        return tuple(info.roles)
    return ("*" if info.role is None else info.role,)


def invalid_framework(info: FrameworkInfo) -> str | None:
    """Why a framework cannot subscribe with this info."""
    return (
        _invalid_roles(info)
        or _invalid_framework_id(info)
        or _invalid_offer_filters(info.offer_filters.values())
        or _invalid_failover_timeout(info)
    )


def _invalid_roles(info: FrameworkInfo) -> str | None:
    if _MULTI_ROLE in info.capabilities:
        return _invalid_multiple_roles(info)
    if info.roles:
        return "'FrameworkInfo.roles' must not be set when the framework is not MULTI_ROLE capable"
    problem = invalid_role("*" if info.role is None else info.role)
    return prefixed("'FrameworkInfo.role' is not a valid role", problem)


def _invalid_multiple_roles(info: FrameworkInfo) -> str | None:
    if info.role is not None:
        return "'FrameworkInfo.role' must not be set when the framework is MULTI_ROLE capable"
    duplicates = {role for role, count in Counter(info.roles).items() if count > 1}
    if duplicates:
        return f"'FrameworkInfo.roles' contains duplicate items: {names_text(duplicates)}"
    problem = first_of(invalid_role(role) for role in info.roles)
    return prefixed("'FrameworkInfo.roles' contains invalid role", problem)


def names_text(names: Iterable[str]) -> str:
    """A set of names as Mesos writes it into messages."""
    return "{ " + ", ".join(sorted(names)) + " }"


def _invalid_framework_id(info: FrameworkInfo) -> str | None:
    return invalid_id(info.id.value) if info.id is not None and info.id.value else None


def _invalid_offer_filters(all_filters: Iterable[OfferFilters]) -> str | None:
    for filters in all_filters:
        minimal = filters.min_allocatable_resources
        for vector in minimal.quantities if minimal is not None else []:
            if not vector.quantities:
                return "Resource quantities must contain at least one quantity"
            for name, scalar in vector.quantities.items():
                problem = _invalid_quantity(scalar.value)
                if problem is not None:
                    return f"Invalid resource quantity for '{name}': {problem}"
    return None


def _invalid_quantity(value: float) -> str | None:
    if math.isinf(value):
        return "Infinite values not supported"
    if math.isnan(value):
        return "NaN not supported"
    if 0 < abs(value) < _SMALLEST_NORMAL:
        return "Subnormal values not supported"
    return "Negative values not supported" if value < 0 else None


def _invalid_failover_timeout(info: FrameworkInfo) -> str | None:
    timeout_s = info.failover_timeout or 0.0
    if abs(timeout_s * _NANOSECONDS) <= 2.0**63:
        return None
    return f"The framework failover_timeout ({timeout_s:g}) is invalid"


def invalid_subscription(
    info: FrameworkInfo, suppressed: Sequence[str], constraints: OfferConstraints | None
) -> str | None:
    """Why the roles and constraints beside a valid info are wrong."""
    roles = set(roles_of(info))
    unknown = set(suppressed) - roles
    if unknown:
        return f"Suppressed roles {names_text(unknown)} are not contained in the set of roles"
    return _invalid_constraints(constraints, roles) if constraints is not None else None


def _invalid_constraints(constraints: OfferConstraints, roles: set[str]) -> str | None:
    by_role = constraints.role_constraints
    for role in sorted(by_role):
        if role not in roles:
            return (
                f"Offer constraints specify `role_constraints` for a role '{role}'"
                "not contained in the set of roles"
            )
    problem = first_of(
        _invalid_constraint(constraint)
        for role_constraints in by_role.values()
        for group in role_constraints.groups
        for constraint in group.attribute_constraints
    )
    return prefixed("Offer constraints are not valid", problem)


def _invalid_constraint(constraint: AttributeConstraint) -> str | None:
    selector, predicate = constraint.selector, constraint.predicate
    if selector.attribute_name is None and selector.pseudoattribute_type is None:
        return (
            "Exactly one of 'AttributeConstraint::Selector::name' or"
            " 'AttributeConstraint::Selector::pseudoattribute_type' must be set"
        )
    if selector.attribute_name is None and selector.pseudoattribute_type == "UNKNOWN":
        return "Unknown pseudoattribute type"
    is_set = any(getattr(predicate, name) is not None for name in predicate.__struct_fields__)
    return None if is_set else "Unknown predicate type"


def invalid_update(old: FrameworkInfo, new: FrameworkInfo) -> str | None:
    """Why `new` cannot replace `old` in UPDATE_FRAMEWORK."""
    problem = changed_principal(old, new)
    if problem is not None:
        return problem
    if new.user != old.user:
        return _unsupported_update("user", old.user, new.user)
    before, after = bool(old.checkpoint), bool(new.checkpoint)
    if before != after:
        return _unsupported_update("checkpoint", str(before).lower(), str(after).lower())
    return None


def changed_principal(old: FrameworkInfo, new: FrameworkInfo) -> str | None:
    """A framework belongs to its principal. The old one is not shown to the caller."""
    if old.principal != new.principal:
        return "Changing framework's principal is not allowed."
    return None


def _unsupported_update(name: str, before: str, after: str) -> str:
    return (
        f"Updating 'FrameworkInfo.{name}' is unsupported"
        f"; attempted to update from '{before}' to '{after}'"
    )
