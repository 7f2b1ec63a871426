"""Who is offered what: dominant resource fairness over roles, then over the frameworks of a role.

Pure: the master tells it what agents, frameworks and allocations there are, and asks for the next offers. What is offered
counts as allocated from that moment; the master gives it back with `recover`. Roles are flat here: `a/b` is a role like any other.
Not here: quota, reservations, revocable resources.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from mesaform.common.resources import EMPTY, Resources

Key = tuple[float, int, str]
"""What orders roles and frameworks: dominant share (by weight), how often something was given, name."""

MAX_REFUSE_S = 365 * 86400.0
DEFAULT_REFUSE_S = 5.0
MIN_ALLOCATABLE = (Resources.of(cpus=0.01), Resources.of(mem_mib=32))
"""An offer is worth making when it contains one of these: what `--min_allocatable_resources` is in Mesos."""


@dataclass(frozen=True, slots=True)
class Allocation:
    """All that is free on one agent, for one framework in one of its roles."""

    framework_id: str
    role: str
    agent_id: str
    resources: Resources


@dataclass(slots=True)
class _Agent:
    total: Resources
    free: Resources
    active: bool = True
    held: dict[tuple[str, str], Resources] = field(default_factory=dict)


@dataclass(slots=True)
class _Framework:
    roles: frozenset[str]
    suppressed: set[str]
    active: bool
    gpu_aware: bool
    min_allocatable: Mapping[str, tuple[Resources, ...]]


@dataclass(slots=True)
class _Held:
    """What a role, or a framework in a role, holds in the whole cluster; `count` is how often it was given something."""

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
    """Roles, and the frameworks in each, hungriest first; kept in order while one round gives things away."""

    def __init__(self, roles: list[Key], clients: dict[str, list[Key]]) -> None:
        self._roles = roles
        self._clients = clients

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """(role, framework): by the role's share, then by the framework's share inside it."""
        for _, _, role in self._roles:
            for _, _, framework_id in self._clients[role]:
                yield role, framework_id

    def moved(self, before: tuple[Key, Key], after: tuple[Key, Key]) -> None:
        """A role and a framework in it hold more now."""
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
        shuffle: puts a list of agents in a random order, in place (injected, so that a test or a replay is deterministic).
        min_allocatable: smaller offers are not made.
        weights: share of a role relative to others; 1 when not named.

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
        self._roles: dict[str, _Held] = {}
        self._clients: dict[tuple[str, str], _Held] = {}  # (role, framework)
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
        """A new agent; `used` is what already runs there, as (framework, role, resources)."""
        self.remove_agent(agent_id)
        self._agents[agent_id] = _Agent(total, total, active)
        self._count_total(total, 1)
        for framework_id, role, resources in used:
            self._take(agent_id, framework_id, role, resources)

    def remove_agent(self, agent_id: str) -> None:
        """The agent and everything allocated on it are gone. Idempotent."""
        agent = self._agents.pop(agent_id, None)
        if agent is None:
            return
        self._count_total(agent.total, -1)
        for (framework_id, role), resources in agent.held.items():
            self._hold(framework_id, role, resources, -1)
        for key in [key for key in self._refusals if key[2] == agent_id]:
            del self._refusals[key]

    def update_agent(self, agent_id: str, total: Resources) -> None:
        """The agent's size changed; what it runs keeps running."""
        agent = self._agents[agent_id]
        self._count_total(agent.total, -1)
        self._count_total(total, 1)
        agent.free = total - (agent.total - agent.free)
        agent.total = total

    def set_agent_active(self, agent_id: str, *, active: bool) -> None:
        """An agent that is not active is never offered."""
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
        """A framework, new or changed. What it holds and what it refused are kept."""
        self._frameworks[framework_id] = _Framework(
            frozenset(roles), set(suppressed), active, gpu_aware, min_allocatable or {}
        )

    def remove_framework(self, framework_id: str) -> None:
        """No more offers. What it holds must have been recovered."""
        self._frameworks.pop(framework_id, None)
        self._forget_refusals(framework_id)
        for key in [key for key in self._clients if key[1] == framework_id]:
            del self._clients[key]

    def deactivate_framework(self, framework_id: str) -> None:
        """A disconnected framework gets no offers, and its refusals are forgotten."""
        self._frameworks[framework_id].active = False
        self._forget_refusals(framework_id)

    def revive(self, framework_id: str, roles: Iterable[str] = ()) -> None:
        """Forget refusals and suppression in these roles (all of them when none is named)."""
        framework = self._frameworks[framework_id]
        for role in tuple(roles) or framework.roles:
            framework.suppressed.discard(role)
            for key in [key for key in self._refusals if key[:2] == (framework_id, role)]:
                del self._refusals[key]

    def suppress(self, framework_id: str, roles: Iterable[str] = ()) -> None:
        """No offers in these roles (all of them when none is named) until revived."""
        framework = self._frameworks[framework_id]
        framework.suppressed.update(set(roles) or framework.roles)

    def suppressed(self, framework_id: str) -> frozenset[str]:
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
            framework_id: who held it.
            role: in which role.
            agent_id: where; nothing happens when that agent is gone.
            resources: what comes back.
            now: seconds.
            refuse_s: None and 0 install no filter; a negative number means the default, 5 s. Lasts at least one interval.

        """
        agent = self._agents.get(agent_id)
        if agent is None or resources.is_empty:
            return
        key = (framework_id, role)
        left = agent.held.get(key, EMPTY) - resources
        if left.is_empty:
            agent.held.pop(key, None)
        else:
            agent.held[key] = left
        agent.free = agent.free + resources
        self._hold(framework_id, role, resources, -1)
        if refuse_s and framework_id in self._frameworks:
            wanted = DEFAULT_REFUSE_S if refuse_s < 0 else min(refuse_s, MAX_REFUSE_S)
            refusal = _Refusal(resources, now + max(self.interval_s, wanted))
            self._refusals.setdefault((framework_id, role, agent_id), []).append(refusal)

    def claim(self, framework_id: str, role: str, agent_id: str, resources: Resources) -> None:
        """What runs on an agent already, as the agent itself tells."""
        self._take(agent_id, framework_id, role, resources)

    def allocate(self, now: float) -> list[Allocation]:
        """The next offers: each active agent's free resources to the hungriest framework that did not refuse them."""
        self.runs += 1
        self._expire(now)
        agents = [
            agent_id
            for agent_id, agent in self._agents.items()
            if agent.active and self._worth(agent.free, self._min_allocatable)
        ]
        self._shuffle(agents)
        made: list[Allocation] = []
        order = self._order()
        for agent_id in agents:
            chosen = self._choose(agent_id, order)
            if chosen is None:
                continue
            role, framework_id = chosen
            before = self._role_key(role), self._client_key(role, framework_id)
            resources = self._agents[agent_id].free
            self._take(agent_id, framework_id, role, resources)
            made.append(Allocation(framework_id, role, agent_id, resources))
            order.moved(before, (self._role_key(role), self._client_key(role, framework_id)))
        return made

    def _choose(self, agent_id: str, order: _Order) -> tuple[str, str] | None:
        agent = self._agents[agent_id]
        for role, framework_id in order:
            framework = self._frameworks[framework_id]
            if agent.total.gpus and not framework.gpu_aware:
                continue
            smallest = framework.min_allocatable.get(role)
            if smallest is not None and not self._worth(agent.free, smallest):
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
                role: sorted(self._client_key(role, one) for one in members[role])
                for role in members
            },
        )

    def _role_key(self, role: str) -> Key:
        held = self._roles.get(role, _NOTHING)
        return self._dominant(held) / self._weights.get(role, 1.0), held.count, role

    def _client_key(self, role: str, framework_id: str) -> Key:
        held = self._clients.get((role, framework_id), _NOTHING)
        return self._dominant(held), held.count, framework_id

    def _dominant(self, held: _Held) -> float:
        return max(
            (
                amount / self._total[name]
                for name, amount in held.milli.items()
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
    def _worth(resources: Resources, smallest: tuple[Resources, ...]) -> bool:
        return any(resources.contains(one) for one in smallest)

    def _expire(self, now: float) -> None:
        for key, refusals in list(self._refusals.items()):
            kept = [refusal for refusal in refusals if refusal.until > now]
            if kept:
                self._refusals[key] = kept
            else:
                del self._refusals[key]

    def _forget_refusals(self, framework_id: str) -> None:
        for key in [key for key in self._refusals if key[0] == framework_id]:
            del self._refusals[key]

    def _take(self, agent_id: str, framework_id: str, role: str, resources: Resources) -> None:
        agent = self._agents[agent_id]
        agent.free = agent.free - resources
        key = (framework_id, role)
        agent.held[key] = agent.held.get(key, EMPTY) + resources
        self._hold(framework_id, role, resources, 1)

    def _hold(self, framework_id: str, role: str, resources: Resources, sign: int) -> None:
        for held in (
            self._roles.setdefault(role, _Held()),
            self._clients.setdefault((role, framework_id), _Held()),
        ):
            held.add(resources, sign)
            held.count += sign > 0

    def _count_total(self, total: Resources, sign: int) -> None:
        for name, amount in total.milli.items():
            self._total[name] += sign * amount

    # --- what others may read

    def free(self, agent_id: str) -> Resources:
        """What is neither offered nor used on an agent."""
        return self._agents[agent_id].free

    def held(self, agent_id: str) -> dict[tuple[str, str], Resources]:
        """What is offered or used on an agent, by (framework, role)."""
        return dict(self._agents[agent_id].held)

    def active_filters(self) -> Counter[str]:
        """How many refusals stand, by role."""
        count: Counter[str] = Counter()
        for (_, role, _), refusals in self._refusals.items():
            count[role] += len(refusals)
        return count

    def shares(self) -> dict[str, float]:
        """The dominant share of each role with a framework, 0 to 1."""
        roles = {role for framework in self._frameworks.values() for role in framework.roles}
        return {role: self._dominant(self._roles.get(role, _NOTHING)) for role in sorted(roles)}

    def cluster(self) -> tuple[dict[str, float], dict[str, float]]:
        """(total, offered or allocated) of cpus, mem and disk in the whole cluster, in their units."""
        free: Counter[str] = Counter()
        for agent in self._agents.values():
            for name, amount in agent.free.milli.items():
                free[name] += amount
        names = ("cpus", "mem", "disk", "gpus")
        total = {name: self._total[name] / 1000 for name in names}
        return total, {name: (self._total[name] - free[name]) / 1000 for name in names}


_NOTHING = _Held()
