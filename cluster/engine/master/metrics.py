"""The metrics of GET_METRICS and /metrics/snapshot, under Mesos' own keys.

A metric that is zero is present, as in Mesos. Pure: the shell passes what it measures.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from urllib.parse import quote

from mesaform.engine.master.state import Framework, State

_ACTIVE = ("staging", "starting", "running", "killing", "unreachable")
_TERMINAL = ("dropped", "error", "failed", "finished", "gone", "gone_by_operator", "killed", "lost")
_COUNTERS = (
    "messages_decline_offers", "messages_revive_offers", "messages_suppress_offers",
    "messages_resource_request", "messages_kill_task", "messages_launch_tasks",
    "messages_reconcile_tasks", "messages_register_framework", "messages_register_slave",
    "messages_reregister_framework", "messages_reregister_slave", "messages_status_update",
    "messages_status_update_acknowledgement", "messages_unregister_framework",
    "invalid_status_updates", "valid_status_updates", "invalid_status_update_acknowledgements",
    "valid_status_update_acknowledgements", "slave_registrations", "slave_reregistrations",
    "slave_removals", "slave_removals/reason_registered", "slave_removals/reason_unhealthy",
    "slave_removals/reason_unregistered", "slave_unreachable_scheduled",
    "slave_unreachable_completed", "slave_unreachable_canceled", "recovery_slave_removals",
    "dropped_messages", "messages_authenticate", "messages_deactivate_framework",
    "messages_executor_to_framework", "messages_exited_executor", "messages_framework_to_executor",
    "messages_reconcile_operations", "messages_unregister_slave", "messages_update_slave",
    "invalid_executor_to_framework_messages", "invalid_framework_to_executor_messages",
    "valid_executor_to_framework_messages", "valid_framework_to_executor_messages",
    "slave_shutdowns_canceled", "slave_shutdowns_completed", "slave_shutdowns_scheduled",
    "http_cache_hits", "invalid_operation_status_updates", "valid_operation_status_updates",
    "invalid_operation_status_update_acknowledgements",
    "valid_operation_status_update_acknowledgements", "messages_operation_status_update",
    "messages_operation_status_update_acknowledgement", "event_queue_dispatches",
    "event_queue_http_requests", "event_queue_messages",
)  # fmt: skip
_CALLS = (
    "accept", "accept_inverse_offers", "acknowledge", "acknowledge_operation_status", "decline",
    "decline_inverse_offers", "kill", "message", "reconcile", "reconcile_operations", "request",
    "revive", "shutdown", "subscribe", "suppress", "teardown", "update_framework",
)  # fmt: skip
_EVENTS = (
    "error", "failure", "heartbeat", "inverse_offers", "message", "offers", "rescind",
    "rescind_inverse_offer", "subscribed", "update", "update_operation_status",
)  # fmt: skip
_OPERATIONS = (
    "create", "create_disk", "destroy", "destroy_disk", "grow_volume", "launch", "launch_group",
    "reserve", "shrink_volume", "unreserve",
)  # fmt: skip
_TRACKED_OPERATIONS = (
    "create", "create_disk", "destroy", "destroy_disk", "grow_volume", "reserve", "shrink_volume",
    "unreserve",
)  # fmt: skip
_OPERATION_STATES = (
    "dropped", "error", "failed", "finished", "gone_by_operator", "pending", "recovering", "total",
    "unreachable",
)  # fmt: skip
_RESOURCES = ("cpus", "disk", "gpus", "mem")


_OFFER_COUNTERS = ("offers/sent", "offers/accepted", "offers/declined", "offers/rescinded")
_UNUSED_QUEUES = (
    "allocator/event_queue_dispatches",
    "allocator/mesos/event_queue_dispatches",
    "registrar/queued_operations",
)

Values = dict[str, float]


def metrics(
    state: State | None,
    *,
    uptime_s: float,
    subscribers: int = 0,
    measured: Mapping[str, float] | None = None,
) -> Values:
    """Every metric by its key.

    `state` is None on a master that does not lead. `subscribers` counts the operator event
    streams. `measured` has the values that the shell measures.
    """
    values: Values = {
        "master/elected": float(state is not None),
        "master/uptime_secs": uptime_s,
        "master/operator_event_stream_subscribers": subscribers,
    }
    values |= dict.fromkeys(_UNUSED_QUEUES, 0.0)
    values |= _operation_metrics()
    values |= measured or {}
    values |= _NOT_LEADING if state is None else _leader_metrics(state)
    return {key: float(values[key]) for key in sorted(values)}


def _operation_metrics() -> Values:
    """Zeros: the engine has no operations on reservations and volumes."""
    values: Values = {}
    for operation_state in _OPERATION_STATES:
        values[f"master/operations/{operation_state}"] = 0.0
        for operation in _TRACKED_OPERATIONS:
            values[f"master/operations/{operation}/{operation_state}"] = 0.0
    return values


def _leader_metrics(state: State) -> Values:
    values = _agent_metrics(state) | _framework_totals(state) | _resource_metrics(state)
    values["master/outstanding_offers"] = len(state.offers)
    values["allocator/mesos/allocation_runs"] = state.allocator.runs
    for name in (*_COUNTERS, *(f"tasks_{name}" for name in _TERMINAL)):
        values[f"master/{name}"] = state.counters[name]
    for key, value in state.counters.items():
        values.setdefault(f"master/{key}", value)
    for framework in (*state.frameworks.values(), *state.completed_frameworks.values()):
        values |= _framework_metrics(state, framework)
    return values


def _agent_metrics(state: State) -> Values:
    agents = list(state.agents.values())
    connected = [agent for agent in agents if agent.is_connected]
    active = sum(not state.is_deactivated(agent.id) for agent in connected)
    unreachable = sum(record.state == "unreachable" for record in state.registry.agents.values())
    return {
        "master/slaves_active": active,
        "master/slaves_inactive": len(agents) - active,
        "master/slaves_connected": len(connected),
        "master/slaves_disconnected": len(agents) - len(connected),
        "master/slaves_unreachable": unreachable,
    }


def _framework_totals(state: State) -> Values:
    frameworks = list(state.frameworks.values())
    active = sum(framework.is_active for framework in frameworks)
    connected = sum(framework.is_connected for framework in frameworks)
    states = Counter(task.state for framework in frameworks for task in framework.tasks.values())
    for framework in frameworks:
        states.update(task.state for task in framework.unreachable.values())
    values: Values = {
        "master/frameworks_active": active,
        "master/frameworks_inactive": len(frameworks) - active,
        "master/frameworks_connected": connected,
        "master/frameworks_disconnected": len(frameworks) - connected,
    }
    for name in _ACTIVE:
        values[f"master/tasks_{name}"] = states[f"TASK_{name.upper()}"]
    return values


def _resource_metrics(state: State) -> Values:
    values: Values = {}
    totals, allocated = state.allocator.cluster()
    used_milli: Counter[str] = Counter()
    for agent in state.agents.values():
        used_milli.update(agent.used().milli)
    for name in _RESOURCES:
        values |= _metrics_of_resource(
            name, totals.get(name, 0.0), used_milli[name] / 1000, allocated.get(name, 0.0)
        )
    filters = state.allocator.active_filters()
    for role, share in state.allocator.shares().items():
        values[f"allocator/mesos/roles/{role}/shares/dominant"] = share
        values[f"allocator/mesos/offer_filters/roles/{role}/active"] = filters[role]
    return values


def _metrics_of_resource(name: str, total: float, used: float, allocated: float) -> Values:
    values: Values = {
        f"master/{name}_total": total,
        f"master/{name}_used": used,
        f"master/{name}_percent": used / total if total else 0.0,
        f"master/{name}_revocable_total": 0.0,
        f"master/{name}_revocable_used": 0.0,
        f"master/{name}_revocable_percent": 0.0,
    }
    if total or name != "gpus":  # Mesos has no allocator metric of GPUs where there are none
        values[f"allocator/mesos/resources/{name}/total"] = total
        values[f"allocator/mesos/resources/{name}/offered_or_allocated"] = allocated
    return values


def _framework_metrics(state: State, framework: Framework) -> Values:
    prefix = f"master/frameworks/{quote(framework.info.name, safe='')}/{framework.id}/"
    values: Values = {prefix + "subscribed": float(framework.is_connected)}
    for name in _FRAMEWORK_COUNTERS:
        values[prefix + name] = framework.counters[name]
    states = Counter(
        task.state.lower() for task in (*framework.tasks.values(), *framework.unreachable.values())
    )
    for name in (*_ACTIVE, "unknown"):
        values[f"{prefix}tasks/active/task_{name}"] = states[f"task_{name}"]
    is_live = framework.id in state.frameworks
    suppressed = state.allocator.suppressed(framework.id) if is_live else frozenset()
    for role in framework.roles:
        values[f"{prefix}roles/{role}/suppressed"] = float(role in suppressed)
    return values


_FRAMEWORK_COUNTERS = (
    "calls", "events", "operations", *_OFFER_COUNTERS,
    *(f"calls/{name}" for name in _CALLS),
    *(f"events/{name}" for name in _EVENTS),
    *(f"operations/{name}" for name in _OPERATIONS),
    *(f"tasks/terminal/task_{name}" for name in _TERMINAL),
)  # fmt: skip


def _not_leading() -> Values:
    """The values of a master that does not lead: the keys of a leader without frameworks."""
    names = (
        "slaves_active", "slaves_inactive", "slaves_connected", "slaves_disconnected",
        "slaves_unreachable", "frameworks_active", "frameworks_inactive", "frameworks_connected",
        "frameworks_disconnected", "outstanding_offers",
        *(f"tasks_{name}" for name in (*_ACTIVE, *_TERMINAL)),
        *_COUNTERS,
    )  # fmt: skip
    values = {f"master/{name}": 0.0 for name in names}
    values["allocator/mesos/allocation_runs"] = 0.0
    for name in _RESOURCES:
        values |= _metrics_of_resource(name, 0.0, 0.0, 0.0)
    return values


_NOT_LEADING = _not_leading()
