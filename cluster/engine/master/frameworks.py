"""Frameworks: they subscribe, fail over, disconnect, change, and are torn down."""

from __future__ import annotations

import msgspec

from mesaform.engine import link
from mesaform.engine.master.events import CloseStream, SendEvent, StreamClosed, Subscribe
from mesaform.engine.master.render import framework_json
from mesaform.engine.master.state import (
    HEARTBEAT_S,
    MAX_COMPLETED_FRAMEWORKS,
    MAX_REMOVED_IDS,
    Framework,
    State,
    min_allocatable_of,
    roles_of,
)
from mesaform.engine.master.status import master_generated_status
from mesaform.mesos.messages import FrameworkInfo, ident

IMMUTABLE = ("user", "checkpoint", "principal")


def subscribe(state: State, event: Subscribe) -> None:
    """A stream opens. Afterwards it got SUBSCRIBED, or ERROR and its end."""
    problem = _problem(state, event)
    if problem is not None:
        state.out.append(
            SendEvent(event.stream_id, {"type": "ERROR", "error": {"message": problem}})
        )
        state.out.append(CloseStream(event.stream_id))
        return
    known = state.frameworks.get(event.framework_id or "")
    if known is None:
        framework = _new(state, event)
        state.publish("FRAMEWORK_ADDED", {"framework": framework_json(state, framework)})
    else:
        framework = known
        _fail_over(state, framework, event)
        state.publish("FRAMEWORK_UPDATED", {"framework": framework_json(state, framework)})
    state.counters[
        "messages_register_framework" if known is None else "messages_reregister_framework"
    ] += 1
    framework.counters["calls"] += 1
    framework.counters["calls/subscribe"] += 1
    subscribed = {
        "framework_id": {"value": framework.id},
        "heartbeat_interval_seconds": HEARTBEAT_S,
        "master_info": state.info,
    }
    state.send(framework, {"type": "SUBSCRIBED", "subscribed": subscribed})
    heartbeat(state, framework)
    state.wants_offers = True


def _problem(state: State, event: Subscribe) -> str | None:
    if event.framework_id is not None and state.is_removed_framework(event.framework_id):
        return "Framework has been removed"
    for role in roles_of(event.info):
        bad = bad_role(role)
        if bad is not None:
            return f"Invalid role '{role}': {bad}"
    known = state.frameworks.get(event.framework_id or "")
    return (
        invalid_change(known.info, event.info)
        if known is not None and not known.recovered
        else None
    )


def bad_role(role: str) -> str | None:
    """Why a role's name cannot be one, or None."""
    if not role or role in {".", ".."}:
        return "it is empty or a folder's name"
    if role.startswith(("-", "/")) or role.endswith("/"):
        return "it starts with '-' or starts or ends with '/'"
    if any(character.isspace() or character in "\x7f\x08" for character in role):
        return "it has white space or a control character"
    return None


def invalid_change(old: FrameworkInfo, new: FrameworkInfo) -> str | None:
    """Why `new` cannot take `old`'s place, in Mesos' words, or None."""
    for name in IMMUTABLE:
        before, after = getattr(old, name) or "", getattr(new, name) or ""
        if before != after:
            return (
                f"FrameworkInfo update is not valid: Updating 'FrameworkInfo.{name}' is unsupported; "
                f"attempted to update from '{_text(before)}' to '{_text(after)}'"
            )
    return None


def _text(value: object) -> str:
    return (
        "true"
        if value is True
        else "false"
        if value in {False, ""} and not isinstance(value, str)
        else str(value)
    )


def _new(state: State, event: Subscribe) -> Framework:
    framework_id = event.framework_id or state.ids.framework()
    info = msgspec.structs.replace(event.info, id=ident(framework_id))
    framework = Framework(info, framework_id, state.now, state.now, event.stream_id, active=True)
    state.frameworks[framework_id] = framework
    _allocate_to(state, framework, event.suppressed_roles)
    return framework


def _fail_over(state: State, framework: Framework, event: Subscribe) -> None:
    if framework.stream_id is not None:
        state.send(framework, {"type": "ERROR", "error": {"message": "Framework failed over"}})
        state.close_stream(framework)
    for offer in list(framework.offers.values()):
        state.drop_offer(offer)
    framework.info = msgspec.structs.replace(event.info, id=ident(framework.id))
    framework.stream_id = event.stream_id
    framework.active = True
    framework.recovered = False
    framework.remove_at = None
    framework.reregistered_at = state.now
    _allocate_to(state, framework, event.suppressed_roles)


def _allocate_to(state: State, framework: Framework, suppressed: tuple[str, ...]) -> None:
    state.allocator.add_framework(
        framework.id,
        framework.roles,
        suppressed=suppressed,
        active=framework.active,
        gpu_aware=framework.has("GPU_RESOURCES"),
        min_allocatable=min_allocatable_of(framework.info),
    )


def recover(state: State, info: FrameworkInfo) -> Framework:
    """A framework that an agent's tasks tell of and that has not come back to this leader yet."""
    framework_id = info.id.value if info.id else ""
    # Mesos keeps such a framework's tasks for ever; here a framework that never comes back frees its machines in the end.
    patience_s = max(info.failover_timeout or 0.0, state.config.reregister_timeout_s)
    framework = Framework(
        info, framework_id, state.now, state.now, recovered=True, remove_at=state.now + patience_s
    )
    state.frameworks[framework_id] = framework
    _allocate_to(state, framework, ())
    state.publish("FRAMEWORK_ADDED", {"framework": framework_json(state, framework)})
    return framework


def update(
    state: State, framework: Framework, info: FrameworkInfo, suppressed: tuple[str, ...]
) -> None:
    """UPDATE_FRAMEWORK, already found valid: offers in roles it left are rescinded."""
    framework.info = msgspec.structs.replace(info, id=ident(framework.id))
    for offer in list(framework.offers.values()):
        if offer.role not in framework.roles:
            state.drop_offer(offer, rescind=True)
    _allocate_to(state, framework, suppressed)
    state.publish("FRAMEWORK_UPDATED", {"framework": framework_json(state, framework)})
    state.wants_offers = True


def heartbeat(state: State, framework: Framework) -> None:
    framework.next_heartbeat_at = state.now + HEARTBEAT_S
    state.send(framework, {"type": "HEARTBEAT"})


def stream_closed(state: State, event: StreamClosed) -> None:
    """The stream broke: wait `failover_timeout` for the scheduler to come back, with no offers meanwhile."""
    framework = next(
        (one for one in state.frameworks.values() if one.stream_id == event.stream_id), None
    )
    if framework is None:
        return
    framework.stream_id = None
    framework.active = False
    for offer in list(framework.offers.values()):
        state.drop_offer(offer)
    state.allocator.deactivate_framework(framework.id)
    timeout_s = framework.info.failover_timeout or 0.0
    framework.remove_at = state.now + timeout_s
    if timeout_s <= 0:
        remove(state, framework)
    else:
        state.publish("FRAMEWORK_UPDATED", {"framework": framework_json(state, framework)})


def remove(state: State, framework: Framework) -> None:
    """Tear a framework down: its tasks are killed and its id can never subscribe again."""
    for offer in list(framework.offers.values()):
        state.drop_offer(offer)
    agent_ids = {task.agent_id for task in framework.tasks.values()}
    for task in list(framework.tasks.values()):
        state.end_task(framework, task)
        if not task.is_terminal:
            status = master_generated_status(
                state,
                task.id,
                "TASK_KILLED",
                "REASON_FRAMEWORK_REMOVED",
                "Framework has been removed",
                task.agent_id,
            )
            task.state = "TASK_KILLED"
            task.statuses.append(status)
            state.counters["tasks_killed"] += 1
            framework.counters["tasks/terminal/task_killed"] += 1
        state.keep_completed(framework, task)
    for agent_id in sorted(agent_ids):
        agent = state.agents.get(agent_id)
        if agent is not None:
            state.tell(agent, link.ShutdownFramework(framework.id))
    state.close_stream(framework)
    framework.active = False
    framework.remove_at = None
    framework.unregistered_at = state.now
    state.allocator.remove_framework(framework.id)
    del state.frameworks[framework.id]
    _remember(state, framework)
    state.publish("FRAMEWORK_REMOVED", {"framework_info": framework.info})
    state.wants_offers = True


def _remember(state: State, framework: Framework) -> None:
    state.removed_ids[framework.id] = None
    state.completed_frameworks[framework.id] = framework
    while len(state.completed_frameworks) > MAX_COMPLETED_FRAMEWORKS:
        state.completed_frameworks.popitem(last=False)
    while len(state.removed_ids) > MAX_REMOVED_IDS:
        state.removed_ids.popitem(last=False)


def tick(state: State) -> None:
    """Heartbeats, and the end of those whose `failover_timeout` is over."""
    for framework in list(state.frameworks.values()):
        if (
            framework.remove_at is not None
            and framework.remove_at <= state.now
            and not framework.connected
        ):
            remove(state, framework)
        elif framework.connected and framework.next_heartbeat_at <= state.now:
            heartbeat(state, framework)
