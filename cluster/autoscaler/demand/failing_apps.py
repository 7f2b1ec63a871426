"""Apps in a crash loop: no machine is bought for each of their retries. Pure. Depends on `model`.

The services delay an app's launches after a task failed. Until an instance of the app's
configuration has lived for `LIVED_S`, the app gets what existing machines have free. A machine is
bought only if it fits nowhere and none of its instances runs, and less often each time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from mesaform.autoscaler.model.cluster_view import ClusterView, QueueEntry
from mesaform.autoscaler.model.demand_item import DemandItem, PurchaseStop
from mesaform.autoscaler.model.purchase_record import FailingApp
from mesaform.autoscaler.model.reason import Reason, ReasonCode
from mesaform.autoscaler.model.snapshot import Snapshot

LIVED_S = 60.0
"""Seconds that one instance has to run before machines are bought for an app that failed."""

FORGOTTEN_S = 3600.0
"""Seconds after the last back-off or pause in which an app counts as failing."""

FIRST_PAUSE_S = 300.0
MAX_PAUSE_S = 14_400.0
"""Seconds between machines that are bought to try a failing app, doubling up to the greater."""

WRITE_EVERY_S = 60.0
"""Precision of `FailingApp.backed_off_at`: the state is not written in every pass."""


def observe(snapshot: Snapshot, now: float) -> dict[str, FailingApp]:
    """The apps that fail, by id. An unreadable queue says nothing."""
    known, view = snapshot.state.failing_apps, snapshot.cluster
    if snapshot.queue is None or view is None:
        return known
    failing = _still_failing(snapshot, now)
    for entry in snapshot.queue:
        if not entry.overdue:
            failing[entry.app] = _backed_off(failing.get(entry.app), entry, now)
    return {
        app: record for app, record in failing.items() if not _has_lived(app, record, view, now)
    }


def _still_failing(snapshot: Snapshot, now: float) -> dict[str, FailingApp]:
    """The known records that are recent and of the app's present configuration."""
    entries = {entry.app: entry for entry in snapshot.queue or ()}
    return {
        app: record
        for app, record in snapshot.state.failing_apps.items()
        if now - max(record.backed_off_at, record.until) < FORGOTTEN_S
        and record.config == _config(app, record, entries, snapshot)
    }


def restrict(
    items: Iterable[DemandItem],
    failing: dict[str, FailingApp],
    view: ClusterView | None,
    now: float,
) -> list[DemandItem]:
    """The items, with a stop for those of failing apps."""
    return [
        replace(item, stop=_stop(item, failing[item.name], view, now))
        if item.source == "services" and item.name in failing and item.blocked is None
        else item
        for item in items
    ]


def after_purchase(record: FailingApp, now: float) -> FailingApp:
    """The record after a machine was bought for the app."""
    pause_s = min(MAX_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(record.purchases, 16))
    return replace(record, purchases=record.purchases + 1, until=now + pause_s)


def _config(
    app: str, record: FailingApp, entries: dict[str, QueueEntry], snapshot: Snapshot
) -> str:
    """The present version of an app's configuration; the known one where it was not read."""
    entry = entries.get(app)
    return entry.config if entry else snapshot.app_configs.get(app, record.config)


def _backed_off(record: FailingApp | None, entry: QueueEntry, now: float) -> FailingApp:
    if record is None:
        return FailingApp(entry.config, now)
    is_recent = now - record.backed_off_at < WRITE_EVERY_S
    return record if is_recent else replace(record, backed_off_at=now)


def _has_lived(app: str, record: FailingApp, view: ClusterView, now: float) -> bool:
    """Whether an instance of the configuration runs for `LIVED_S`."""
    return any(
        0 < since <= now - LIVED_S
        for agent in view.agents
        for config, since in agent.app_since.get(app, {}).items()
        if config in {record.config, ""}
    )


def _stop(
    item: DemandItem, record: FailingApp, view: ClusterView | None, now: float
) -> PurchaseStop:
    running = sum(agent.apps.get(item.name, 0) for agent in (view.agents if view else ()))
    may_try = now >= record.until and not running
    reason = Reason.of(ReasonCode.APP_FAILING, app=item.name, lived_s=LIVED_S)
    return PurchaseStop("app_failing", 1 if may_try else 0, reason)
