"""Verdicts: what each item of demand gets in a pass, and why an item gets no machine. Pure.

An item that gets nothing has the first of these reasons that is true, from the most lasting to the
most passing. `reporting/verdict_text.py` renders verdicts. Depends on `model`, `packing` and on
`offerings` and `launch_backoff`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from mesaform.autoscaler.model.command import Purchase
from mesaform.autoscaler.model.demand_item import BlockedKind, DemandItem, StopKind
from mesaform.autoscaler.model.reason import Reason, ReasonCode
from mesaform.autoscaler.model.shape import Shape, contains, named, times
from mesaform.autoscaler.model.snapshot import Snapshot
from mesaform.autoscaler.model.supply import Node, Supply
from mesaform.autoscaler.packing import Limits, Placement, Template
from mesaform.autoscaler.planner import launch_backoff, launch_failures, offerings
from mesaform.aws.ports import Offering
from mesaform.common.architecture import ARCH, REQUIRES_PIN
from mesaform.common.resources import merge_ranges
from mesaform.config.schema import Pool
from mesaform.placement.constraints import (
    HOSTNAME,
    Constraint,
    InstanceCounts,
    room,
    value_at,
)

RefusalKind = (
    Literal["impossible", "pool_max", "cost_cap", "no_capacity", "no_offering", "paused"]
    | BlockedKind
    | StopKind
)

LASTING = frozenset({"impossible", "constraint", "no_offering"})
"""Refusals that a freeze or a pause does not explain."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why pieces of an item get no machine. The first reason is the main one."""

    kind: RefusalKind
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an item of demand gets, in pieces; `refusal` says why the `unmet` ones get nothing.

    `fits_on` and `waits_for` name machines with their types, `buys` what is launched.
    """

    unit: DemandItem
    fits_now: int = 0
    arriving: int = 0
    buying: int = 0
    unmet: int = 0
    refusal: Refusal | None = None
    fits_on: tuple[str, ...] = ()
    waits_for: tuple[str, ...] = ()
    buys: tuple[str, ...] = ()


class VerdictBuilder:
    """The verdicts of one pass. `blocked` is why nothing is bought in it, if so."""

    def __init__(
        self,
        snapshot: Snapshot,
        supply: Supply,
        placement: Placement,
        purchases: Sequence[Purchase],
        blocked: Reason | None,
        now: float,
    ) -> None:
        self._snapshot = snapshot
        self._supply = supply
        self._placement = placement
        self._nodes = {node.name: node for node in supply.nodes}
        self._bought: dict[int, list[Purchase]] = {}
        for purchase in purchases:
            for index in purchase.load:
                self._bought.setdefault(index, []).append(purchase)
        self._blocked = blocked
        self._now = now
        self._offerings: OfferingIndex | None = None

    def verdict(self, index: int, unit: DemandItem) -> Verdict:
        """The verdict of the item with this index."""
        if unit.blocked is not None:
            refusal = Refusal(unit.blocked_kind or "constraint", (unit.blocked,))
            return Verdict(unit, unmet=unit.count, refusal=refusal)
        ready, booting = self._placed(index)
        bought = self._bought.get(index, [])
        buying = sum(purchase.load[index] for purchase in bought)
        fits_now, arriving = _sum(ready), _sum(booting)
        unmet = unit.count - fits_now - arriving - buying
        return Verdict(
            unit,
            fits_now,
            arriving,
            buying,
            unmet,
            self._refusal(index, unit) if unmet else None,
            fits_on=_machines(ready),
            waits_for=_machines(booting),
            buys=_counts_of_types(bought),
        )

    def _placed(self, index: int) -> tuple[list[tuple[Node, int]], list[tuple[Node, int]]]:
        """Where pieces of an item are placed: on nodes that are up, on nodes that boot."""
        ready: list[tuple[Node, int]] = []
        booting: list[tuple[Node, int]] = []
        for name, count in self._placement.placed.get(index, {}).items():
            node = self._nodes[name]
            (booting if node.kind == "coming" else ready).append((node, count))
        return ready, booting

    def _bought_for(self, index: int) -> list[tuple[str, Offering, int]]:
        """The pool, the first offering and the pieces of the purchases for an item."""
        return [
            (purchase.request.pool, purchase.request.offerings[0], purchase.load[index])
            for purchase in self._bought.get(index, ())
        ]

    def _refusal(self, index: int, unit: DemandItem) -> Refusal:
        if self._offerings is None:
            self._offerings = OfferingIndex(self._snapshot, self._supply, self._now)
        usage = self._offerings.usage_with(unit, self._bought_for(index))
        refusal = self._offerings.explain(unit, usage)
        if refusal.kind in LASTING:
            return refusal
        if self._blocked is not None:
            return Refusal("paused", (self._blocked,))
        return Refusal(unit.stop.kind, (unit.stop.reason,)) if unit.stop is not None else refusal


@dataclass(frozen=True, slots=True)
class Candidate:
    """An offering that a pool may buy, with the node that it would become."""

    pool: Pool
    offering: Offering
    template: Template


@dataclass(frozen=True, slots=True)
class _SameAgent:
    """All instances of an item have to be on one agent: `agent` if one has some already."""

    agent: str
    constraint: str

    def full(self) -> Reason:
        """That the agent with the first instances has no capacity left."""
        return Reason.of(
            ReasonCode.CONSTRAINT_AGENT_FULL, constraint=self.constraint, agent=self.agent
        )


class OfferingIndex:
    """Everything that pools may buy, tested against one item after another."""

    def __init__(self, snapshot: Snapshot, supply: Supply, now: float) -> None:
        self._snapshot = snapshot
        self._supply = supply
        self._now = now
        self._candidates = [
            Candidate(pool, offering, offerings.template_of(snapshot, pool, offering))
            for pool in snapshot.spec.agents
            for offering in snapshot.offerings.get(pool.name, ())
            if offerings.may_be_bought(pool, offering.capacity, snapshot.offerings[pool.name])
        ]

    def usage_with(
        self, unit: DemandItem, bought: Iterable[tuple[str, Offering, int]]
    ) -> InstanceCounts:
        """Where instances run or are placed, those on the machines that are bought included."""
        shared = [
            constraint
            for constraint in unit.constraints
            if not constraint.is_host_port and constraint.field not in HOSTNAME
        ]
        usage = self._supply.usage.copy()
        for pool, offering, count in bought:
            for candidate in self._candidates:
                if (candidate.pool.name, candidate.offering.key) == (pool, offering.key):
                    usage.add(unit.name, shared, candidate.template, count)
        return usage

    def explain(self, unit: DemandItem, usage: InstanceCounts) -> Refusal:
        """Why an item that is not blocked gets no machine, beside the instances of `usage`."""
        if not self._candidates:
            return _refusal("no_offering", Reason.of(ReasonCode.CATALOGUE_UNKNOWN))
        allowed = _satisfying(unit, self._candidates, InstanceCounts())
        if not allowed:
            return Refusal("constraint", self._unsatisfied(unit))
        together = _same_agent(unit, usage)
        if together is not None and together.agent:
            return _refusal("constraint", together.full())
        shape = times(unit.shape, unit.count) if together else unit.shape
        fitting = _holding(shape, allowed)
        if not fitting:
            return Refusal("impossible", self._too_large(unit, shape, allowed, together))
        return self._passing(unit, fitting, usage)

    def _too_large(
        self,
        unit: DemandItem,
        shape: Shape,
        allowed: Sequence[Candidate],
        together: _SameAgent | None,
    ) -> tuple[Reason, ...]:
        """The nearest allowed type and what it lacks; a larger type that constraints exclude."""
        nearest = max(allowed, key=lambda c: _likeness(shape, c.template.shape)).template
        reasons = [_shortfall(shape, nearest)]
        if together is not None:
            reasons.append(
                Reason.of(
                    ReasonCode.INSTANCES_ON_SAME_AGENT,
                    count=unit.count,
                    constraint=together.constraint,
                )
            )
        larger = _holding(shape, self._candidates)
        if larger:
            excluded = larger[0].template
            reasons.append(
                Reason.of(
                    ReasonCode.LARGER_TYPE_EXCLUDED,
                    instance_type=excluded.instance_type,
                    pool=excluded.pool,
                    constraints=_texts(unit.constraints),
                )
            )
        return tuple(reasons)

    def _unsatisfied(self, unit: DemandItem) -> tuple[Reason, ...]:
        """The constraints that no pool satisfies by themselves; all where only the mix fails."""
        alone = [
            constraint
            for constraint in unit.constraints
            if not any(
                room(unit.name, (constraint,), c.template, InstanceCounts())
                for c in self._candidates
            )
        ]
        if not alone:
            conflict = Reason.of(
                ReasonCode.CONSTRAINTS_CONFLICT, constraints=_texts(unit.constraints)
            )
            return (conflict,)
        return tuple(self._unavailable(constraint) for constraint in alone)

    def _unavailable(self, constraint: Constraint) -> Reason:
        """A constraint that no pool satisfies, with the values that pools have."""
        text, field = _text(constraint), constraint.field
        if constraint.is_host_port:
            return self._port_unavailable(int(constraint.value))
        if field in HOSTNAME:
            return Reason.of(ReasonCode.CONSTRAINT_HOSTNAME_UNKNOWN, constraint=text)
        values = {
            value for c in self._candidates if (value := value_at(c.template, field)) is not None
        }
        if not values:
            return Reason.of(ReasonCode.CONSTRAINT_ATTRIBUTE_MISSING, constraint=text, field=field)
        return Reason.of(
            ReasonCode.CONSTRAINT_VALUES_UNAVAILABLE,
            constraint=text,
            values=tuple(sorted(values)),
        )

    def _port_unavailable(self, port: int) -> Reason:
        """That no pool's agents offer a host port, with the ranges that they offer."""
        offered = merge_ranges(ports for c in self._candidates for ports in c.template.ports)
        return Reason.of(
            ReasonCode.HOST_PORT_NOT_OFFERED,
            port=port,
            offered=tuple(f"{low}-{high}" for low, high in offered),
        )

    def _passing(
        self, unit: DemandItem, fitting: Sequence[Candidate], usage: InstanceCounts
    ) -> Refusal:
        """Which of the reasons that may pass with time applies."""
        limits = offerings.limits_of(self._snapshot, self._supply, self._now)
        with_slots = [c for c in fitting if limits.slots[c.pool.name] > 0]
        if not with_slots:
            return self._without_slots(fitting)
        missing = self._missing_templates(with_slots)
        if missing is not None:
            return missing
        ready = self._not_backed_off(with_slots)
        if not ready:
            return _refusal("no_capacity", self._backoff(with_slots))
        cap = self._cost_cap(ready, limits)
        if cap is not None:
            return _refusal("cost_cap", cap)
        return self._last_refusal(_satisfying(unit, ready, usage))

    def _without_slots(self, fitting: Sequence[Candidate]) -> Refusal:
        """A pool that stopped after failed launches, else pools that are full."""
        stopped = launch_failures.stopped_pools(self._snapshot.state)
        names = dict.fromkeys(c.pool.name for c in fitting if c.pool.name in stopped)
        if not names:
            return _refusal("pool_max", _pools_full(fitting))
        reasons = (launch_failures.reason(stopped[name], self._now) for name in names)
        return Refusal("no_capacity", tuple(reasons))

    def _last_refusal(self, located: Sequence[Candidate]) -> Refusal:
        """Why none of the candidates in allowed locations was bought."""
        if not located:
            return _refusal("constraint", Reason.of(ReasonCode.CONSTRAINT_LOCATIONS_TAKEN))
        if self._are_ramping_up(located):
            return _refusal("no_capacity", Reason.of(ReasonCode.LAUNCH_RAMP_UP))
        return _refusal("pool_max", Reason.of(ReasonCode.OTHER_DEMAND_FIRST))

    def _missing_templates(self, candidates: Sequence[Candidate]) -> Refusal | None:
        """That none of the candidates has its launch template; None if one has."""
        names = [offerings.missing_template(self._snapshot, c.pool, c.offering) for c in candidates]
        if not all(names):
            return None
        missing = tuple(dict.fromkeys(names))
        return _refusal("no_capacity", Reason.of(ReasonCode.TEMPLATE_MISSING, templates=missing))

    def _not_backed_off(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        backoffs, now = self._snapshot.state.backoffs, self._now
        return [
            c
            for c in candidates
            if not launch_backoff.is_blocked(backoffs, c.offering, c.pool.name, now)
        ]

    def _backoff(self, candidates: Sequence[Candidate]) -> Reason:
        """When the first of these is requested again."""
        backoffs, now = self._snapshot.state.backoffs, self._now
        blocked = [(c.pool.name, c.offering) for c in candidates]
        retry_s = (launch_backoff.next_try_at(backoffs, blocked, now) or now) - now
        cause = launch_backoff.cause_of(backoffs, blocked, now)
        if cause:
            return Reason.of(ReasonCode.LAUNCH_FAILED, cause=cause, retry_s=retry_s)
        return Reason.of(ReasonCode.CAPACITY_BACKOFF, retry_s=retry_s)

    def _cost_cap(self, ready: Sequence[Candidate], limits: Limits) -> Reason | None:
        """The cost cap, if it leaves too little for the cheapest of these."""
        left, cap = limits.usd_per_hour, self._snapshot.spec.cost.max_usd_per_hour
        cheapest = min(c.offering.usd_per_hour for c in ready)
        if left is None or cap is None or cheapest <= left:
            return None
        return Reason.of(
            ReasonCode.COST_CAP,
            max_usd_per_hour=cap,
            left_usd_per_hour=left,
            cheapest_usd_per_hour=cheapest,
        )

    def _are_ramping_up(self, candidates: Sequence[Candidate]) -> bool:
        """Whether only a few machines of each of these are requested at a time."""
        backoffs = self._snapshot.state.backoffs
        wanted = [
            c.offering
            for c in candidates
            if c.offering.capacity == offerings.wanted_capacity(c.pool)
        ]
        return all(
            launch_backoff.window(backoffs, offering) < launch_backoff.MAX_AT_ONCE
            for offering in wanted
        )


def _sum(counts: Iterable[tuple[object, int]]) -> int:
    return sum(count for _, count in counts)


def _counts_of_types(purchases: Iterable[Purchase]) -> tuple[str, ...]:
    """The machines of the purchases by type, such as `2 x m5.large`, whatever their zones are."""
    counts: Counter[str] = Counter()
    for purchase in purchases:
        counts[purchase.request.offerings[0].instance_type] += purchase.request.count
    return tuple(f"{count} x {name}" for name, count in counts.items())


def _machines(placed: Iterable[tuple[Node, int]]) -> tuple[str, ...]:
    return tuple(_machine(node) for node, _ in placed)


def _refusal(kind: RefusalKind, reason: Reason) -> Refusal:
    return Refusal(kind, (reason,))


def _satisfying(
    unit: DemandItem, candidates: Sequence[Candidate], usage: InstanceCounts
) -> list[Candidate]:
    """The candidates that an item's constraints allow beside what runs."""
    return [c for c in candidates if room(unit.name, unit.constraints, c.template, usage)]


def _holding(shape: Shape, candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates that are large enough."""
    return [c for c in candidates if contains(c.template.shape, shape)]


def _shortfall(shape: Shape, nearest: Template) -> Reason:
    """In which dimensions a type is too small, and by how much."""
    short = [
        (dimension, want, have)
        for dimension, (want, have) in enumerate(zip(shape, nearest.shape, strict=True))
        if want > have
    ]
    return Reason.of(
        ReasonCode.EXCEEDS_LARGEST_TYPE,
        required=tuple(named(want, dimension) for dimension, want, _ in short),
        instance_type=nearest.instance_type,
        capacity=tuple(named(have, dimension) for dimension, _, have in short),
        shortfall=tuple(named(want - have, dimension) for dimension, want, have in short),
    )


def _pools_full(candidates: Sequence[Candidate]) -> Reason:
    maxima = sorted({(c.pool.name, c.pool.max) for c in candidates})
    return Reason.of(
        ReasonCode.POOLS_FULL,
        pools=tuple(name for name, _ in maxima),
        maxima=tuple(str(most) for _, most in maxima),
    )


def _same_agent(unit: DemandItem, usage: InstanceCounts) -> _SameAgent | None:
    """The constraint that keeps all instances of an item on one agent; None without one."""
    for constraint in unit.constraints:
        is_cluster = constraint.operator == "CLUSTER" and not constraint.value
        if constraint.field in HOSTNAME and is_cluster:
            agent = next(iter(usage.counts(unit.name, constraint)), "")
            return _SameAgent(agent, _text(constraint))
    return None


def _likeness(wanted: Shape, have: Shape) -> tuple[float, int]:
    """How much of the scarcest dimension a type has, then its size."""
    return (min((h / w for w, h in zip(wanted, have, strict=True) if w), default=1.0), sum(have))


def _text(constraint: Constraint) -> str:
    """A constraint as Marathon's users write it: `zone IS us-east-1a`."""
    if constraint.field == REQUIRES_PIN:
        return f"no constraint on {ARCH}"
    return str(constraint)


def _texts(constraints: Sequence[Constraint]) -> tuple[str, ...]:
    return tuple(_text(constraint) for constraint in constraints)


def _machine(node: Node) -> str:
    instance_type = node.attributes.get("instance_type", "")
    return f"{node.name} ({instance_type})" if instance_type else node.name
