"""What becomes of each piece of demand, and why what gets no machine gets none: the hardest reason that is true. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mesaform.autoscaler.model.cluster_view import Constraint
from mesaform.autoscaler.model.command import Purchase
from mesaform.autoscaler.model.constraints import HOSTNAME, Usage, room, value_of
from mesaform.autoscaler.model.demand_item import BlockedKind, DemandItem
from mesaform.autoscaler.model.shape import Shape, contains, named, times
from mesaform.autoscaler.model.snapshot import Snapshot
from mesaform.autoscaler.model.supply import Node, Supply
from mesaform.autoscaler.packing import Placement, Template
from mesaform.autoscaler.planner import launch_backoff, scale_up
from mesaform.aws.ports import Offering
from mesaform.config.schema import Pool

RefusalKind = (
    Literal["never", "pool_max", "budget", "no_capacity", "no_offering", "held"] | BlockedKind
)

LASTING = frozenset({"never", "constraint", "no_offering"})
"""Refusals that a fence or a wait for a leader does not explain."""

NAMED = 3
"""Machines named in a sentence; the rest are counted."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why pieces of a unit get no machine."""

    kind: RefusalKind
    why: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a unit of demand, in pieces; `refusal` says why the `unmet` ones get nothing.

    `fits_on` and `waits_for` name machines with their types, `buys` what is ordered.
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

    def __str__(self) -> str:
        """For people: `2 fit now on i-1 (m5.large), 3 wait for i-2 (m5.large)`."""
        parts = [
            f"{count} {words} {_listed(names)}".rstrip()
            for count, words, names in (
                (self.fits_now, "fit now on" if self.fits_on else "fit now", self.fits_on),
                (self.arriving, "wait for", self.waits_for),
                (
                    self.buying,
                    "need machines to buy:" if self.buys else "need machines to buy",
                    self.buys,
                ),
            )
            if count
        ]
        if self.unmet:
            parts.append(
                f"{self.unmet} get none: {self.refusal.why if self.refusal else 'not known why'}"
            )
        return ", ".join(parts)


class VerdictBuilder:
    """Gives the verdicts of one pass. `held` is why nothing is bought at all in it, if so."""

    def __init__(
        self,
        snapshot: Snapshot,
        supply: Supply,
        placement: Placement,
        purchases: Sequence[Purchase],
        held: str,
        now: float,
    ) -> None:
        self._snapshot = snapshot
        self._supply = supply
        self._placement = placement
        self._nodes = {node.name: node for node in supply.nodes}
        self._bought: dict[int, list[tuple[str, int]]] = {}
        for purchase in purchases:
            what = f"{purchase.request.count} x {purchase.request.offerings[0].instance_type}"
            for index, count in purchase.load.items():
                self._bought.setdefault(index, []).append((what, count))
        self._held = held
        self._now = now
        self._shelf: OfferingIndex | None = None

    def verdict(self, index: int, unit: DemandItem) -> Verdict:
        """What becomes of the unit with this index."""
        if unit.blocked:
            return Verdict(
                unit,
                unmet=unit.count,
                refusal=Refusal(unit.blocked_kind or "constraint", unit.blocked),
            )
        placed = [
            (self._nodes[name], count)
            for name, count in self._placement.placed.get(index, {}).items()
        ]
        arriving = sum(count for node, count in placed if node.kind == "coming")
        fits_now = sum(count for node, count in placed if node.kind != "coming")
        bought = self._bought.get(index, [])
        buying = sum(count for _, count in bought)
        unmet = unit.count - fits_now - arriving - buying
        return Verdict(
            unit,
            fits_now,
            arriving,
            buying,
            unmet,
            self._refusal(unit) if unmet else None,
            fits_on=tuple(_machine(node) for node, _ in placed if node.kind != "coming"),
            waits_for=tuple(_machine(node) for node, _ in placed if node.kind == "coming"),
            buys=tuple(dict.fromkeys(what for what, _ in bought)),
        )

    def _refusal(self, unit: DemandItem) -> Refusal:
        self._shelf = self._shelf or OfferingIndex(self._snapshot, self._supply, self._now)
        refusal = self._shelf.explain(unit)
        return (
            Refusal("held", self._held) if self._held and refusal.kind not in LASTING else refusal
        )


class OfferingIndex:
    """Everything that pools could buy, tried against one unit after another."""

    def __init__(self, snapshot: Snapshot, supply: Supply, now: float) -> None:
        self._snapshot = snapshot
        self._supply = supply
        self._now = now
        self._goods = [
            Candidate(pool, offering, scale_up.template_of(snapshot, pool, offering))
            for pool in snapshot.spec.agents
            for offering in snapshot.offerings.get(pool.name, ())
        ]

    def explain(self, unit: DemandItem) -> Refusal:
        """Why a unit that is not blocked got no machine: tried from the hardest reason to the mildest."""
        if not self._goods:
            return Refusal("no_offering", "the catalogue of offerings is not known yet")
        allowed = [
            good
            for good in self._goods
            if room(unit.name, unit.constraints, good.template, Usage())
        ]
        if not allowed:
            return Refusal(
                "constraint", f"no pool's machines satisfy its constraints: {self._forbidden(unit)}"
            )
        together = _must_stay_together(unit, self._supply.usage)
        if together is not None and together[0]:
            return Refusal(
                "constraint",
                f"{together[1]}: all its instances belong on {together[0]}, which has no room for more",
            )
        shape = times(unit.shape, unit.count) if together else unit.shape
        fitting = [good for good in allowed if contains(good.template.shape, shape)]
        if not fitting:
            return self._never(unit, shape, allowed, together[1] if together else "")
        return self._passing(unit, fitting)

    def _never(
        self, unit: DemandItem, shape: Shape, allowed: Sequence[Candidate], together: str
    ) -> Refusal:
        """The nearest type, and what it lacks."""
        nearest = max(allowed, key=lambda good: _likeness(shape, good.template.shape)).template
        lacking = [
            d
            for d, (want, have) in enumerate(zip(shape, nearest.shape, strict=True))
            if want > have
        ]

        def told(amounts: Sequence[int]) -> str:
            return " and ".join(named(amounts[d], d) for d in lacking)

        short = told([want - have for want, have in zip(shape, nearest.shape, strict=True)])
        all_ = f" for its {unit.count} instances on one machine ({together})" if together else ""
        why = f"needs {told(shape)}{all_}; the nearest type allowed, {nearest.instance_type}, has {told(nearest.shape)}: {short} short"
        larger = next(
            (good.template for good in self._goods if contains(good.template.shape, shape)), None
        )
        if larger is not None:
            rule = _asked(unit.constraints)
            why += f"; {larger.instance_type} of pool {larger.pool} would hold it, but its constraints ({rule}) rule it out"
        return Refusal("never", why)

    def _forbidden(self, unit: DemandItem) -> str:
        """The constraints that no machine satisfies even alone, with what there is; all of them where only their mixture is impossible."""
        alone = [
            c
            for c in unit.constraints
            if not any(room(unit.name, (c,), good.template, Usage()) for good in self._goods)
        ]
        if not alone:
            return f"{_asked(unit.constraints)} (each could be met, not all by one machine)"
        return "; ".join(
            f"{_asked((constraint,))} ({self._offered(constraint.field)})" for constraint in alone
        )

    def _offered(self, field: str) -> str:
        if field in HOSTNAME:
            return "the name of a new machine is not known before it is there"
        values = sorted(
            {value for good in self._goods if (value := value_of(good.template, field)) is not None}
        )
        return f"they have {_listed(values)}" if values else f"they have no attribute {field}"

    def _passing(self, unit: DemandItem, fitting: Sequence[Candidate]) -> Refusal:
        """Which of the reasons that may pass with time keeps a unit waiting."""
        snapshot, backoffs, now = self._snapshot, self._snapshot.state.backoffs, self._now
        limits = scale_up.limits_of(snapshot, self._supply)
        slots = [good for good in fitting if limits.slots[good.pool.name] > 0]
        if not slots:
            full = ", ".join(
                sorted({f"{good.pool.name} (max {good.pool.max})" for good in fitting})
            )
            return Refusal("pool_max", f"pool {full} is full")
        ready = [
            good
            for good in slots
            if not launch_backoff.blocked(backoffs, good.offering, good.pool.name, now)
        ]
        if not ready:
            again = (
                launch_backoff.next_try_at(
                    backoffs, [(good.pool.name, good.offering) for good in slots], now
                )
                or now
            )
            return Refusal(
                "no_capacity",
                f"the cloud had no capacity of any offering that holds it; asked again in {again - now:.0f} s",
            )
        if limits.usd_per_hour is not None:
            cheapest = min(good.offering.usd_per_hour for good in ready)
            left, most = limits.usd_per_hour, snapshot.spec.cost.max_usd_per_hour
            if cheapest > left:
                return Refusal(
                    "budget",
                    f"cost.max_usd_per_hour {most:g} leaves ${left:.4f}; the cheapest that holds it costs ${cheapest:.4f}",
                )
        zones = [
            good
            for good in ready
            if room(unit.name, unit.constraints, good.template, self._supply.usage)
        ]
        if not zones:
            return Refusal(
                "constraint",
                "every place that its constraints allow is taken by another of its instances",
            )
        wanted = [
            good.offering
            for good in zones
            if good.offering.capacity == scale_up.wanted_capacity(good.pool)
        ]
        if all(
            launch_backoff.window(backoffs, offering) < launch_backoff.MOST_AT_ONCE
            for offering in wanted
        ):
            return Refusal(
                "no_capacity",
                "what holds it had no capacity lately: a few are asked for at a time, twice as many after each success",
            )
        return Refusal(
            "pool_max", "what is left of the pools' max or the budget went to other demand"
        )


@dataclass(frozen=True, slots=True)
class Candidate:
    """Something on the shelf."""

    pool: Pool
    offering: Offering
    template: Template


def _must_stay_together(unit: DemandItem, usage: Usage) -> tuple[str, str] | None:
    """Whether a unit's instances may only be on one machine: that machine's name if there is one already, and the constraint."""
    for constraint in unit.constraints:
        if (
            constraint.field in HOSTNAME
            and constraint.operator.upper() == "CLUSTER"
            and not constraint.value
        ):
            return next(iter(usage.counts(unit.name, constraint.field)), ""), _asked((constraint,))
    return None


def _likeness(wanted: Shape, have: Shape) -> tuple[float, int]:
    """How much of the hardest dimension is there, then size."""
    return (min((h / w for w, h in zip(wanted, have, strict=True) if w), default=1.0), sum(have))


def _asked(constraints: Sequence[Constraint]) -> str:
    return "; ".join(f"{c.field} {c.operator} {c.value}".strip() for c in constraints)


def _machine(node: Node) -> str:
    kind = node.attributes.get("instance_type", "")
    return f"{node.name} ({kind})" if kind else node.name


def _listed(names: Sequence[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")
