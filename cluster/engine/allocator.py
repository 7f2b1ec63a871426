"""Allocator: decides which framework is offered what, by dominant resource fairness (DRF).

DRF ranks the roles first and then the frameworks of each role (Ghodsi et al., NSDI 2011; Mesos'
HierarchicalDRFAllocator). The master reports agents, frameworks and allocations, and asks for the
next offers. An offer counts as allocated at once; the master returns it with `recover`. Roles are
flat: `a/b` is a role like any other. Quota, reservations and revocable resources do not exist.
Pure. Depends on `common.resources`.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from mesaform.common.resources import EMPTY, Resources, subtract_ranges

Key = tuple[float, int, str]
"""Rank of a role or framework: dominant share by weight, number of allocations, name."""

MAX_REFUSE_S = 365 * 86400.0  # Mesos' upper bound of Filters.refuse_seconds
DEFAULT_REFUSE_S = 5.0  # Mesos' default of Filters.refuse_seconds
MIN_ALLOCATABLE = (Resources.of(cpus=0.01), Resources.of(mem_mib=32))
"""The least offers: the default of Mesos' flag `--min_allocatable_resources`."""


MOST_REFUSALS = 100
"""Refusals of one framework in one role on one agent; the one that ends first is dropped."""


@dataclass(frozen=True, slots=True)
class Allocation:
    """All free resources of one agent, for one framework in one of its roles."""

    framework_id: str
    role: str
    agent_id: str
    resources: Resources


@dataclass(slots=True)
class _Agent:
    total: Resources
    free: Resources
    active: bool = True
    allocated: dict[tuple[str, str], Resources] = field(default_factory=dict)


@dataclass(slots=True)
class _Framework:
    roles: frozenset[str]
    suppressed: set[str]
    active: bool
    gpu_aware: bool
    min_allocatable: Mapping[str, tuple[Resources, ...]]


@dataclass(slots=True)
class _Allocated:
    """What a role, or a framework in a role, holds in the cluster, in thousandths of each unit.

    `count` is the number of its allocations.
    """

    milli: Counter[str] = field(default_factory=Counter)
    count: int = 0

    def add(self, resources: Resources, sign: int) -> None:
        for name, amount in resources.milli.items():
            self.milli[name] += sign * amount


@dataclass(frozen=True, slots=True)
class _Refusal:
    resources: Resources
    until: float


class _Order:
    """Roles, and the frameworks in each, by rank. It stays sorted during one round."""

    def __init__(self, roles: list[Key], clients: dict[str, list[Key]]) -> None:
        self._roles = roles
        self._clients = clients

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """(role, framework): by the role's rank, then by the framework's rank in it."""
        for _, _, role in self._roles:
            for _, _, framework_id in self._clients[role]:
                yield role, framework_id

    def update(self, before: tuple[Key, Key], after: tuple[Key, Key]) -> None:
        """Move a role and a framework in it to their new ranks."""
        clients = self._clients[before[0][2]]
        for ordered, old, new in (
            (self._roles, before[0], after[0]),
            (clients, before[1], after[1]),
        ):
            del ordered[bisect_left(ordered, old)]
            insort(ordered, new)


class Allocator:
    """The state of allocation and the next offers.

    Args:
        interval_s: seconds between the master's regular rounds; a refusal lasts at least this long.
        shuffle: shuffles a list of agents in place; injected, so that tests are deterministic.
        min_allocatable: smaller offers are not made.
        weights: the share of a role relative to the others; 1 for a role that is not in it.

    """

    def __init__(
        self,
        *,
        interval_s: float = 1.0,
        shuffle: Callable[[list[str]], None] = lambda _agents: None,
        min_allocatable: tuple[Resources, ...] = MIN_ALLOCATABLE,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        self.interval_s = interval_s
        self.runs = 0
        self._shuffle = shuffle
        self._min_allocatable = min_allocatable
        self._weights = dict(weights or {})
        self._agents: dict[str, _Agent] = {}
        self._frameworks: dict[str, _Framework] = {}
        self._roles: dict[str, _Allocated] = {}
        self._clients: dict[tuple[str, str], _Allocated] = {}  # (role, framework)
        self._refusals: dict[tuple[str, str, str], list[_Refusal]] = {}  # (framework, role, agent)
        self._total: Counter[str] = Counter()

    # --- agents

    def add_agent(
        self,
        agent_id: str,
        total: Resources,
        used: Iterable[tuple[str, str, Resources]] = (),
        *,
        active: bool = True,
    ) -> None:
        """Add an agent; `used` is what already runs on it, as (framework, role, resources)."""
        self.remove_agent(agent_id)
        self._agents[agent_id] = _Agent(total, total, active)
        self._count_total(total, 1)
        for framework_id, role, resources in used:
            self._take(agent_id, framework_id, role, resources)

    def remove_agent(self, agent_id: str) -> None:
        """Remove the agent and everything that is allocated on it. Idempotent."""
        agent = self._agents.pop(agent_id, None)
        if agent is None:
            return
        self._count_total(agent.total, -1)
        for (framework_id, role), resources in agent.allocated.items():
            self._add_allocated(framework_id, role, resources, -1)
        for key in [key for key in self._refusals if key[2] == agent_id]:
            del self._refusals[key]

    def update_agent(self, agent_id: str, total: Resources) -> None:
        """Change the agent's total. Its allocations stay, even those that no longer fit."""
        agent = self._agents[agent_id]
        self._count_total(agent.total, -1)
        self._count_total(total, 1)
        agent.total = total
        agent.free = _free(agent)

    def restore_agent(
        self, agent_id: str, used: Iterable[tuple[str, str, Resources]], *, active: bool
    ) -> None:
        """Replace the agent's allocations by `used`, which are (framework, role, resources)."""
        total = self._agents[agent_id].total
        self.add_agent(agent_id, total, used, active=active)

    def set_agent_active(self, agent_id: str, *, active: bool) -> None:
        """Offer the agent or not."""
        if agent_id in self._agents:
            self._agents[agent_id].active = active

    # --- frameworks

    def add_framework(
        self,
        framework_id: str,
        roles: Iterable[str],
        *,
        suppressed: Iterable[str] = (),
        active: bool = True,
        gpu_aware: bool = False,
        min_allocatable: Mapping[str, tuple[Resources, ...]] | None = None,
    ) -> None:
        """Add or change a framework. Its allocations and refusals in its roles stay."""
        before = self._frameworks.get(framework_id)
        self._frameworks[framework_id] = _Framework(
            frozenset(roles), set(suppressed), active, gpu_aware, min_allocatable or {}
        )
        if before is not None:
            self._leave(framework_id, before.roles - self._frameworks[framework_id].roles)

    def has_framework(self, framework_id: str) -> bool:
        """Whether the framework was added and not removed."""
        return framework_id in self._frameworks

    def remove_framework(self, framework_id: str) -> None:
        """Remove a framework. Everything that it holds must have been recovered."""
        framework = self._frameworks.pop(framework_id, None)
        self._remove_refusals(framework_id)
        for key in [key for key in self._clients if key[1] == framework_id]:
            del self._clients[key]
        self._forget_roles(framework.roles if framework is not None else ())

    def _leave(self, framework_id: str, roles: frozenset[str]) -> None:
        """Forget the refusals of a framework in roles that it left, and what it held in them."""
        for key in [key for key in self._refusals if key[0] == framework_id and key[1] in roles]:
            del self._refusals[key]
        for role in roles:
            held = self._clients.get((role, framework_id))
            if held is not None and not any(held.milli.values()):
                del self._clients[role, framework_id]
        self._forget_roles(roles)

    def _forget_roles(self, roles: Iterable[str]) -> None:
        """Forget roles that no framework has and in which nothing is held.

        Frameworks choose the names of their roles, so that this bounds their number.
        """
        unused = set(roles)
        for framework in self._frameworks.values():
            unused -= framework.roles
        for role in unused:
            held = self._roles.get(role)
            if held is not None and not any(held.milli.values()):
                del self._roles[role]

    def deactivate_framework(self, framework_id: str) -> None:
        """Make no offers to a disconnected framework, and remove its refusals."""
        self._frameworks[framework_id].active = False
        self._remove_refusals(framework_id)

    def revive(self, framework_id: str, roles: Iterable[str] = ()) -> None:
        """Remove refusals and suppression in these roles; in all its roles when none is given."""
        framework = self._frameworks[framework_id]
        for role in tuple(roles) or framework.roles:
            framework.suppressed.discard(role)
            for key in [key for key in self._refusals if key[:2] == (framework_id, role)]:
                del self._refusals[key]

    def suppress(self, framework_id: str, roles: Iterable[str] = ()) -> None:
        """Make no offers in these roles until `revive`; in all of its roles when none is given."""
        framework = self._frameworks[framework_id]
        framework.suppressed.update(set(roles) or framework.roles)

    def suppressed(self, framework_id: str) -> frozenset[str]:
        """The roles in which the framework gets no offers."""
        return frozenset(self._frameworks[framework_id].suppressed)

    # --- resources

    def recover(
        self,
        framework_id: str,
        role: str,
        agent_id: str,
        resources: Resources,
        *,
        now: float,
        refuse_s: float | None = None,
    ) -> None:
        """Take back what an offer or a task no longer uses.

        Args:
            framework_id: the framework that held it.
            role: the role in which it was held.
            agent_id: its agent. Nothing happens when the agent was removed.
            resources: what returns.
            now: seconds since the epoch.
            refuse_s: seconds for which the framework refuses these resources, at least one
                interval. None and 0 mean no refusal; a negative number means the default.

        """
        agent = self._agents.get(agent_id)
        if agent is None or resources.is_empty:
            return
        key = (framework_id, role)
        remaining = agent.allocated.get(key, EMPTY) - resources
        if remaining.is_empty:
            agent.allocated.pop(key, None)
        else:
            agent.allocated[key] = remaining
        agent.free = _free(agent)
        self._add_allocated(framework_id, role, resources, -1)
        if refuse_s and framework_id in self._frameworks:
            wanted = DEFAULT_REFUSE_S if refuse_s < 0 else min(refuse_s, MAX_REFUSE_S)
            refusal = _Refusal(resources, now + max(self.interval_s, wanted))
            self._refuse((framework_id, role, agent_id), refusal)

    def _refuse(self, key: tuple[str, str, str], refusal: _Refusal) -> None:
        """Add a refusal. It replaces those that it contains and that end no later."""
        kept = [
            other
            for other in self._refusals.get(key, ())
            if other.until > refusal.until or not refusal.resources.contains(other.resources)
        ]
        if len(kept) >= MOST_REFUSALS:
            kept.remove(min(kept, key=lambda other: other.until))
        self._refusals[key] = [*kept, refusal]

    def claim(self, framework_id: str, role: str, agent_id: str, resources: Resources) -> None:
        """Count what runs on an agent already, as the agent reports it."""
        self._take(agent_id, framework_id, role, resources)

    def allocate(self, now: float) -> list[Allocation]:
        """The next offers.

        The free resources of each active agent go to the framework of the lowest rank that does not
        refuse them. The order of the agents is random, as in Mesos.
        """
        self.runs += 1
        self._expire(now)
        agents = [
            agent_id
            for agent_id, agent in self._agents.items()
            if agent.active and self._contains_any(agent.free, self._min_allocatable)
        ]
        self._shuffle(agents)
        allocations: list[Allocation] = []
        order = self._order()
        for agent_id in agents:
            chosen = self._choose(agent_id, order)
            if chosen is None:
                continue
            role, framework_id = chosen
            before = self._role_key(role), self._client_key(role, framework_id)
            resources = _offerable(self._agents[agent_id].free)
            self._take(agent_id, framework_id, role, resources)
            allocations.append(Allocation(framework_id, role, agent_id, resources))
            order.update(before, (self._role_key(role), self._client_key(role, framework_id)))
        return allocations

    def _choose(self, agent_id: str, order: _Order) -> tuple[str, str] | None:
        agent = self._agents[agent_id]
        for role, framework_id in order:
            framework = self._frameworks[framework_id]
            if agent.total.gpus and not framework.gpu_aware:
                continue
            smallest = framework.min_allocatable.get(role)
            if smallest is not None and not self._contains_any(agent.free, smallest):
                continue
            if not self._refused(framework_id, role, agent_id, agent.free):
                return role, framework_id
        return None

    def _order(self) -> _Order:
        members: dict[str, list[str]] = {}
        for framework_id, framework in self._frameworks.items():
            if framework.active:
                for role in framework.roles - framework.suppressed:
                    members.setdefault(role, []).append(framework_id)
        roles = sorted(self._role_key(role) for role in members)
        return _Order(
            roles,
            {
                role: sorted(self._client_key(role, framework_id) for framework_id in members[role])
                for role in members
            },
        )

    def _role_key(self, role: str) -> Key:
        allocated = self._roles.get(role, _NOTHING)
        share = self._dominant(allocated) / self._weights.get(role, 1.0)
        return share, allocated.count, role

    def _client_key(self, role: str, framework_id: str) -> Key:
        allocated = self._clients.get((role, framework_id), _NOTHING)
        return self._dominant(allocated), allocated.count, framework_id

    def _dominant(self, allocated: _Allocated) -> float:
        return max(
            (
                amount / self._total[name]
                for name, amount in allocated.milli.items()
                if self._total[name] > 0
            ),
            default=0.0,
        )

    def _refused(self, framework_id: str, role: str, agent_id: str, offered: Resources) -> bool:
        return any(
            refusal.resources.contains(offered)
            for refusal in self._refusals.get((framework_id, role, agent_id), ())
        )

    @staticmethod
    def _contains_any(resources: Resources, vectors: tuple[Resources, ...]) -> bool:
        return any(resources.contains(vector) for vector in vectors)

    def _expire(self, now: float) -> None:
        for key, refusals in list(self._refusals.items()):
            valid = [refusal for refusal in refusals if refusal.until > now]
            if valid:
                self._refusals[key] = valid
            else:
                del self._refusals[key]

    def _remove_refusals(self, framework_id: str) -> None:
        for key in [key for key in self._refusals if key[0] == framework_id]:
            del self._refusals[key]

    def _take(self, agent_id: str, framework_id: str, role: str, resources: Resources) -> None:
        agent = self._agents[agent_id]
        key = (framework_id, role)
        agent.allocated[key] = agent.allocated.get(key, EMPTY) + resources
        agent.free = _free(agent)
        self._add_allocated(framework_id, role, resources, 1)

    def _add_allocated(self, framework_id: str, role: str, resources: Resources, sign: int) -> None:
        for allocated in (
            self._roles.setdefault(role, _Allocated()),
            self._clients.setdefault((role, framework_id), _Allocated()),
        ):
            allocated.add(resources, sign)
            allocated.count += sign > 0
        framework = self._frameworks.get(framework_id)
        if sign < 0 and (framework is None or role not in framework.roles):
            self._leave(framework_id, frozenset({role}))

    def _count_total(self, total: Resources, sign: int) -> None:
        for name, amount in total.milli.items():
            self._total[name] += sign * amount

    # --- queries

    def claimable(self, agent_id: str, resources: Resources) -> Resources:
        """The part of `resources` that can be counted once: without ports that are taken already.

        An agent reports amounts that it really uses, so scalars stay, even above its total.
        """
        free = self._agents[agent_id].free.ports
        ports = subtract_ranges(resources.ports, subtract_ranges(resources.ports, free))
        return Resources(resources.milli, ports)

    def total(self, agent_id: str) -> Resources:
        """What an agent declares."""
        return self._agents[agent_id].total

    def free(self, agent_id: str) -> Resources:
        """What is neither offered nor used on an agent."""
        return self._agents[agent_id].free

    def allocated(self, agent_id: str) -> dict[tuple[str, str], Resources]:
        """What is offered or used on an agent, by (framework, role)."""
        return dict(self._agents[agent_id].allocated)

    def active_filters(self) -> Counter[str]:
        """The number of refusals by role."""
        count: Counter[str] = Counter()
        for (_, role, _), refusals in self._refusals.items():
            count[role] += len(refusals)
        return count

    def shares(self) -> dict[str, float]:
        """The dominant share, 0 to 1, of each role that has a framework."""
        roles = {role for framework in self._frameworks.values() for role in framework.roles}
        return {role: self._dominant(self._roles.get(role, _NOTHING)) for role in sorted(roles)}

    def cluster(self) -> tuple[dict[str, float], dict[str, float]]:
        """(total, offered or used) of cpus, mem, disk and gpus in the cluster, in their units."""
        free: Counter[str] = Counter()
        for agent in self._agents.values():
            for name, amount in agent.free.milli.items():
                free[name] += amount
        names = ("cpus", "mem", "disk", "gpus")
        total = {name: self._total[name] / 1000 for name in names}
        return total, {name: (self._total[name] - free[name]) / 1000 for name in names}


def _free(agent: _Agent) -> Resources:
    """What the agent's allocations leave of its total.

    Scalars are below zero when the agent reports more than its total. Ports outside its total
    vanish.
    """
    free = agent.total
    for resources in agent.allocated.values():
        free = free - resources
    return free


def _offerable(free: Resources) -> Resources:
    """The part of an agent's free resources that is not below zero."""
    return Resources(
        {name: amount for name, amount in free.milli.items() if amount > 0}, free.ports
    )


_NOTHING = _Allocated()
