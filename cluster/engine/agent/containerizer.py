"""The port to whatever runs tasks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mesaform.common.resources import Resources
from mesaform.engine.agent.tasks import TaskRecord
from mesaform.mesos.messages import CommandInfo, from_wire


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """What a container is made from. `user` is the command's, or the framework's."""

    container_id: str
    framework_id: str
    task_id: str
    agent_id: str
    command: CommandInfo
    user: str | None
    resources: Resources

    @classmethod
    def of(cls, record: TaskRecord) -> ContainerSpec:
        """For a task that `validation.why_not_runnable` has nothing against."""
        command = record.task.command or CommandInfo()
        return cls(
            container_id=record.container_id,
            framework_id=record.framework_id,
            task_id=record.task_id,
            agent_id=record.task.agent_id.value,
            command=command,
            user=command.user or record.framework.user or None,
            resources=from_wire(record.task.resources),
        )


@dataclass(frozen=True, slots=True)
class Usage:
    """What a container's processes use now; processor seconds are of those still alive."""

    user_s: float
    system_s: float
    rss_bytes: int
    processes: int


class Containerizer(Protocol):
    """Runs containers; what becomes of them arrives as `events.ContainerEvent` at the function it was made with."""

    def launch(self, spec: ContainerSpec) -> None:
        """Start making a container. Reports Started, Ran and Exited in this order, or LaunchFailed and nothing after it."""
        ...

    def recover(self, spec: ContainerSpec) -> None:
        """Take over a container of this agent's last run: reports like `launch`, from wherever it is by now."""
        ...

    def kill(self, container_id: str, grace_s: float) -> None:
        """Ask it to end; end it after `grace_s`. A launch under way is given up: LaunchFailed. May be repeated."""
        ...

    def forget(self, container_id: str) -> None:
        """Remove its records; the sandbox stays. Only for containers that are over."""
        ...

    async def run_inside(self, container_id: str, command: CommandInfo, timeout_s: float) -> bool:
        """Whether a command exits with 0 in time in the container's folder and environment."""
        ...

    def usage(self) -> dict[str, Usage]:
        """What each living container uses, by container id; reads the process table once."""
        ...

    def sandbox(self, spec: ContainerSpec) -> Path:
        """Where the container's files are, or will be."""
        ...
