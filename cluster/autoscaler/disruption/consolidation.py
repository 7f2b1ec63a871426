"""Several machines go for one, or one for a cheaper one: it is bought first, and the old ones go once it has registered."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from mesaform.autoscaler.disruption.policy import (
    CONSOLIDATION_NUMBER,
    DisruptionCommand,
    PolicyInput,
    deactivate,
    disturbable,
    disturbance_usd,
    pays,
    rested,
    saving_lasts_s,
)
from mesaform.autoscaler.disruption.rescheduling import Reservations, names_of, work_of
from mesaform.autoscaler.model.command import Move
from mesaform.autoscaler.model.lifecycle import REGISTERED
from mesaform.autoscaler.model.reason import Reason, ReasonCode
from mesaform.autoscaler.model.removal import PolicyName
from mesaform.autoscaler.model.supply import AgentNode
from mesaform.topology.names import Tag

OVERLAP_S = 180.0
"""How long old and new are paid side by side, roughly: booting, then draining."""

MOST_FOR_ONE = 8
"""How many machines are tried together: each further one disturbs more and saves less often."""

PAIRED = 12
"""Of how many machines, the most easily moved, every pair is tried."""


class Replace:
    name: PolicyName = "replace"

    def propose(self, view: PolicyInput) -> list[DisruptionCommand]:
        """At most one change a pass: what the next one is worth depends on how this one ends."""
        if view.snapshot.state.replacements:
            return []
        by_pool: dict[str, list[AgentNode]] = {}
        for unit in disturbable(view):
            by_pool.setdefault(unit.pool, []).append(unit)
        found = [option for units in by_pool.values() for option in self._options(units, view)]
        if not found:
            return []
        _, change, old = max(found, key=lambda option: (option[0], -len(option[2])))
        for number, unit in enumerate(old):
            view.take(unit, disturbs=number == 0)
        return [change]

    def _options(
        self, units: Sequence[AgentNode], view: PolicyInput
    ) -> list[tuple[float, DisruptionCommand, tuple[AgentNode, ...]]]:
        """One for each machine by itself, for each pair, and for the most easily moved ones together."""
        groups: list[tuple[AgentNode, ...]] = [(unit,) for unit in units]
        groups += list(combinations(units[:PAIRED], 2))
        groups += [tuple(units[:count]) for count in range(3, min(len(units), MOST_FOR_ONE) + 1)]
        return [option for group in groups if (option := self._option(group, view)) is not None]

    @staticmethod
    def _option(
        group: tuple[AgentNode, ...], view: PolicyInput
    ) -> tuple[float, DisruptionCommand, tuple[AgentNode, ...]] | None:
        pool = group[0].pool
        if not rested(group, view):
            return None
        if view.spare.get(pool, 1) - len(group) + 1 < 0:
            return None
        names = {unit.machine.instance_id for unit in group}
        work = [
            piece
            for unit in group
            if unit.agent is not None
            for piece in work_of(unit.agent, view.snapshot.app_constraints)
        ]
        left = view.room.remaining(work, {*view.leaving, *names})
        old_types = {unit.machine.instance_type for unit in group}
        purchase = view.find_replacement(
            pool, work, left, excluded_types=old_types, number=CONSOLIDATION_NUMBER
        )
        if purchase is None:
            return None
        was = sum(unit.usd_per_hour for unit in group)
        saving = was - purchase.usd_per_hour
        cost = disturbance_usd(group, view) + purchase.usd_per_hour * OVERLAP_S / 3600
        lasts_s = saving_lasts_s(group, view)
        if not pays(saving, was, cost, lasts_s, view.settings):
            return None
        offering = purchase.request.offerings[0]
        reason = Reason.of(
            ReasonCode.REPLACED_CHEAPER,
            instance_type=offering.instance_type,
            usd_per_hour=offering.usd_per_hour,
            replaced=_counted(group),
            replaced_usd_per_hour=was,
            apps=tuple(names_of(work)),
            saving_usd_per_hour=saving,
            cost_usd=cost,
        )
        return (
            saving * lasts_s / 3600 - cost,
            DisruptionCommand("replace", reason, purchase=purchase, old=tuple(sorted(names))),
            group,
        )


def replaced(view: PolicyInput, homes: Reservations) -> list[Move]:
    """Old machines whose replacement has registered, to begin removing; if a task of theirs fits nowhere, or one is wanted, none goes."""
    moves: list[Move] = []
    left = view.disturbances + len(_not_begun(view))
    units = {unit.machine.instance_id: unit for unit in view.supply.agent_nodes}
    for token, one in view.snapshot.state.replacements.items():
        new = [
            unit
            for unit in units.values()
            if unit.machine.tags.get(Tag.LAUNCH) == token and unit.state in REGISTERED
        ]
        old = [units[name] for name in one.old_instance_ids if name in units]
        if len(new) < one.count or any(
            unit.machine.instance_id in homes.unschedulable | view.going for unit in old
        ):
            continue
        for unit in old:
            name, for_money = unit.machine.instance_id, one.policy == "replace"
            if for_money and left <= 0:
                continue
            if (
                unit.removal is None
                and unit.agent is not None
                and unit.is_autoscaled
                and name not in view.supply.quarantined
            ):
                left -= for_money
                view.going.add(name)
                moves.append(deactivate(unit, one.policy, one.reason, view.now))
    return moves


def _not_begun(view: PolicyInput) -> list[str]:
    """Replacements of which no old machine goes yet; each has its place in the budget."""
    under_way = {
        unit.machine.instance_id for unit in view.supply.agent_nodes if unit.removal is not None
    }
    return [
        token
        for token, one in view.snapshot.state.replacements.items()
        if not under_way & set(one.old_instance_ids)
    ]


def _counted(group: Sequence[AgentNode]) -> tuple[str, ...]:
    """How many machines of each type: `2 x m5.large`."""
    types = [unit.machine.instance_type for unit in group]
    return tuple(f"{types.count(name)} x {name}" for name in sorted(set(types)))
