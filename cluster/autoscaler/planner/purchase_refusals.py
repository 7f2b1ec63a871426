"""Why an agent is of no use for the demand that its machine was bought for. Pure.

Depends on the model and on the matcher of placements.
"""

from __future__ import annotations

from collections.abc import Iterable

from mesaform.autoscaler.model.cluster_view import Agent
from mesaform.autoscaler.model.demand_item import DemandItem
from mesaform.autoscaler.model.reason import Param, Reason, ReasonCode
from mesaform.autoscaler.model.shape import Shape, contains, named, shape_of
from mesaform.autoscaler.model.snapshot import Snapshot
from mesaform.autoscaler.model.supply import AgentNode, Node, attributes_of
from mesaform.placement.constraints import InstanceCounts, room

_NOTHING_PLACED = InstanceCounts()


def refused_offers(item: DemandItem) -> tuple[str, ...]:
    """The offers that the framework of an item refused, by reason: `InsufficientCpus 12`."""
    codes = (reason for reason in item.reasons if reason.code is ReasonCode.OFFERS_REFUSED)
    values: list[Param] = [reason.params["refusals"] for reason in codes]
    return tuple(text for value in values if isinstance(value, tuple) for text in value)


def mismatch(item: DemandItem, node: AgentNode, snapshot: Snapshot) -> tuple[str, ...]:
    """In what an agent differs from the machine that was bought, if the item only fits on that.

    Empty if the item fits on the agent, or would not fit on such a machine either, as machines of
    its type are known by now.
    """
    agent, expected = node.agent, _expected(node, snapshot)
    if agent is None or expected is None or not _fits(item, expected, expected.free):
        return ()
    return () if _fits(item, agent, agent.total) else _differences(expected, agent)


def machine_refused(item: DemandItem, node: AgentNode, differences: tuple[str, ...]) -> Reason:
    """That a machine which was bought for an item is not used by it."""
    return Reason.of(
        ReasonCode.MACHINE_REFUSED,
        instance_id=node.name,
        agent_id=node.agent.agent_id if node.agent else "",
        refusals=refused_offers(item),
        differences=differences,
        retry_s=0.0,
    )


def _expected(node: AgentNode, snapshot: Snapshot) -> Node | None:
    """What a machine of this offering registers, as far as is known by now."""
    machine = node.machine
    key = f"{machine.instance_type}/{machine.zone}/{machine.capacity}"
    offerings = snapshot.offerings.get(node.pool, ())
    offering = next((offer for offer in offerings if offer.key == key), None)
    if offering is None or node.agent is None:
        return None
    attributes = attributes_of(
        snapshot.spec, node.pool, machine.instance_type, machine.zone, machine.capacity
    )
    shape, ports = shape_of(offering.resources), offering.resources.ports
    return Node(node.name, "idle", node.agent.hostname, attributes, shape, node.pool, ports)


def _fits(item: DemandItem, location: Node | Agent, shape: Shape) -> bool:
    """Whether a piece fits on an empty location, beside no other instances."""
    if not contains(shape, item.shape):
        return False
    return room(item.name, item.constraints, location, _NOTHING_PLACED) > 0


def _differences(expected: Node, agent: Agent) -> tuple[str, ...]:
    """In which attributes, resources and ports an agent differs: `rack is a, expected b`."""
    texts = [
        f"{name} is {agent.attributes.get(name, 'missing')}, expected {value}"
        for name, value in sorted(expected.attributes.items())
        if agent.attributes.get(name) != value
    ]
    texts += [
        f"{named(have, dimension)}, expected {named(want, dimension)}"
        for dimension, (have, want) in enumerate(zip(agent.total, expected.free, strict=True))
        if have < want
    ]
    if agent.ports != expected.ports:
        texts.append(f"ports {_ranges(agent.ports)}, expected {_ranges(expected.ports)}")
    return tuple(texts)


def _ranges(ports: Iterable[tuple[int, int]]) -> str:
    return ", ".join(f"{low}-{high}" for low, high in ports) or "none"
