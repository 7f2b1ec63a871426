"""Input of disruption policies (`DisruptionContext`) and the rest of their `Budget`. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from mesaform.autoscaler.disruption.rescheduling import moving
from mesaform.autoscaler.model.cluster_view import RunningTask
from mesaform.autoscaler.model.command import Purchase
from mesaform.autoscaler.model.demand_item import DemandItem
from mesaform.autoscaler.model.snapshot import Snapshot
from mesaform.autoscaler.model.supply import AgentNode, Supply
from mesaform.autoscaler.packing.free_capacity import FreeCapacity
from mesaform.config.calendar import is_open
from mesaform.config.schema import Consolidation

CONSOLIDATION_NUMBER = 1000
DRIFT_NUMBER = 1001
"""Numbers of the launch tokens of replacements bought by consolidation and by drift.

A pass makes fewer other purchases than that, so the tokens of one pass differ from each other.
"""

MOVE_INTERVAL_S = 86_400.0
"""Each task is moved at most once in this time to save money."""


class ReplacementFinder(Protocol):
    """Prices replacements of machines; `planner.replacement_search` implements it."""

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


@dataclass(frozen=True, slots=True)
class Budget:
    """What policies may still take in a pass. Each policy gets it and returns what is left.

    `disruptions` is how many more agents with tasks may be disturbed. `spare` is how many machines
    each pool has above its minimum. `taken` are machines with a command of this pass.
    """

    disruptions: int
    spare: Mapping[str, int]
    taken: frozenset[str]

    def after(self, node: AgentNode, *, is_disruptive: bool) -> Budget:
        """What is left once a machine is taken."""
        return Budget(
            disruptions=self.disruptions - is_disruptive,
            spare={**self.spare, node.pool: self.spare.get(node.pool, 1) - 1},
            taken=self.taken | {node.name},
        )

    def has_spare(self, pool: str, count: int = 1) -> bool:
        """Whether a pool keeps its minimum without `count` machines; pools not listed have one."""
        return self.spare.get(pool, 1) >= count


@dataclass(frozen=True)
class DisruptionContext:
    """A pass as policies see it.

    `needed` are nodes that demand was placed on, or that have reserved capacity. `idle_since` and
    `underused_since` are epoch seconds by instance id. `free_capacity` is what demand left; a
    policy that places tasks there takes it for the rest of the pass. `costs_of_moves` are what
    `eligibility` found of machines by instance id: all policies of a pass ask for the same.
    """

    snapshot: Snapshot
    supply: Supply
    free_capacity: FreeCapacity
    needed: frozenset[str]
    idle_since: Mapping[str, float]
    underused_since: Mapping[str, float]
    now: float
    find_replacement: ReplacementFinder
    costs_of_moves: dict[str, float | None] = field(default_factory=dict)

    @property
    def settings(self) -> Consolidation:
        """The settings of consolidation."""
        return self.snapshot.spec.autoscaler.consolidation

    @cached_property
    def moving(self) -> frozenset[str]:
        """Machines that are emptied or wait for their replacement."""
        return frozenset(moving(self.snapshot, self.supply))

    @cached_property
    def _closed(self) -> frozenset[str]:
        idle = {
            node.name
            for node in self.supply.nodes
            if node.kind == "idle" and node.name not in self.needed
        }
        return self.moving | idle

    def closed_to_tasks(self, budget: Budget) -> frozenset[str]:
        """Nodes that no task may move to: machines that leave, and idle ones.

        Idle machines are removed by themselves; tasks moved there would keep the wrong machine.
        """
        return self._closed | budget.taken

    @cached_property
    def task_counts(self) -> Counter[str]:
        """Running tasks of each app."""
        return Counter(
            task.name
            for node in self.supply.agent_nodes
            if node.agent is not None
            for task in node.agent.work
        )

    @cached_property
    def recent_moves(self) -> Mapping[str, int]:
        """Moves of each app in the last `MOVE_INTERVAL_S`, of apps with one."""
        since = self.now - MOVE_INTERVAL_S
        moves = self.snapshot.state.moves.items()
        counts = {name: sum(1 for at in times if at > since) for name, times in moves}
        return {name: count for name, count in counts.items() if count}

    @cached_property
    def _prices(self) -> Mapping[str, list[tuple[float, str]]]:
        """USD an hour and type of what each pool may buy, the cheapest first."""
        return {
            pool.name: sorted(
                (offering.usd_per_hour, offering.instance_type)
                for offering in self.snapshot.offerings.get(pool.name, ())
                if offering.capacity != "spot" or pool.spot_share > 0
            )
            for pool in self.snapshot.spec.agents
        }

    def least_usd_per_hour(self, pool: str, excluded_types: Collection[str]) -> float:
        """The lowest price at which a pool may buy a machine of another type; infinite if none."""
        prices = self._prices.get(pool, ())
        return next((usd for usd, name in prices if name not in excluded_types), math.inf)

    def is_cooling_down(self, node: AgentNode) -> bool:
        """Whether a removal of the machine was given up lately."""
        return self.snapshot.state.cooldown_until.get(node.name, 0.0) > self.now

    def age_s(self, task: RunningTask) -> float:
        """Seconds that a task has run; 0 when that is not known."""
        return max(0.0, self.now - task.since) if task.since else 0.0


def budget_of(
    snapshot: Snapshot,
    supply: Supply,
    now: float,
    *,
    taken: Collection[str],
    is_buying: bool,
) -> Budget:
    """The budget at the beginning of the policies. A pass that buys machines disturbs no agent."""
    spare = {
        pool.name: supply.staying_count(pool.name) - pool.floor for pool in snapshot.spec.agents
    }
    disruptions = 0 if is_buying else _disruptions_left(snapshot, supply, now)
    return Budget(disruptions, spare, frozenset(taken))


def _disruptions_left(snapshot: Snapshot, supply: Supply, now: float) -> int:
    """Agents that may be disturbed on top of those that are."""
    settings = snapshot.spec.autoscaler.consolidation
    open_windows = (
        window.max_agents_percent
        for window in settings.windows
        if is_open(window.days, window.hours, now)
    )
    percent = next(open_windows, settings.max_agents_percent)
    agents = sum(1 for node in supply.agent_nodes if node.agent is not None)
    allowed = max(1, int(agents * percent / 100)) if percent else 0
    return allowed - len(_disturbed(snapshot, supply))


def _disturbed(snapshot: Snapshot, supply: Supply) -> set[str]:
    """Machines that are disturbed, and one for each replacement of which no old machine leaves."""
    names = {
        node.name
        for node in supply.agent_nodes
        if node.removal is not None and node.removal.is_disruptive
    }
    return names | {
        replacement.old_instance_ids[0]
        for replacement in snapshot.state.replacements.values()
        if not names & set(replacement.old_instance_ids)
    }
