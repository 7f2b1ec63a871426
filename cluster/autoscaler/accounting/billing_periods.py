"""Billing periods of machines from ledger rows: when each ran, and its price at each time. Pure.

EC2 bills Linux by the second, at least one minute, spot at the price in force (EC2 pricing pages).
A machine without an end row ends with the next receipt.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

from mesaform.aws.ports.ledger import Row

Price = tuple[float, float]
"""Since when (epoch s), and USD an hour from then on."""

LEAST_BILLED_S = 60.0
FOREVER = float("inf")


@dataclass(frozen=True, slots=True)
class Rental:
    """A machine's billing period.

    `planned` is the expected price of its purchase (USD an hour); the first of `prices` is that of
    its launch.
    """

    instance_id: str
    pool: str
    role: str
    instance_type: str
    zone: str
    capacity: str
    planned: float
    prices: tuple[Price, ...]
    start: float
    end: float
    idle_s: float
    is_over: bool

    @property
    def billed_until(self) -> float:
        return max(self.end, self.start + LEAST_BILLED_S) if self.is_over else self.end

    def seconds(self, since: float, until: float) -> float:
        """How long it is billed within a time span (epoch s)."""
        return max(0.0, min(self.billed_until, until) - max(self.start, since))

    def usd(self, since: float, until: float) -> float:
        """What it costs within a time span (epoch s)."""
        first, last = max(self.start, since), min(self.billed_until, until)
        if last <= first:
            return 0.0
        if len(self.prices) == 1:
            return self.prices[0][1] * (last - first) / 3600
        spans = pairwise((*self.prices, (FOREVER, 0.0)))
        return (
            sum(usd * max(0.0, min(end, last) - max(at, first)) for (at, usd), (end, _) in spans)
            / 3600
        )


def rentals(rows: Iterable[Row], until: float) -> list[Rental]:
    """Each machine's billing period, from the rows that it started, ran or stopped."""
    records = _Records()
    for row in rows:
        records.add(row)
    return [_rental(name, records, until) for name in records.machines]


@dataclass(slots=True)
class _Records:
    """The content of rows: machines by id, their ends, teardowns, and prices."""

    machines: dict[str, Row] = field(default_factory=dict)
    stopped: dict[str, float] = field(default_factory=dict)
    teardowns: list[float] = field(default_factory=list)
    offering_prices: dict[str, list[Price]] = field(default_factory=dict)
    machine_prices: dict[str, list[Price]] = field(default_factory=dict)

    def add(self, row: Row) -> None:
        match row["kind"]:
            case "receipt":
                self.teardowns.append(float(row["at"]))
            case "price":
                price = (float(row["at"]), float(row["usd_per_hour"]))
                self.offering_prices.setdefault(str(row["offering"]), []).append(price)
            case "machines":
                for machine in row["machines"]:
                    self._add_statement(machine, float(row["at"]))
            case "machine_started":
                self._machine(row).update(row)
            case "machine_stopped":
                self._machine(row).update(row)
                self.stopped[str(row["instance_id"])] = float(row["at"])

    def _machine(self, row: Row) -> Row:
        return self.machines.setdefault(str(row["instance_id"]), {})

    def _add_statement(self, machine: Row, at: float) -> None:
        """A machine that runs at a time, with its price then."""
        self._machine(machine).update(machine)
        price = (at, float(machine["usd_now"] if "usd_now" in machine else machine["usd_per_hour"]))
        self.machine_prices.setdefault(str(machine["instance_id"]), []).append(price)

    def ends(self, name: str, start: float) -> list[float]:
        """When a machine ended: as its row says, else with the teardowns after its start."""
        if name in self.stopped:
            return [self.stopped[name]]
        return [at for at in self.teardowns if at > start]

    def price_changes(self, name: str, start: float) -> list[Price]:
        """Prices of a machine and of its offering after its start, oldest first."""
        machine = self.machines[name]
        key = f"{machine.get('instance_type')}/{machine.get('zone')}/{machine.get('capacity')}"
        prices = (*self.machine_prices.get(name, ()), *self.offering_prices.get(key, ()))
        return sorted(price for price in prices if price[0] > start)


def _rental(name: str, records: _Records, until: float) -> Rental:
    machine = records.machines[name]
    start = _number(machine, "launched_at" if "launched_at" in machine else "at")
    ends = records.ends(name, start)
    rate = _number(machine, "usd_per_hour")
    prices: list[Price] = [(start, rate)]
    for at, usd in records.price_changes(name, start):
        if usd != prices[-1][1]:
            prices.append((at, usd))
    return Rental(
        instance_id=name,
        pool=_text(machine, "pool"),
        role=_text(machine, "role"),
        instance_type=_text(machine, "instance_type"),
        zone=_text(machine, "zone"),
        capacity=_text(machine, "capacity"),
        planned=_number(machine, "planned_usd_per_hour") or rate,
        prices=tuple(prices),
        start=start,
        end=min(ends, default=until),
        idle_s=_number(machine, "idle_s"),
        is_over=bool(ends),
    )


def _text(row: Row, name: str) -> str:
    return str(row.get(name) or "")


def _number(row: Row, name: str) -> float:
    return float(row.get(name) or 0.0)
