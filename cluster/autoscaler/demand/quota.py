"""Quotas: pieces of demand beyond the quota of their role are blocked. Pure.

The master would not offer them a new machine either. A limit counts what runs in the role and in
roles below it (`eng` counts `eng/web`), and does not count pending offers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from mesaform.autoscaler.model.cluster_view import Quota
from mesaform.autoscaler.model.demand_item import DemandItem
from mesaform.autoscaler.model.reason import Reason, ReasonCode
from mesaform.autoscaler.model.shape import MANY, NAMES, NOTHING, Shape, plus, times


def within(
    units: Iterable[DemandItem], quotas: Sequence[Quota], after: Iterable[DemandItem] = ()
) -> list[DemandItem]:
    """The items, each cut at what its role may still use; `after` are items that come first."""
    if not quotas:
        return list(units)
    taken: dict[str, Shape] = {}
    for unit in after:
        if not unit.blocked:
            _take(unit, quotas, taken)
    items: list[DemandItem] = []
    for unit in units:
        items += [unit] if unit.blocked else _cut(unit, quotas, taken)
    return items


def applies(quota: Quota, role: str) -> bool:
    """Whether a quota counts the resources of a role."""
    return role == quota.role or role.startswith(f"{quota.role}/")


def _cut(unit: DemandItem, quotas: Sequence[Quota], taken: dict[str, Shape]) -> list[DemandItem]:
    tightest = min(
        (quota for quota in quotas if applies(quota, unit.role)),
        key=lambda q: _pieces(unit, q, taken),
        default=None,
    )
    count = unit.count if tightest is None else min(unit.count, _pieces(unit, tightest, taken))
    free = replace(unit, count=count)
    _take(free, quotas, taken)
    if tightest is None or count == unit.count:
        return [free]
    reason = Reason.of(
        ReasonCode.QUOTA_EXHAUSTED, role=tightest.role, limits=_usage_of_limits(tightest)
    )
    stopped = replace(unit, count=unit.count - count, blocked=reason, blocked_kind="quota")
    return [free, stopped] if count else [stopped]


def _take(unit: DemandItem, quotas: Sequence[Quota], taken: dict[str, Shape]) -> None:
    for quota in quotas:
        if applies(quota, unit.role):
            taken[quota.role] = plus(taken.get(quota.role, NOTHING), times(unit.shape, unit.count))


def _pieces(unit: DemandItem, quota: Quota, taken: dict[str, Shape]) -> int:
    """How many more pieces of an item a quota allows."""
    used = plus(quota.used, taken.get(quota.role, NOTHING))
    room = [
        max(0, most - have) // want
        for most, have, want in zip(quota.limit, used, unit.shape, strict=False)
        if most is not None and want
    ]
    return min(room, default=MANY)


def _usage_of_limits(quota: Quota) -> tuple[str, ...]:
    """What is used of each limit: `2 of 2 cpus`."""
    return tuple(
        f"{used / 1000:g} of {most / 1000:g} {name}"
        for most, used, name in zip(quota.limit, quota.used, NAMES, strict=False)
        if most is not None
    )
