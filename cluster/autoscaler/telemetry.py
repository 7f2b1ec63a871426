"""What the daemon tells: log lines, Prometheus metrics, recent decisions over HTTP, and rows for the ledger.

Rows wait in an outbox until S3 takes them; scaling never waits for the ledger.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter as Counts
from collections import deque
from typing import Any

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from cluster.autoscaler import bill
from cluster.autoscaler.decision import Decision
from cluster.autoscaler.model import Agent, Memory, Rented, Snapshot
from cluster.autoscaler.planner import Plan
from cluster.autoscaler.policies.underused import share_used
from cluster.autoscaler.supply import LIVE, price_of
from cluster.cloud.port import Ledger
from cluster.errors import MesaformError

RECENT = 200
OUTBOX_MOST = 10_000
RETRY_S = 5.0
LEDGER_PATIENCE_S = 2.0
USAGE_EVERY_S = 300.0
USAGE_AT_MOST_EVERY_S = 30.0

log = structlog.get_logger()


class Telemetry:
    """One per process. `ledger` may be set later; rows wait until it is."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.leading = Gauge("mesaform_autoscaler_leading", "1 while this process leads", registry=self.registry)
        self.passes = Histogram("mesaform_autoscaler_pass_seconds", "Time of a pass", registry=self.registry)
        self.failures = Counter("mesaform_autoscaler_pass_failures", "Passes that ended in an error", registry=self.registry)
        self.decisions = Counter("mesaform_autoscaler_decisions", "Decisions carried out", ["kind"], registry=self.registry)
        self.usd = Gauge("mesaform_autoscaler_usd_per_hour", "What the cluster's machines cost", registry=self.registry)
        self.demand = Gauge("mesaform_autoscaler_demand", "Pieces of demand by verdict", ["verdict"], registry=self.registry)
        self.machines = Gauge("mesaform_autoscaler_machines", "Machines by EC2 state", ["state"], registry=self.registry)
        self.unwritten = Gauge("mesaform_autoscaler_ledger_backlog", "Rows not yet in the ledger", registry=self.registry)
        self.recent: deque[dict[str, Any]] = deque(maxlen=RECENT)
        self.ledger: Ledger | None = None
        self.status: dict[str, Any] = {"leading": False, "last_pass_at": None, "trouble": ["no pass yet"]}
        self.last_plan: dict[str, Any] = {}
        self._outbox: deque[dict[str, Any]] = deque(maxlen=OUTBOX_MOST)
        self._used: dict[str, Any] = {}
        self._used_at = 0.0
        self._wake = asyncio.Event()
        self._drained = asyncio.Event()

    def decided(self, decision: Decision) -> None:
        """Tell everybody of a decision."""
        row = decision.record()
        self.decisions.labels(decision.kind).inc()
        self.recent.append(row)
        log.info("decision", **{key: value for key, value in row.items() if key not in {"kind", "at"}})
        self._put(row)

    async def rented(self, before: Memory, after: Memory, now: float) -> None:
        """Open and close the ledger's rows of machines: those that began and those that ended since the last pass.

        Called before `after` is written to the journal, so that a crash repeats rows and never loses one. A ledger that
        does not take them in time gets them later.
        """
        rows: list[dict[str, Any]] = []
        for name, machine in after.rented.items():
            if name not in before.rented:
                rows.append({"kind": "machine_started", "at": machine.launched_at, **_row(name, machine)})
        for name, machine in before.rented.items():
            if name not in after.rented:
                rows.append({"kind": "machine_stopped", "at": now, **_row(name, machine), "idle_s": after.idle_s.get(name, 0.0)})
        for row in rows:
            self._put(row)
        if rows and self.ledger is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LEDGER_PATIENCE_S):
                    await self._drained.wait()

    def used(self, snapshot: Snapshot, now: float) -> None:
        """Write down who uses the agents, for the bill: when that changed, and every few minutes."""
        if snapshot.cluster is None:
            return
        by_app, unused = _usage(snapshot)
        told = {"usd_by_app": by_app, "usd_unused": unused}
        age_s = now - self._used_at
        if age_s >= USAGE_EVERY_S or (age_s >= USAGE_AT_MOST_EVERY_S and told != self._used):
            self._used, self._used_at = told, now
            self._put({"kind": "usage", "at": now, **told})

    def passed(self, plan: Plan, snapshot: Snapshot) -> None:
        """A pass ended well."""
        self.used(snapshot, plan.at)
        self.usd.set(plan.usd_per_hour)
        totals = {
            "fits_now": sum(verdict.fits_now for verdict in plan.verdicts),
            "arriving": sum(verdict.arriving for verdict in plan.verdicts),
            "buying": sum(verdict.buying for verdict in plan.verdicts),
            "unmet": sum(verdict.unmet for verdict in plan.verdicts),
        }
        for verdict, count in totals.items():
            self.demand.labels(verdict).set(count)
        self.machines.clear()
        for state, count in Counts(machine.state for machine in snapshot.machines).items():
            self.machines.labels(state).set(count)
        self.status.update(
            last_pass_at=plan.at,
            trouble=list(snapshot.trouble),
            frozen=plan.frozen,
            fence=plan.fence,
            paused=plan.paused,
            orders=list(plan.orders),
        )
        self.last_plan = describe(plan)

    def failed(self, error: Exception) -> None:
        """A pass ended in an error; the next one tries again."""
        self.failures.inc()
        self.status["trouble"] = [str(error)]
        log.warning("pass failed", error=str(error), kind=type(error).__name__)

    def _put(self, row: dict[str, Any]) -> None:
        self._outbox.append(row)
        self._drained.clear()
        self._wake.set()

    async def write_ledger(self) -> None:
        """Move rows to the ledger, for ever, oldest first."""
        while True:
            self.unwritten.set(len(self._outbox))
            if not self._outbox or self.ledger is None:
                if not self._outbox:
                    self._drained.set()
                self._wake.clear()
                await self._wake.wait()
            elif not await self._write(self._outbox[0]):
                await asyncio.sleep(RETRY_S)
            elif self._outbox:
                self._outbox.popleft()

    async def flush(self) -> None:
        """Write what waits, once, and give up at the first failure: for the end."""
        while self._outbox and self.ledger is not None and await self._write(self._outbox[0]):
            self._outbox.popleft()

    async def _write(self, row: dict[str, Any]) -> bool:
        if self.ledger is None:
            return False
        try:
            await asyncio.to_thread(self.ledger.append, row)
        except MesaformError as error:
            log.warning("the ledger does not take a row yet", error=str(error))
            return False
        return True

    def wake_writer(self) -> None:
        """The ledger has become known."""
        self._wake.set()

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self.registry), content_type="text/plain", charset="utf-8")

    async def _decisions(self, _: web.Request) -> web.Response:
        return web.json_response({"decisions": list(self.recent), "plan": self.last_plan})

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response(self.status)

    def application(self) -> web.Application:
        """`/metrics`, `/decisions`, `/health`."""
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/decisions", self._decisions)
        app.router.add_get("/health", self._health)
        return app


def _usage(snapshot: Snapshot) -> tuple[dict[str, float], float]:
    """USD an hour by app and unused. An agent is used as far as its scarcest of cpus and memory; its apps share by their instances."""
    rates = {machine.instance_id: price_of(machine) for machine in snapshot.machines if machine.state in LIVE}
    agents = snapshot.cluster.agents if snapshot.cluster is not None else ()
    return bill.usage((rates.get(agent.instance_id, 0.0), min(1.0, share_used(agent)), _weights(agent)) for agent in agents)


def _weights(agent: Agent) -> dict[str, float]:
    others = agent.tasks - sum(agent.apps.values())
    return {**agent.apps, **({"(other frameworks)": others} if others > 0 else {})}


def _row(name: str, machine: Rented) -> dict[str, Any]:
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


def describe(plan: Plan) -> dict[str, Any]:
    """A plan as JSON: demand with verdicts, steps, dollars. The form of `mesaform plan --json`."""
    return {
        "at": plan.at,
        "usd_per_hour": plan.usd_per_hour,
        "after_usd_per_hour": plan.after_usd_per_hour,
        "frozen": plan.frozen,
        "fence": plan.fence,
        "paused": plan.paused,
        "orders": list(plan.orders),
        "waiting": plan.waiting,
        "quarantined": dict(plan.quarantined or {}),
        "demand": [
            {
                "name": verdict.unit.name,
                "source": verdict.unit.source,
                "count": verdict.unit.count,
                "reason": verdict.unit.reason,
                "fits_now": verdict.fits_now,
                "arriving": verdict.arriving,
                "buying": verdict.buying,
                "unmet": verdict.unmet,
                "why_unmet": verdict.refusal.why if verdict.refusal else "",
                "verdict": verdict.refusal.kind if verdict.refusal else "",
            }
            for verdict in plan.verdicts
        ],
        "steps": [step.decision.record() for step in plan.steps],
    }
