"""Agents: registration, return, loss and removal.

Whatever depends on the registry happens only after the registry is written.
"""

from __future__ import annotations

import dataclasses

import msgspec

from mesaform.engine import link
from mesaform.engine.master import frameworks
from mesaform.engine.master.events import (
    AgentLeaving,
    AgentRegistering,
    CloseLink,
    LinkClosed,
    NotStored,
    Operator,
    Reply,
    SendAgent,
    Store,
    Stored,
)
from mesaform.engine.master.render import agent_json
from mesaform.engine.master.state import (
    MAX_UNREACHABLE_TASKS,
    Agent,
    Framework,
    State,
    Task,
    total_of,
)
from mesaform.engine.master.status import (
    Cause,
    generate_status,
    refuse_task,
    send_status,
)
from mesaform.engine.master.tasks import record_status
from mesaform.engine.registry import Admit, MarkUnreachable, Remove
from mesaform.mesos.messages import TERMINAL_STATES, AgentInfo, from_wire, ident

_LEAVING_CHANGES = frozenset({"MarkGone", "MarkUnreachable", "Remove"})


def register(state: State, event: AgentRegistering) -> None:
    """Take the first message of a link.

    A registered agent, and one of an earlier term that is unchanged, are back at once. Another
    agent, and one that proves its instance for the first time, waits until the registry has stored
    it.
    """
    agent_id = event.register.agent_id
    state.counters["messages_reregister_slave" if agent_id else "messages_register_slave"] += 1
    if agent_id is None:
        _store_admission(state, _with_new_id(state, event))
    elif state.is_gone(agent_id) or state.in_flight.get(agent_id) == "MarkGone":
        _refuse(state, event.link_id, _gone_text(agent_id))
    elif agent_id in state.agents and _is_known_instance(state, agent_id, event):
        _reregister(state, state.agents[agent_id], event)
    elif _is_unchanged(state, agent_id, event):
        _admit(state, event)
    else:
        _store_admission(state, event)


def _with_new_id(state: State, event: AgentRegistering) -> AgentRegistering:
    message = msgspec.structs.replace(event.register, agent_id=state.ids.agent())
    return dataclasses.replace(event, register=message, is_new=True)


def _store_admission(state: State, event: AgentRegistering) -> None:
    state.registering.add(event.link_id)
    info = _info_of(event)
    change = Admit(event.register.agent_id or "", info, state.now, event.instance_id)
    state.effects.append(Store(change, event))


def _info_of(event: AgentRegistering) -> AgentInfo:
    return msgspec.structs.replace(event.register.info, id=ident(event.register.agent_id or ""))


def _is_unchanged(state: State, agent_id: str, event: AgentRegistering) -> bool:
    """Whether the registry need not be written: the agent is in it, as it is now."""
    if agent_id not in state.recovered or agent_id in state.in_flight:
        return False
    record = state.record(agent_id)
    is_same = record is not None and _info_of(event) == record.info
    return is_same and _is_known_instance(state, agent_id, event)


def _is_known_instance(state: State, agent_id: str, event: AgentRegistering) -> bool:
    """Whether the registry has the instance that the agent proved to be, if it proved one."""
    record = state.record(agent_id)
    return record is None or event.instance_id in {"", record.instance_id}


def _gone_text(agent_id: str) -> str:
    return f"Agent {agent_id} has been marked gone"


def _refuse(state: State, link_id: str, text: str) -> None:
    state.effects.append(SendAgent(link_id, link.Refused(text)))
    state.effects.append(CloseLink(link_id))


def stored(state: State, event: Stored) -> None:
    """Admit an agent that the registry has stored."""
    change, origin = event.change, event.origin
    if not isinstance(change, Admit) or not isinstance(origin, AgentRegistering):
        return
    if origin.link_id not in state.registering:
        _abandon_admission(state, change.agent_id, is_new=origin.is_new)
        return
    state.registering.discard(origin.link_id)
    if state.is_gone(change.agent_id):
        _refuse(state, origin.link_id, _gone_text(change.agent_id))
    elif change.agent_id in state.agents:
        _reregister(state, state.agents[change.agent_id], origin)
    else:
        _admit(state, origin)


def not_stored(state: State, event: NotStored) -> None:
    """Undo what waits for a change that the registry cannot take, and answer who asked for it."""
    change, origin = event.change, event.origin
    if state.in_flight.get(change.agent_id) == type(change).__name__:
        del state.in_flight[change.agent_id]
    if isinstance(origin, AgentRegistering):
        state.registering.discard(origin.link_id)
        state.effects.append(CloseLink(origin.link_id, event.why))
    elif isinstance(origin, Operator):
        state.effects.append(Reply(origin.token, 507, event.why))
    agent = state.agents.get(change.agent_id)
    if agent is not None:
        state.allocator.set_agent_active(agent.id, active=state.is_offerable(agent))


def _abandon_admission(state: State, agent_id: str, *, is_new: bool) -> None:
    """The link broke before the registry was written.

    An agent that did not receive its new id registers again without one, so the id is removed.
    """
    if is_new:
        state.effects.append(Store(Remove(agent_id)))
    elif agent_id not in state.agents:
        state.recovered.add(agent_id)


def _admit(state: State, event: AgentRegistering) -> None:
    message = event.register
    agent_id = message.agent_id or ""
    _remove_predecessor(state, agent_id, message.address)
    info = _info_of(event)
    was_recovered = agent_id in state.recovered
    state.recovered.discard(agent_id)
    agent = Agent(agent_id, info, total_of(info), state.now)
    state.agents[agent_id] = agent
    state.allocator.add_agent(agent_id, agent.total, active=False)
    _connect(state, agent, event)
    state.counters["slave_reregistrations" if was_recovered else "slave_registrations"] += 1
    _add_reported_tasks(state, agent, message.tasks)
    _acknowledge_registration(state, agent)
    state.publish("AGENT_ADDED", {"agent": agent_json(state, agent)})


def _remove_predecessor(state: State, agent_id: str, address: str) -> None:
    """Remove another agent of the same address.

    An agent that lost its work folder registers as a new one; its old id cannot return.
    """
    if not address:
        return
    predecessors = [
        agent
        for agent in state.agents.values()
        if agent.address == address and agent.id != agent_id
    ]
    cause = Cause("TASK_GONE", "REASON_SLAVE_REMOVED", "A new agent registered at the same address")
    for agent in predecessors:
        remove(state, agent, cause)
        state.counters["slave_removals/reason_registered"] += 1
        state.effects.append(Store(Remove(agent.id)))


def _connect(state: State, agent: Agent, event: AgentRegistering) -> None:
    if agent.link_id is not None and agent.link_id != event.link_id:
        state.links.pop(agent.link_id, None)
        state.effects.append(CloseLink(agent.link_id))
    agent.link_id = event.link_id
    agent.address, agent.version = event.register.address, event.register.version
    agent.records_set_aside = event.register.records_set_aside
    agent.last_pong_at = state.now
    agent.next_ping_at = state.now + state.config.ping_interval_s
    state.links[event.link_id] = agent.id


def _acknowledge_registration(state: State, agent: Agent) -> None:
    """Send the agent its id, its drain and its kills, and offer it. Its tasks are known by now."""
    state.send_to_agent(agent, link.Registered(agent.id, state.config.ping_interval_s))
    record = state.record(agent.id)
    if record is not None and record.drain is not None:
        drain = link.Drain(record.drain.max_grace_s, record.drain.mark_gone)
        state.send_to_agent(agent, drain)
    else:
        state.send_to_agent(agent, link.Undrain())
    for (framework_id, task_id), grace_s in agent.kills.items():
        state.send_to_agent(agent, link.Kill(framework_id, task_id, grace_s))
    state.allocator.set_agent_active(agent.id, active=state.is_offerable(agent))
    state.wants_offers = True


def _reregister(state: State, agent: Agent, event: AgentRegistering) -> None:
    """Connect a registered agent to its new link.

    Tasks that it does not report were lost on the way to it. Its size may have changed.
    """
    state.counters["slave_reregistrations"] += 1
    agent.reregistered_at = state.now
    agent.info = msgspec.structs.replace(event.register.info, id=ident(agent.id))
    size = total_of(agent.info)
    if size != agent.total:
        agent.total = size
        state.allocator.update_agent(agent.id, size)
    _connect(state, agent, event)
    reported = {(_framework_id(task), task.task.task_id.value) for task in event.register.tasks}
    for key, task in list(agent.tasks.items()):
        if key not in reported:
            _drop_task(state, state.frameworks[key[0]], task)
    _add_reported_tasks(state, agent, event.register.tasks)
    _acknowledge_registration(state, agent)


def _framework_id(reported: link.KnownTask) -> str:
    return reported.framework.id.value if reported.framework.id else ""


def _drop_task(state: State, framework: Framework, task: Task) -> None:
    state.remove_task(framework, task)
    if not task.is_terminal:
        cause = Cause(
            "TASK_DROPPED",
            "REASON_RECONCILIATION",
            "Reconciliation: Task is unknown to the agent",
        ).as_seen_by(framework)
        refuse_task(state, framework, task.id, task.agent_id, cause)
        task.state = cause.state
    state.add_completed(framework, task)


def _add_reported_tasks(state: State, agent: Agent, tasks: list[link.KnownTask]) -> None:
    """Add the tasks that an agent reports, with frameworks that are not known yet."""
    removed_ids: set[str] = set()
    for reported in tasks:
        framework_id = _framework_id(reported)
        if state.is_removed_framework(framework_id):
            removed_ids.add(framework_id)
            continue
        framework = state.frameworks.get(framework_id)
        if framework is None:
            framework = frameworks.recover(state, reported.framework)
        known = framework.tasks.get(reported.task.task_id.value)
        if known is None:
            _add_reported_task(state, framework, agent, reported)
        elif known.agent_id != agent.id:
            # The id was used again while this agent was away. Mesos kills the older task, too.
            state.send_to_agent(agent, link.Kill(framework_id, known.id))
        else:
            _update_known_task(state, known, reported.latest_state)
    for framework_id in sorted(removed_ids):
        state.send_to_agent(agent, link.ShutdownFramework(framework_id))


def _update_known_task(state: State, task: Task, latest_state: str) -> None:
    if latest_state in TERMINAL_STATES and not task.is_terminal:
        state.release(task)
        task.state = latest_state


def _add_reported_task(
    state: State, framework: Framework, agent: Agent, reported: link.KnownTask
) -> None:
    task = Task(
        reported.task,
        framework.id,
        agent.id,
        _role_of(framework, reported),
        state.allocator.claimable(agent.id, from_wire(reported.task.resources)),
        reported.latest_state,
        list(reported.statuses),
    )
    if reported.statuses:
        last = reported.statuses[-1]
        task.update_state, task.update_uuid = last.state, last.uuid
    state.add_task(framework, agent, task)
    if not task.is_terminal:
        state.allocator.claim(framework.id, task.role, agent.id, task.resources)
    if framework.unreachable.pop(task.id, None) is not None:
        cause = Cause(
            task.update_state or task.state, "REASON_SLAVE_REREGISTERED", "Agent re-registered"
        )
        send_status(state, framework, generate_status(state, task.id, cause, agent.id))


def _role_of(framework: Framework, reported: link.KnownTask) -> str:
    """The role to which the task's resources are allocated; the framework's first without one."""
    for resource in reported.task.resources:
        if resource.allocation_info is not None and resource.allocation_info.role:
            return resource.allocation_info.role
    return next(iter(framework.roles), "*")


def link_closed(state: State, event: LinkClosed) -> None:
    """Stop offering an agent whose link broke.

    Its tasks count as running until enough pings are missed.
    """
    state.registering.discard(event.link_id)
    agent = state.agents.get(state.links.pop(event.link_id, ""))
    if agent is None or agent.link_id != event.link_id:
        return
    agent.link_id = None
    stop_offering(state, agent)


def leave(state: State, event: AgentLeaving) -> None:
    """Remove an agent that shuts down from the registry. `remove_stored` ends its tasks."""
    state.counters["messages_unregister_slave"] += 1
    agent = state.agents.get(state.links.get(event.link_id, ""))
    if agent is not None and state.in_flight.get(agent.id) not in _LEAVING_CHANGES:
        state.in_flight[agent.id] = "Remove"
        stop_offering(state, agent)
        state.effects.append(Store(Remove(agent.id)))


def remove_stored(state: State, change: Remove) -> None:
    """Remove an agent that the registry no longer has."""
    if state.in_flight.get(change.agent_id) == "Remove":
        del state.in_flight[change.agent_id]
    agent = state.agents.get(change.agent_id)
    if agent is None:
        return  # a successor at its address has removed it already
    state.counters["slave_removals/reason_unregistered"] += 1
    cause = Cause("TASK_GONE", "REASON_SLAVE_REMOVED", "The agent unregistered")
    remove(state, agent, cause)
    state.wants_offers = True


def stop_offering(state: State, agent: Agent) -> None:
    """Rescind the agent's offers, and make no further ones."""
    state.allocator.set_agent_active(agent.id, active=False)
    for offer in list(agent.offers.values()):
        state.remove_offer(offer, rescind=True)


def remove(state: State, agent: Agent, cause: Cause) -> None:
    """Remove an agent. Its live tasks get the cause's state, as their frameworks understand it."""
    for (framework_id, _), task in list(agent.tasks.items()):
        framework = state.frameworks[framework_id]
        was_terminal = task.is_terminal
        state.remove_task(framework, task)
        if was_terminal:
            state.add_completed(framework, task)
        else:
            _end_task(state, framework, task, cause)
    for offer in list(agent.offers.values()):
        state.remove_offer(offer, rescind=True)
    state.allocator.remove_agent(agent.id)
    del state.agents[agent.id]
    if agent.link_id is not None:
        state.links.pop(agent.link_id, None)
        state.effects.append(CloseLink(agent.link_id))
    state.counters["slave_removals"] += 1
    agent_id = {"value": agent.id}
    for framework in state.frameworks.values():
        state.send_event(framework, "FAILURE", {"agent_id": agent_id})
    state.publish("AGENT_REMOVED", {"agent_id": agent_id})


def _end_task(state: State, framework: Framework, task: Task, cause: Cause) -> None:
    """Give a task of a removed agent its final state. An unreachable task may still return."""
    is_unreachable = cause.state == "TASK_UNREACHABLE"
    seen = cause.as_seen_by(framework)
    task.unreachable_at = state.now if is_unreachable else None
    status = generate_status(state, task.id, seen, task.agent_id, task.unreachable_at)
    task.state = seen.state
    record_status(state, framework, task, status, seen.state)
    send_status(state, framework, status)
    if not is_unreachable:
        state.add_completed(framework, task)
        return
    framework.unreachable[task.id] = task
    while len(framework.unreachable) > MAX_UNREACHABLE_TASKS:
        framework.unreachable.popitem(last=False)


def tick(state: State) -> None:
    """Send pings. Mark agents unreachable that answered none, or never came in this term."""
    silence_s = state.config.ping_interval_s * state.config.max_missed_pings
    for agent in list(state.agents.values()):
        with state.contain(f"agent {agent.id}"):
            _ping(state, agent, silence_s)
    if state.recovered and state.now >= state.elected_at + state.config.reregister_timeout_s:
        for agent_id in sorted(state.recovered):
            _start_unreachable(state, agent_id)


def _ping(state: State, agent: Agent, silence_s: float) -> None:
    if agent.last_pong_at + silence_s <= state.now:
        _start_unreachable(state, agent.id)
    elif agent.next_ping_at <= state.now:
        agent.next_ping_at = state.now + state.config.ping_interval_s
        state.send_to_agent(agent, link.Ping())


def _start_unreachable(state: State, agent_id: str) -> None:
    if agent_id not in state.in_flight:
        state.in_flight[agent_id] = "MarkUnreachable"
        state.counters["slave_unreachable_scheduled"] += 1
        state.effects.append(Store(MarkUnreachable(agent_id, state.now)))


def unreachable_stored(state: State, change: MarkUnreachable) -> None:
    """Remove an agent that the registry has marked unreachable."""
    state.in_flight.pop(change.agent_id, None)
    state.recovered.discard(change.agent_id)
    state.counters["slave_unreachable_completed"] += 1
    agent = state.agents.get(change.agent_id)
    if agent is None:
        return
    state.counters["slave_removals/reason_unhealthy"] += 1
    message = f"Agent {agent.info.hostname} is unreachable: health check timed out"
    remove(state, agent, Cause("TASK_UNREACHABLE", "REASON_SLAVE_REMOVED", message))
    state.wants_offers = True
