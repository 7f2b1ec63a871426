"""Supply of a pass as values: agent machines with their state, and nodes that tasks fit on. Pure.

`supply_builder` makes it from a snapshot. Depends on the model's values and the price book.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from mesaform.autoscaler.model import lifecycle
from mesaform.autoscaler.model.cluster_view import Agent
from mesaform.autoscaler.model.removal import Removal
from mesaform.autoscaler.model.shape import Shape
from mesaform.aws.ports import Machine, Offering
from mesaform.aws.pricing import price_book
from mesaform.common.architecture import architecture_of
from mesaform.common.resources import Range
from mesaform.config.schema import ClusterSpec, Pool
from mesaform.placement.constraints import InstanceCounts
from mesaform.topology.agent_attributes import (
    AgentMachine,
    pool_attributes,
    registered_attributes,
)
from mesaform.topology.names import Tag
from mesaform.topology.user_data import PROTECT

if TYPE_CHECKING:
    from mesaform.autoscaler.model.snapshot import Snapshot

LIVE = frozenset({"pending", "running"})
"""EC2's states of machines that are paid for."""

LISTING_LAG_S = 120.0
"""Seconds that a machine named by CreateFleet may be missing from DescribeInstances.

After that it counts as gone. DescribeInstances is eventually consistent.
"""

PROTECT_TAG = "mesaform:protect"
"""Tag of a machine that no policy disturbs, with the value `true`."""

NodeKind = Literal["settled", "idle", "coming", "leaving"]


@dataclass(frozen=True, slots=True)
class Node:
    """A place for tasks: a registered agent, or (`coming`) a machine that boots or is ordered.

    `leaving` nodes are deactivated and can be reactivated at no cost. `name` is the instance id,
    the agent id where EC2 lists no machine, or the launch token with a number. `hostname`,
    `attributes` and the free host `ports` are what constraints see.
    """

    name: str
    kind: NodeKind
    hostname: str
    attributes: Mapping[str, str]
    free: Shape
    pool: str
    ports: tuple[Range, ...] = ()


@dataclass(frozen=True, slots=True)
class AgentNode:
    """A live machine with the role of agent, with its agent, state and removal."""

    machine: Machine
    agent: Agent | None
    state: lifecycle.State
    removal: Removal | None
    usd_per_hour: float

    @property
    def name(self) -> str:
        """The instance id."""
        return self.machine.instance_id

    @property
    def pool(self) -> str:
        """The machine's pool; empty without the tag."""
        return self.machine.tags.get(Tag.POOL, "")

    @property
    def is_autoscaled(self) -> bool:
        """Whether the autoscaler bought the machine and may therefore remove it."""
        return (
            self.machine.tags.get(Tag.MANAGED_BY) == "autoscaler"
            and self.machine.tags.get(Tag.ROLE) == "agent"
        )


@dataclass(frozen=True, slots=True)
class Supply:
    """Machines and nodes of a pass.

    `agent_nodes` are the live agent machines, `pools` the same by pool. `zones` counts
    staying and ordered machines by pool and zone. `nodes` are sorted in the order that tasks are
    placed. `ordered_by_pool` counts machines that are ordered and not listed by EC2 yet. `usage` is
    where instances of apps with constraints run. `history` holds each machine's states;
    `quarantined` maps a machine whose history breaks the state machine to that history.
    """

    agent_nodes: tuple[AgentNode, ...]
    nodes: tuple[Node, ...]
    usage: InstanceCounts
    usd_per_hour: float
    ordered_by_pool: Mapping[str, int]
    history: dict[str, tuple[str, ...]]
    quarantined: Mapping[str, str] = field(default_factory=dict)
    pools: Mapping[str, tuple[AgentNode, ...]] = field(default_factory=dict)
    zones: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def in_pool(self, pool: str) -> tuple[AgentNode, ...]:
        """The live agent machines of a pool."""
        return self.pools.get(pool, ())

    def size(self, pool: str) -> int:
        """Machines that count against a pool's max: running and ordered ones, leaving ones too."""
        return len(self.in_pool(pool)) + self.ordered_by_pool.get(pool, 0)

    def staying_count(self, pool: str) -> int:
        """Machines that count for a pool's min: running and ordered ones without a removal."""
        staying = sum(1 for node in self.in_pool(pool) if node.removal is None)
        return staying + self.ordered_by_pool.get(pool, 0)


def price_of(machine: Machine, offerings: Mapping[str, Offering] | None = None) -> float:
    """USD an hour of a machine, by its offering (of `offerings` by key), else by the price book.

    0 when neither knows it. `usd_per_hour_of` also knows the prices of a snapshot's machines.
    """
    key = f"{machine.instance_type}/{machine.zone}/{machine.capacity}"
    if offerings and key in offerings:
        return offerings[key].usd_per_hour
    return price_book.usd_per_hour(machine.instance_type, machine.capacity) or 0.0


def usd_per_hour_of(
    snapshot: Snapshot, machine: Machine, offerings: Mapping[str, Offering] | None = None
) -> float:
    """USD an hour of a machine of a snapshot."""
    known = snapshot.usd_per_hour.get(machine.instance_id)
    return price_of(machine, offerings) if known is None else known


def pool_of(spec: ClusterSpec, name: str) -> Pool | None:
    """The pool of this name."""
    return next((pool for pool in spec.agents if pool.name == name), None)


def attributes_of(
    spec: ClusterSpec, pool: str, instance_type: str, zone: str, capacity: str
) -> dict[str, str]:
    """Attributes and fault domain that an agent of a pool will register, as constraints see them.

    They are known in advance but for the id of the instance.
    """
    pool_spec = pool_of(spec, pool)
    architecture = architecture_of(instance_type)
    own = pool_attributes(pool_spec, spec, architecture) if pool_spec else {}
    machine = AgentMachine(instance_type, zone, pool, capacity)
    return registered_attributes(own, machine, spec.region)


def is_protected(node: AgentNode) -> bool:
    """Whether no policy may disturb a machine: by its agent's attribute or its tag."""
    attributes = node.agent.attributes if node.agent else {}
    return attributes.get(PROTECT) == "true" or node.machine.tags.get(PROTECT_TAG) == "true"
