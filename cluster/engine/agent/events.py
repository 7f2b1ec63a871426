"""Events and effects of the agent's core: plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from mesaform.engine import link
from mesaform.engine.agent.tasks import AgentMeta, SavedTask, TaskRecord
from mesaform.engine.link_validation import RejectedLaunch

# --- events


@dataclass(frozen=True, slots=True)
class Started:
    """A container's runner exists."""

    container_id: str
    executor_pid: int


@dataclass(frozen=True, slots=True)
class Ran:
    """A container's command exists, or was alive after a restart of the agent."""

    container_id: str


@dataclass(frozen=True, slots=True)
class Exited:
    """A container has ended, with all its processes.

    `wait_status` is that of wait(2), or None when it is unknown. `over_limit` is the text of the
    limit that ended it.
    """

    container_id: str
    wait_status: int | None
    over_limit: str = ""


@dataclass(frozen=True, slots=True)
class LaunchFailed:
    """A container could not be started. Nothing follows."""

    container_id: str
    why: str


@dataclass(frozen=True, slots=True)
class HealthChecked:
    """A health check has a new result. `kill`: it failed too often in a row."""

    container_id: str
    healthy: bool
    kill: bool = False


@dataclass(frozen=True, slots=True)
class CheckFailed:
    """A health check cannot be carried out; its task cannot go on without it."""

    container_id: str
    why: str


@dataclass(frozen=True, slots=True)
class DiskExceeded:
    """A container's sandbox uses more than its task's disk."""

    container_id: str
    used_bytes: int
    limit_bytes: int


@dataclass(frozen=True, slots=True)
class TaskLost:
    """A task of the last run whose record cannot be read. Its processes are killed."""

    framework_id: str
    task_id: str
    why: str


@dataclass(frozen=True, slots=True)
class Connected:
    """The agent is registered with the leading master, as `agent_id`."""

    agent_id: str


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The stream to the master broke."""


@dataclass(frozen=True, slots=True)
class Tick:
    """The time of `wake_at` has come."""


@dataclass(frozen=True, slots=True)
class KillAll:
    """The agent shuts down and does not return.

    `is_refused`: the master refused the agent, so it acknowledges no update.
    """

    is_refused: bool


ContainerEvent: TypeAlias = (
    Started | Ran | Exited | LaunchFailed | HealthChecked | CheckFailed | DiskExceeded
)
LinkEvent: TypeAlias = (
    link.Launch | link.Kill | link.Acknowledge | link.Drain | link.Undrain | link.ShutdownFramework
)
Event: TypeAlias = (
    ContainerEvent
    | LinkEvent
    | RejectedLaunch
    | TaskLost
    | Connected
    | Disconnected
    | Tick
    | KillAll
)

# --- effects


@dataclass(frozen=True, slots=True)
class Send:
    """Send an update on the present stream. Without one it is dropped; it will be repeated."""

    update: link.Update


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Make the task durable before the next effect.

    On a full disk it is kept in memory and written later. A launch fails instead.
    """

    saved: SavedTask


@dataclass(frozen=True, slots=True)
class SaveMeta:
    """Make the agent's own record durable before the next effect, or later on a full disk."""

    meta: AgentMeta


@dataclass(frozen=True, slots=True)
class StartContainer:
    """Start the task's container."""

    record: TaskRecord


@dataclass(frozen=True, slots=True)
class KillContainer:
    """Request the end of a container, and kill it after `grace_s` seconds.

    It may be repeated with another grace.
    """

    container_id: str
    grace_s: float


@dataclass(frozen=True, slots=True)
class Forget:
    """Remove the task's record. Its sandbox stays until garbage collection."""

    record: TaskRecord


Effect: TypeAlias = Send | Checkpoint | SaveMeta | StartContainer | KillContainer | Forget
