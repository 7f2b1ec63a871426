"""Live tasks: updates pass from agents to schedulers; acknowledgements and kills pass back."""

from __future__ import annotations

import msgspec

from mesaform.engine import link
from mesaform.engine.master.reconcile import explain
from mesaform.engine.master.state import Agent, Framework, State, Task
from mesaform.engine.master.status import count_state, send_status
from mesaform.mesos.messages import TERMINAL_STATES, TaskStatus, ident
from mesaform.mesos.scheduler_api import Acknowledge, Kill, ReconcileTask


def forward_update(state: State, agent: Agent, update: link.Update) -> None:
    """Record an agent's update and send it to the scheduler.

    The agent repeats it until the scheduler acknowledges it, so the master need not store it.
    """
    state.counters["messages_status_update"] += 1
    framework = state.frameworks.get(update.framework_id)
    if framework is None:
        state.counters["invalid_status_updates"] += 1
        if state.is_removed_framework(update.framework_id):
            state.send_to_agent(agent, link.ShutdownFramework(update.framework_id))
        return
    state.counters["valid_status_updates"] += 1
    status = (
        update.status
        if update.status.agent_id
        else msgspec.structs.replace(update.status, agent_id=ident(agent.id))
    )
    task = agent.tasks.get((framework.id, status.task_id.value))
    if task is not None:
        record_status(state, framework, task, status, update.latest_state)
    send_status(state, framework, status)


def record_status(
    state: State, framework: Framework, task: Task, status: TaskStatus, latest_state: str
) -> None:
    """Update the task's record. Its resources return once the latest state is terminal."""
    is_repeated = status.uuid is not None and status.uuid == task.update_uuid
    if not task.is_terminal:
        if latest_state in TERMINAL_STATES:
            state.release(task)
        task.state = latest_state
    task.update_state, task.update_uuid = status.state, status.uuid
    if is_repeated:
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
    """Pass an acknowledgement to the agent. That of a terminal update completes the task."""
    state.counters["messages_status_update_acknowledgement"] += 1
    agent = state.agents.get(call.agent_id.value)
    if agent is None or not agent.is_connected:
        state.counters["invalid_status_update_acknowledgements"] += 1
        return
    state.counters["valid_status_update_acknowledgements"] += 1
    task = agent.tasks.get((framework.id, call.task_id.value))
    if task is not None and task.update_uuid == call.uuid and task.update_state in TERMINAL_STATES:
        state.remove_task(framework, task)
        state.add_completed(framework, task)
    state.send_to_agent(agent, link.Acknowledge(framework.id, call.task_id.value, call.uuid))


def kill(state: State, framework: Framework, call: Kill) -> None:
    """Pass a kill to the agent, and repeat it when the agent returns.

    A task that is not known is reconciled instead.
    """
    state.counters["messages_kill_task"] += 1
    task = framework.tasks.get(call.task_id.value)
    if task is None:
        _reconcile_unknown(state, framework, call)
        return
    agent = state.agents.get(task.agent_id)
    if agent is None or (call.agent_id is not None and call.agent_id.value != task.agent_id):
        return
    period = call.kill_policy.grace_period if call.kill_policy is not None else None
    grace_s = period.nanoseconds / 1e9 if period is not None else None
    agent.kills[framework.id, task.id] = grace_s
    state.send_to_agent(agent, link.Kill(framework.id, task.id, grace_s))


def _reconcile_unknown(state: State, framework: Framework, call: Kill) -> None:
    query = ReconcileTask(task_id=call.task_id, agent_id=call.agent_id)
    status = explain(state, framework, query)
    if status is not None:
        send_status(state, framework, status)
