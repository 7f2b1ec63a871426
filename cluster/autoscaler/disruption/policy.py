"""What every policy of giving back shares: its interface, what it sees, who may be disturbed, and what a change must be worth."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from mesaform.autoscaler.disruption.rescheduling import moving
from mesaform.autoscaler.forecasting.lifetimes import ends_within_s, lasts_s
from mesaform.autoscaler.model.cluster_view import Agent, RunningTask
from mesaform.autoscaler.model.command import Deactivate, Move, Purchase
from mesaform.autoscaler.model.demand_item import DemandItem
from mesaform.autoscaler.model.planner_state import PlannerState
from mesaform.autoscaler.model.reason import Reason
from mesaform.autoscaler.model.removal import PolicyName, Removal
from mesaform.autoscaler.model.snapshot import Snapshot
from mesaform.autoscaler.model.supply import AgentNode, Supply, is_protected
from mesaform.autoscaler.packing.free_capacity import FreeCapacity
from mesaform.config.calendar import is_open
from mesaform.config.schema import Consolidation

FOR_MONEY: frozenset[PolicyName] = frozenset({"underused", "replace"})

A_DAY_S = 86_400.0
"""Each task is moved at most once in so long: whoever has just been moved is not moved again for a few cents more."""

CONSOLIDATION_NUMBER = 1000
DRIFT_NUMBER = 1001
"""Numbers of the launch tokens of replacements bought by consolidation and by drift.

A pass makes fewer other purchases than that, so the tokens of one pass differ from each other.
"""

REPAID = 3.0
"""How often a change must repay its cost: what a move costs is sure, how long the saving lasts is a guess."""


class ReplacementFinder(Protocol):
    """Prices the replacement of machines; the planner supplies it (`planner.replacement_search`)."""

    def __call__(
        self,
        pool: str,
        work: Sequence[DemandItem],
        left: Mapping[int, int],
        *,
        number: int,
        excluded_types: Collection[str] = (),
    ) -> Purchase | None:
        """The cheapest purchase of one machine of `pool` that holds all pieces of `work` in `left`.

        `left` counts pieces by index of `work`; `number` makes the launch token unique in the pass.
        None when nothing is left, or no single machine holds it.
        """
        ...


@dataclass(slots=True)
class PolicyInput:
    """What policies see, and what is left of the bounds; each policy takes from `spare`, `disturbances` and `room` what it uses.

    `needed` are machines that demand was placed on. `going` are machines that an earlier policy of this pass has taken.
    """

    snapshot: Snapshot
    supply: Supply
    room: FreeCapacity
    needed: frozenset[str]
    idle_since: Mapping[str, float]
    underused_since: Mapping[str, float]
    spare: dict[str, int]
    disturbances: int
    going: set[str]
    now: float
    find_replacement: ReplacementFinder
    _away: frozenset[str] | None = None
    _tasks: Counter[str] | None = None

    @property
    def settings(self) -> Consolidation:
        return self.snapshot.spec.autoscaler.consolidation

    @property
    def leaving(self) -> frozenset[str]:
        """Machines that nothing may move to. Idle ones go by themselves: moving work there would only save the wrong one."""
        if self._away is None:  # asked for once a candidate; only `going` changes within a pass
            idle = {
                node.name
                for node in self.supply.nodes
                if node.kind == "idle" and node.name not in self.needed
            }
            self._away = frozenset(moving(self.snapshot, self.supply) | idle)
        return self._away | self.going

    def tasks_of(self, name: str) -> int:
        """How many tasks of an app run."""
        if self._tasks is None:
            self._tasks = Counter(
                work.name
                for unit in self.supply.agent_nodes
                if unit.agent is not None
                for work in unit.agent.work
            )
        return self._tasks[name]

    def take(self, unit: AgentNode, *, disturbs: bool) -> None:
        """Count a machine as going."""
        self.going.add(unit.machine.instance_id)
        self.spare[unit.pool] = self.spare.get(unit.pool, 1) - 1
        self.disturbances -= disturbs


@dataclass(frozen=True, slots=True)
class DisruptionCommand:
    """What a policy wants: machines to begin removing, or (`purchase`) machines to buy first in the place of `old`."""

    policy: PolicyName
    reason: Reason
    moves: tuple[Move, ...] = ()
    purchase: Purchase | None = None
    old: tuple[str, ...] = ()


class Policy(Protocol):
    """A way to save money by giving machines back."""

    @property
    def name(self) -> PolicyName: ...

    def propose(self, view: PolicyInput) -> list[DisruptionCommand]:
        """The changes to make now, best first; what they use up is taken from `view`."""
        ...


def deactivate(unit: AgentNode, policy: PolicyName, reason: Reason, now: float) -> Move:
    """The first step of a machine's removal."""
    agent_id = unit.agent.agent_id if unit.agent else ""
    removal = Removal(
        agent_id, "deactivated", now, reason, policy="" if policy == "idle" else policy
    )
    return Move(unit, (Deactivate(unit.machine.instance_id, agent_id),), removal, (reason,))


def movable(agent: Agent, snapshot: Snapshot) -> bool:
    """Whether every task of an agent is known, unprotected, started elsewhere by its framework, and its constraints are known."""
    if snapshot.app_constraints is None or len(agent.work) != agent.tasks:
        return False
    frameworks = snapshot.spec.autoscaler.consolidation.frameworks
    return all(
        work.framework in frameworks
        and not work.protected
        and work.name in snapshot.app_constraints
        for work in agent.work
    )


def disturbable(view: PolicyInput) -> list[AgentNode]:
    """Busy machines that may be emptied now, cheapest disturbance per dollar first: ours, settled, unprotected, wanted by nobody."""
    if not view.settings.enabled or view.disturbances <= 0:
        return []
    young = _young_types(view)
    busy = (
        moving(view.snapshot, view.supply)
        | view.going
        | set(view.supply.quarantined)
        | view.needed
        | view.room.hosts
    )
    found = []
    for unit in view.supply.agent_nodes:
        name, agent = unit.machine.instance_id, unit.agent
        if (
            agent is None
            or unit.state != "busy"
            or not unit.is_autoscaled
            or unit.removal is not None
            or name in busy
            or not agent.active
        ):
            continue
        if (
            is_protected(unit)
            or (unit.pool, unit.machine.instance_type) in young
            or view.snapshot.state.cooldown_until.get(name, 0.0) > view.now
        ):
            continue
        if movable(agent, view.snapshot) and not _soon_done(agent, view) and rested([unit], view):
            found.append(unit)
    return sorted(
        found,
        key=lambda unit: (
            disturbance_usd([unit], view) / max(unit.usd_per_hour, 1e-9),
            unit.machine.instance_id,
        ),
    )


def _young_types(view: PolicyInput) -> set[tuple[str, str]]:
    """Types, by pool, of which one was bought so lately that it has not paid back yet: giving one away now would be to and fro."""
    since = view.now - view.settings.payback_s
    young = {
        (unit.pool, unit.machine.instance_type)
        for unit in view.supply.agent_nodes
        if unit.is_autoscaled and unit.machine.launched_at > since
    }
    ordered = {
        (intent.request.pool, offering.instance_type)
        for intent in view.snapshot.intents
        for offering in intent.request.offerings
    }
    return young | ordered


def _soon_done(agent: Agent, view: PolicyInput) -> bool:
    """Whether all its work ends by itself before moving it would have paid back: it said so, or work of its name has always done so."""
    return all(_ends_at(work, view) <= view.now + view.settings.payback_s for work in agent.work)


def rested(units: Iterable[AgentNode], view: PolicyInput) -> bool:
    """Whether each app's tasks would still be moved at most once a day: no more moves within a day than it has tasks."""
    wanted = Counter(
        work.name for unit in units if unit.agent is not None for work in unit.agent.work
    )
    since = view.now - A_DAY_S
    moved = {
        name: sum(1 for at in view.snapshot.state.moves.get(name, ()) if at > since)
        for name in wanted
    }
    return all(count + moved[name] <= view.tasks_of(name) for name, count in wanted.items())


def with_moves(
    memory: PlannerState, supply: Supply, changes: Iterable[DisruptionCommand], now: float
) -> PlannerState:
    """Remember which apps' tasks these changes move; what is older than a day is forgotten."""
    names = {
        name
        for change in changes
        if change.policy in FOR_MONEY
        for name in (*change.old, *(move.unit.machine.instance_id for move in change.moves))
    }
    found = [
        work.name
        for unit in supply.agent_nodes
        if unit.machine.instance_id in names and unit.agent is not None
        for work in unit.agent.work
    ]
    moves = {
        name: times
        for name, all_times in memory.moves.items()
        if (times := tuple(at for at in all_times if at > now - A_DAY_S))
    }
    for name in found:
        moves[name] = (*moves.get(name, ()), now)
    return replace(memory, moves=moves)


def _ends_at(work: RunningTask, view: PolicyInput) -> float:
    if work.ends_at:
        return work.ends_at
    within_s = ends_within_s(view.snapshot.state.lifetimes.get(work.name), _age_s(work, view))
    return math.inf if within_s is None else view.now + within_s


def _age_s(work: RunningTask, view: PolicyInput) -> float:
    return max(0.0, view.now - work.since) if work.since else 0.0


def saving_lasts_s(units: Iterable[AgentNode], view: PolicyInput) -> float:
    """How long a saving may be counted on: as long as each of these machines would have been kept by its most lasting task.

    Of a task whose age is not known that is `payback_s`. A task of months is worth moving once, a task of minutes is waited for.
    """
    kept = [
        max((_lasts_s(work, view) for work in unit.agent.work), default=0.0)
        for unit in units
        if unit.agent is not None
    ]
    return min(kept, default=0.0)


def _lasts_s(work: RunningTask, view: PolicyInput) -> float:
    if work.ends_at:
        return max(0.0, work.ends_at - view.now)
    if not work.since:
        return view.settings.payback_s
    return lasts_s(view.snapshot.state.lifetimes.get(work.name), view.now - work.since)


def disturbance_usd(units: Iterable[AgentNode], view: PolicyInput) -> float:
    """What moving the tasks of these machines counts as: the older a task, the more is lost."""
    each, hourly = view.settings.usd_per_task, view.settings.usd_per_task_hour
    ages_h = (
        max(0.0, view.now - work.since) / 3600 if work.since else 0.0
        for unit in units
        if unit.agent is not None
        for work in unit.agent.work
    )
    return sum(each + hourly * age_h for age_h in ages_h)


def pays(
    saving: float, replaced: float, cost: float, lasts_s: float, settings: Consolidation
) -> bool:
    """Whether a saving (USD an hour, for so long) is worth a cost (USD): large enough by itself and as a part, lasting, and repaid."""
    least = max(settings.min_saving_usd_per_hour, replaced * settings.min_saving_percent / 100)
    return (
        saving > 0
        and saving >= least
        and lasts_s >= settings.payback_s
        and cost * REPAID <= saving * lasts_s / 3600
    )


def disturbances_left(snapshot: Snapshot, supply: Supply, now: float) -> int:
    """How many more agents may be disturbed at this moment."""
    settings = snapshot.spec.autoscaler.consolidation
    open_now = (
        window.max_agents_percent
        for window in settings.windows
        if is_open(window.days, window.hours, now)
    )
    percent = next(open_now, settings.max_agents_percent)
    agents = sum(1 for unit in supply.agent_nodes if unit.agent is not None)
    allowed = max(1, int(agents * percent / 100)) if percent else 0
    return allowed - len(emptied(snapshot, supply))


def emptied(snapshot: Snapshot, supply: Supply) -> set[str]:
    """Machines that are disturbed now, and one for each replacement under way, whose old machines go as the budget allows."""
    names = {
        unit.machine.instance_id
        for unit in supply.agent_nodes
        if unit.removal is not None and unit.removal.is_disruptive
    }
    return names | {
        one.old_instance_ids[0]
        for one in snapshot.state.replacements.values()
        if not names & set(one.old_instance_ids)
    }
