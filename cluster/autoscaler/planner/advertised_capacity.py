"""What agents are beside what was expected of them: what the engine advertises of a type, and machines that are not as they should be.

What registered agents of a type have is remembered by pool and type and goes before the estimate (`PlannerState.advertised`). Types never seen
get the estimate, less what agents of the same pool were short of theirs. Pure; nothing is removed here (see `policies.drift`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from mesaform.autoscaler.disruption.drift import drift_of
from mesaform.autoscaler.model.cluster_view import Agent, ClusterView
from mesaform.autoscaler.model.decision import Decision
from mesaform.autoscaler.model.planner_state import Advertised
from mesaform.autoscaler.model.reason import Reason, ReasonCode
from mesaform.autoscaler.model.shape import Shape, named, shape_of
from mesaform.autoscaler.model.snapshot import Snapshot
from mesaform.autoscaler.model.supply import LISTING_LAG_S, LIVE, Supply
from mesaform.aws.ports import Offering
from mesaform.common.resources import Resources
from mesaform.config.schema import ClusterSpec
from mesaform.topology.capacity import TASK_PORTS

KERNEL_KEEPS = 0.075
"""The part of the memory that EC2 states which a kernel may not show, where none of the pool was seen yet: Karpenter's default."""

FORGOTTEN_AFTER_S = 30 * 86400.0
"""A type that none was seen of for so long is estimated again."""

Offerings = Mapping[str, tuple[Offering, ...]]


@dataclass(frozen=True, slots=True)
class Learned:
    """What a pass learned: what to remember, and what to say, each once."""

    advertised: dict[str, Advertised]
    anomalies: dict[str, Reason]
    decisions: tuple[Decision, ...]


def as_advertised(
    offerings: Offerings, advertised: Mapping[str, Advertised], spec: ClusterSpec
) -> Offerings:
    """The offerings with what the engine will see of each."""
    return {pool: _of_pool(pool, offered, advertised, spec) for pool, offered in offerings.items()}


def learn(snapshot: Snapshot, raw: Offerings, supply: Supply, now: float) -> Learned:
    """Compare what registered with what was expected. `raw` is what the cloud states, the snapshot's offerings are as advertised."""
    advertised, anomalies = _seen(snapshot, supply, now), _anomalies(snapshot, supply, now)
    decisions = [
        _less(key, entry, snapshot, now)
        for key, entry in advertised.items()
        if _is_news(key, entry, snapshot)
    ]
    decisions += [
        _anomaly(name, reason, now)
        for name, reason in anomalies.items()
        if snapshot.state.anomalies.get(name) != reason
    ]
    known = {
        f"{pool}/{offering.instance_type}" for pool, offered in raw.items() for offering in offered
    }
    kept = {key: entry for key, entry in advertised.items() if key in known or not known}
    return Learned(
        kept, anomalies, tuple(decision for decision in decisions if decision is not None)
    )


def _of_pool(
    pool: str,
    offered: tuple[Offering, ...],
    advertised: Mapping[str, Advertised],
    spec: ClusterSpec,
) -> tuple[Offering, ...]:
    raw = {offering.instance_type: shape_of(offering.resources) for offering in offered}
    seen = {
        name: advertised[f"{pool}/{name}"].shape for name in raw if f"{pool}/{name}" in advertised
    }
    if not seen and spec.target != "aws":
        return offered
    shares = _shares(raw, seen)
    shapes = {name: seen.get(name) or _estimate(shape, shares) for name, shape in raw.items()}
    return tuple(_with(offering, shapes[offering.instance_type]) for offering in offered)


def _shares(raw: Mapping[str, Shape], seen: Mapping[str, Shape]) -> tuple[float, ...]:
    """By dimension: the least part of the estimate that an agent of this pool had. Gpus are a matter of the type, not of the pool."""
    if not seen:
        return (1.0, 1.0 - KERNEL_KEEPS, 1.0, 1.0, 1.0)
    least = [
        min(
            1.0, *(shape[n] / raw[name][n] if raw[name][n] else 1.0 for name, shape in seen.items())
        )
        for n in range(5)
    ]
    return (*least[:3], 1.0, least[4])


def _estimate(shape: Shape, shares: tuple[float, ...]) -> Shape:
    cpus, mem, disk, gpus, ports = (
        int(amount * share) for amount, share in zip(shape, shares, strict=True)
    )
    return (cpus, mem, disk, gpus, ports)


def _with(offering: Offering, shape: Shape) -> Offering:
    if shape_of(offering.resources) == shape:
        return offering
    milli = {
        name: amount
        for name, amount in zip(("cpus", "mem", "disk", "gpus"), shape, strict=False)
        if amount
    }
    first = TASK_PORTS[0]
    ports = (
        offering.resources.ports
        if offering.resources.port_count == shape[4]
        else ((first, first + shape[4] - 1),)
        if shape[4]
        else ()
    )
    return replace(offering, resources=Resources(dict(sorted(milli.items())), ports))


def _seen(snapshot: Snapshot, supply: Supply, now: float) -> dict[str, Advertised]:
    """What is advertised by pool and type: the least of any agent that is there, else what was remembered."""
    found: dict[str, Shape] = {}
    for unit in supply.agent_nodes:
        agent, key = unit.agent, f"{unit.pool}/{unit.machine.instance_type}"
        if agent is None or not agent.active or drift_of(unit, snapshot):
            continue
        before = found.get(key, agent.total)
        found[key] = (
            min(before[0], agent.total[0]),
            min(before[1], agent.total[1]),
            min(before[2], agent.total[2]),
            min(before[3], agent.total[3]),
            min(before[4], agent.total[4]),
        )
    old = {
        key: entry
        for key, entry in snapshot.state.advertised.items()
        if now - entry.at < FORGOTTEN_AFTER_S
    }
    fresh = {
        key: old[key] if key in old and _is_young(old[key], shape, now) else Advertised(shape, now)
        for key, shape in found.items()
    }
    return {**old, **fresh}


def _is_young(entry: Advertised, shape: Shape, now: float) -> bool:
    """Whether an entry says the same and need not be written again: memory that changes each pass is written each pass."""
    return entry.shape == shape and now - entry.at < FORGOTTEN_AFTER_S / 30


def _is_news(key: str, entry: Advertised, snapshot: Snapshot) -> bool:
    before = snapshot.state.advertised.get(key)
    return before is None or before.shape != entry.shape


def _less(key: str, entry: Advertised, snapshot: Snapshot, now: float) -> Decision | None:
    """The decision that says so, where an agent has less than was expected of its type."""
    pool, _, name = key.partition("/")
    expected = next(
        (
            shape_of(o.resources)
            for o in snapshot.offerings.get(pool, ())
            if o.instance_type == name
        ),
        entry.shape,
    )
    missing = tuple(
        named(want - have, n)
        for n, (want, have) in enumerate(zip(expected, entry.shape, strict=True))
        if want > have
    )
    if not missing:
        return None
    reason = Reason.of(ReasonCode.CAPACITY_BELOW_EXPECTED, missing=missing)
    return Decision(now, "capacity_mismatch", (reason,), pool=pool, offering=name)


def _anomalies(snapshot: Snapshot, supply: Supply, now: float) -> dict[str, Reason]:
    """What is not as expected, by instance id, and by agent id for agents without an instance."""
    if snapshot.cluster is None:
        return snapshot.state.anomalies
    drifted = {
        unit.machine.instance_id: reason
        for unit in supply.agent_nodes
        if (reason := drift_of(unit, snapshot)) is not None
    }
    return {**drifted, **dict(_twice(snapshot.cluster)), **dict(_unknown(snapshot, now))}


def _twice(view: ClusterView) -> Iterator[tuple[str, Reason]]:
    """Machines of which several agents are active: only the newest one's room is counted."""
    by_machine: dict[str, list[Agent]] = {}
    for agent in view.agents:
        if agent.active and agent.instance_id:
            by_machine.setdefault(agent.instance_id, []).append(agent)
    for name, agents in by_machine.items():
        if len(agents) > 1:
            ids = tuple(sorted(agent.agent_id for agent in agents))
            yield name, Reason.of(ReasonCode.REGISTERED_TWICE, agents=ids)


def _unknown(snapshot: Snapshot, now: float) -> Iterator[tuple[str, Reason]]:
    """Agents whose machine EC2 does not list as this cluster's: another cluster's, or nobody's."""
    listed = {machine.instance_id for machine in snapshot.machines if machine.state in LIVE}
    ended = {machine.instance_id for machine in snapshot.machines} - listed
    for agent in _active(snapshot.cluster):
        if (
            agent.instance_id not in listed
            and agent.instance_id not in ended
            and 0 < agent.registered_at < now - LISTING_LAG_S
        ):
            yield (
                agent.agent_id,
                Reason.of(ReasonCode.INSTANCE_UNKNOWN, instance_id=agent.instance_id),
            )


def _active(view: ClusterView | None) -> Iterable[Agent]:
    return [agent for agent in view.agents if agent.active] if view else []


def _anomaly(name: str, reason: Reason, now: float) -> Decision:
    """The decision that reports an anomaly of an instance or, without one, of an agent."""
    is_instance = name.startswith("i-")
    return Decision(
        now,
        "anomaly",
        (reason,),
        machines=(name,) if is_instance else (),
        agents=() if is_instance else (name,),
    )
