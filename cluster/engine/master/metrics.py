"""The metrics of GET_METRICS and /metrics/snapshot, under Mesos' own keys. Zero is said, not left out."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from urllib.parse import quote

from mesaform.engine.master.state import Framework, State

_ACTIVE = ("staging", "starting", "running", "killing", "unreachable")
_TERMINAL = ("dropped", "error", "failed", "finished", "gone", "gone_by_operator", "killed", "lost")
_COUNTED = (
    "messages_decline_offers", "messages_revive_offers", "messages_suppress_offers", "messages_resource_request",
    "messages_kill_task", "messages_launch_tasks", "messages_reconcile_tasks", "messages_register_framework",
    "messages_register_slave", "messages_reregister_framework", "messages_reregister_slave", "messages_status_update",
    "messages_status_update_acknowledgement", "messages_unregister_framework", "invalid_status_updates", "valid_status_updates",
    "invalid_status_update_acknowledgements", "valid_status_update_acknowledgements", "slave_registrations",
    "slave_reregistrations", "slave_removals", "slave_removals/reason_registered", "slave_removals/reason_unhealthy",
    "slave_removals/reason_unregistered", "slave_unreachable_scheduled", "slave_unreachable_completed",
    "slave_unreachable_canceled", "recovery_slave_removals", "dropped_messages", "messages_authenticate", "messages_deactivate_framework",
    "messages_executor_to_framework", "messages_exited_executor", "messages_framework_to_executor", "messages_reconcile_operations",
    "messages_unregister_slave", "messages_update_slave", "invalid_executor_to_framework_messages",
    "invalid_framework_to_executor_messages", "valid_executor_to_framework_messages", "valid_framework_to_executor_messages",
    "slave_shutdowns_canceled", "slave_shutdowns_completed", "slave_shutdowns_scheduled", "http_cache_hits",
    "invalid_operation_status_updates", "valid_operation_status_updates", "invalid_operation_status_update_acknowledgements",
    "valid_operation_status_update_acknowledgements", "messages_operation_status_update",
    "messages_operation_status_update_acknowledgement", "event_queue_dispatches", "event_queue_http_requests", "event_queue_messages",
)  # fmt: skip
_CALLS = (
    "accept", "accept_inverse_offers", "acknowledge", "acknowledge_operation_status", "decline", "decline_inverse_offers", "kill",
    "message", "reconcile", "reconcile_operations", "request", "revive", "shutdown", "subscribe", "suppress", "teardown",
    "update_framework",
)  # fmt: skip
_EVENTS = (
    "error", "failure", "heartbeat", "inverse_offers", "message", "offers", "rescind", "rescind_inverse_offer", "subscribed",
    "update", "update_operation_status",
)  # fmt: skip
_OPERATIONS = (
    "create", "create_disk", "destroy", "destroy_disk", "grow_volume", "launch", "launch_group", "reserve", "shrink_volume",
    "unreserve",
)  # fmt: skip
_TRACKED_OPERATIONS = (
    "create",
    "create_disk",
    "destroy",
    "destroy_disk",
    "grow_volume",
    "reserve",
    "shrink_volume",
    "unreserve",
)
_OPERATION_STATES = (
    "dropped",
    "error",
    "failed",
    "finished",
    "gone_by_operator",
    "pending",
    "recovering",
    "total",
    "unreachable",
)
_RESOURCES = ("cpus", "disk", "gpus", "mem")


def metrics(
    state: State | None,
    *,
    uptime_s: float,
    subscribers: int = 0,
    measured: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Every metric by its key; `m` is None on a master that does not lead. `measured` is what the shell knows: times and sizes."""
    found: dict[str, float] = {
        "master/elected": float(state is not None),
        "master/uptime_secs": uptime_s,
    }
    found["master/operator_event_stream_subscribers"] = subscribers
    for key in (
        "allocator/event_queue_dispatches",
        "allocator/mesos/event_queue_dispatches",
        "registrar/queued_operations",
    ):
        found[key] = 0.0
    for task_state in (
        _OPERATION_STATES
    ):  # reservations and volumes are not here yet, so nothing is ever under way
        found[f"master/operations/{task_state}"] = 0.0
        for operation in _TRACKED_OPERATIONS:
            found[f"master/operations/{operation}/{task_state}"] = 0.0
    found |= measured or {}
    _cluster(state, found)
    for name in _COUNTED:
        found[f"master/{name}"] = state.counters[name] if state is not None else 0
    if state is not None:
        for key, value in state.counters.items():
            found.setdefault(f"master/{key}", value)
        for framework in (*state.frameworks.values(), *state.completed_frameworks.values()):
            _framework(state, framework, found)
    _system(found)
    return {key: float(found[key]) for key in sorted(found)}


def _cluster(state: State | None, found: dict[str, float]) -> None:
    agents = list(state.agents.values()) if state is not None else []
    frameworks = list(state.frameworks.values()) if state is not None else []
    active = [
        agent
        for agent in agents
        if state is not None and agent.connected and not state.is_deactivated(agent.id)
    ]
    unreachable = (
        sum(record.state == "unreachable" for record in state.registry.agents.values())
        if state is not None
        else 0
    )
    found |= {
        "master/slaves_active": len(active),
        "master/slaves_inactive": len(agents) - len(active),
        "master/slaves_connected": sum(agent.connected for agent in agents),
        "master/slaves_disconnected": sum(not agent.connected for agent in agents),
        "master/slaves_unreachable": unreachable,
        "master/frameworks_active": sum(one.active for one in frameworks),
        "master/frameworks_inactive": sum(not one.active for one in frameworks),
        "master/frameworks_connected": sum(one.connected for one in frameworks),
        "master/frameworks_disconnected": sum(not one.connected for one in frameworks),
        "master/outstanding_offers": len(state.offers) if state is not None else 0,
        "allocator/mesos/allocation_runs": state.allocator.runs if state is not None else 0,
    }
    states = Counter(task.state for one in frameworks for task in one.tasks.values())
    states.update(task.state for one in frameworks for task in one.unreachable.values())
    for name in _ACTIVE:
        found[f"master/tasks_{name}"] = states[f"TASK_{name.upper()}"]
    for name in _TERMINAL:
        found[f"master/tasks_{name}"] = state.counters[f"tasks_{name}"] if state is not None else 0
    _resources(state, found)


def _resources(state: State | None, found: dict[str, float]) -> None:
    total, taken = state.allocator.cluster() if state is not None else ({}, {})
    agents = list(state.agents.values()) if state is not None else []
    for name in _RESOURCES:
        size = total.get(name, 0.0)
        used = sum(agent.used().milli.get(name, 0) for agent in agents) / 1000
        found[f"master/{name}_total"] = size
        found[f"master/{name}_used"] = used
        found[f"master/{name}_percent"] = used / size if size else 0.0
        for kind in ("total", "used", "percent"):
            found[f"master/{name}_revocable_{kind}"] = 0.0
        if size or name != "gpus":  # which Mesos does not tell of where there are none
            found[f"allocator/mesos/resources/{name}/total"] = size
            found[f"allocator/mesos/resources/{name}/offered_or_allocated"] = taken.get(name, 0.0)
    if state is None:
        return
    shares, filters = state.allocator.shares(), state.allocator.active_filters()
    for role, share in shares.items():
        found[f"allocator/mesos/roles/{role}/shares/dominant"] = share
        found[f"allocator/mesos/offer_filters/roles/{role}/active"] = filters[role]


def _framework(state: State, framework: Framework, found: dict[str, float]) -> None:
    prefix = f"master/frameworks/{quote(framework.info.name, safe='')}/{framework.id}/"
    counters = framework.counters
    found[prefix + "subscribed"] = float(framework.connected)
    names = [
        "calls",
        "events",
        "operations",
        "offers/sent",
        "offers/accepted",
        "offers/declined",
        "offers/rescinded",
    ]
    names += [f"calls/{name}" for name in _CALLS] + [f"events/{name}" for name in _EVENTS]
    names += [f"operations/{name}" for name in _OPERATIONS] + [
        f"tasks/terminal/task_{name}" for name in _TERMINAL
    ]
    for name in names:
        found[prefix + name] = counters[name]
    states = Counter(
        task.state.lower() for task in (*framework.tasks.values(), *framework.unreachable.values())
    )
    for name in (*_ACTIVE, "unknown"):
        found[f"{prefix}tasks/active/task_{name}"] = states[f"task_{name}"]
    live = framework.id in state.frameworks
    suppressed = state.allocator.suppressed(framework.id) if live else frozenset()
    for role in framework.roles:
        found[f"{prefix}roles/{role}/suppressed"] = float(role in suppressed)


def _system(found: dict[str, float]) -> None:
    one, five, fifteen = os.getloadavg()
    page = os.sysconf("SC_PAGE_SIZE")
    found |= {
        "system/cpus_total": os.cpu_count() or 0,
        "system/load_1min": one,
        "system/load_5min": five,
        "system/load_15min": fifteen,
        "system/mem_total_bytes": os.sysconf("SC_PHYS_PAGES") * page,
        "system/mem_free_bytes": os.sysconf("SC_AVPHYS_PAGES") * page,
    }
