"""Keeps work that pins no architecture off agents that require a pin. Pure.

The services refuse such offers (`mesaform.services.matching`), so a machine of the other
architecture serves work only that pins it. Opaque frameworks may accept any offer; machines are
bought for them as if they did not. Nothing changes in a cluster whose agents require no pin.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from mesaform.autoscaler.model.cluster_view import ClusterView
from mesaform.autoscaler.model.demand_item import DemandItem
from mesaform.autoscaler.model.snapshot import Snapshot
from mesaform.common.architecture import implied_constraints
from mesaform.config.schema import ClusterSpec
from mesaform.placement.constraints import Constraint


def requires_pins(spec: ClusterSpec) -> bool:
    """Whether some agents of a cluster have another architecture than unpinned work."""
    wanted = spec.tasks.architecture
    return wanted != "any" and any(set(pool.architectures) - {wanted} for pool in spec.agents)


def with_implied_constraints(snapshot: Snapshot) -> Snapshot:
    """The snapshot with the constraints that apps and frameworks have because of architectures."""
    view = snapshot.cluster
    if view is None or not requires_pins(snapshot.spec):
        return snapshot
    frameworks = tuple(
        replace(framework, constraints=_complete(framework.constraints))
        for framework in view.frameworks
    )
    return replace(
        snapshot,
        cluster=replace(view, frameworks=frameworks),
        app_constraints=_completed_apps(view, snapshot.app_constraints),
    )


def _completed_apps(
    view: ClusterView, stated: Mapping[str, tuple[Constraint, ...]] | None
) -> dict[str, tuple[Constraint, ...]] | None:
    """Constraints by app and by the name of every running task; None while none are known."""
    if stated is None:
        return None
    names = {task.name for agent in view.agents for task in agent.work}
    own = {**dict.fromkeys(sorted(names), ()), **stated}
    return {name: _complete(constraints) for name, constraints in own.items()}


def restrict(items: Iterable[DemandItem], spec: ClusterSpec) -> list[DemandItem]:
    """The items with the constraints that they have because of architectures. Idempotent."""
    if not requires_pins(spec):
        return list(items)
    return [replace(item, constraints=_complete(item.constraints)) for item in items]


def _complete(constraints: Sequence[Constraint]) -> tuple[Constraint, ...]:
    own = [(part.field, part.operator, part.value) for part in constraints]
    implied = (Constraint(*parts) for parts in implied_constraints(own))
    return (*constraints, *(part for part in implied if part not in constraints))
