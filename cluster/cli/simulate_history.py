"""The option `--history` of `mesaform simulate`: a cluster's recent past as a trace.

Reads the work, the cluster's policy and the real cost from the ledger. Registers no verb.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from mesaform.autoscaler.accounting.cost_report import add_up
from mesaform.autoscaler.accounting.usage_recorder import STATED_EVERY_S
from mesaform.aws.ports.ledger import Row
from mesaform.cli.context import open_context
from mesaform.common.errors import BadInput, NotFound
from mesaform.config.schema import ClusterSpec
from mesaform.simulator.comparison import Outcome
from mesaform.simulator.history import trace
from mesaform.simulator.policy import Policy
from mesaform.simulator.results import Record
from mesaform.simulator.trace import Trace


@dataclass(frozen=True, slots=True)
class Paid:
    """Cost of the agents from `since` to `until`, in Unix seconds."""

    since: float
    until: float
    usd: float
    idle_usd: float
    machine_hours: float
    waited_task_s: float


@dataclass(frozen=True, slots=True)
class Past:
    """Past of a cluster: work, cost, policy (if requested) and median boot time (if known)."""

    trace: Trace
    paid: Paid
    policy: Policy | None
    boot_s: float | None


def read(file: str, length_s: float, length: str, *, own_policy: bool) -> Past:
    """Read the ledger.

    Raises:
        BadInput: there is no history of that time.

    """
    from mesaform.cli.cost import bill_rows
    from mesaform.cli.wiring import wire

    context = open_context(file)
    ledger = wire(context).ledger
    spec, until = context.spec, time.time()
    try:
        rows = ledger.read(until - length_s - STATED_EVERY_S * 1.2, kinds=["history"])
        bills = bill_rows(ledger, until - length_s)
    except NotFound:
        raise BadInput(
            f"the cluster {spec.name} has no ledger",
            where="--history",
            fix="it is written while the cluster runs",
        ) from None
    since = max(until - length_s, min((row["at"] for row in rows), default=until))
    work, began = trace(rows, since, until, f"{spec.name}, the last {length}")
    bill = add_up(
        [_without_masters(row) for row in bills if row.get("role") != "master"], began, until
    )
    paid = Paid(began, until, bill.usd, bill.idle_usd, bill.machine_hours, bill.waited_task_s)
    return Past(work, paid, policy_of(spec) if own_policy else None, _boot_s(bills))


def _boot_s(rows: Iterable[Mapping[str, Any]]) -> float | None:
    """The median of machines that the autoscaler bought."""
    times = [
        float(row["boot_s"])
        for row in rows
        if row.get("boot_s", 0.0) > 0 and row.get("managed_by") == "autoscaler"
    ]
    return round(median(times), 1) if times else None


def _without_masters(row: Row) -> Row:
    """A statement of all machines without the masters: no policy decides about them."""
    if row["kind"] != "machines":
        return row
    return {
        **row,
        "machines": [machine for machine in row["machines"] if machine.get("role") != "master"],
    }


def policy_of(spec: ClusterSpec) -> Policy:
    """The cluster's own settings as a policy."""
    return Policy.model_validate(
        {
            "name": spec.name,
            "agents": [pool.model_dump(exclude_none=True) for pool in spec.agents],
            "autoscaler": spec.autoscaler.model_dump(),
            "cost": spec.cost.model_dump(),
        }
    )


def check(paid: Paid, mine: Outcome) -> list[str]:
    """The simulator's answer beside what was paid: how far it can be trusted."""
    hours = (paid.until - paid.since) / 3600
    known = f"{paid.machine_hours:,.1f} machine-hours, ${paid.idle_usd:,.4f} idle"
    lines = [
        (
            f"The ledger says that agents really cost [bold]${paid.usd:,.4f}[/]"
            f" in these {hours:,.2f} h ({known})."
        )
    ]
    if paid.usd > 0:
        simulated = usd_within(mine.record, hours * 3600)
        off = f"{simulated / paid.usd - 1:+.0%}"
        lines.append(
            f"{mine.name} simulated over the same hours costs ${simulated:,.4f}, {off};"
            " the table counts until all machines are gone."
        )
    return lines


def usd_within(record: Record, seconds: float) -> float:
    """What a run cost in its first `seconds`."""
    end = record.started_at + seconds
    return sum(
        bill.usd * min(1.0, max(0.0, end - bill.bought_at) / bill.seconds) for bill in record.bills
    )
