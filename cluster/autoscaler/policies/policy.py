"""What every policy of giving back shares: its interface, what it sees, who may be disturbed, and what a change must be worth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from cluster.autoscaler.model import Agent, PolicyName, Removal, Snapshot
from cluster.autoscaler.rehome import Room, moving
from cluster.autoscaler.scale_down import Deactivate, Move
from cluster.autoscaler.scale_up import Purchase
from cluster.autoscaler.supply import Supply, Unit
from cluster.nodedoc import PROTECT
from cluster.spec import Consolidation
from cluster.spec_calendar import is_open

PROTECT_TAG = "mesaform:protect"


@dataclass(slots=True)
class View:
    """What policies see, and what is left of the bounds; each policy takes from `spare`, `disturbances` and `room` what it uses.

    `needed` are machines that demand was placed on. `going` are machines that an earlier policy of this pass has taken.
    """

    snapshot: Snapshot
    supply: Supply
    room: Room
    needed: frozenset[str]
    idle_since: Mapping[str, float]
    underused_since: Mapping[str, float]
    spare: dict[str, int]
    disturbances: int
    going: set[str]
    now: float
    _away: frozenset[str] | None = None

    @property
    def settings(self) -> Consolidation:
        return self.snapshot.spec.autoscaler.consolidation

    @property
    def leaving(self) -> frozenset[str]:
        """Machines that nothing may move to. Idle ones go by themselves: moving work there would only save the wrong one."""
        if self._away is None:  # asked for once a candidate; only `going` changes within a pass
            idle = {node.name for node in self.supply.nodes if node.kind == "idle" and node.name not in self.needed}
            self._away = frozenset(moving(self.snapshot, self.supply) | idle)
        return self._away | self.going

    def take(self, unit: Unit, *, disturbs: bool) -> None:
        """Count a machine as going."""
        self.going.add(unit.machine.instance_id)
        self.spare[unit.pool] = self.spare.get(unit.pool, 1) - 1
        self.disturbances -= disturbs


@dataclass(frozen=True, slots=True)
class Change:
    """What a policy wants: machines to begin removing, or (`purchase`) machines to buy first in the place of `old`."""

    policy: PolicyName
    why: str
    moves: tuple[Move, ...] = ()
    purchase: Purchase | None = None
    old: tuple[str, ...] = ()


class Policy(Protocol):
    """A way to save money by giving machines back."""

    @property
    def name(self) -> PolicyName: ...

    def propose(self, view: View) -> list[Change]:
        """The changes to make now, best first; what they use up is taken from `view`."""
        ...


def deactivate(unit: Unit, policy: PolicyName, why: str, now: float) -> Move:
    """The first step of a machine's removal."""
    agent_id = unit.agent.agent_id if unit.agent else ""
    removal = Removal(agent_id, "deactivated", now, why, policy="" if policy == "idle" else policy)
    return Move(unit, (Deactivate(unit.machine.instance_id, agent_id),), removal, why)


def protected(unit: Unit) -> bool:
    """Whether a machine is not to be disturbed, whatever runs on it."""
    attributes = unit.agent.attributes if unit.agent else {}
    return attributes.get(PROTECT) == "true" or unit.machine.tags.get(PROTECT_TAG) == "true"


def movable(agent: Agent, snapshot: Snapshot) -> bool:
    """Whether every task of an agent is known, unprotected, started elsewhere by its framework, and its constraints are known."""
    if snapshot.apps is None or len(agent.work) != agent.tasks:
        return False
    frameworks = snapshot.spec.autoscaler.consolidation.frameworks
    return all(work.framework in frameworks and not work.protected and work.name in snapshot.apps for work in agent.work)


def disturbable(view: View) -> list[Unit]:
    """Busy machines that may be emptied now, cheapest disturbance per dollar first: ours, settled, unprotected, wanted by nobody."""
    if not view.settings.enabled or view.disturbances <= 0:
        return []
    young = _young_types(view)
    busy = moving(view.snapshot, view.supply) | view.going | set(view.supply.quarantined) | view.needed | view.room.hosts
    found = []
    for unit in view.supply.units:
        name, agent = unit.machine.instance_id, unit.agent
        if agent is None or unit.state != "busy" or not unit.is_ours or unit.removal is not None or name in busy or not agent.active:
            continue
        if protected(unit) or (unit.pool, unit.machine.instance_type) in young or view.snapshot.memory.spared.get(name, 0.0) > view.now:
            continue
        if movable(agent, view.snapshot) and not _soon_done(agent, view):
            found.append(unit)
    return sorted(found, key=lambda unit: (disturbance_usd([unit], view) / max(unit.usd_per_hour, 1e-9), unit.machine.instance_id))


def _young_types(view: View) -> set[tuple[str, str]]:
    """Types, by pool, of which one was bought so lately that it has not paid back yet: giving one away now would be to and fro."""
    since = view.now - view.settings.payback_s
    young = {(unit.pool, unit.machine.instance_type) for unit in view.supply.units if unit.is_ours and unit.machine.launched_at > since}
    ordered = {(intent.request.pool, offering.instance_type) for intent in view.snapshot.intents for offering in intent.request.offerings}
    return young | ordered


def _soon_done(agent: Agent, view: View) -> bool:
    """Whether all its work ends by itself before moving it would have paid back."""
    return all(0 < work.ends_at <= view.now + view.settings.payback_s for work in agent.work)


def disturbance_usd(units: Iterable[Unit], view: View) -> float:
    """What moving the tasks of these machines counts as: the older a task, the more is lost."""
    each, hourly = view.settings.usd_per_task, view.settings.usd_per_task_hour
    ages_h = (
        max(0.0, view.now - work.since) / 3600 if work.since else 0.0
        for unit in units
        if unit.agent is not None
        for work in unit.agent.work
    )
    return sum(each + hourly * age_h for age_h in ages_h)


def pays(saving: float, replaced: float, cost: float, settings: Consolidation) -> bool:
    """Whether a saving (USD an hour) is worth a cost (USD): large enough by itself and as a part, and repaid in time."""
    least = max(settings.min_saving_usd_per_hour, replaced * settings.min_saving_percent / 100)
    return saving > 0 and saving >= least and cost / saving * 3600 <= settings.payback_s


def disturbances_left(snapshot: Snapshot, supply: Supply, now: float) -> int:
    """How many more agents may be disturbed at this moment."""
    settings = snapshot.spec.autoscaler.consolidation
    open_now = (window.max_agents_percent for window in settings.windows if is_open(window.days, window.hours, now))
    percent = next(open_now, settings.max_agents_percent)
    agents = sum(1 for unit in supply.units if unit.agent is not None)
    allowed = max(1, int(agents * percent / 100)) if percent else 0
    return allowed - len(moving(snapshot, supply))
