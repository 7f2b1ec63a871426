"""Receipt of a teardown: what ran, for how long, what it cost, what stopped and what is kept. Pure.

Hours are wall-clock from launch to end; AWS bills Linux machines by the second, at least a minute.
Prices are list prices (spot: what the ledger says was paid, else an estimate), without disks,
traffic and taxes of machines that are gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TypeAlias, TypedDict

from mesaform.aws.resources.owned import OwnedResource

LEAST_BILLED_S = 60.0
SECONDS_PER_HOUR = 3600
LedgerRow: TypeAlias = Mapping[str, object]


class KeptRecord(TypedDict):
    """A resource that stays. `usd_per_hour` is None where no price is known."""

    kind: str
    id: str
    name: str
    usd_per_hour: float | None


@dataclass(frozen=True, slots=True)
class MachineUsage:
    """A machine that ran. Times are epoch seconds; `idle_s` is None if it is not known."""

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
        if self.usd_per_hour is None:
            return None
        return self.usd_per_hour * self.billed_s / SECONDS_PER_HOUR


@dataclass(frozen=True, slots=True)
class UsageLine:
    """Machines of a kind, together.

    `usd` leaves out machines without a known price; `idle_usd` is None if idle time is not known.
    """

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
    """The receipt. `left` is what would not go: empty after a clean teardown.

    `unaccounted` are machines of this life of the cluster that ended before, at a time that neither
    EC2 nor the ledger has: they are in no sum.
    """

    cluster: str
    target: str
    region: str
    at: float
    since: float
    lines: tuple[UsageLine, ...]
    machines: tuple[MachineUsage, ...]
    hours: float
    usd: float
    idle_usd: float | None
    stopped_usd_per_hour: float
    kept: tuple[KeptRecord, ...]
    kept_usd_per_hour: float
    swept: Mapping[str, int]
    left: tuple[str, ...]
    listed: Mapping[str, int]
    unpriced: tuple[str, ...]
    unaccounted: tuple[str, ...] = ()

    def as_record(self) -> dict[str, object]:
        """As a row of the ledger."""
        return {"kind": "receipt", **asdict(self)}


@dataclass(frozen=True, slots=True)
class ReceiptFacts:
    """Contents of the receipt besides the machines. `now` is epoch seconds."""

    cluster: str
    target: str
    region: str
    now: float
    stopped_usd_per_hour: float
    kept: Sequence[OwnedResource] = ()
    also_kept: Sequence[KeptRecord] = ()
    swept: Mapping[str, int] = field(default_factory=dict)
    left: Sequence[str] = ()
    listed: Mapping[str, int] = field(default_factory=dict)
    unaccounted: Sequence[str] = ()


def write_receipt(machines: Iterable[MachineUsage], facts: ReceiptFacts) -> Receipt:
    """Add up what ran and what it cost."""
    usage = tuple(sorted(machines, key=_usage_order))
    lines = tuple(map(_usage_line, _groups(usage)))
    return Receipt(
        cluster=facts.cluster,
        target=facts.target,
        region=facts.region,
        at=facts.now,
        since=min((machine.started_at for machine in usage), default=facts.now),
        lines=lines,
        machines=usage,
        hours=sum(machine.billed_s for machine in usage) / SECONDS_PER_HOUR,
        usd=sum(line.usd for line in lines),
        idle_usd=_total_idle_usd(lines),
        stopped_usd_per_hour=facts.stopped_usd_per_hour,
        kept=(*map(_kept_record, facts.kept), *facts.also_kept),
        kept_usd_per_hour=sum(resource.usd_per_hour or 0.0 for resource in facts.kept),
        swept=dict(facts.swept),
        left=tuple(facts.left),
        listed=dict(facts.listed),
        unpriced=_unpriced_types(usage),
        unaccounted=tuple(facts.unaccounted),
    )


def _total_idle_usd(lines: Iterable[UsageLine]) -> float | None:
    """Cost of the idle time that is known; None if none is known."""
    idle = [line.idle_usd for line in lines if line.idle_usd is not None]
    return sum(idle) if idle else None


def _kept_record(resource: OwnedResource) -> KeptRecord:
    return {
        "kind": resource.kind,
        "id": resource.id,
        "name": resource.name,
        "usd_per_hour": resource.usd_per_hour,
    }


def _usage_order(machine: MachineUsage) -> tuple[bool, str, float, str]:
    """Masters first, then by pool and start."""
    return machine.role != "master", machine.pool, machine.started_at, machine.instance_id


def _unpriced_types(usage: Iterable[MachineUsage]) -> tuple[str, ...]:
    types = {machine.instance_type for machine in usage if machine.usd_per_hour is None}
    return tuple(sorted(types))


def _groups(usage: Sequence[MachineUsage]) -> Iterable[list[MachineUsage]]:
    """Machines by role, pool, type, capacity and manager."""
    groups: dict[tuple[str, ...], list[MachineUsage]] = {}
    for machine in usage:
        key = (
            machine.role,
            machine.pool,
            machine.instance_type,
            machine.capacity,
            machine.managed_by,
        )
        groups.setdefault(key, []).append(machine)
    return groups.values()


def _usage_line(group: Sequence[MachineUsage]) -> UsageLine:
    first = group[0]
    return UsageLine(
        role=first.role,
        pool=first.pool,
        instance_type=first.instance_type,
        capacity=first.capacity,
        managed_by=first.managed_by,
        machines=len(group),
        hours=sum(machine.billed_s for machine in group) / SECONDS_PER_HOUR,
        usd=sum(machine.usd or 0.0 for machine in group),
        idle_usd=_idle_usd(group),
    )


def _idle_usd(group: Sequence[MachineUsage]) -> float | None:
    """Cost of idle time; None if the idle time of a machine is not known."""
    total = 0.0
    for machine in group:
        if machine.idle_s is None:
            return None
        total += (machine.usd_per_hour or 0.0) * machine.idle_s / SECONDS_PER_HOUR
    return total


def last_receipt_at(rows: Iterable[LedgerRow]) -> float:
    """When the cluster's last life ended (epoch seconds); 0 if this is its first."""
    return max((_number(row["at"]) for row in rows if row.get("kind") == "receipt"), default=0.0)


def merge_usage(
    seen: Iterable[MachineUsage], rows: Iterable[LedgerRow], now: float
) -> list[MachineUsage]:
    """Machines that EC2 showed and machines that only the ledger remembers, each once.

    The ledger's price and end win. Rows before the last receipt belong to an earlier life of the
    cluster and are left out, as are machines that ended before it.
    """
    rows = list(rows)
    since = last_receipt_at(rows)
    merged = {machine.instance_id: machine for machine in seen if machine.stopped_at > since}
    started = _rows_by_machine(rows, "machine_started", since)
    stopped = _rows_by_machine(rows, "machine_stopped", since)
    return [
        _with_rows(
            instance_id,
            merged.get(instance_id),
            started.get(instance_id, {}),
            stopped.get(instance_id, {}),
            now,
        )
        for instance_id in dict.fromkeys((*merged, *started, *stopped))
    ]


def _rows_by_machine(rows: Iterable[LedgerRow], kind: str, since: float) -> dict[str, LedgerRow]:
    return {
        str(row["instance_id"]): row
        for row in rows
        if row.get("kind") == kind and _number(row["at"]) > since
    }


def _with_rows(
    instance_id: str,
    seen: MachineUsage | None,
    started: LedgerRow,
    stopped: LedgerRow,
    now: float,
) -> MachineUsage:
    """The machine as EC2 or the ledger describes it, with the ledger's price and end."""
    values = {**started, **{key: value for key, value in stopped.items() if value is not None}}
    usage = seen or _usage_of_rows(instance_id, started or stopped, values, now)
    price = values.get("usd_per_hour", usage.usd_per_hour)
    idle_s = values.get("idle_s", usage.idle_s)
    ended_at = _number(stopped["at"]) if stopped else usage.stopped_at
    return replace(
        usage,
        stopped_at=min(usage.stopped_at, ended_at) if seen else ended_at,
        usd_per_hour=_optional_number(price),
        idle_s=_optional_number(idle_s),
    )


def _usage_of_rows(
    instance_id: str, first: LedgerRow, values: LedgerRow, now: float
) -> MachineUsage:
    return MachineUsage(
        instance_id=instance_id,
        instance_type=str(values.get("instance_type", "unknown")),
        capacity=str(values.get("capacity", "on-demand")),
        role=str(values.get("role", "agent")),
        pool=str(values.get("pool", "")),
        managed_by=str(values.get("managed_by", "autoscaler")),
        started_at=_number(first.get("launched_at") or first.get("at", now)),
        stopped_at=now,
        usd_per_hour=None,
    )


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else float(str(value))


def _optional_number(value: object) -> float | None:
    return None if value is None else _number(value)
