"""Running tasks: updates come from agents and go to schedulers, acknowledgements and kills go the other way."""

from __future__ import annotations

import msgspec

from mesaform.engine import link
from mesaform.engine.master.reconcile import explain
from mesaform.engine.master.state import Agent, Framework, State, Task
from mesaform.engine.master.status import count_state, send_status
from mesaform.mesos.messages import TERMINAL_STATES, TaskStatus, ident
from mesaform.mesos.scheduler_api import Acknowledge, Kill, ReconcileTask


def updated(state: State, agent: Agent, update: link.Update) -> None:
    """An agent's update: note it and pass it on. It comes again until the scheduler acknowledges it, so losing it is no loss."""
    state.counters["messages_status_update"] += 1
    framework = state.frameworks.get(update.framework_id)
    if framework is None:
        state.counters["invalid_status_updates"] += 1
        if state.is_removed_framework(update.framework_id):
            state.tell(agent, link.ShutdownFramework(update.framework_id))
        return
    state.counters["valid_status_updates"] += 1
    status = (
        update.status
        if update.status.agent_id
        else msgspec.structs.replace(update.status, agent_id=ident(agent.id))
    )
    task = agent.tasks.get((framework.id, status.task_id.value))
    if task is not None:
        note(state, framework, task, status, update.latest_state)
    send_status(state, framework, status)


def note(
    state: State, framework: Framework, task: Task, status: TaskStatus, latest_state: str
) -> None:
    """Bring the record up to date. Resources return as soon as the latest state is terminal."""
    repeated = status.uuid is not None and status.uuid == task.update_uuid
    if not task.is_terminal:
        if latest_state in TERMINAL_STATES:
            state.allocator.recover(
                framework.id, task.role, task.agent_id, task.resources, now=state.now
            )
        task.state = latest_state
    task.update_state, task.update_uuid = status.state, status.uuid
    if repeated:
        return
    if task.statuses and task.statuses[-1].state == status.state:
        task.statuses.pop()
    task.statuses.append(msgspec.structs.replace(status, data=None))
    count_state(state, framework, status)
    state.publish(
        "TASK_UPDATED",
        {"framework_id": {"value": framework.id}, "status": status, "state": task.state},
    )


def acknowledge(state: State, framework: Framework, call: Acknowledge) -> None:
    """The scheduler has it: a terminal update acknowledged ends the task's record."""
    state.counters["messages_status_update_acknowledgement"] += 1
    agent = state.agents.get(call.agent_id.value)
    if agent is None or not agent.connected:
        state.counters["invalid_status_update_acknowledgements"] += 1
        return
    state.counters["valid_status_update_acknowledgements"] += 1
    task = agent.tasks.get((framework.id, call.task_id.value))
    if task is not None and task.update_uuid == call.uuid and task.update_state in TERMINAL_STATES:
        state.end_task(framework, task)
        state.keep_completed(framework, task)
    state.tell(agent, link.Acknowledge(framework.id, call.task_id.value, call.uuid))


def kill(state: State, framework: Framework, call: Kill) -> None:
    """Pass it to the agent, or keep it for when the agent is back; a task nobody knows is reconciled instead."""
    state.counters["messages_kill_task"] += 1
    task = framework.tasks.get(call.task_id.value)
    if task is None:
        status = explain(
            state, framework, ReconcileTask(task_id=call.task_id, agent_id=call.agent_id)
        )
        if status is not None:
            send_status(state, framework, status)
        return
    agent = state.agents.get(task.agent_id)
    if agent is None or (call.agent_id is not None and call.agent_id.value != task.agent_id):
        return
    period = call.kill_policy.grace_period if call.kill_policy is not None else None
    grace_s = period.nanoseconds / 1e9 if period is not None else None
    agent.kills[framework.id, task.id] = grace_s
    state.tell(agent, link.Kill(framework.id, task.id, grace_s))
