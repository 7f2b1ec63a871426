"""Agents: they register, come back, fall silent, and leave. What rests on the registry happens only after it is written."""

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
    agent_total,
)
from mesaform.engine.master.status import (
    master_generated_status,
    refuse_task,
    send_status,
    state_as_seen_by,
    unreachable_time,
)
from mesaform.engine.master.tasks import note
from mesaform.engine.registry import Admit, MarkUnreachable, Remove
from mesaform.mesos.messages import TERMINAL_STATES, from_wire, ident


def registering(state: State, event: AgentRegistering) -> None:
    """The first message on a link: a known agent is back at once, any other after the registry holds it."""
    agent_id = event.register.agent_id
    state.counters["messages_reregister_slave" if agent_id else "messages_register_slave"] += 1
    if agent_id is not None and (
        state.is_gone(agent_id) or state.in_flight.get(agent_id) == "MarkGone"
    ):
        _refuse(state, event.link_id, f"Agent {agent_id} has been marked gone")
        return
    if agent_id in state.agents:
        _returned(state, state.agents[agent_id], event)
        return
    if agent_id is None:
        agent_id = state.ids.agent()
        event = dataclasses.replace(
            event, register=msgspec.structs.replace(event.register, agent_id=agent_id), is_new=True
        )
    if (
        agent_id in state.recovered
        and state.in_flight.get(agent_id) is None
        and _same_size(state, agent_id, event)
    ):
        _admitted(state, event)
        return
    state.registering.add(event.link_id)
    state.out.append(
        Store(
            Admit(
                agent_id,
                msgspec.structs.replace(event.register.info, id=ident(agent_id)),
                state.now,
            ),
            event,
        )
    )


def _same_size(state: State, agent_id: str, event: AgentRegistering) -> bool:
    record = state.record(agent_id)
    return (
        record is not None
        and msgspec.structs.replace(event.register.info, id=ident(agent_id)) == record.info
    )


def _refuse(state: State, link_id: str, why: str) -> None:
    state.out.append(SendAgent(link_id, link.Refused(why)))
    state.out.append(CloseLink(link_id))


def stored(state: State, event: Stored) -> None:
    """The registry holds the agent."""
    change, origin = event.change, event.origin
    if not isinstance(change, Admit) or not isinstance(origin, AgentRegistering):
        return
    if origin.link_id not in state.registering:
        _left_meanwhile(state, change.agent_id, is_new=origin.is_new)
        return
    state.registering.discard(origin.link_id)
    if state.is_gone(change.agent_id):
        _refuse(state, origin.link_id, f"Agent {change.agent_id} has been marked gone")
    elif change.agent_id in state.agents:
        _returned(state, state.agents[change.agent_id], origin)
    else:
        _admitted(state, origin)


def _left_meanwhile(state: State, agent_id: str, *, is_new: bool) -> None:
    """The link broke before the registry was written: an agent that never heard its id comes as another one."""
    if is_new:
        state.out.append(Store(Remove(agent_id)))
    elif agent_id not in state.agents:
        state.recovered.add(agent_id)


def _admitted(state: State, event: AgentRegistering) -> None:
    register = event.register
    agent_id = register.agent_id or ""
    _drop_predecessor(state, agent_id, register.address)
    info = msgspec.structs.replace(register.info, id=ident(agent_id))
    was_recovered = agent_id in state.recovered
    state.recovered.discard(agent_id)
    agent = Agent(agent_id, info, agent_total(info), state.now)
    state.agents[agent_id] = agent
    state.allocator.add_agent(agent_id, agent.total, active=False)
    _connect(state, agent, event)
    state.counters["slave_reregistrations" if was_recovered else "slave_registrations"] += 1
    _take_tasks(state, agent, register.tasks)
    _acknowledge_registration(state, agent)
    state.publish("AGENT_ADDED", {"agent": agent_json(state, agent)})


def _drop_predecessor(state: State, agent_id: str, address: str) -> None:
    """An agent that lost its id (its work folder) registers anew from the same address: the old one cannot come back."""
    if not address:
        return
    for old in [
        one for one in state.agents.values() if one.address == address and one.id != agent_id
    ]:
        remove(
            state,
            old,
            "TASK_GONE",
            "REASON_SLAVE_REMOVED",
            "A new agent registered at the same address",
        )
        state.counters["slave_removals/reason_registered"] += 1
        state.out.append(Store(Remove(old.id)))


def _connect(state: State, agent: Agent, event: AgentRegistering) -> None:
    if agent.link_id is not None and agent.link_id != event.link_id:
        state.links.pop(agent.link_id, None)
        state.out.append(CloseLink(agent.link_id))
    agent.link_id = event.link_id
    agent.address, agent.version = event.register.address, event.register.version
    agent.last_pong_at = state.now
    agent.next_ping_at = state.now + state.config.ping_interval_s
    state.links[event.link_id] = agent.id


def _acknowledge_registration(state: State, agent: Agent) -> None:
    """After the tasks are known: tell the agent its id and what it must do, and offer it."""
    state.tell(agent, link.Registered(agent.id, state.config.ping_interval_s))
    record = state.record(agent.id)
    if record is not None and record.drain is not None:
        state.tell(agent, link.Drain(record.drain.max_grace_s, record.drain.mark_gone))
    else:
        state.tell(agent, link.Undrain())
    for (framework_id, task_id), grace_s in agent.kills.items():
        state.tell(agent, link.Kill(framework_id, task_id, grace_s))
    state.allocator.set_agent_active(agent.id, active=state.may_offer(agent))
    state.wants_offers = True


def _returned(state: State, agent: Agent, event: AgentRegistering) -> None:
    """A registered agent on a new link: what it no longer knows was lost on the way; its size may have changed."""
    state.counters["slave_reregistrations"] += 1
    agent.reregistered_at = state.now
    agent.info = msgspec.structs.replace(event.register.info, id=ident(agent.id))
    size = agent_total(agent.info)
    if size != agent.total:
        agent.total = size
        state.allocator.update_agent(agent.id, size)
    _connect(state, agent, event)
    known = {
        (one.framework.id.value if one.framework.id else "", one.task.task_id.value)
        for one in event.register.tasks
    }
    for key, task in list(agent.tasks.items()):
        if key not in known:
            _task_lost(state, state.frameworks[key[0]], task)
    _take_tasks(state, agent, event.register.tasks)
    _acknowledge_registration(state, agent)


def _task_lost(state: State, framework: Framework, task: Task) -> None:
    state.end_task(framework, task)
    if not task.is_terminal:
        message = "Reconciliation: Task is unknown to the agent"
        task_state = state_as_seen_by(framework, "TASK_DROPPED")
        refuse_task(
            state, framework, task.id, task.agent_id, task_state, "REASON_RECONCILIATION", message
        )
        task.state = task_state
    state.keep_completed(framework, task)


def _take_tasks(state: State, agent: Agent, known: list[link.KnownTask]) -> None:
    shut: set[str] = set()
    for one in known:
        framework_id = one.framework.id.value if one.framework.id else ""
        if state.is_removed_framework(framework_id):
            shut.add(framework_id)
            continue
        framework = state.frameworks.get(framework_id) or frameworks.recover(state, one.framework)
        if one.task.task_id.value not in framework.tasks:
            _take_task(state, framework, agent, one)
        elif one.latest_state in TERMINAL_STATES:
            task = framework.tasks[one.task.task_id.value]
            if not task.is_terminal:
                state.allocator.recover(
                    framework.id, task.role, agent.id, task.resources, now=state.now
                )
                task.state = one.latest_state
    for framework_id in sorted(shut):
        state.tell(agent, link.ShutdownFramework(framework_id))


def _take_task(state: State, framework: Framework, agent: Agent, one: link.KnownTask) -> None:
    allocated = [
        part.allocation_info.role
        for part in one.task.resources
        if part.allocation_info and part.allocation_info.role
    ]
    role = allocated[0] if allocated else next(iter(framework.roles), "*")
    task = Task(
        one.task,
        framework.id,
        agent.id,
        role,
        from_wire(one.task.resources),
        one.latest_state,
        list(one.statuses),
    )
    if one.statuses:
        task.update_state, task.update_uuid = one.statuses[-1].state, one.statuses[-1].uuid
    state.add_task(framework, agent, task)
    if not task.is_terminal:
        state.allocator.claim(framework.id, role, agent.id, task.resources)
    if framework.unreachable.pop(task.id, None) is not None:
        text = "Agent re-registered"
        status = master_generated_status(
            state,
            task.id,
            task.update_state or task.state,
            "REASON_SLAVE_REREGISTERED",
            text,
            agent.id,
        )
        send_status(state, framework, status)


def link_closed(state: State, event: LinkClosed) -> None:
    """A broken link: no offers until it is back; its tasks are presumed to run until the pings run out."""
    state.registering.discard(event.link_id)
    agent = state.agents.get(state.links.pop(event.link_id, ""))
    if agent is None or agent.link_id != event.link_id:
        return
    agent.link_id = None
    stop_offering(state, agent)


def leaving(state: State, event: AgentLeaving) -> None:
    """An agent ends for good: it leaves the registry, and then its tasks are known to be gone."""
    state.counters["messages_unregister_slave"] += 1
    agent = state.agents.get(state.links.get(event.link_id, ""))
    if agent is not None and state.in_flight.get(agent.id) not in {
        "MarkGone",
        "MarkUnreachable",
        "Remove",
    }:
        state.in_flight[agent.id] = "Remove"
        stop_offering(state, agent)
        state.out.append(Store(Remove(agent.id)))


def remove_stored(state: State, change: Remove) -> None:
    """The registry has forgotten the agent."""
    if state.in_flight.get(change.agent_id) == "Remove":
        del state.in_flight[change.agent_id]
    agent = state.agents.get(change.agent_id)
    if agent is None:
        return  # another one took its address; nothing of it is left here
    state.counters["slave_removals/reason_unregistered"] += 1
    remove(state, agent, "TASK_GONE", "REASON_SLAVE_REMOVED", "The agent ended for good")
    state.wants_offers = True


def stop_offering(state: State, agent: Agent) -> None:
    state.allocator.set_agent_active(agent.id, active=False)
    for offer in list(agent.offers.values()):
        state.drop_offer(offer, rescind=True)


def remove(state: State, agent: Agent, task_state: str, reason: str, message: str) -> None:
    """The agent leaves memory; its tasks end in `state`, or TASK_LOST for whom does not know that state."""
    unreachable = task_state == "TASK_UNREACHABLE"
    for (framework_id, task_id), task in list(agent.tasks.items()):
        framework = state.frameworks[framework_id]
        was_terminal = task.is_terminal
        state.end_task(framework, task)
        if was_terminal:
            state.keep_completed(framework, task)
            continue
        final = state_as_seen_by(framework, task_state)
        task.unreachable_at = state.now if unreachable else None
        more = unreachable_time(task) if unreachable else {}
        status = master_generated_status(state, task_id, final, reason, message, agent.id, **more)
        task.state = final
        note(state, framework, task, status, final)
        send_status(state, framework, status)
        if unreachable:
            framework.unreachable[task_id] = task
            while len(framework.unreachable) > MAX_UNREACHABLE_TASKS:
                framework.unreachable.popitem(last=False)
        else:
            state.keep_completed(framework, task)
    for offer in list(agent.offers.values()):
        state.drop_offer(offer, rescind=True)
    state.allocator.remove_agent(agent.id)
    del state.agents[agent.id]
    if agent.link_id is not None:
        state.links.pop(agent.link_id, None)
        state.out.append(CloseLink(agent.link_id))
    state.counters["slave_removals"] += 1
    for framework in state.frameworks.values():
        state.send(framework, {"type": "FAILURE", "failure": {"agent_id": {"value": agent.id}}})
    state.publish("AGENT_REMOVED", {"agent_id": {"value": agent.id}})


def tick(state: State) -> None:
    """Pings, agents that answered none of them, and recovered agents that never came."""
    silence_s = state.config.ping_interval_s * state.config.max_missed_pings
    for agent in list(state.agents.values()):
        if agent.last_pong_at + silence_s <= state.now:
            _start_unreachable(state, agent.id)
        elif agent.next_ping_at <= state.now:
            agent.next_ping_at = state.now + state.config.ping_interval_s
            state.tell(agent, link.Ping())
    if state.recovered and state.now >= state.elected_at + state.config.reregister_timeout_s:
        for agent_id in sorted(state.recovered):
            _start_unreachable(state, agent_id)


def _start_unreachable(state: State, agent_id: str) -> None:
    if agent_id not in state.in_flight:
        state.in_flight[agent_id] = "MarkUnreachable"
        state.counters["slave_unreachable_scheduled"] += 1
        state.out.append(Store(MarkUnreachable(agent_id, state.now)))


def unreachable_stored(state: State, change: MarkUnreachable) -> None:
    state.in_flight.pop(change.agent_id, None)
    state.recovered.discard(change.agent_id)
    state.counters["slave_unreachable_completed"] += 1
    agent = state.agents.get(change.agent_id)
    if agent is not None:
        state.counters["slave_removals/reason_unhealthy"] += 1
        remove(
            state,
            agent,
            "TASK_UNREACHABLE",
            "REASON_SLAVE_REMOVED",
            f"Agent {agent.info.hostname} is unreachable: health check timed out",
        )
        state.wants_offers = True
