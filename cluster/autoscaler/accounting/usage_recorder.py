"""Usage rows of a term of leadership: who used what, what was idle, what waited, in dollars. Pure.

Amounts are summed from pass to pass, so that rows cover all time. A pause longer than `BELIEVED_S`
is nobody's, and unrecorded in the bill.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping

from mesaform.autoscaler.accounting.resource_usage import (
    Holder,
    Task,
    by_agent,
    dominant_share,
    parts,
)
from mesaform.autoscaler.model.cluster_view import Agent
from mesaform.autoscaler.model.planner_state import BilledMachine
from mesaform.autoscaler.model.shape import Shape, contains, shape_of
from mesaform.autoscaler.model.snapshot import Snapshot
from mesaform.autoscaler.model.supply import LIVE, price_of, usd_per_hour_of
from mesaform.autoscaler.planner.planner import Plan
from mesaform.autoscaler.planner.verdicts import Verdict
from mesaform.aws.ports import Machine, Offering
from mesaform.aws.ports.ledger import Row
from mesaform.topology.names import Tag

EVERY_S = 60.0
SELDOM_S = 300.0
FEW = 24
"""Rows with more entries than this are written every `SELDOM_S`: a month is read in seconds."""

BELIEVED_S = 60.0
STATED_EVERY_S = 6 * 3600.0
"""Time between statements of all machines, in seconds: a bill reads no further back."""

NOT_WORK = frozenset({"headroom", "hint", "displaced", "calendar", "profile"})
"""Sources of demand that is not waiting work."""

VERDICT_FIELDS = ("fits_now", "arriving", "buying", "unmet")
"""Numbers of pieces in a verdict."""

_DIGITS = 9


class Recorder:
    """The recorder of one term of leadership."""

    def __init__(self) -> None:
        self._at: float | None = None
        self._since = self._totals_at = 0.0
        self._stated_at = -STATED_EVERY_S
        self._prices: dict[str, float] = {}
        self._worth: dict[Shape, float] = {}
        self._used: dict[Holder, float] = defaultdict(float)
        self._machines: dict[tuple[str, ...], list[float]] = {}
        self._waited: dict[str, list[float]] = {}

    def absorb(
        self, snapshot: Snapshot, plan: Plan, tasks: Mapping[str, Task] | None, now: float
    ) -> list[Row]:
        """The rows due after a pass at `now`. `tasks` is None without the engine's answer."""
        rows = self._stated(snapshot, plan.state.billed_machines, now) + self._priced(snapshot, now)
        if self._at is None:
            self._at = self._since = self._totals_at = now
        if snapshot.cluster is not None and tasks is not None:
            self._add(snapshot, plan.verdicts, tasks, min(BELIEVED_S, max(0.0, now - self._at)))
        self._at = now
        if now - self._totals_at >= EVERY_S:
            self._totals_at = now
            rows.append(
                {"kind": "cluster_totals", "at": now, "totals": cluster_totals(snapshot, plan)}
            )
        if now - self._since >= (
            EVERY_S
            if len(self._used) + len(self._machines) + len(self._waited) <= FEW
            else SELDOM_S
        ):
            rows.append(self._row(now))
        return rows

    def close(self, now: float) -> list[Row]:
        """The remaining rows, at the end of the term."""
        return [self._row(now)] if self._machines else []

    def _row(self, now: float) -> Row:
        row: Row = {
            "kind": "resource_usage",
            "at": now,
            "since": self._since,
            "used": [
                [app, role, round(usd, _DIGITS)] for (app, role), usd in sorted(self._used.items())
            ],
            "machines": [
                [*key, *(round(value, _DIGITS) for value in values)]
                for key, values in sorted(self._machines.items())
            ],
            "waited": [
                [name, *(round(value, _DIGITS) for value in values)]
                for name, values in sorted(self._waited.items())
            ],
        }
        self._since = now
        for sums in (self._used, self._machines, self._waited, self._worth):
            sums.clear()
        return row

    def _add(
        self,
        snapshot: Snapshot,
        verdicts: Iterable[Verdict],
        tasks: Mapping[str, Task],
        seconds: float,
    ) -> None:
        agents = snapshot.agents_by_instance
        held = by_agent(tasks.values())
        for machine in snapshot.machines:
            if machine.state in LIVE:
                agent = agents.get(machine.instance_id)
                self._add_machine(machine, agent, held, seconds, self._rate(snapshot, machine))
        catalogue = [offering for pool in snapshot.offerings.values() for offering in pool]
        for verdict in verdicts:
            if verdict.unit.source not in NOT_WORK:
                self._add_waiting(verdict, catalogue, seconds)

    def _add_machine(
        self,
        machine: Machine,
        agent: Agent | None,
        held: Mapping[str, Mapping[Holder, Shape]],
        seconds: float,
        usd_per_hour: float,
    ) -> None:
        usd = usd_per_hour * seconds / 3600
        used: dict[Holder, float] = {}
        free, idle_s = 1.0, 0.0
        if agent is not None:
            used, free = parts(held.get(agent.agent_id, {}), agent.total)
            idle_s = seconds if agent.is_empty else 0.0
        for holder, part in used.items():
            self._used[holder] += usd * part
        is_agent = machine.tags.get(Tag.ROLE) == "agent"
        pool = machine.tags.get(Tag.POOL, "") if is_agent else "(masters)"
        sums = self._machines.setdefault(
            (pool, machine.instance_type, machine.zone, machine.capacity), [0.0] * 5
        )
        free_usd = usd * free if is_agent else 0.0
        idle_usd = usd if idle_s else 0.0
        for column, amount in enumerate((seconds, idle_s, usd, free_usd, idle_usd)):
            sums[column] += amount

    def _add_waiting(self, verdict: Verdict, catalogue: Iterable[Offering], seconds: float) -> None:
        unit = verdict.unit
        if unit.shape not in self._worth:
            self._worth[unit.shape] = worth(unit.shape, catalogue)
        sums = self._waited.setdefault(unit.name, [0.0, 0.0])
        sums[0] += unit.count * seconds
        sums[1] += unit.count * seconds / 3600 * self._worth[unit.shape]

    def _rate(self, snapshot: Snapshot, machine: Machine) -> float:
        known = snapshot.usd_per_hour.get(machine.instance_id)
        return known or self._prices.get(key_of(machine)) or price_of(machine)

    def _stated(
        self, snapshot: Snapshot, rented: Mapping[str, BilledMachine], now: float
    ) -> list[Row]:
        """A row of all machines, at the beginning of a term and a few times a day."""
        if now - self._stated_at < STATED_EVERY_S:
            return []
        self._stated_at = now
        sizes = {
            offering.key: offering for pool in snapshot.offerings.values() for offering in pool
        }
        machines = {machine.instance_id: machine for machine in snapshot.machines}
        stated = [
            {
                **machine_row(name, machine),
                "usd_now": usd_per_hour_of(snapshot, machines[name], sizes)
                if name in machines
                else machine.usd_per_hour,
            }
            for name, machine in sorted(rented.items())
        ]
        return [
            {
                "kind": "machines",
                "at": now,
                "machines": stated,
                "standing_usd_per_hour": snapshot.standing_usd_per_hour,
            }
        ]

    def _priced(self, snapshot: Snapshot, now: float) -> list[Row]:
        """Rows of changed prices of running offerings."""
        sizes = {
            offering.key: offering for pool in snapshot.offerings.values() for offering in pool
        }
        rows: list[Row] = []
        for key in sorted(
            {key_of(machine) for machine in snapshot.machines if machine.state in LIVE} & set(sizes)
        ):
            usd = sizes[key].usd_per_hour
            if self._prices.get(key) not in {usd, None}:
                rows.append({"kind": "price", "at": now, "offering": key, "usd_per_hour": usd})
            self._prices[key] = usd
        return rows


def key_of(machine: Machine) -> str:
    """The offering of a machine."""
    return f"{machine.instance_type}/{machine.zone}/{machine.capacity}"


def worth(shape: Shape, catalogue: Iterable[Offering]) -> float:
    """USD an hour of the cheapest part of a machine that holds a shape; 0 if none does."""
    rooms = ((shape_of(offering.resources), offering.usd_per_hour) for offering in catalogue)
    return min(
        (usd * dominant_share(shape, room) for room, usd in rooms if contains(room, shape)),
        default=0.0,
    )


def machine_row(name: str, machine: BilledMachine) -> Row:
    """The fields of a row about a machine."""
    return {
        "instance_id": name,
        "instance_type": machine.instance_type,
        "zone": machine.zone,
        "capacity": machine.capacity,
        "usd_per_hour": machine.usd_per_hour,
        "pool": machine.pool,
        "managed_by": machine.managed_by,
        "role": machine.role,
        "launched_at": machine.launched_at,
        "planned_usd_per_hour": machine.planned_usd_per_hour or machine.usd_per_hour,
    }


def cluster_totals(snapshot: Snapshot, plan: Plan) -> Row:
    """Prices (USD an hour), demand, machines and tasks of this moment, in few numbers for plots."""
    live = [machine for machine in snapshot.machines if machine.state in LIVE]
    agents = snapshot.agents_by_instance
    return {
        "usd": plan.usd_per_hour,
        "planned": plan.after_usd_per_hour,
        "idle_usd": round(_idle_usd(snapshot, live, agents), 6),
        "demand": {name: _pieces(plan.verdicts, name) for name in VERDICT_FIELDS},
        "states": _states(live, agents, plan.state.removals),
        "pools": _pool_sizes(live),
        "tasks": sum(agent.tasks for agent in agents.values()),
    }


def _idle_usd(snapshot: Snapshot, live: Iterable[Machine], agents: Mapping[str, Agent]) -> float:
    """USD an hour of registered agents without a task."""
    empty = {name for name, agent in agents.items() if agent.is_empty}
    return sum(
        usd_per_hour_of(snapshot, machine) for machine in live if machine.instance_id in empty
    )


def _pieces(verdicts: Iterable[Verdict], name: str) -> int:
    """The sum of a field of the verdicts."""
    return sum(getattr(verdict, name) for verdict in verdicts)


def _states(
    live: Iterable[Machine], agents: Mapping[str, Agent], removals: Collection[str]
) -> dict[str, int]:
    """How many machines are in each state."""
    counts = Counter(
        state_of(machine, agents.get(machine.instance_id), machine.instance_id in removals)
        for machine in live
    )
    return dict(sorted(counts.items()))


def _pool_sizes(live: Iterable[Machine]) -> dict[str, int]:
    """How many machines are in each pool."""
    counts = Counter(m.tags.get(Tag.POOL, "") for m in live if m.tags.get(Tag.ROLE) == "agent")
    return dict(sorted(counts.items()))


def state_of(machine: Machine, agent: Agent | None, leaving: bool) -> str:
    """A machine's state for plots and metrics."""
    if machine.tags.get(Tag.ROLE) != "agent":
        return "master"
    if leaving:
        return "leaving"
    if agent is None:
        return "starting"
    return "idle" if agent.is_empty else "busy"
