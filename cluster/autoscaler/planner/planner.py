"""One pass: what is wanted, what there is, what to buy, what to give back, and the record of why. Pure: `plan(snapshot, now)`.

The daemon carries a plan out; `mesaform plan` prints one; tests and the simulator drive worlds with it. All run this code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mesaform.autoscaler import demand, disruption
from mesaform.autoscaler.disruption import DisruptionCommand, PolicyInput
from mesaform.autoscaler.disruption.rescheduling import Reservations, hold
from mesaform.autoscaler.interruption import announcements, controller
from mesaform.autoscaler.model.command import (
    Action,
    Deactivate,
    Drain,
    Launch,
    Move,
    Purchase,
    Reactivate,
    Step,
    Terminate,
)
from mesaform.autoscaler.model.decision import Decision, DemandCount, Kind
from mesaform.autoscaler.model.demand_item import DemandItem
from mesaform.autoscaler.model.planner_state import PlannerState
from mesaform.autoscaler.model.reason import Reason, ReasonCode
from mesaform.autoscaler.model.removal import Replacement
from mesaform.autoscaler.model.snapshot import Snapshot
from mesaform.autoscaler.model.supply import Supply
from mesaform.autoscaler.model.supply_builder import build_supply
from mesaform.autoscaler.packing import Packing, Placement, place
from mesaform.autoscaler.packing.free_capacity import FreeCapacity
from mesaform.autoscaler.planner import (
    advertised_capacity,
    overrides,
    planner_state,
    scale_down,
    timers,
)
from mesaform.autoscaler.planner import (
    purchases as purchase_stage,
)
from mesaform.autoscaler.planner.purchases import NO_PURCHASES
from mesaform.autoscaler.planner.replacement_search import ReplacementSearch
from mesaform.autoscaler.planner.timers import SETTLE_AFTER_LEADER_S
from mesaform.autoscaler.planner.verdicts import Verdict, VerdictBuilder
from mesaform.aws.overrides import Override, in_force


@dataclass(frozen=True, slots=True)
class Packed:
    """The machines packed in a pass: what they cost an hour, what they would at least, by how much more that may be, and how it was found.

    Prices are those that machines were sized by; a pool's spot share may make the purchases cheaper.
    """

    machines: int
    usd_per_hour: float
    bound_usd_per_hour: float
    gap_percent: float
    method: str


@dataclass(frozen=True, slots=True)
class Plan:
    """A pass's outcome. `memory` is what to remember; steps change it further only when they are carried out.

    `look_again_at` is when the planner's own next timer runs out (epoch s): until then, or an event, the same world gives no other plan.
    """

    at: float
    verdicts: tuple[Verdict, ...]
    steps: tuple[Step, ...]
    state: PlannerState
    usd_per_hour: float
    after_usd_per_hour: float
    removals_blocked: Reason | None = None
    freeze: Reason | None = None
    waiting: Reason | None = None
    quarantined: Mapping[str, str] | None = None
    paused: Reason | None = None
    overrides: tuple[Override, ...] = ()
    packed: Packed | None = None
    next_pass_at: float | None = None


def plan(snapshot: Snapshot, now: float) -> Plan:
    """Decide. The same snapshot at the same moment gives the same plan."""
    memory = replace(
        planner_state.leader(snapshot, now), replacements=planner_state.replacements(snapshot, now)
    )
    snapshot = replace(
        snapshot, state=memory, spec=overrides.with_bounds(snapshot.spec, snapshot.overrides, now)
    )
    stated = snapshot.offerings
    snapshot = replace(
        snapshot,
        offerings=advertised_capacity.as_advertised(stated, memory.advertised, snapshot.spec),
    )
    supply = build_supply(snapshot, now)
    units = demand.collect(snapshot, now)
    placement = place(units, supply.nodes, supply.usage)
    room = FreeCapacity(supply, units, placement)
    waiting, paused = _not_yet(snapshot, now), overrides.paused(snapshot.overrides, now)
    fence = _freeze(snapshot)
    held = fence or paused or waiting
    bought = (
        NO_PURCHASES
        if held
        else purchase_stage.plan_purchases(snapshot, supply, units, placement.left, now)
    )
    purchases, packed = bought.purchases, _packed(bought.packing)
    judge = VerdictBuilder(snapshot, supply, placement, purchases, held, now)
    verdicts = tuple(judge.verdict(index, unit) for index, unit in enumerate(units))
    homes = hold(snapshot, supply, room)
    needed = _needed(placement)
    idle = (
        snapshot.state.idle_since
        if snapshot.cluster is None
        else scale_down.idle_since(snapshot, supply, needed | homes.hosts, now)
    )
    learned = advertised_capacity.learn(snapshot, stated, supply, now)
    memory = planner_state.after_pass(snapshot, supply, units, purchases, idle, now)
    memory = replace(memory, advertised=learned.advertised, anomalies=learned.anomalies)
    frozen = scale_down.freeze(snapshot, supply)
    homed = controller.with_replacement(units, placement, supply)
    urgent = (
        [] if fence or snapshot.cluster is None else controller.steps(snapshot, supply, homed, now)
    )
    back = (
        []
        if fence or snapshot.cluster is None
        else scale_down.returned(supply, needed, homes.unschedulable)
    )
    changes: list[DisruptionCommand] = []
    moves = urgent + scale_down.without(back, urgent)
    if not (fence or paused or frozen):
        moves += scale_down.without(controller.planned(snapshot, supply, homed, now), moves)
        changes, further = _giving(
            snapshot, supply, room, homes, needed, memory, moves, bool(purchases), now
        )
        moves += further
    after = (
        supply.usd_per_hour + sum(purchase.usd_per_hour for purchase in purchases) - _saved(moves)
    )
    steps = [_buying(units, purchase, supply, now, packed) for purchase in purchases]
    steps += [
        _replacing(change, change.purchase, supply, now)
        for change in changes
        if change.purchase is not None
    ]
    steps += [_moving(move, supply, now) for move in moves]
    announced = announcements.unreported(snapshot, supply.usd_per_hour, now)
    steps = [*(Step(decision) for decision in announced), *steps]
    memory = controller.after_pass(memory, snapshot, announced, now)
    steps += [Step(decision) for decision in learned.decisions]
    memory = disruption.with_moves(
        _with_changes(memory, changes, moves, snapshot, now), supply, changes, now
    )
    refusals, reported = _refusals(verdicts, memory.last_reported, supply, now)
    return Plan(
        at=now,
        verdicts=verdicts,
        steps=tuple(steps + ([] if held else refusals)),
        state=memory if held else replace(memory, last_reported=reported),
        usd_per_hour=supply.usd_per_hour,
        after_usd_per_hour=round(after, 6),
        removals_blocked=frozen,
        freeze=fence,
        waiting=waiting,
        quarantined=supply.quarantined,
        paused=paused,
        overrides=in_force(snapshot.overrides, now),
        packed=packed,
        next_pass_at=timers.look_again_at(
            snapshot,
            supply,
            memory,
            verdicts,
            now,
            acted=any(step.actions or step.removal for step in steps),
        ),
    )


def apply_step(memory: PlannerState, step: Step) -> PlannerState:
    """What to remember once a step that moves a machine was carried out."""
    if not step.instance_id:
        return memory
    removals = {
        name: removal for name, removal in memory.removals.items() if name != step.instance_id
    }
    if step.removal is not None:
        removals[step.instance_id] = step.removal
    return replace(memory, removals=removals)


def _freeze(snapshot: Snapshot) -> Reason | None:
    """Why nothing is bought or removed at all; None when it may be."""
    if snapshot.freeze_reason is not None:
        return Reason.of(ReasonCode.FROZEN, note=snapshot.freeze_reason)
    if not snapshot.spec.autoscaler.enabled:
        return Reason.of(ReasonCode.AUTOSCALER_DISABLED)
    return None


def _not_yet(snapshot: Snapshot, now: float) -> Reason | None:
    """Why nothing is bought yet; None when it may be."""
    view = snapshot.cluster
    if view is None:
        return Reason.of(ReasonCode.NO_MASTER)
    if view.recovered and now - (snapshot.state.leader_since or now) < SETTLE_AFTER_LEADER_S:
        return Reason.of(ReasonCode.AGENTS_EXPECTED, count=view.recovered)
    return None


def _needed(placement: Placement) -> set[str]:
    """Names of nodes that demand was placed on."""
    return {name for nodes in placement.placed.values() for name in nodes}


def _giving(
    snapshot: Snapshot,
    supply: Supply,
    room: FreeCapacity,
    homes: Reservations,
    needed: set[str],
    memory: PlannerState,
    back: Sequence[Move],
    buying: bool,
    now: float,
) -> tuple[list[DisruptionCommand], list[Move]]:
    """What goes: removals under way, operators' drains, replaced machines, and what policies newly want."""
    taken = {move.unit.machine.instance_id for move in back}
    asked = [
        move
        for move in scale_down.ordered(snapshot, supply, now)
        if move.unit.machine.instance_id not in taken
    ]
    taken |= {move.unit.machine.instance_id for move in asked}
    moves = asked + scale_down.advance(snapshot, supply, taken, now)
    moves += [
        move
        for move in scale_down.give_up(snapshot, supply, now)
        if move.unit.machine.instance_id not in taken
    ]
    taken |= {move.unit.machine.instance_id for move in moves}
    view = PolicyInput(
        snapshot=snapshot,
        supply=supply,
        room=room,
        needed=frozenset(needed | homes.hosts),
        idle_since=memory.idle_since,
        underused_since=memory.underused_since,
        spare={
            pool.name: supply.staying_count(pool.name) - pool.floor for pool in snapshot.spec.agents
        },
        disturbances=0 if buying else disruption.disturbances_left(snapshot, supply, now),
        going=taken,
        now=now,
        find_replacement=ReplacementSearch(snapshot, supply, now),
    )
    moves += disruption.replaced(view, homes)
    changes = disruption.propose(view)
    return changes, moves + [move for change in changes for move in change.moves]


def _with_changes(
    memory: PlannerState,
    changes: Sequence[DisruptionCommand],
    moves: Sequence[Move],
    snapshot: Snapshot,
    now: float,
) -> PlannerState:
    """Replacements that begin and end with this pass, and machines that are left in peace for a while."""
    again_at = now + snapshot.spec.autoscaler.consolidation.payback_s
    going = {
        move.unit.machine.instance_id
        for move in moves
        if move.next_removal is not None and not move.cooldown
    }
    under_way = {
        token: one
        for token, one in memory.replacements.items()
        if not set(one.old_instance_ids) & going
    }
    begun = {
        change.purchase.request.token: Replacement(
            change.old, change.purchase.request.count, now, change.reason, change.policy
        )
        for change in changes
        if change.purchase is not None
    }
    given_up = {
        name
        for token, one in snapshot.state.replacements.items()
        if token not in memory.replacements
        for name in one.old_instance_ids
    }
    spared = {move.unit.machine.instance_id for move in moves if move.cooldown} | given_up
    return replace(
        memory,
        replacements={**under_way, **begun},
        cooldown_until={**memory.cooldown_until, **dict.fromkeys(spared, again_at)},
    )


def _saved(moves: Sequence[Move]) -> float:
    """USD an hour that ends when a machine goes: counted when it is given back, not when that begins."""
    return sum(
        move.unit.usd_per_hour
        for move in moves
        if any(isinstance(action, Terminate) for action in move.actions)
    )


def _packed(packing: Packing) -> Packed | None:
    if not packing.nodes:
        return None
    usd, bound = round(packing.usd_per_hour, 6), round(packing.bound_usd_per_hour, 6)
    return Packed(len(packing.nodes), usd, bound, round(packing.gap * 100, 2), packing.method)


def _buying(
    units: Sequence[DemandItem],
    purchase: Purchase,
    supply: Supply,
    now: float,
    packed: Packed | None = None,
) -> Step:
    request, first = purchase.request, purchase.request.offerings[0]
    wanted = [(units[index], count) for index, count in purchase.load.items()]
    reasons = tuple(reason for unit, _ in wanted for reason in unit.reasons) or (
        Reason.of(ReasonCode.POOL_MINIMUM, pool=request.pool),
    )
    decision = Decision(
        at=now,
        kind="buy",
        reasons=reasons,
        pool=request.pool,
        offering=first.key,
        count=request.count,
        demand=tuple(DemandCount(unit.name, count) for unit, count in wanted),
        usd_per_hour=round(purchase.usd_per_hour, 6),
        planned_usd=round(purchase.usd_per_hour, 6),
        before_usd=supply.usd_per_hour,
        after_usd=round(supply.usd_per_hour + purchase.usd_per_hour, 6),
        token=request.token,
    )
    if packed is not None and purchase.load:
        decision = replace(
            decision,
            packed_usd=packed.usd_per_hour,
            bound_usd=packed.bound_usd_per_hour,
            gap_percent=packed.gap_percent,
            method=packed.method,
        )
    return Step(decision, (Launch(request),))


def _replacing(change: DisruptionCommand, purchase: Purchase, supply: Supply, now: float) -> Step:
    """Buying first what will take the place of others."""
    step = _buying((), purchase, supply, now)
    return replace(
        step, decision=replace(step.decision, reasons=(change.reason,), policy=change.policy)
    )


def _moving(move: Move, supply: Supply, now: float) -> Step:
    machine, last = move.unit.machine, move.actions[-1] if move.actions else None
    usd = -move.unit.usd_per_hour if isinstance(last, Terminate) else 0.0
    decision = Decision(
        at=now,
        kind=_kind_of(move),
        reasons=move.reasons,
        pool=move.unit.pool,
        offering=f"{machine.instance_type}/{machine.zone}/{machine.capacity}",
        count=1,
        machines=(machine.instance_id,),
        usd_per_hour=round(usd, 6),
        before_usd=supply.usd_per_hour,
        after_usd=round(supply.usd_per_hour + usd, 6),
        agents=_agents_of(move),
        policy=move.next_removal.policy if move.next_removal else "",
    )
    return Step(decision, move.actions, machine.instance_id, move.next_removal)


def _agents_of(move: Move) -> tuple[str, ...]:
    found = (move.unit.agent.agent_id if move.unit.agent else "") or (
        move.next_removal.agent_id if move.next_removal else ""
    )
    return (found,) if found else ()


_KINDS: Mapping[type[Action], Kind] = {
    Deactivate: "deactivate",
    Reactivate: "reactivate",
    Drain: "drain",
}


def _kind_of(move: Move) -> Kind:
    if move.kind is not None:
        return move.kind
    if isinstance(move.actions[-1], Terminate):
        return "terminate" if move.next_removal and move.next_removal.agent_id else "give_up"
    return _KINDS[type(move.actions[0])]


def _refusals(
    verdicts: Sequence[Verdict], reported: Mapping[str, str], supply: Supply, now: float
) -> tuple[list[Step], dict[str, str]]:
    """A decision for each item newly refused, or refused with another verdict than before."""
    steps: list[Step] = []
    kinds: dict[str, str] = {}
    for verdict in verdicts:
        refusal, item = verdict.refusal, verdict.unit
        if refusal is None:
            continue
        kinds[item.key] = refusal.kind
        if reported.get(item.key) != refusal.kind:
            decision = Decision(
                now,
                "unschedulable",
                (*refusal.reasons, *item.reasons),
                count=verdict.unmet,
                demand=(DemandCount(item.name, verdict.unmet),),
                before_usd=supply.usd_per_hour,
                after_usd=supply.usd_per_hour,
            )
            steps.append(Step(decision))
    return steps, kinds
