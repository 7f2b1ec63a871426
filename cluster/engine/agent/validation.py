"""Validation of tasks: what this agent can never run.

The master has validated the task with the same rules (`engine.validation`). The agent repeats those
that protect itself.
"""

from __future__ import annotations

from mesaform.engine.validation.checks import invalid_health_check
from mesaform.engine.validation.names import invalid_id
from mesaform.engine.validation.support import unsupported_task
from mesaform.mesos.messages import TaskInfo


def why_not_runnable(task: TaskInfo) -> str:
    """The problem, as text for the task's framework; empty when the task can run here."""
    problem = invalid_id(task.task_id.value)
    if problem is None and task.command is None and task.executor is None:
        problem = "Task has neither a command nor an executor"
    if problem is None and task.health_check is not None:
        problem = invalid_health_check(task.health_check)
    return problem or unsupported_task(task) or ""
