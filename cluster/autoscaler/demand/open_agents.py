"""Free resources that the master may offer a framework. Pure. Depends on `model`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mesaform.autoscaler.model.cluster_view import Agent, Framework
from mesaform.autoscaler.model.shape import NOTHING, Shape, contains, make, maximum, plus
from mesaform.placement.constraints import Constraint, InstanceCounts, room

LEAST_CPUS = make(cpus=0.01)
LEAST_MEM = make(mem_mib=32)
"""The master offers an agent that has either free (`--min_allocatable_resources`)."""

_USAGE = InstanceCounts()

Free = Mapping[Shape, int]
"""Number of agents by their free resources."""


@dataclass(slots=True)
class OpenAgents:
    """The agents that give offers. Frameworks with equal constraints and roles share one answer."""

    agents: Iterable[Agent]
    _by_key: dict[tuple[tuple[Constraint, ...], tuple[str, ...]], Free] = field(
        default_factory=dict
    )
    _active: list[Agent] = field(default_factory=list)
    _reserved_roles: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._active = [agent for agent in self.agents if agent.active and not agent.deactivated]
        self._reserved_roles = {role for agent in self._active for role in agent.reserved}

    def free_for(self, framework: Framework) -> Free:
        """What agents have free for a framework: unreserved, and reserved for its roles.

        With a declared smallest useful offer only agents that hold it are offered.
        """
        everything = self._free_for(framework)
        least = framework.minimal
        if least is None:
            return everything
        return {free: count for free, count in everything.items() if contains(free, least)}

    def _free_for(self, framework: Framework) -> Free:
        roles = framework.roles if self._reserved_roles else ()
        key = (framework.constraints, roles)
        known = self._by_key.get(key)
        if known is None:
            known = self._by_key[key] = self._counted(framework)
        return known

    def _counted(self, framework: Framework) -> Free:
        counts: Counter[Shape] = Counter()
        for agent in self._active:
            free = _offered(agent, framework)
            if (contains(free, LEAST_CPUS) or contains(free, LEAST_MEM)) and room(
                framework.name, framework.constraints, agent, _USAGE
            ):
                counts[free] += 1
        return counts

    def new_since(self, at: float) -> int:
        """The agents that registered after a time (epoch s)."""
        return sum(agent.registered_at > at for agent in self._active)


def holds(free: Free, shape: Shape) -> bool:
    """Whether an agent has this much free."""
    return any(contains(have, shape) for have in free)


def largest(free: Free) -> Shape:
    """The most that an agent has free, by dimension."""
    most = NOTHING
    for shape in free:
        most = maximum(most, shape)
    return most


def _offered(agent: Agent, framework: Framework) -> Shape:
    """What an agent may offer a framework: free resources, and reservations for its roles."""
    free = agent.free
    for role, shape in agent.reserved.items():
        if any(mine == role or mine.startswith(f"{role}/") for mine in framework.roles):
            free = plus(free, shape)
    return free
