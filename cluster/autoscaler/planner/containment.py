"""A pass in which a fault of one framework, app or pool ends the work for that one only. Pure.

`plan` treats all demand and all pools together. When it fails, the frameworks and apps with which
it fails alone are left out. When it fails with each of them, a pool is the likelier cause: pools
with which it fails alone are left out, first from purchases, then altogether. Their machines and
timers stay as they are. Depends on `planner`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import fields, replace
from typing import Any

from mesaform.autoscaler.model.cluster_view import ClusterView, Framework, QueueEntry
from mesaform.autoscaler.model.planner_state import PlannerState
from mesaform.autoscaler.model.removal import Replacement
from mesaform.autoscaler.model.snapshot import Snapshot
from mesaform.autoscaler.model.supply import LIVE
from mesaform.autoscaler.planner.assembly import Plan
from mesaform.autoscaler.planner.planner import plan
from mesaform.aws.ports import Machine
from mesaform.common.faults import Fault
from mesaform.config.schema import ClusterSpec
from mesaform.topology.names import Tag

POOL_FAULT = "pool"
FRAMEWORK_FAULT = "framework"
APP_FAULT = "app"
"""Kinds of the faults."""

MOST_SUSPECTS = 5000
"""Frameworks and apps among which those that fail are looked for."""

Demand = Framework | QueueEntry


def plan_contained(snapshot: Snapshot, now: float) -> tuple[Plan, list[Fault]]:
    """The plan of a pass, and one fault for each framework, app and pool that it leaves out.

    The capacity of a pool that is left out altogether counts for the cost cap only. Demand that its
    machines would have taken may therefore be bought in another pool.

    Raises:
        Exception: what `plan` raises, if it does with every pool and without any demand.

    """
    try:
        return plan(snapshot, now), []
    except Exception:
        suspects = _suspects(snapshot)
        faults = list(_failing(snapshot, suspects, now))
        if len(faults) == len(suspects):
            with contextlib.suppress(Exception):  # a pool may be at fault, or else all of them
                return _plan_by_pool(snapshot, now)
        planned, of_pools = _plan_by_pool(_without_demand(snapshot, faults), now)
        return planned, [*faults, *of_pools]


def _suspects(snapshot: Snapshot) -> list[Demand]:
    """What has demand."""
    view = snapshot.cluster
    frameworks: list[Demand] = [] if view is None else list(view.frameworks)
    return [*frameworks, *(snapshot.queue or ())][:MOST_SUSPECTS]


def _failing(snapshot: Snapshot, suspects: Sequence[Demand], now: float) -> Iterator[Fault]:
    """The faults of those of the suspects that fail alone, found by halves."""
    error = _failure(snapshot, suspects, now) if suspects else None
    if error is None:
        return
    if len(suspects) > 1:
        middle = len(suspects) // 2
        yield from _failing(snapshot, suspects[:middle], now)
        yield from _failing(snapshot, suspects[middle:], now)
        return
    (suspect,) = suspects
    if isinstance(suspect, Framework):
        yield Fault(FRAMEWORK_FAULT, suspect.framework_id, error)
    else:
        yield Fault(APP_FAULT, suspect.app, error)


def _failure(snapshot: Snapshot, kept: Sequence[Demand], now: float) -> Exception | None:
    """The exception of a plan with these frameworks and apps only."""
    frameworks = {item.framework_id for item in kept if isinstance(item, Framework)}
    apps = {item.app for item in kept if isinstance(item, QueueEntry)}
    try:
        plan(_with_demand(snapshot, frameworks.__contains__, apps.__contains__), now)
    except Exception as error:
        return error
    return None


def _without_demand(snapshot: Snapshot, faults: Sequence[Fault]) -> Snapshot:
    """The snapshot without the demand of the frameworks and apps that failed."""
    if not faults:
        return snapshot
    names = {(fault.kind, fault.subject) for fault in faults}
    return _with_demand(
        snapshot,
        lambda name: (FRAMEWORK_FAULT, name) not in names,
        lambda name: (APP_FAULT, name) not in names,
    )


def _with_demand(
    snapshot: Snapshot,
    keeps_framework: Callable[[str], bool],
    keeps_app: Callable[[str], bool],
) -> Snapshot:
    view, queue = snapshot.cluster, snapshot.queue
    if view is not None:
        frameworks = (item for item in view.frameworks if keeps_framework(item.framework_id))
        view = replace(view, frameworks=tuple(frameworks))
    if queue is not None:
        queue = tuple(entry for entry in queue if keeps_app(entry.app))
    return replace(snapshot, cluster=view, queue=queue)


def _plan_by_pool(snapshot: Snapshot, now: float) -> tuple[Plan, list[Fault]]:
    """The plan, and one fault for each pool that it leaves out."""
    try:
        return plan(snapshot, now), []
    except Exception as error:
        faults = _faults(snapshot, now)
        if not 0 < len(faults) < len(snapshot.spec.agents):
            raise
        planned = _plan_without(snapshot, {fault.subject for fault in faults}, now)
        if planned is None:
            raise error from None
        return planned, faults


def _faults(snapshot: Snapshot, now: float) -> list[Fault]:
    """The pools that cannot be planned even alone."""
    pools = [pool.name for pool in snapshot.spec.agents]
    faults: list[Fault] = []
    for name in pools:
        try:
            plan(_without(snapshot, set(pools) - {name}), now)
        except Exception as error:
            faults.append(Fault(POOL_FAULT, name, error))
    return faults


def _plan_without(snapshot: Snapshot, pools: Collection[str], now: float) -> Plan | None:
    """The plan without purchases for the pools, else without the pools; None: it fails as well."""
    offerings = {**snapshot.offerings, **dict.fromkeys(pools, ())}
    with contextlib.suppress(Exception):  # the pools' machines may be at fault, too
        return plan(replace(snapshot, offerings=offerings), now)
    try:
        planned = plan(_without(snapshot, pools), now)
    except Exception:
        return None
    ids = _ids(snapshot, pools)
    return replace(planned, state=_joined(planned.state, snapshot.state, pools, ids))


def _without(snapshot: Snapshot, pools: Collection[str]) -> Snapshot:
    """The snapshot of a cluster that does not have the pools."""
    ids = _ids(snapshot, pools)
    return replace(
        snapshot,
        spec=_spec_without(snapshot, pools, ids),
        cluster=_view_without(snapshot.cluster, ids),
        machines=tuple(m for m in snapshot.machines if m.instance_id not in ids),
        offerings={pool: o for pool, o in snapshot.offerings.items() if pool not in pools},
        intents=tuple(i for i in snapshot.intents if i.request.pool not in pools),
        state=_state(snapshot.state, lambda key, value: not _is_of(key, value, pools, ids)),
    )


def _spec_without(snapshot: Snapshot, pools: Collection[str], ids: Collection[str]) -> ClusterSpec:
    """The spec without the pools, whose machines leave less of the cost cap."""
    spec, most = snapshot.spec, snapshot.spec.cost.max_usd_per_hour
    if most is not None:
        most = max(0.0, most - _usd_per_hour(snapshot, pools, ids))
    agents = tuple(pool for pool in spec.agents if pool.name not in pools)
    cost = spec.cost.model_copy(update={"max_usd_per_hour": most})
    return spec.model_copy(update={"agents": agents, "cost": cost})


def _view_without(view: ClusterView | None, ids: Collection[str]) -> ClusterView | None:
    if view is None:
        return None
    return replace(view, agents=tuple(a for a in view.agents if a.instance_id not in ids))


def _ids(snapshot: Snapshot, pools: Collection[str]) -> frozenset[str]:
    """The instance ids of the pools' machines and agents, and the agents' own ids."""
    machines = {m.instance_id for m in snapshot.machines if _pool_of(m) in pools}
    agents = snapshot.agents_by_instance.items()
    own = {
        name: agent.agent_id
        for name, agent in agents
        if name in machines or agent.attributes.get("pool") in pools
    }
    return frozenset(machines | own.keys() | set(own.values()))


def _pool_of(machine: Machine) -> str:
    return machine.tags.get(Tag.POOL, "")


def _usd_per_hour(snapshot: Snapshot, pools: Collection[str], ids: Collection[str]) -> float:
    """What the pools' machines and orders cost; a machine without a known price costs the most."""
    usd = sum(
        _price(snapshot, machine)
        for machine in snapshot.machines
        if machine.instance_id in ids and machine.state in LIVE
    )
    ordered = [i.request for i in snapshot.intents if not i.instance_ids]
    return usd + sum(
        request.count * _dearest(snapshot, request.pool)
        for request in ordered
        if request.pool in pools
    )


def _price(snapshot: Snapshot, machine: Machine) -> float:
    known = snapshot.state.billed_machines.get(machine.instance_id)
    return known.usd_per_hour if known else _dearest(snapshot, _pool_of(machine))


def _dearest(snapshot: Snapshot, pool: str) -> float:
    return max((offer.usd_per_hour for offer in snapshot.offerings.get(pool, ())), default=0.0)


def _joined(
    planned: PlannerState, before: PlannerState, pools: Collection[str], ids: Collection[str]
) -> PlannerState:
    """The planned state, with what was known of the pools that were left out."""
    kept = _state(before, lambda key, value: _is_of(key, value, pools, ids))
    tables: dict[str, Any] = {
        name: {**table, **getattr(kept, name)} for name, table in _tables(planned).items()
    }
    return replace(planned, **tables)


def _state(state: PlannerState, is_kept: Callable[[str, object], bool]) -> PlannerState:
    """The state with the entries of its tables that are kept."""
    tables: dict[str, Any] = {
        name: {key: value for key, value in table.items() if is_kept(key, value)}
        for name, table in _tables(state).items()
    }
    return replace(state, **tables)


def _tables(state: PlannerState) -> dict[str, dict[str, object]]:
    values = {item.name: getattr(state, item.name) for item in fields(state)}
    return {name: value for name, value in values.items() if isinstance(value, dict)}


def _is_of(key: str, value: object, pools: Collection[str], ids: Collection[str]) -> bool:
    """Whether an entry is about a machine, an agent, a type or a replacement of the pools."""
    if isinstance(value, Replacement):
        return not set(ids).isdisjoint(value.old_instance_ids)
    return key in ids or key.partition("/")[0] in pools
