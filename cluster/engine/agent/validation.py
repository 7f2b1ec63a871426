"""Validation of tasks: what this agent can never run."""

from __future__ import annotations

from mesaform.common.json_types import as_object
from mesaform.mesos.messages import CommandInfo, TaskInfo


def why_not_runnable(task: TaskInfo) -> str:
    """The problem, as text for the task's framework; empty when the task can run here."""
    if not _is_safe_name(task.task_id.value):
        return (
            f"Task id {task.task_id.value!r} cannot name a sandbox: "
            "it is empty, '.', '..', too long, or has '/' or NUL in it"
        )
    if task.executor is not None:
        return (
            "Custom executors are not supported by the embedded engine; "
            "use a command, or `engine: mesos`"
        )
    if task.command is None:
        return "Task has neither a command nor an executor"
    if _has_image(task):
        return (
            "Container images are not supported by the embedded engine; "
            "use a command without an image, or `engine: mesos`"
        )
    return _command_problem(task.command)


def _has_image(task: TaskInfo) -> bool:
    container = task.container or {}
    return container.get("type") == "DOCKER" or bool(as_object(container.get("mesos")).get("image"))


def _command_problem(command: CommandInfo) -> str:
    if command.shell is False:
        if not (command.value or command.arguments):
            return "A command with shell=false needs a value or arguments"
    elif command.value is None:
        return "A shell command needs a value"
    return ""


def _is_safe_name(name: str) -> bool:
    return (
        name not in {"", ".", ".."}
        and "/" not in name
        and "\0" not in name
        and len(name.encode()) <= 255
    )
