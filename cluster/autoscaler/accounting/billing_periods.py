"""Machines' time and price from the ledger's rows: when each ran, and what it cost at each moment. Pure.

EC2 bills Linux by the second, a minute at least, spot at the price in force. What a receipt says is gone does not run on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

Row = Mapping[str, Any]
Price = tuple[float, float]
"""From when, and USD an hour from then on."""

LEAST_BILLED_S = 60.0
FOREVER = float("inf")


@dataclass(frozen=True, slots=True)
class Rental:
    """A machine's time. `planned` is what its purchase was expected to cost an hour; the first of `prices` is that of its launch."""

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
        """How long it was paid for within a stretch."""
        return max(0.0, min(self.billed_until, until) - max(self.start, since))

    def usd(self, since: float, until: float) -> float:
        """What it cost within a stretch."""
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
    """Each machine once, from what says that it started, ran or stopped."""
    machines: dict[str, dict[str, Any]] = {}
    stopped: dict[str, float] = {}
    torn_down: list[float] = []
    prices: dict[str, list[Price]] = {}
    own: dict[str, list[Price]] = {}
    for row in rows:
        match row["kind"]:
            case "receipt":
                torn_down.append(float(row["at"]))
            case "price":
                prices.setdefault(str(row["offering"]), []).append(
                    (float(row["at"]), float(row["usd_per_hour"]))
                )
            case "machines":
                for machine in row["machines"]:
                    machines.setdefault(str(machine["instance_id"]), {}).update(machine)
                    own.setdefault(str(machine["instance_id"]), []).append(
                        (float(row["at"]), float(machine.get("usd_now", machine["usd_per_hour"])))
                    )
            case "machine_started" | "machine_stopped":
                name = str(row["instance_id"])
                machines.setdefault(name, {}).update(row)
                if row["kind"] == "machine_stopped":
                    stopped[name] = float(row["at"])
    periods = []
    for name, machine in machines.items():
        start = float(machine.get("launched_at", machine.get("at", 0.0)))
        ends = [stopped[name]] if name in stopped else [at for at in torn_down if at > start]
        key = f"{machine.get('instance_type')}/{machine.get('zone')}/{machine.get('capacity')}"
        changes = [
            change for change in (*own.get(name, ()), *prices.get(key, ())) if change[0] > start
        ]
        periods.append(
            _rental(name, machine, start, min(ends, default=until), changes, is_over=bool(ends))
        )
    return periods


def _rental(
    name: str, machine: Row, start: float, end: float, changes: Sequence[Price], *, is_over: bool
) -> Rental:
    rate = float(machine.get("usd_per_hour") or 0.0)
    prices: list[Price] = [(start, rate)]
    for at, usd in sorted(changes):
        if usd != prices[-1][1]:
            prices.append((at, usd))
    return Rental(
        instance_id=name,
        pool=str(machine.get("pool") or ""),
        role=str(machine.get("role") or ""),
        instance_type=str(machine.get("instance_type") or ""),
        zone=str(machine.get("zone") or ""),
        capacity=str(machine.get("capacity") or ""),
        planned=float(machine.get("planned_usd_per_hour") or rate),
        prices=tuple(prices),
        start=start,
        end=end,
        idle_s=float(machine.get("idle_s") or 0.0),
        is_over=is_over,
    )
