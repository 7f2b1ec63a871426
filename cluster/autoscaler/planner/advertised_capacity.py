"""Resources that agents advertise, compared with EC2's, and anomalies of agents. Pure.

What registered agents of a type advertise is remembered by pool and type
(`PlannerState.advertised`), and replaces the estimate. Types without an agent get an estimate: the
cloud's statement, less what agents of the same pool lacked of theirs. Anomalies are reported here;
`disruption.drift` decides about removals.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from mesaform.autoscaler.disruption.drift import drift_of
from mesaform.autoscaler.model.cluster_view import Agent, ClusterView
from mesaform.autoscaler.model.decision import Decision
from mesaform.autoscaler.model.planner_state import Advertised
from mesaform.autoscaler.model.reason import Reason, ReasonCode
from mesaform.autoscaler.model.shape import Shape, minimum, named, shape_of
from mesaform.autoscaler.model.snapshot import Snapshot
from mesaform.autoscaler.model.supply import LISTING_LAG_S, AgentNode, Supply
from mesaform.aws.ports import Offering
from mesaform.common.resources import Resources
from mesaform.config.schema import ClusterSpec
from mesaform.topology.capacity import TASK_PORTS

KERNEL_SHARE = 0.075
"""Share of EC2's stated memory that a kernel does not show, for pools without an agent.

Karpenter's default (`VM_MEMORY_OVERHEAD_PERCENT`).
"""

ENTRY_LIFETIME_S = 30 * 86400.0
"""Age at which what a type advertised is forgotten."""

REWRITE_AFTER_S = ENTRY_LIFETIME_S / 30
"""Age at which an unchanged entry is written again. Each write changes the journal."""

Offerings = Mapping[str, tuple[Offering, ...]]
"""Offerings by pool."""


@dataclass(frozen=True, slots=True)
class Learned:
    """The part of the planner state, and decisions that report what is new in it."""

    advertised: dict[str, Advertised]
    anomalies: dict[str, Reason]
    decisions: tuple[Decision, ...]


def as_advertised(
    offerings: Offerings, advertised: Mapping[str, Advertised], spec: ClusterSpec
) -> Offerings:
    """The offerings with the resources that their agents will advertise."""
    return {pool: _of_pool(pool, offered, advertised, spec) for pool, offered in offerings.items()}


def learn(snapshot: Snapshot, stated: Offerings, supply: Supply, now: float) -> Learned:
    """Compare registered agents with what was expected of them.

    The snapshot's offerings are as advertised, `stated` is what the cloud states.
    """
    advertised, anomalies = _advertised(snapshot, supply, now), _anomalies(snapshot, supply, now)
    decisions = [
        *_new_mismatches(advertised, snapshot, now),
        *_new_anomalies(anomalies, snapshot, now),
    ]
    offered = {
        f"{pool}/{offering.instance_type}"
        for pool, offerings in stated.items()
        for offering in offerings
    }
    if offered:
        advertised = {key: entry for key, entry in advertised.items() if key in offered}
    return Learned(advertised, anomalies, tuple(decisions))


def _of_pool(
    pool: str,
    offered: tuple[Offering, ...],
    advertised: Mapping[str, Advertised],
    spec: ClusterSpec,
) -> tuple[Offering, ...]:
    stated = {offering.instance_type: shape_of(offering.resources) for offering in offered}
    known = _known(pool, stated, advertised)
    if not known and spec.target != "aws":
        return offered
    shares = _shares(stated, known)
    shapes = {name: _estimate(shape, shares) for name, shape in stated.items()} | known
    return tuple(_with_shape(offering, shapes[offering.instance_type]) for offering in offered)


def _known(
    pool: str, types: Iterable[str], advertised: Mapping[str, Advertised]
) -> dict[str, Shape]:
    entries = {name: advertised.get(f"{pool}/{name}") for name in types}
    return {name: entry.shape for name, entry in entries.items() if entry is not None}


def _shares(stated: Mapping[str, Shape], known: Mapping[str, Shape]) -> tuple[float, ...]:
    """By dimension: the least share of the statement that an agent of the pool advertised.

    Gpus depend on the type and not on the pool: they are not reduced.
    """
    if not known:
        return (1.0, 1.0 - KERNEL_SHARE, 1.0, 1.0, 1.0)
    least = [
        min(1.0, *(_share(shape[n], stated[name][n]) for name, shape in known.items()))
        for n in range(5)
    ]
    return (*least[:3], 1.0, least[4])


def _share(advertised: int, stated: int) -> float:
    return advertised / stated if stated else 1.0


def _estimate(shape: Shape, shares: tuple[float, ...]) -> Shape:
    cpus, mem, disk, gpus, ports = (
        int(amount * share) for amount, share in zip(shape, shares, strict=True)
    )
    return (cpus, mem, disk, gpus, ports)


def _with_shape(offering: Offering, shape: Shape) -> Offering:
    if shape_of(offering.resources) == shape:
        return offering
    amounts = zip(("cpus", "mem", "disk", "gpus"), shape, strict=False)
    milli = {name: amount for name, amount in sorted(amounts) if amount}
    ports = offering.resources.ports
    if offering.resources.port_count != shape[4]:
        first = TASK_PORTS[0]
        ports = ((first, first + shape[4] - 1),) if shape[4] else ()
    return replace(offering, resources=Resources(milli, ports))


def _advertised(snapshot: Snapshot, supply: Supply, now: float) -> dict[str, Advertised]:
    """By pool and type: the least that a registered agent advertises, else what is remembered."""
    shapes: dict[str, Shape] = {}
    for node in supply.agent_nodes:
        if node.agent is not None and _is_typical(node, node.agent, snapshot):
            key = f"{node.pool}/{node.machine.instance_type}"
            shapes[key] = minimum(shapes.get(key, node.agent.total), node.agent.total)
    known = {
        key: entry
        for key, entry in snapshot.state.advertised.items()
        if now - entry.at < ENTRY_LIFETIME_S
    }
    return {**known, **{key: _entry(known.get(key), shape, now) for key, shape in shapes.items()}}


def _is_typical(node: AgentNode, agent: Agent, snapshot: Snapshot) -> bool:
    """Whether an agent shows what a machine bought now would advertise."""
    return agent.active and drift_of(node, snapshot) is None


def _entry(known: Advertised | None, shape: Shape, now: float) -> Advertised:
    if known is not None and known.shape == shape and now - known.at < REWRITE_AFTER_S:
        return known
    return Advertised(shape, now)


def _new_mismatches(
    advertised: Mapping[str, Advertised], snapshot: Snapshot, now: float
) -> Iterator[Decision]:
    """Decisions about types that newly advertise less than was expected."""
    for key, entry in advertised.items():
        before = snapshot.state.advertised.get(key)
        if before is not None and before.shape == entry.shape:
            continue
        pool, _, instance_type = key.partition("/")
        missing = _missing(_expected(snapshot, pool, instance_type) or entry.shape, entry.shape)
        if missing:
            reason = Reason.of(ReasonCode.CAPACITY_BELOW_EXPECTED, missing=missing)
            yield Decision(now, "capacity_mismatch", (reason,), pool=pool, offering=instance_type)


def _expected(snapshot: Snapshot, pool: str, instance_type: str) -> Shape | None:
    for offering in snapshot.offerings.get(pool, ()):
        if offering.instance_type == instance_type:
            return shape_of(offering.resources)
    return None


def _missing(expected: Shape, advertised: Shape) -> tuple[str, ...]:
    return tuple(
        named(want - have, dimension)
        for dimension, (want, have) in enumerate(zip(expected, advertised, strict=True))
        if want > have
    )


def _anomalies(snapshot: Snapshot, supply: Supply, now: float) -> dict[str, Reason]:
    """What is not as expected, by instance id, and by agent id for agents without an instance."""
    if snapshot.cluster is None:
        return snapshot.state.anomalies
    drifted = {
        node.name: reason
        for node in supply.agent_nodes
        if (reason := drift_of(node, snapshot)) is not None
    }
    return {
        **drifted,
        **dict(_registered_twice(snapshot.cluster)),
        **dict(_unknown_instances(snapshot, snapshot.cluster, now)),
    }


def _registered_twice(view: ClusterView) -> Iterator[tuple[str, Reason]]:
    """Machines of which several agents are active. Only the newest one's capacity counts."""
    by_machine: dict[str, list[Agent]] = {}
    for agent in _active(view):
        if agent.instance_id:
            by_machine.setdefault(agent.instance_id, []).append(agent)
    for name, agents in by_machine.items():
        if len(agents) > 1:
            ids = tuple(sorted(agent.agent_id for agent in agents))
            yield name, Reason.of(ReasonCode.REGISTERED_TWICE, agents=ids)


def _unknown_instances(
    snapshot: Snapshot, view: ClusterView, now: float
) -> Iterator[tuple[str, Reason]]:
    """Agents of machines that EC2 does not list in this cluster and that have not just ended."""
    known = {machine.instance_id for machine in snapshot.machines}
    for agent in _active(view):
        is_settled = 0 < agent.registered_at < now - LISTING_LAG_S
        if is_settled and agent.instance_id not in known:
            yield (
                agent.agent_id,
                Reason.of(ReasonCode.INSTANCE_UNKNOWN, instance_id=agent.instance_id),
            )


def _active(view: ClusterView) -> Iterable[Agent]:
    return (agent for agent in view.agents if agent.active)


def _new_anomalies(
    anomalies: Mapping[str, Reason], snapshot: Snapshot, now: float
) -> Iterator[Decision]:
    """Decisions about anomalies of instances or, without one, of agents."""
    for name, reason in anomalies.items():
        if snapshot.state.anomalies.get(name) != reason:
            is_instance = name.startswith("i-")
            yield Decision(
                now,
                "anomaly",
                (reason,),
                machines=(name,) if is_instance else (),
                agents=() if is_instance else (name,),
            )
