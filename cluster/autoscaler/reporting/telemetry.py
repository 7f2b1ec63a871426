"""Outputs of the daemon: log lines, metrics, ledger rows and the page. Scaling waits for none.

Rows of machines and decisions are written at once; samples of usage wait a few seconds (`outbox`).
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter as Counts
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import structlog

from mesaform.autoscaler.accounting import resource_usage
from mesaform.autoscaler.accounting.outbox import Outbox
from mesaform.autoscaler.accounting.task_history import Past
from mesaform.autoscaler.accounting.usage_recorder import (
    Recorder,
    cluster_totals,
    machine_row,
    state_of,
)
from mesaform.autoscaler.model import old_vocabulary
from mesaform.autoscaler.model.cluster_tasks import Tasks
from mesaform.autoscaler.model.decision import Decision
from mesaform.autoscaler.model.planner_state import PlannerState
from mesaform.autoscaler.model.snapshot import Snapshot
from mesaform.autoscaler.model.supply import LIVE
from mesaform.autoscaler.planner import launch_failures, purchase_stops
from mesaform.autoscaler.planner.planner import Plan
from mesaform.autoscaler.reporting import api_views
from mesaform.autoscaler.reporting.decision_text import render_decision, render_reasons, render_row
from mesaform.autoscaler.reporting.metrics import Measures
from mesaform.autoscaler.reporting.reason_text import render, render_optional
from mesaform.aws.overrides import describe
from mesaform.aws.ports import Ledger
from mesaform.aws.ports.ledger import Row
from mesaform.common.conditions import NEVER, Condition, Limit
from mesaform.common.json_types import as_object
from mesaform.common.leader_health import LeaderHealth
from mesaform.topology.names import Tag

RECENT = 500
LEDGER_PATIENCE_S = 2.0
TIDY_EVERY_S = 600.0
EARLIER_S = 900.0
"""A new leader records tasks that ended so shortly before its term (s), as nobody else may have."""

LIMITS = {
    Condition.CREDENTIALS: Limit(failures=4, seconds=6.0),
    Condition.PASSES: Limit(failures=10, seconds=60.0),
    Condition.ZOOKEEPER: Limit(failures=3, seconds=10.0),
    Condition.LAUNCHES: NEVER,
}
"""When a leader resigns. Another one does not help while EC2 is away, so passes may fail longer."""

REMEMBERED_S = 86_400.0
"""How far back the page is filled from the ledger when a term begins (s)."""

Raw = tuple[Tasks, Mapping[str, Any]]
"""The tasks, and the engine's answer to GET_FRAMEWORKS."""

log = structlog.get_logger()


class Telemetry:
    """The outputs; one per process. Records begin anew with each term of leadership."""

    def __init__(self) -> None:
        self.measures = Measures()
        self.health = LeaderHealth(tuple(Condition), time.monotonic, LIMITS)
        self.outbox = Outbox(lambda: self.troubled("s3"))
        self.recent: deque[Row] = deque(maxlen=RECENT)
        self.ring = api_views.Ring()
        self.status: Row = {
            "leading": False,
            "last_pass_at": None,
            "errors": ["no pass yet"],
        }
        self.last_plan: Row = {}
        self.now_shown: Row = {}
        self._recorder, self._past, self._tasks = Recorder(), Past(), resource_usage.Tasks()
        self._last_look = 0.0

    # a term

    def begin(self, ledger: Ledger) -> None:
        """Begin a term of leadership."""
        self._recorder, self._past, self._tasks = Recorder(), Past(), resource_usage.Tasks()
        self._last_look = 0.0
        self.ring = (
            api_views.Ring()
        )  # what happened since this process last led, if it did, is in the ledger
        self.outbox.known(ledger)
        self.measures.leading.set(1)
        self.status["leading"] = True

    def end(self, now: float) -> None:
        """End the term: the sums so far go to the ledger."""
        self.outbox.put_all([*self._recorder.close(now), *self._past.close(now)])
        self.measures.leading.set(0)
        self.status["leading"] = False

    # what happens

    def decided(self, decision: Decision) -> None:
        """Report a decision."""
        row = decision.record()
        self.measures.decisions.labels(decision.kind).inc()
        if decision.kind == "notice":
            self.measures.notices.labels(decision.policy or "other").inc()
        if decision.kind == "unschedulable" and decision.reasons:
            self.measures.refusals.labels(decision.reasons[0].code).inc()
        self.recent.append(row)
        texts = {"what": render_decision(decision), "why": render_reasons(decision)}
        fields = {key: value for key, value in row.items() if key not in {"kind", "at"}}
        log.info("decision", **texts, **fields)
        self.outbox.put(row, urgent=True)

    def troubled(self, api: str) -> None:
        """Count a failed call to an API."""
        self.measures.errors.labels(api).inc()

    async def record_machine_changes(
        self,
        before: PlannerState,
        after: PlannerState,
        now: float,
        endings: Mapping[str, Row] | None = None,
    ) -> None:
        """Write the rows of machines that began and ended since the last pass.

        `endings` has the better known time (`at`) and reason of some ends, by instance id. It is
        called before `after` is journaled, so that a crash repeats rows and loses none. A ledger
        that does not take the rows in time gets them later.
        """
        begun = after.billed_machines.keys() - before.billed_machines.keys()
        over = before.billed_machines.keys() - after.billed_machines.keys()
        for name in sorted(begun):
            machine = after.billed_machines[name]
            row = {"kind": "machine_started", "at": machine.launched_at}
            self.outbox.put({**row, **machine_row(name, machine)}, urgent=True)
        for name in sorted(over):
            row = _stopped_row(name, before, after, now)
            self.outbox.put({**row, **(endings or {}).get(name, {})}, urgent=True)
        if (begun or over) and self.outbox.ledger is not None:
            await self.outbox.settled(LEDGER_PATIENCE_S)

    def passed(self, plan: Plan, snapshot: Snapshot, raw: Raw | None = None) -> None:
        """Report a successful pass. `raw` is what its snapshot was made of."""
        now_is = cluster_totals(snapshot, plan)
        tasks = None if raw is None or snapshot.cluster is None else self._tasks.running(*raw)
        self.outbox.put_all(self._recorder.absorb(snapshot, plan, tasks, plan.at))
        if tasks is not None and raw is not None:
            ended = resource_usage.ended(*raw, since=self._last_look or plan.at - EARLIER_S)
            self.outbox.put_all(self._past.absorb(tasks, ended, snapshot.queue or (), plan.at))
            self._last_look = plan.at
        self.ring.add(plan.at, now_is)
        self.measures.passed(plan, now_is, _by_pool_and_state(snapshot, plan))
        self.status.update(
            last_pass_at=plan.at,
            errors=list(snapshot.read_errors),
            removals_blocked=render_optional(plan.removals_blocked),
            freeze=render_optional(plan.freeze),
            paused=render_optional(plan.paused),
            overrides=[describe(override) for override in plan.overrides],
        )
        self.note_stopped_pools(plan)
        self.last_plan = api_views.describe(plan)
        self.now_shown = {
            "cluster": snapshot.spec.name,
            "totals": now_is,
            "pools": api_views.pools(snapshot, plan.at),
            "removals": api_views.removals(snapshot, plan),
            "overrides": api_views.overrides(snapshot, plan.at),
            "cap_usd_per_hour": snapshot.spec.cost.max_usd_per_hour,
        }

    def note_stopped_pools(self, plan: Plan) -> None:
        """Raise or end the alert about pools and units of demand that stopped to buy."""
        stopped = launch_failures.stopped_pools(plan.state).values()
        texts = [render(launch_failures.reason(failures, plan.at)) for failures in stopped]
        texts += [
            f"{record.app or key}: {render(reason)}"
            for key, record in purchase_stops.stopped_units(plan.state).items()
            for reason in purchase_stops.stop_reasons(record, plan.at)
        ]
        if texts:
            self.health.conditions.failed(Condition.LAUNCHES, "; ".join(texts))
        else:
            self.health.conditions.satisfied(Condition.LAUNCHES)
        self.status["pools_stopped"] = texts

    def failed(self, error: Exception) -> None:
        """Report a pass that ended in an error; the next one tries again."""
        self.measures.failures.inc()
        self.status["errors"] = [str(error)]
        log.warning("pass failed", error=str(error), kind=type(error).__name__)

    # the ledger

    async def write_ledger(self) -> None:
        """Write rows to the ledger until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.outbox.run(), name="outbox")
            tasks.create_task(self._watch_outbox(), name="outbox gauge")

    async def _watch_outbox(self) -> None:
        while True:
            self.measures.unwritten.set(len(self.outbox))
            self.measures.lost.set(self.outbox.lost)
            await asyncio.sleep(1.0)

    async def flush(self) -> None:
        """Write the waiting rows once, and stop at the first failure."""
        await self.outbox.flush()

    async def remember(self, ledger: Ledger) -> None:
        """Fill the page's last day from the ledger, then compact the ledger until cancelled."""
        await self._run_optional(
            ledger,
            lambda: self._remember(
                ledger.read(
                    time.time() - REMEMBERED_S,
                    None,
                    old_vocabulary.with_old_kinds(("cluster_totals", "decision")),
                )
            ),
        )
        while True:
            await asyncio.sleep(TIDY_EVERY_S)
            await self._run_optional(ledger, lambda: ledger.compact(time.time()))

    async def _run_optional(self, ledger: Ledger, work: Callable[[], object]) -> None:
        """Run work on the ledger whose failure must not end the term."""
        try:
            await asyncio.to_thread(work)
        except Exception as error:  # a fault here, or an unreadable object, must not stop scaling
            self.troubled("s3")
            log.warning(
                "the ledger is left as it is", error=str(error), ledger=type(ledger).__name__
            )

    def _remember(self, rows: Iterable[Row]) -> None:
        current = old_vocabulary.translate_rows(rows)
        self.ring.backfill(
            (float(str(row["at"])), as_object(row["totals"]))
            for row in current
            if row["kind"] == "cluster_totals"
        )
        known = {_identity(row) for row in self.recent}
        older = [
            row for row in current if row["kind"] == "decision" and _identity(row) not in known
        ]
        self.recent = deque(
            sorted([*older, *self.recent], key=lambda row: float(row["at"]))[-RECENT:],
            maxlen=RECENT,
        )


def _stopped_row(name: str, before: PlannerState, after: PlannerState, now: float) -> Row:
    """The row of a machine that ended since the last pass."""
    machine = before.billed_machines[name]
    row = {
        "kind": "machine_stopped",
        "at": now,
        **machine_row(name, machine),
        "idle_s": after.idle_s.get(name, 0.0),
    }
    if name in before.registered_at:
        row["boot_s"] = round(before.registered_at[name] - machine.launched_at, 1)
    return row


def _identity(row: Row) -> tuple[float, str]:
    """What a decision's row in memory and its row in the ledger have in common."""
    return float(row["at"]), render_row(row)


def _by_pool_and_state(snapshot: Snapshot, plan: Plan) -> Mapping[tuple[str, str], int]:
    agents = snapshot.agents_by_instance
    live = [machine for machine in snapshot.machines if machine.state in LIVE]
    return Counts(
        (
            m.tags.get(Tag.POOL, ""),
            state_of(m, agents.get(m.instance_id), m.instance_id in plan.state.removals),
        )
        for m in live
    )
