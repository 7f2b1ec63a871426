"""Prometheus metrics. A test compares them with the table in docs/autoscaler.md."""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from mesaform.autoscaler.planner import launch_failures, purchase_stops
from mesaform.autoscaler.planner.planner import Plan

PREFIX = "mesaform_autoscaler_"
PASS_BUCKETS_S = (0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0)
BLOCKS: Mapping[str, str] = {
    "freeze": "freeze",
    "paused": "pause",
    "waiting": "waiting_for_master",
    "removals_blocked": "removals_blocked",
}
"""Fields of a plan that keep the autoscaler from acting, with their value of the label `by`."""


class Measures:
    """The metrics; one registry per process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._add_frameworks()
        self.leading = self._gauge("leading", "1 while this process leads")
        self.passes = Histogram(
            f"{PREFIX}pass_seconds",
            "Time of a pass",
            registry=self.registry,
            buckets=PASS_BUCKETS_S,
        )
        self.failures = self._counter("pass_failures", "Passes that ended in an error")
        self.last_pass = self._gauge(
            "last_pass_timestamp_seconds", "When the last pass ended well, seconds since 1970"
        )
        self.decisions = self._counter("decisions", "Decisions carried out", "kind")
        self.errors = self._counter("api_errors", "Failed calls, by whom they were made to", "api")
        self.usd = self._gauge("usd_per_hour", "What the cluster's machines cost now")
        self.planned_usd = self._gauge(
            "planned_usd_per_hour", "What they cost once the last plan is carried out"
        )
        self.idle_usd = self._gauge(
            "idle_usd_per_hour", "What registered agents without a task cost"
        )
        self.demand = self._gauge("demand", "Pieces of demand by verdict", "verdict")
        self.machines = self._gauge("machines", "Machines by pool and state", "pool", "state")
        self.gap = self._gauge(
            "plan_gap_percent", "By how much more than its lower bound the last packing may cost"
        )
        self.blocked = self._gauge("blocked", "1 while this keeps the autoscaler from acting", "by")
        self.refusals = self._counter(
            "refusals", "Items of demand newly refused a machine, by reason code", "reason"
        )
        self.stopped = self._gauge(
            "pool_stopped", "Machines in a row that failed, of pools that stopped", "pool", "cause"
        )
        self.stopped_purchases = self._gauge(
            "purchases_stopped", "Seconds until demand that stopped buys one machine", "demand"
        )
        self.overrides = self._gauge("overrides", "Operators' overrides in force")
        self.time_left = self._gauge("time_left_seconds", "Time to the end by ttl, else infinite")
        self.removals = self._gauge("removals", "Machines on their way out, by phase", "phase")
        self.notices = self._counter("notices", "Notices of the cloud about machines", "kind")
        self.lease = self._gauge(
            "lease_timestamp_seconds", "When agents' lease was last renewed, seconds since 1970"
        )
        self.unwritten = self._gauge("ledger_backlog", "Rows not yet in the ledger")
        self.lost = self._gauge(
            "ledger_lost_rows", "Rows given up because the ledger was away for too long"
        )

    def _add_frameworks(self) -> None:
        self.readings = self._counter(
            "framework_readings",
            "Readings of frameworks' own APIs, by adapter and result",
            "adapter",
            "result",
        )
        self.frameworks = self._gauge("frameworks", "Connected frameworks by verdict", "verdict")

    def passed(
        self, plan: Plan, level: Mapping[str, Any], machines: Mapping[tuple[str, str], int]
    ) -> None:
        """Update the metrics after a successful pass."""
        self.last_pass.set(plan.at)
        self.usd.set(plan.usd_per_hour)
        self.planned_usd.set(plan.after_usd_per_hour)
        self.idle_usd.set(level["idle_usd"])
        for verdict, count in level["demand"].items():
            self.demand.labels(verdict).set(count)
        self.machines.clear()
        for (pool, state), count in machines.items():
            self.machines.labels(pool, state).set(count)
        self.removals.clear()
        for phase, count in Counts(
            removal.phase for removal in plan.state.removals.values()
        ).items():
            self.removals.labels(phase).set(count)
        for name, label in BLOCKS.items():
            self.blocked.labels(label).set(1 if getattr(plan, name) else 0)
        self.overrides.set(len(plan.overrides))
        self._show_frameworks(plan)
        self._show_stopped_pools(plan)
        self._show_stopped_purchases(plan)
        if plan.packed is not None:
            self.gap.set(plan.packed.gap_percent)

    def read_framework(self, adapter: str, result: str) -> None:
        """Count a reading of a framework's API."""
        self.readings.labels(adapter, result).inc()

    def _show_frameworks(self, plan: Plan) -> None:
        self.frameworks.clear()
        for state, count in Counts(verdict.state for verdict in plan.frameworks).items():
            self.frameworks.labels(state).set(count)

    def _show_stopped_pools(self, plan: Plan) -> None:
        self.stopped.clear()
        for failures in launch_failures.stopped_pools(plan.state).values():
            self.stopped.labels(failures.pool, failures.cause).set(failures.count)

    def _show_stopped_purchases(self, plan: Plan) -> None:
        self.stopped_purchases.clear()
        for key, record in purchase_stops.stopped_units(plan.state).items():
            self.stopped_purchases.labels(record.app or key).set(max(0.0, record.until - plan.at))

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(PREFIX + name, text, labels, registry=self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(PREFIX + name, text, labels, registry=self.registry)
