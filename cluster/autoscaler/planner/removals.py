"""Stage "plan removals": at most one command a machine, by a fixed order of precedence. Pure.

`SOURCES` is the order. The first source that has a command for a machine wins; later sources do not
see the machine, or their command for it is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from mesaform.autoscaler import disruption
from mesaform.autoscaler.disruption import Budget, DisruptionContext
from mesaform.autoscaler.interruption import controller
from mesaform.autoscaler.model.command import Command, Terminate
from mesaform.autoscaler.model.removal import Replacement
from mesaform.autoscaler.planner import removal_steps
from mesaform.autoscaler.planner.pass_context import PassContext
from mesaform.autoscaler.planner.replacement_search import ReplacementSearch

Source = Callable[[PassContext], Iterable[Command]]


def _announced_ends(context: PassContext) -> Iterable[Command]:
    """Machines whose announced end is near or has come."""
    return controller.steps(context.snapshot, context.supply, _rehoused(context), context.now)


def _planned_drains(context: PassContext) -> Iterable[Command]:
    """Drains of machines that were deactivated ahead of an announced end."""
    return controller.planned(context.snapshot, context.supply, _rehoused(context), context.now)


def _rehoused(context: PassContext) -> set[str]:
    return controller.with_replacement(context.items, context.placement, context.supply)


URGENT_SOURCES: tuple[Source, ...] = (
    _announced_ends,
    removal_steps.reactivations,
)
"""Sources asked unless the autoscaler is frozen or no master is elected."""

SOURCES: tuple[Source, ...] = (
    _planned_drains,
    removal_steps.requested_drains,
    removal_steps.removals_in_progress,
    removal_steps.lost_machines,
)
"""Sources asked next, unless the pass is paused or removals are blocked.

After them come the old machines of replacements that have registered, then the disruption policies
(`disruption.POLICIES`).
"""


@dataclass(frozen=True, slots=True)
class RemovalPlan:
    """Output of the stage, and its part of the planner state.

    `replacement_commands` buy machines that replace others; `commands` are all the others, in the
    order of precedence. `replacements`, `cooldown_until` and `moves` are fields of `PlannerState`.
    """

    commands: tuple[Command, ...]
    replacement_commands: tuple[Command, ...]
    replacements: dict[str, Replacement]
    cooldown_until: dict[str, float]
    moves: dict[str, tuple[float, ...]]

    @property
    def saved_usd_per_hour(self) -> float:
        """USD an hour of the machines that this pass terminates."""
        return sum(
            node.usd_per_hour
            for command in self.commands
            if any(isinstance(action, Terminate) for action in command.actions)
            for node in command.candidates
        )


def plan_removals(context: PassContext, *, is_buying: bool) -> RemovalPlan:
    """Commands that remove machines or take them back.

    A pass that is buying machines disturbs no further agent.
    """
    by_machine: dict[str, Command] = {}
    proposed: list[Command] = []
    if context.holds.freeze is None and context.has_master:
        _fill(by_machine, URGENT_SOURCES, context)
    if context.holds.of_removals is None:
        _fill(by_machine, SOURCES, context)
        proposed = _disrupt(by_machine, context, is_buying=is_buying)
    replacement_commands = [command for command in proposed if command.replacement is not None]
    commands = tuple(by_machine.values())
    return RemovalPlan(
        commands=commands,
        replacement_commands=tuple(replacement_commands),
        replacements=_replacements(context, commands, replacement_commands),
        cooldown_until=_cooldown_until(context, commands),
        moves=disruption.moves_after(context.state, proposed, context.now),
    )


def _fill(by_machine: dict[str, Command], sources: Sequence[Source], context: PassContext) -> None:
    for source in sources:
        _add(by_machine, source(context))


def _add(by_machine: dict[str, Command], commands: Iterable[Command]) -> None:
    for command in commands:
        by_machine.setdefault(command.instance_id, command)


def _disrupt(
    by_machine: dict[str, Command], context: PassContext, *, is_buying: bool
) -> list[Command]:
    """Add the commands of replacements and policies; returns those of the policies."""
    disruption_context = DisruptionContext(
        snapshot=context.snapshot,
        supply=context.supply,
        free_capacity=context.free_capacity,
        needed=context.needed,
        idle_since=context.observed.idle_since,
        underused_since=context.observed.underused_since,
        now=context.now,
        find_replacement=ReplacementSearch(context.snapshot, context.supply, context.now),
    )
    budget: Budget = disruption.budget_of(
        context.snapshot, context.supply, context.now, taken=set(by_machine), is_buying=is_buying
    )
    finished, budget = disruption.finish_replacements(
        disruption_context, budget, context.reservations
    )
    _add(by_machine, finished)
    proposed, _ = disruption.propose(disruption_context, budget)
    _add(by_machine, (command for command in proposed if command.replacement is None))
    return proposed


def _replacements(
    context: PassContext, commands: Sequence[Command], replacement_commands: Sequence[Command]
) -> dict[str, Replacement]:
    """Replacements in progress without those whose old machines leave now, and new ones."""
    leaving = {
        command.instance_id
        for command in commands
        if command.next_removal is not None and not command.has_cooldown
    }
    remaining = {
        token: replacement
        for token, replacement in context.state.replacements.items()
        if not leaving & set(replacement.old_instance_ids)
    }
    return {**remaining, **dict(_begun(command, context.now) for command in replacement_commands)}


def _begun(command: Command, now: float) -> tuple[str, Replacement]:
    if command.replacement is None:
        raise ValueError("the command buys no replacement")
    request, decision = command.replacement.request, command.decision
    old = tuple(node.name for node in command.candidates)
    replacement = Replacement(old, request.count, now, decision.reasons[0], command.policy)
    return request.token, replacement


def _cooldown_until(context: PassContext, commands: Sequence[Command]) -> dict[str, float]:
    until = context.now + context.snapshot.spec.autoscaler.consolidation.payback_s
    cooling = (command.instance_id for command in commands if command.has_cooldown)
    return {**context.observed.cooldown_until, **dict.fromkeys(cooling, until)}
