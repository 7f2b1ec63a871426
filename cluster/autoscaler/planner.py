"""One pass: what is wanted, what there is, what to buy, what to give back, and the record of why. Pure: `plan(snapshot, now)`.

The daemon carries a plan out; `mesaform plan` prints one; tests and the simulator drive worlds with it. All run this code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from cluster.autoscaler import demand, scale_down, scale_up
from cluster.autoscaler.decision import Decision
from cluster.autoscaler.demand import Unit
from cluster.autoscaler.model import ClusterView, Memory, Removal, Rented, Snapshot
from cluster.autoscaler.packing import Placement, place
from cluster.autoscaler.scale_down import Deactivate, Drain, MarkGone, Move, Reactivate, Terminate
from cluster.autoscaler.scale_up import Purchase, Refusal
from cluster.autoscaler.supply import LIVE, Supply, price_of, survey
from cluster.blueprint import Tag
from cluster.cloud.port import LaunchRequest

SETTLE_AFTER_LEADER_S = 30.0
"""How long recovered agents are waited for after a change of leader before anything is bought without them."""

LASTING = frozenset({"never", "constraint", "no_offering"})
"""Refusals that a fence or a wait for a leader does not explain."""


@dataclass(frozen=True, slots=True)
class Launch:
    request: LaunchRequest


Action = Launch | Deactivate | Reactivate | Drain | MarkGone | Terminate


@dataclass(frozen=True, slots=True)
class Step:
    """Something to do with the decision behind it. `removal` is what to remember about the machine once it is done."""

    decision: Decision
    actions: tuple[Action, ...] = ()
    instance_id: str = ""
    removal: Removal | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a unit of demand, in pieces; `refusal` says why the `unmet` ones get nothing."""

    unit: Unit
    fits_now: int = 0
    arriving: int = 0
    buying: int = 0
    unmet: int = 0
    refusal: Refusal | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """A pass's outcome. `memory` is what to remember; steps change it further only when they are carried out."""

    at: float
    verdicts: tuple[Verdict, ...]
    steps: tuple[Step, ...]
    memory: Memory
    usd_per_hour: float
    after_usd_per_hour: float
    frozen: str = ""
    fence: str = ""
    waiting: str = ""
    quarantined: Mapping[str, str] | None = None


def plan(snapshot: Snapshot, now: float) -> Plan:
    """Decide. The same snapshot at the same moment gives the same plan."""
    snapshot = replace(snapshot, memory=_remember_leader(snapshot, now))
    supply = survey(snapshot, now)
    units = demand.fuse(snapshot, now)
    placement = place(units, supply.nodes, supply.usage)
    waiting = _not_yet(snapshot, now)
    fence = snapshot.fence or ("" if snapshot.spec.autoscaler.enabled else "autoscaler.enabled is false")
    held = fence or waiting
    purchases = [] if held else scale_up.buy(snapshot, supply, units, placement.left, now)
    verdicts = tuple(_verdict(snapshot, supply, unit, index, placement, purchases, held, now) for index, unit in enumerate(units))
    needed = _needed(placement)
    frozen = scale_down.freeze(snapshot, supply)
    idle = snapshot.memory.idle_since if snapshot.cluster is None else scale_down.idle_since(snapshot, supply, needed, now)
    moves = [] if fence else _moves(snapshot, supply, needed, idle, frozen, now)
    after = supply.usd_per_hour + sum(purchase.usd_per_hour for purchase in purchases) - _saved(moves)
    steps = [_buying(units, purchase, supply, now) for purchase in purchases]
    steps += [_moving(move, supply, now) for move in moves]
    memory = _remember(snapshot, supply, units, purchases, idle, now)
    refusals, told = _refusals(verdicts, memory.told, supply, now)
    return Plan(
        at=now,
        verdicts=verdicts,
        steps=tuple(steps + ([] if held else refusals)),
        memory=memory if held else replace(memory, told=told),
        usd_per_hour=supply.usd_per_hour,
        after_usd_per_hour=round(after, 6),
        frozen=frozen,
        fence=fence,
        waiting=waiting,
        quarantined=supply.quarantined,
    )


def apply_step(memory: Memory, step: Step) -> Memory:
    """What to remember once a step that moves a machine was carried out."""
    if not step.instance_id:
        return memory
    removals = {name: removal for name, removal in memory.removals.items() if name != step.instance_id}
    if step.removal is not None:
        removals[step.instance_id] = step.removal
    return replace(memory, removals=removals)


def _remember_leader(snapshot: Snapshot, now: float) -> Memory:
    """Since when a master leads, as seen from here: timers of machines do not run without one."""
    memory = snapshot.memory
    if snapshot.cluster is None:
        return replace(memory, leader_since=None)
    return memory if memory.leader_since is not None else replace(memory, leader_since=now)


def _not_yet(snapshot: Snapshot, now: float) -> str:
    """Why nothing is bought yet; empty when it may be."""
    view = snapshot.cluster
    if view is None:
        return "no master is elected"
    if view.recovered and now - (snapshot.memory.leader_since or now) < SETTLE_AFTER_LEADER_S:
        return f"{view.recovered} agents are expected back after a change of leader"
    return ""


def _needed(placement: Placement) -> set[str]:
    """Names of nodes that demand was placed on."""
    return {name for nodes in placement.placed.values() for name in nodes}


def _moves(snapshot: Snapshot, supply: Supply, needed: set[str], idle: Mapping[str, float], frozen: str, now: float) -> list[Move]:
    """Taking back is always allowed; everything else only when nothing is frozen."""
    back = scale_down.returned(supply, needed) if snapshot.cluster is not None else []
    if frozen:
        return back
    kept = {move.unit.machine.instance_id for move in back}
    going = scale_down.advance(snapshot, supply, kept, now)
    lost = scale_down.give_up(snapshot, supply, now)
    return back + going + lost + scale_down.begin(snapshot, supply, needed, idle, now)


def _saved(moves: Sequence[Move]) -> float:
    """USD an hour that ends when a machine goes: counted when it is given back, not when that begins."""
    return sum(move.unit.usd_per_hour for move in moves if any(isinstance(action, Terminate) for action in move.does))


def _verdict(
    snapshot: Snapshot, supply: Supply, unit: Unit, index: int, placement: Placement, purchases: Sequence[Purchase], held: str, now: float
) -> Verdict:
    if unit.blocked:
        return Verdict(unit, unmet=unit.count, refusal=Refusal("constraint", unit.blocked))
    kinds = {node.name: node.kind for node in supply.nodes}
    placed = placement.placed.get(index, {})
    arriving = sum(count for name, count in placed.items() if kinds[name] == "coming")
    fits_now = sum(placed.values()) - arriving
    buying = sum(purchase.load.get(index, 0) for purchase in purchases)
    unmet = unit.count - fits_now - arriving - buying
    refusal = scale_up.explain(snapshot, supply, unit, now) if unmet else None
    if refusal is not None and held and refusal.kind not in LASTING:
        refusal = Refusal("held", held)
    return Verdict(unit, fits_now, arriving, buying, unmet, refusal)


def _buying(units: Sequence[Unit], purchase: Purchase, supply: Supply, now: float) -> Step:
    request, first = purchase.request, purchase.request.offerings[0]
    wanted = [(units[index], count) for index, count in purchase.load.items()]
    reasons = tuple(unit.reason for unit, _ in wanted) or (f"pool {request.pool} keeps at least its min",)
    decision = Decision(
        at=now,
        kind="buy",
        what=f"{request.count} x {first.instance_type} for pool {request.pool}",
        reasons=reasons,
        pool=request.pool,
        offering=first.key,
        count=request.count,
        demand=tuple(f"{count} x {unit.name}" for unit, count in wanted),
        usd_per_hour=round(purchase.usd_per_hour, 6),
        before_usd=supply.usd_per_hour,
        after_usd=round(supply.usd_per_hour + purchase.usd_per_hour, 6),
        token=request.token,
    )
    return Step(decision, (Launch(request),))


_WORDS = {
    "deactivate": "gets no more work",
    "reactivate": "gets work again",
    "drain": "is still empty and drains",
    "terminate": "is given back",
    "give_up": "is given up",
}


def _moving(move: Move, supply: Supply, now: float) -> Step:
    machine, last = move.unit.machine, move.does[-1]
    usd = -move.unit.usd_per_hour if isinstance(last, Terminate) else 0.0
    kind = _kind_of(move)
    decision = Decision(
        at=now,
        kind=kind,  # type: ignore[arg-type]
        what=f"{machine.instance_id} ({machine.instance_type}) {_WORDS[kind]}",
        reasons=(move.why,),
        pool=move.unit.pool,
        offering=f"{machine.instance_type}/{machine.zone}/{machine.capacity}",
        count=1,
        machines=(machine.instance_id,),
        usd_per_hour=round(usd, 6),
        before_usd=supply.usd_per_hour,
        after_usd=round(supply.usd_per_hour + usd, 6),
    )
    return Step(decision, move.does, machine.instance_id, move.becomes)


def _kind_of(move: Move) -> str:
    if isinstance(move.does[-1], Terminate):
        return "terminate" if move.becomes and move.becomes.agent_id else "give_up"
    return {Deactivate: "deactivate", Reactivate: "reactivate", Drain: "drain"}[type(move.does[0])]


def _refusals(verdicts: Sequence[Verdict], told: Mapping[str, str], supply: Supply, now: float) -> tuple[list[Step], dict[str, str]]:
    """A decision for each unit newly refused, or refused for another reason than before: said once, not every pass."""
    steps: list[Step] = []
    now_told: dict[str, str] = {}
    for verdict in verdicts:
        if verdict.refusal is None:
            continue
        unit, refusal = verdict.unit, verdict.refusal
        now_told[unit.key] = refusal.kind
        if told.get(unit.key) != refusal.kind:
            usd = supply.usd_per_hour
            what = f"no machine for {verdict.unmet} x {unit.name}"
            reasons = (refusal.why, unit.reason)
            demanded = (f"{verdict.unmet} x {unit.name}",)
            steps.append(Step(Decision(now, "refuse", what, reasons, count=verdict.unmet, demand=demanded, before_usd=usd, after_usd=usd)))
    return steps, now_told


def _remember(
    snapshot: Snapshot, supply: Supply, units: Sequence[Unit], purchases: Sequence[Purchase], idle: dict[str, float], now: float
) -> Memory:
    """What the world taught in this pass, before anything is done."""
    memory, view = snapshot.memory, snapshot.cluster or ClusterView()
    live = {unit.machine.instance_id: unit for unit in supply.units}
    registered = {name: at for name, at in memory.registered.items() if name in live}
    registered.update({name: now for name, unit in live.items() if unit.agent is not None and name not in registered})
    lost = {name: memory.lost_since.get(name, now) for name, unit in live.items() if unit.state == "lost"}
    frameworks = {framework.framework_id: framework for framework in view.frameworks}
    probes = {name: probe for name, probe in memory.probes.items() if name in frameworks or snapshot.cluster is None}
    bought_for = {index for purchase in purchases for index in purchase.load}
    for index in bought_for:
        unit = units[index]
        if unit.framework_id in frameworks:
            probes[unit.framework_id] = demand.probe_after(unit, frameworks[unit.framework_id], now)
    return replace(
        memory,
        idle_since=idle,
        idle_s=_idle_so_far(memory, idle, now),
        registered=registered,
        lost_since=lost,
        removals={name: removal for name, removal in memory.removals.items() if name in live},
        history=supply.history,
        rented=_rented(snapshot, memory),
        probes=probes,
        dry_since=demand.still_dry(snapshot, memory, now),
    )


def _idle_so_far(memory: Memory, idle: Mapping[str, float], now: float) -> dict[str, float]:
    """Seconds that each machine was idle, with the periods that ended in this pass. Kept a pass longer than the machine."""
    ended = {name: now - since for name, since in memory.idle_since.items() if name not in idle}
    names = {name for name in (*memory.idle_s, *ended) if name in memory.rented}
    return {name: round(memory.idle_s.get(name, 0.0) + ended.get(name, 0.0), 1) for name in sorted(names)}


def _rented(snapshot: Snapshot, memory: Memory) -> dict[str, Rented]:
    """Machines that cost money now, with what the ledger will need when they no longer do."""
    sizes = {offering.key: offering for pool in snapshot.offerings.values() for offering in pool}
    return {
        machine.instance_id: memory.rented.get(machine.instance_id)
        or Rented(
            instance_type=machine.instance_type,
            zone=machine.zone,
            capacity=machine.capacity,
            usd_per_hour=price_of(machine, sizes),
            pool=machine.tags.get(Tag.POOL, ""),
            managed_by=machine.tags.get(Tag.MANAGED_BY, ""),
            role=machine.tags.get(Tag.ROLE, ""),
            launched_at=machine.launched_at,
        )
        for machine in snapshot.machines
        if machine.state in LIVE
    }
