"""Frameworks: subscription, failover, disconnection, update and teardown."""

from __future__ import annotations

import msgspec

from mesaform.engine import link
from mesaform.engine.documents import Document
from mesaform.engine.master.events import CloseStream, SendEvent, StreamClosed, Subscribe
from mesaform.engine.master.render import framework_json
from mesaform.engine.master.state import (
    HEARTBEAT_S,
    MAX_COMPLETED_FRAMEWORKS,
    MAX_REMOVED_IDS,
    Framework,
    State,
    min_allocatable_of,
)
from mesaform.engine.master.status import Cause, generate_status
from mesaform.engine.validation.frameworks import (
    changed_principal,
    invalid_framework,
    invalid_subscription,
    invalid_update,
    roles_of,
)
from mesaform.engine.validation.support import unsupported_framework
from mesaform.mesos.messages import FrameworkInfo, ident
from mesaform.mesos.scheduler_api import UpdateFramework


def subscribe(state: State, event: Subscribe) -> None:
    """Answer a new stream with SUBSCRIBED, or with ERROR and the end of the stream."""
    problem = _problem(state, event)
    if problem is not None:
        error: Document = {"type": "ERROR", "error": {"message": problem}}
        state.effects.append(SendEvent(event.stream_id, error))
        state.effects.append(CloseStream(event.stream_id))
        return
    framework = state.frameworks.get(event.framework_id or "")
    if framework is None:
        framework = _add(state, event)
        _publish(state, "FRAMEWORK_ADDED", framework)
        state.counters["messages_register_framework"] += 1
    else:
        _fail_over(state, framework, event)
        _publish(state, "FRAMEWORK_UPDATED", framework)
        state.counters["messages_reregister_framework"] += 1
    framework.counters["calls"] += 1
    framework.counters["calls/subscribe"] += 1
    state.send_event(
        framework,
        "SUBSCRIBED",
        {
            "framework_id": {"value": framework.id},
            "heartbeat_interval_seconds": HEARTBEAT_S,
            "master_info": state.info,
        },
    )
    _send_heartbeat(state, framework)
    state.wants_offers = True


def _publish(state: State, kind: str, framework: Framework) -> None:
    state.publish(kind, {"framework": framework_json(state, framework)})


def _problem(state: State, event: Subscribe) -> str | None:
    problem = invalid_framework(event.info)
    if problem is not None:
        return problem
    if event.framework_id is not None and state.is_removed_framework(event.framework_id):
        return "Framework has been removed"
    problem = _unacceptable(state, event)
    known = state.frameworks.get(event.framework_id or "")
    if problem is not None:
        return problem
    return _too_many(state) if known is None else _invalid_takeover(known, event.info)


def _unacceptable(state: State, event: Subscribe) -> str | None:
    """Why a subscription is invalid, not supported, or not authorized."""
    return (
        invalid_subscription(event.info, event.suppressed_roles, event.offer_constraints)
        or unsupported_framework(event.info, event.offer_constraints)
        or unauthorized(state, event.framework_id or "", event.info)
    )


def _too_many(state: State) -> str | None:
    """Why no further framework is registered; None while there is place for one."""
    limit = state.config.max_frameworks
    if len(state.frameworks) < limit:
        return None
    return (
        f"The embedded engine has {limit} frameworks and registers no more: "
        "tear down frameworks that have ended, or give them a shorter failover_timeout"
    )


def unauthorized(state: State, framework_id: str, info: FrameworkInfo) -> str | None:
    """Why a framework may not use its roles, in Mesos' words; None when it may.

    The id is empty for a new framework.
    """
    roles = roles_of(info)
    if state.config.acls().may_register(info.principal, roles):
        return None
    named = ", ".join(sorted(set(roles)))
    return f"Not authorized to register framework {framework_id} with roles {{ {named} }}"


def _invalid_takeover(known: Framework, info: FrameworkInfo) -> str | None:
    """Why a framework's id cannot be used with this FrameworkInfo; None when it can.

    Records of agents from before principals were kept have none.
    """
    if known.is_recovered and not known.info.principal:
        return None
    return changed_principal(known.info, info)


def invalid_change(framework: Framework, call: UpdateFramework) -> str | None:
    """Why an UPDATE_FRAMEWORK cannot be carried out, in Mesos' words; None when it can."""
    info, constraints = call.framework_info, call.offer_constraints
    problem = invalid_framework(info)
    if problem is not None:
        return f"Supplied FrameworkInfo is not valid: {problem}"
    problem = invalid_update(framework.info, info)
    if problem is not None:
        return f"FrameworkInfo update is not valid: {problem}"
    problem = invalid_subscription(info, call.suppressed_roles, constraints)
    if problem is not None:
        return f"'UpdateFramework' call is not valid: {problem}"
    return unsupported_framework(info, constraints)


def _add(state: State, event: Subscribe) -> Framework:
    framework_id = event.framework_id or state.ids.framework()
    info = msgspec.structs.replace(
        event.info,
        id=ident(framework_id),
        failover_timeout=event.info.failover_timeout or 0.0,
        checkpoint=bool(event.info.checkpoint),
    )
    framework = Framework(info, framework_id, state.now, state.now, event.stream_id, is_active=True)
    state.frameworks[framework_id] = framework
    add_to_allocator(state, framework, event.suppressed_roles)
    return framework


def _fail_over(state: State, framework: Framework, event: Subscribe) -> None:
    """Connect a known framework to its new stream. The old stream gets ERROR and its end."""
    if framework.stream_id is not None:
        state.send_event(framework, "ERROR", {"message": "Framework failed over"})
        state.close_stream(framework)
    for offer in list(framework.offers.values()):
        state.remove_offer(offer)
    framework.info = msgspec.structs.replace(
        event.info,
        id=ident(framework.id),
        user=framework.info.user,  # Mesos keeps these two and does not complain
        checkpoint=framework.info.checkpoint,
    )
    framework.stream_id = event.stream_id
    framework.is_active = True
    framework.is_recovered = False
    framework.remove_at = None
    framework.reregistered_at = state.now
    add_to_allocator(state, framework, event.suppressed_roles)


def add_to_allocator(state: State, framework: Framework, suppressed: tuple[str, ...] = ()) -> None:
    """Add a framework to the allocator, or change it there."""
    state.allocator.add_framework(
        framework.id,
        framework.roles,
        suppressed=suppressed,
        active=framework.is_active,
        gpu_aware=framework.has_capability("GPU_RESOURCES"),
        min_allocatable=min_allocatable_of(framework.info),
    )


def recover(state: State, info: FrameworkInfo) -> Framework:
    """Add a framework that an agent reports and that has not subscribed in this term.

    Mesos keeps the tasks of such a framework for ever. Here they are removed after the framework's
    fail-over timeout, so that a framework that does not return frees its agents.
    """
    framework_id = info.id.value if info.id else ""
    timeout_s = max(info.failover_timeout or 0.0, state.config.reregister_timeout_s)
    framework = Framework(
        info,
        framework_id,
        state.now,
        state.now,
        is_recovered=True,
        remove_at=state.now + timeout_s,
    )
    state.frameworks[framework_id] = framework
    add_to_allocator(state, framework, ())
    _publish(state, "FRAMEWORK_ADDED", framework)
    return framework


def update(
    state: State, framework: Framework, info: FrameworkInfo, suppressed: tuple[str, ...]
) -> None:
    """Carry out a valid UPDATE_FRAMEWORK. Offers in roles that it left are rescinded."""
    framework.info = msgspec.structs.replace(info, id=ident(framework.id))
    for offer in list(framework.offers.values()):
        if offer.role not in framework.roles:
            state.remove_offer(offer, rescind=True)
    add_to_allocator(state, framework, suppressed)
    _publish(state, "FRAMEWORK_UPDATED", framework)
    state.wants_offers = True


def _send_heartbeat(state: State, framework: Framework) -> None:
    framework.next_heartbeat_at = state.now + HEARTBEAT_S
    state.send_event(framework, "HEARTBEAT")


def stream_closed(state: State, event: StreamClosed) -> None:
    """Deactivate a framework whose stream broke, and remove it after its fail-over timeout."""
    framework = next(
        (
            framework
            for framework in state.frameworks.values()
            if framework.stream_id == event.stream_id
        ),
        None,
    )
    if framework is None:
        return
    framework.stream_id = None
    framework.is_active = False
    for offer in list(framework.offers.values()):
        state.remove_offer(offer)
    state.allocator.deactivate_framework(framework.id)
    timeout_s = framework.info.failover_timeout or 0.0
    framework.remove_at = state.now + timeout_s
    if timeout_s <= 0:
        remove(state, framework)
    else:
        _publish(state, "FRAMEWORK_UPDATED", framework)


def remove(state: State, framework: Framework) -> None:
    """Remove a framework: its tasks are killed, and its id can never subscribe again."""
    for offer in list(framework.offers.values()):
        state.remove_offer(offer)
    agent_ids = {task.agent_id for task in framework.tasks.values()}
    _kill_tasks(state, framework)
    for agent_id in sorted(agent_ids):
        agent = state.agents.get(agent_id)
        if agent is not None:
            state.send_to_agent(agent, link.ShutdownFramework(framework.id))
    state.close_stream(framework)
    framework.is_active = False
    framework.remove_at = None
    framework.unregistered_at = state.now
    state.allocator.remove_framework(framework.id)
    del state.frameworks[framework.id]
    _add_completed(state, framework)
    state.publish("FRAMEWORK_REMOVED", {"framework_info": framework.info})
    state.wants_offers = True


def _kill_tasks(state: State, framework: Framework) -> None:
    cause = Cause("TASK_KILLED", "REASON_FRAMEWORK_REMOVED", "Framework has been removed")
    for task in list(framework.tasks.values()):
        state.remove_task(framework, task)
        if not task.is_terminal:
            task.state = cause.state
            task.statuses.append(generate_status(state, task.id, cause, task.agent_id))
            state.counters["tasks_killed"] += 1
            framework.counters["tasks/terminal/task_killed"] += 1
        state.add_completed(framework, task)


def _add_completed(state: State, framework: Framework) -> None:
    state.removed_ids[framework.id] = None
    state.completed_frameworks[framework.id] = framework
    while len(state.completed_frameworks) > MAX_COMPLETED_FRAMEWORKS:
        state.completed_frameworks.popitem(last=False)
    while len(state.removed_ids) > MAX_REMOVED_IDS:
        state.removed_ids.popitem(last=False)


def tick(state: State) -> None:
    """Send heartbeats, and remove frameworks whose fail-over timeout is over."""
    for framework in list(state.frameworks.values()):
        with state.contain(f"framework {framework.id}"):
            _tick(state, framework)


def _tick(state: State, framework: Framework) -> None:
    if framework.is_connected:
        if framework.next_heartbeat_at <= state.now:
            _send_heartbeat(state, framework)
    elif framework.remove_at is not None and framework.remove_at <= state.now:
        remove(state, framework)
