"""The port to what runs tasks.

A containerizer reports through the function that it is created with. For each container it reports
`Started`, `Ran` and `Exited` in this order, or `LaunchFailed` and nothing after it. After a crash
of the agent `recover` reports from the present state on: an end during the crash is reported as an
`Exited`, with the wait status when the runner recorded it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mesaform.common.resources import Resources
from mesaform.engine.agent.tasks import TaskRecord
from mesaform.mesos.messages import CommandInfo, from_wire


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """What a container is made from.

    `user` is the command's, also an empty one, or else the framework's; None without both.
    """

    container_id: str
    framework_id: str
    task_id: str
    agent_id: str
    command: CommandInfo
    user: str | None
    resources: Resources

    @classmethod
    def of(cls, record: TaskRecord) -> ContainerSpec:
        """The container of a task that `validation.why_not_runnable` accepts."""
        command = record.task.command or CommandInfo()
        return cls(
            container_id=record.container_id,
            framework_id=record.framework_id,
            task_id=record.task_id,
            agent_id=record.task.agent_id.value,
            command=command,
            user=record.framework.user or None if command.user is None else command.user,
            resources=from_wire(record.task.resources),
        )


@dataclass(frozen=True, slots=True)
class Usage:
    """What a container's processes use now. The processor seconds are of live processes."""

    user_s: float
    system_s: float
    rss_bytes: int
    processes: int


class Containerizer(Protocol):
    """Runs containers. No method but `run_inside` waits."""

    def launch(self, spec: ContainerSpec) -> None:
        """Start a container."""
        ...

    def recover(self, spec: ContainerSpec) -> None:
        """Take over a container of this agent's last run; launch it if it had not started."""
        ...

    def kill(self, container_id: str, grace_s: float) -> None:
        """Request a container's end, and kill it after `grace_s` seconds.

        A launch in progress is given up and reports `LaunchFailed`. May be repeated; a shorter
        grace replaces a longer one.
        """
        ...

    def destroy(self, container_id: str) -> None:
        """Kill every process of a container that has no record, and remove its files. No report."""
        ...

    def forget(self, container_id: str) -> None:
        """Remove the records of an ended container. Its sandbox stays. Idempotent."""
        ...

    async def run_inside(self, container_id: str, command: CommandInfo, timeout_s: float) -> bool:
        """Run a command in the container's folder and environment.

        Return whether it exits with 0 within `timeout_s` seconds; 0 means no limit.
        """
        ...

    def usage(self) -> dict[str, Usage]:
        """The usage of each live container by its id. It reads the process table once."""
        ...

    def sandbox(self, spec: ContainerSpec) -> Path:
        """The folder of the container's files, which may not exist yet."""
        ...
