"""Which tasks this agent can never run, and why."""

from __future__ import annotations

from mesaform.common.json_types import as_object
from mesaform.mesos.messages import TaskInfo


def why_not_runnable(task: TaskInfo) -> str:
    """Empty when the task can run here; otherwise what is wrong, for the task's framework."""
    if not _is_safe_name(task.task_id.value):
        return f"Task id {task.task_id.value!r} cannot name a sandbox: it is empty, '.', '..', too long, or has '/' or NUL in it"
    if task.executor is not None:
        return "Custom executors are not supported by the embedded engine; use a command, or `engine: mesos`"
    if task.command is None:
        return "Task has neither a command nor an executor"
    container = task.container or {}
    if container.get("type") == "DOCKER" or as_object(container.get("mesos")).get("image"):
        return "Container images are not supported by the embedded engine; use a command without an image, or `engine: mesos`"
    return _why_not_command(task)


def _why_not_command(task: TaskInfo) -> str:
    command = task.command
    if command is not None and command.shell is False and not (command.value or command.arguments):
        return "A command with shell=false needs a value or arguments"
    if command is not None and command.shell is not False and command.value is None:
        return "A shell command needs a value"
    return ""


def _is_safe_name(name: str) -> bool:
    return (
        name not in {"", ".", ".."}
        and "/" not in name
        and "\0" not in name
        and len(name.encode()) <= 255
    )
