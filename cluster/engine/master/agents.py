"""Agents: they register, come back, fall silent, and leave. What rests on the registry happens only after it is written."""

from __future__ import annotations

import dataclasses

import msgspec

from cluster.engine import link
from cluster.engine.master import frameworks
from cluster.engine.master.events import (
    AgentLeaving,
    AgentRegistering,
    CloseLink,
    LinkClosed,
    SendAgent,
    Store,
    Stored,
)
from cluster.engine.master.render import agent_json
from cluster.engine.master.state import (
    MAX_UNREACHABLE_TASKS,
    Agent,
    Framework,
    State,
    Task,
    agent_total,
)
from cluster.engine.master.status import (
    master_generated_status,
    refuse_task,
    send_status,
    state_as_seen_by,
    unreachable_time,
)
from cluster.engine.master.tasks import note
from cluster.engine.registry import Admit, MarkUnreachable, Remove
from cluster.mesos.messages import TERMINAL_STATES, from_wire, ident


def registering(m: State, event: AgentRegistering) -> None:
    """The first message on a link: a known agent is back at once, any other after the registry holds it."""
    agent_id = event.register.agent_id
    m.counters["messages_reregister_slave" if agent_id else "messages_register_slave"] += 1
    if agent_id is not None and (m.is_gone(agent_id) or m.in_flight.get(agent_id) == "MarkGone"):
        _refuse(m, event.link_id, f"Agent {agent_id} has been marked gone")
        return
    if agent_id in m.agents:
        _returned(m, m.agents[agent_id], event)
        return
    if agent_id is None:
        agent_id = m.ids.agent()
        event = dataclasses.replace(
            event, register=msgspec.structs.replace(event.register, agent_id=agent_id), is_new=True
        )
    if (
        agent_id in m.recovered
        and m.in_flight.get(agent_id) is None
        and _same_size(m, agent_id, event)
    ):
        _admitted(m, event)
        return
    m.registering.add(event.link_id)
    m.out.append(
        Store(
            Admit(
                agent_id, msgspec.structs.replace(event.register.info, id=ident(agent_id)), m.now
            ),
            event,
        )
    )


def _same_size(m: State, agent_id: str, event: AgentRegistering) -> bool:
    record = m.record(agent_id)
    return (
        record is not None
        and msgspec.structs.replace(event.register.info, id=ident(agent_id)) == record.info
    )


def _refuse(m: State, link_id: str, why: str) -> None:
    m.out.append(SendAgent(link_id, link.Refused(why)))
    m.out.append(CloseLink(link_id))


def stored(m: State, event: Stored) -> None:
    """The registry holds the agent."""
    change, origin = event.change, event.origin
    if not isinstance(change, Admit) or not isinstance(origin, AgentRegistering):
        return
    if origin.link_id not in m.registering:
        _left_meanwhile(m, change.agent_id, is_new=origin.is_new)
        return
    m.registering.discard(origin.link_id)
    if m.is_gone(change.agent_id):
        _refuse(m, origin.link_id, f"Agent {change.agent_id} has been marked gone")
    elif change.agent_id in m.agents:
        _returned(m, m.agents[change.agent_id], origin)
    else:
        _admitted(m, origin)


def _left_meanwhile(m: State, agent_id: str, *, is_new: bool) -> None:
    """The link broke before the registry was written: an agent that never heard its id comes as another one."""
    if is_new:
        m.out.append(Store(Remove(agent_id)))
    elif agent_id not in m.agents:
        m.recovered.add(agent_id)


def _admitted(m: State, event: AgentRegistering) -> None:
    register = event.register
    agent_id = register.agent_id or ""
    _drop_predecessor(m, agent_id, register.address)
    info = msgspec.structs.replace(register.info, id=ident(agent_id))
    was_recovered = agent_id in m.recovered
    m.recovered.discard(agent_id)
    agent = Agent(agent_id, info, agent_total(info), m.now)
    m.agents[agent_id] = agent
    m.allocator.add_agent(agent_id, agent.total, active=False)
    _connect(m, agent, event)
    m.counters["slave_reregistrations" if was_recovered else "slave_registrations"] += 1
    _take_tasks(m, agent, register.tasks)
    _acknowledge_registration(m, agent)
    m.publish("AGENT_ADDED", {"agent": agent_json(m, agent)})


def _drop_predecessor(m: State, agent_id: str, address: str) -> None:
    """An agent that lost its id (its work folder) registers anew from the same address: the old one cannot come back."""
    if not address:
        return
    for old in [one for one in m.agents.values() if one.address == address and one.id != agent_id]:
        remove(
            m,
            old,
            "TASK_GONE",
            "REASON_SLAVE_REMOVED",
            "A new agent registered at the same address",
        )
        m.counters["slave_removals/reason_registered"] += 1
        m.out.append(Store(Remove(old.id)))


def _connect(m: State, agent: Agent, event: AgentRegistering) -> None:
    if agent.link_id is not None and agent.link_id != event.link_id:
        m.links.pop(agent.link_id, None)
        m.out.append(CloseLink(agent.link_id))
    agent.link_id = event.link_id
    agent.address, agent.version = event.register.address, event.register.version
    agent.last_pong_at = m.now
    agent.next_ping_at = m.now + m.config.ping_interval_s
    m.links[event.link_id] = agent.id


def _acknowledge_registration(m: State, agent: Agent) -> None:
    """After the tasks are known: tell the agent its id and what it must do, and offer it."""
    m.tell(agent, link.Registered(agent.id, m.config.ping_interval_s))
    record = m.record(agent.id)
    if record is not None and record.drain is not None:
        m.tell(agent, link.Drain(record.drain.max_grace_s, record.drain.mark_gone))
    else:
        m.tell(agent, link.Undrain())
    for (framework_id, task_id), grace_s in agent.kills.items():
        m.tell(agent, link.Kill(framework_id, task_id, grace_s))
    m.allocator.set_agent_active(agent.id, active=m.may_offer(agent))
    m.wants_offers = True


def _returned(m: State, agent: Agent, event: AgentRegistering) -> None:
    """A registered agent on a new link: what it no longer knows was lost on the way; its size may have changed."""
    m.counters["slave_reregistrations"] += 1
    agent.reregistered_at = m.now
    agent.info = msgspec.structs.replace(event.register.info, id=ident(agent.id))
    size = agent_total(agent.info)
    if size != agent.total:
        agent.total = size
        m.allocator.update_agent(agent.id, size)
    _connect(m, agent, event)
    known = {
        (one.framework.id.value if one.framework.id else "", one.task.task_id.value)
        for one in event.register.tasks
    }
    for key, task in list(agent.tasks.items()):
        if key not in known:
            _task_lost(m, m.frameworks[key[0]], task)
    _take_tasks(m, agent, event.register.tasks)
    _acknowledge_registration(m, agent)


def _task_lost(m: State, framework: Framework, task: Task) -> None:
    m.end_task(framework, task)
    if not task.is_terminal:
        message = "Reconciliation: Task is unknown to the agent"
        state = state_as_seen_by(framework, "TASK_DROPPED")
        refuse_task(m, framework, task.id, task.agent_id, state, "REASON_RECONCILIATION", message)
        task.state = state
    m.keep_completed(framework, task)


def _take_tasks(m: State, agent: Agent, known: list[link.KnownTask]) -> None:
    shut: set[str] = set()
    for one in known:
        framework_id = one.framework.id.value if one.framework.id else ""
        if m.is_removed_framework(framework_id):
            shut.add(framework_id)
            continue
        framework = m.frameworks.get(framework_id) or frameworks.recover(m, one.framework)
        if one.task.task_id.value not in framework.tasks:
            _take_task(m, framework, agent, one)
        elif one.latest_state in TERMINAL_STATES:
            task = framework.tasks[one.task.task_id.value]
            if not task.is_terminal:
                m.allocator.recover(framework.id, task.role, agent.id, task.resources, now=m.now)
                task.state = one.latest_state
    for framework_id in sorted(shut):
        m.tell(agent, link.ShutdownFramework(framework_id))


def _take_task(m: State, framework: Framework, agent: Agent, one: link.KnownTask) -> None:
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
    m.add_task(framework, agent, task)
    if not task.is_terminal:
        m.allocator.claim(framework.id, role, agent.id, task.resources)
    if framework.unreachable.pop(task.id, None) is not None:
        text = "Agent re-registered"
        status = master_generated_status(
            m, task.id, task.update_state or task.state, "REASON_SLAVE_REREGISTERED", text, agent.id
        )
        send_status(m, framework, status)


def link_closed(m: State, event: LinkClosed) -> None:
    """A broken link: no offers until it is back; its tasks are presumed to run until the pings run out."""
    m.registering.discard(event.link_id)
    agent = m.agents.get(m.links.pop(event.link_id, ""))
    if agent is None or agent.link_id != event.link_id:
        return
    agent.link_id = None
    stop_offering(m, agent)


def leaving(m: State, event: AgentLeaving) -> None:
    """An agent ends for good: it leaves the registry, and then its tasks are known to be gone."""
    m.counters["messages_unregister_slave"] += 1
    agent = m.agents.get(m.links.get(event.link_id, ""))
    if agent is not None and m.in_flight.get(agent.id) not in {
        "MarkGone",
        "MarkUnreachable",
        "Remove",
    }:
        m.in_flight[agent.id] = "Remove"
        stop_offering(m, agent)
        m.out.append(Store(Remove(agent.id)))


def remove_stored(m: State, change: Remove) -> None:
    """The registry has forgotten the agent."""
    if m.in_flight.get(change.agent_id) == "Remove":
        del m.in_flight[change.agent_id]
    agent = m.agents.get(change.agent_id)
    if agent is None:
        return  # another one took its address; nothing of it is left here
    m.counters["slave_removals/reason_unregistered"] += 1
    remove(m, agent, "TASK_GONE", "REASON_SLAVE_REMOVED", "The agent ended for good")
    m.wants_offers = True


def stop_offering(m: State, agent: Agent) -> None:
    m.allocator.set_agent_active(agent.id, active=False)
    for offer in list(agent.offers.values()):
        m.drop_offer(offer, rescind=True)


def remove(m: State, agent: Agent, state: str, reason: str, message: str) -> None:
    """The agent leaves memory; its tasks end in `state`, or TASK_LOST for whom does not know that state."""
    unreachable = state == "TASK_UNREACHABLE"
    for (framework_id, task_id), task in list(agent.tasks.items()):
        framework = m.frameworks[framework_id]
        was_terminal = task.is_terminal
        m.end_task(framework, task)
        if was_terminal:
            m.keep_completed(framework, task)
            continue
        final = state_as_seen_by(framework, state)
        task.unreachable_at = m.now if unreachable else None
        more = unreachable_time(task) if unreachable else {}
        status = master_generated_status(m, task_id, final, reason, message, agent.id, **more)
        task.state = final
        note(m, framework, task, status, final)
        send_status(m, framework, status)
        if unreachable:
            framework.unreachable[task_id] = task
            while len(framework.unreachable) > MAX_UNREACHABLE_TASKS:
                framework.unreachable.popitem(last=False)
        else:
            m.keep_completed(framework, task)
    for offer in list(agent.offers.values()):
        m.drop_offer(offer, rescind=True)
    m.allocator.remove_agent(agent.id)
    del m.agents[agent.id]
    if agent.link_id is not None:
        m.links.pop(agent.link_id, None)
        m.out.append(CloseLink(agent.link_id))
    m.counters["slave_removals"] += 1
    for framework in m.frameworks.values():
        m.send(framework, {"type": "FAILURE", "failure": {"agent_id": {"value": agent.id}}})
    m.publish("AGENT_REMOVED", {"agent_id": {"value": agent.id}})


def tick(m: State) -> None:
    """Pings, agents that answered none of them, and recovered agents that never came."""
    silence_s = m.config.ping_interval_s * m.config.max_missed_pings
    for agent in list(m.agents.values()):
        if agent.last_pong_at + silence_s <= m.now:
            _start_unreachable(m, agent.id)
        elif agent.next_ping_at <= m.now:
            agent.next_ping_at = m.now + m.config.ping_interval_s
            m.tell(agent, link.Ping())
    if m.recovered and m.now >= m.elected_at + m.config.reregister_timeout_s:
        for agent_id in sorted(m.recovered):
            _start_unreachable(m, agent_id)


def _start_unreachable(m: State, agent_id: str) -> None:
    if agent_id not in m.in_flight:
        m.in_flight[agent_id] = "MarkUnreachable"
        m.counters["slave_unreachable_scheduled"] += 1
        m.out.append(Store(MarkUnreachable(agent_id, m.now)))


def unreachable_stored(m: State, change: MarkUnreachable) -> None:
    m.in_flight.pop(change.agent_id, None)
    m.recovered.discard(change.agent_id)
    m.counters["slave_unreachable_completed"] += 1
    agent = m.agents.get(change.agent_id)
    if agent is not None:
        m.counters["slave_removals/reason_unhealthy"] += 1
        remove(
            m,
            agent,
            "TASK_UNREACHABLE",
            "REASON_SLAVE_REMOVED",
            f"Agent {agent.info.hostname} is unreachable: health check timed out",
        )
        m.wants_offers = True
