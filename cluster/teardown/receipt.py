"""The receipt: what ran, for how long, what it cost, what was idle, what per hour has stopped, what is kept. Pure.

Hours are wall-clock from launch to end; AWS bills Linux machines by the second, at least a minute. Prices are list prices
(spot: what the ledger says was paid, else an estimate), without disks, traffic and taxes of machines that are gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from mesaform.aws.resources.owned import OwnedResource

LEAST_BILLED_S = 60.0


@dataclass(frozen=True, slots=True)
class Ran:
    """A machine that ran. Times are seconds since the epoch; `idle_s` is None where nobody wrote it down."""

    instance_id: str
    instance_type: str
    capacity: str
    role: str
    pool: str
    managed_by: str
    started_at: float
    stopped_at: float
    usd_per_hour: float | None
    idle_s: float | None = None

    @property
    def billed_s(self) -> float:
        return max(LEAST_BILLED_S, self.stopped_at - self.started_at)

    @property
    def usd(self) -> float | None:
        return None if self.usd_per_hour is None else self.usd_per_hour * self.billed_s / 3600


@dataclass(frozen=True, slots=True)
class Line:
    """Machines of a kind, together. `usd` leaves out machines without a known price; `idle_usd` is None where idleness is unknown."""

    role: str
    pool: str
    instance_type: str
    capacity: str
    managed_by: str
    machines: int
    hours: float
    usd: float
    idle_usd: float | None


@dataclass(frozen=True, slots=True)
class Receipt:
    """All of it. `left` is what would not go: empty after a clean teardown.

    `unaccounted` are machines of this life of the cluster that ended before, at a time that neither EC2 nor the ledger tells: they
    are in no sum.
    """

    cluster: str
    target: str
    region: str
    at: float
    since: float
    lines: tuple[Line, ...]
    machines: tuple[Ran, ...]
    hours: float
    usd: float
    idle_usd: float | None
    stopped_usd_per_hour: float
    kept: tuple[Mapping[str, Any], ...]
    kept_usd_per_hour: float
    swept: Mapping[str, int]
    left: tuple[str, ...]
    listed: Mapping[str, int]
    unpriced: tuple[str, ...]
    unaccounted: tuple[str, ...] = ()

    def as_record(self) -> dict[str, Any]:
        """As a row of the ledger."""
        return {"kind": "receipt", **asdict(self)}


@dataclass(frozen=True, slots=True)
class Facts:
    """What the receipt is made of, besides the machines."""

    cluster: str
    target: str
    region: str
    now: float
    stopped_usd_per_hour: float
    kept: Sequence[OwnedResource] = ()
    also_kept: Sequence[Mapping[str, Any]] = ()
    swept: Mapping[str, int] = field(default_factory=dict)
    left: Sequence[str] = ()
    listed: Mapping[str, int] = field(default_factory=dict)
    unaccounted: Sequence[str] = ()


def write(machines: Iterable[Ran], facts: Facts) -> Receipt:
    """Add it up."""
    ran = tuple(
        sorted(
            machines,
            key=lambda machine: (
                machine.role != "master",
                machine.pool,
                machine.started_at,
                machine.instance_id,
            ),
        )
    )
    lines = tuple(_line(group) for group in _groups(ran))
    idle = [line.idle_usd for line in lines if line.idle_usd is not None]
    kept = tuple(
        {"kind": one.kind, "id": one.id, "name": one.name, "usd_per_hour": one.usd_per_hour}
        for one in facts.kept
    )
    return Receipt(
        cluster=facts.cluster,
        target=facts.target,
        region=facts.region,
        at=facts.now,
        since=min((machine.started_at for machine in ran), default=facts.now),
        lines=lines,
        machines=ran,
        hours=sum(line.hours for line in lines),
        usd=sum(line.usd for line in lines),
        idle_usd=sum(idle) if idle else None,
        stopped_usd_per_hour=facts.stopped_usd_per_hour,
        kept=(*kept, *facts.also_kept),
        kept_usd_per_hour=sum(one.usd_per_hour or 0.0 for one in facts.kept),
        swept=dict(facts.swept),
        left=tuple(facts.left),
        listed=dict(facts.listed),
        unpriced=tuple(
            sorted({machine.instance_type for machine in ran if machine.usd_per_hour is None})
        ),
        unaccounted=tuple(facts.unaccounted),
    )


def _groups(ran: Sequence[Ran]) -> Iterable[list[Ran]]:
    groups: dict[tuple[str, ...], list[Ran]] = {}
    for machine in ran:
        kind = (
            machine.role,
            machine.pool,
            machine.instance_type,
            machine.capacity,
            machine.managed_by,
        )
        groups.setdefault(kind, []).append(machine)
    return groups.values()


def _line(group: Sequence[Ran]) -> Line:
    first = group[0]
    idle = [machine for machine in group if machine.idle_s is not None]
    return Line(
        role=first.role,
        pool=first.pool,
        instance_type=first.instance_type,
        capacity=first.capacity,
        managed_by=first.managed_by,
        machines=len(group),
        hours=sum(machine.billed_s for machine in group) / 3600,
        usd=sum(machine.usd or 0.0 for machine in group),
        idle_usd=sum(
            (machine.usd_per_hour or 0.0) * (machine.idle_s or 0.0) / 3600 for machine in idle
        )
        if len(idle) == len(group)
        else None,
    )


def last_receipt_at(rows: Iterable[Mapping[str, Any]]) -> float:
    """When the cluster's last life ended; 0 if this is its first."""
    return max((float(row["at"]) for row in rows if row.get("kind") == "receipt"), default=0.0)


def merge(seen: Iterable[Ran], rows: Iterable[Mapping[str, Any]], now: float) -> list[Ran]:
    """Machines that EC2 showed, and machines that only the ledger remembers, each once; the ledger's price and end win.

    Rows before the last receipt belong to an earlier life of the cluster and are left out, as are machines that ended before it.
    """
    rows = list(rows)
    last_receipt = last_receipt_at(rows)
    this_life = [row for row in rows if float(row["at"]) > last_receipt]
    merged = {machine.instance_id: machine for machine in seen if machine.stopped_at > last_receipt}
    started = {
        str(row["instance_id"]): row for row in this_life if row.get("kind") == "machine_started"
    }
    stopped = {
        str(row["instance_id"]): row for row in this_life if row.get("kind") == "machine_stopped"
    }
    for instance_id in {*merged, *started, *stopped}:
        merged[instance_id] = _with_rows(
            instance_id,
            merged.get(instance_id),
            started.get(instance_id),
            stopped.get(instance_id),
            now,
        )
    return list(merged.values())


def _with_rows(
    instance_id: str,
    seen: Ran | None,
    started: Mapping[str, Any] | None,
    stopped: Mapping[str, Any] | None,
    now: float,
) -> Ran:
    told = {
        **(started or {}),
        **{key: value for key, value in (stopped or {}).items() if value is not None},
    }
    base = seen or Ran(
        instance_id=instance_id,
        instance_type=str(told.get("instance_type", "unknown")),
        capacity=str(told.get("capacity", "on-demand")),
        role=str(told.get("role", "agent")),
        pool=str(told.get("pool", "")),
        managed_by=str(told.get("managed_by", "autoscaler")),
        started_at=float(
            (started or stopped or {}).get("launched_at")
            or (started or stopped or {}).get("at", now)
        ),
        stopped_at=float(stopped["at"]) if stopped else now,
        usd_per_hour=None,
    )
    price = told.get("usd_per_hour", base.usd_per_hour)
    idle_s = told.get("idle_s", base.idle_s)
    return Ran(
        instance_id=instance_id,
        instance_type=base.instance_type,
        capacity=base.capacity,
        role=base.role,
        pool=base.pool,
        managed_by=base.managed_by,
        started_at=base.started_at,
        stopped_at=min(base.stopped_at, float(stopped["at"])) if stopped else base.stopped_at,
        usd_per_hour=None if price is None else float(price),
        idle_s=None if idle_s is None else float(idle_s),
    )
