"""What happens to an agent's core, and what it wants done."""

from __future__ import annotations

from dataclasses import dataclass

from mesaform.engine import link
from mesaform.engine.agent.tasks import AgentMeta, SavedTask, TaskRecord

# What happens


@dataclass(frozen=True, slots=True)
class Started:
    """A container's runner exists."""

    container_id: str
    executor_pid: int


@dataclass(frozen=True, slots=True)
class Ran:
    """A container's command exists, or was found alive after a restart of the agent."""

    container_id: str


@dataclass(frozen=True, slots=True)
class Exited:
    """A container is over and nothing of it is left.

    `wait_status` is wait(2)'s, None when nobody knows; `over_limit` says which limit killed it.
    """

    container_id: str
    wait_status: int | None
    over_limit: str = ""


@dataclass(frozen=True, slots=True)
class LaunchFailed:
    container_id: str
    why: str


@dataclass(frozen=True, slots=True)
class HealthChecked:
    """News of a health check; `kill` when it failed too often in a row."""

    container_id: str
    healthy: bool
    kill: bool = False


@dataclass(frozen=True, slots=True)
class Connected:
    """Registered with the leading master, as `agent_id`."""

    agent_id: str


@dataclass(frozen=True, slots=True)
class Disconnected:
    pass


@dataclass(frozen=True, slots=True)
class Tick:
    """The time that `wake_at` named has come."""


@dataclass(frozen=True, slots=True)
class KillEverything:
    """The agent ends for good. `untold`: it was refused, so no update will be acknowledged."""

    untold: bool


ContainerEvent = Started | Ran | Exited | LaunchFailed | HealthChecked
FromLink = (
    link.Launch | link.Kill | link.Acknowledge | link.Drain | link.Undrain | link.ShutdownFramework
)
Event = ContainerEvent | FromLink | Connected | Disconnected | Tick | KillEverything

# What is to be done


@dataclass(frozen=True, slots=True)
class Send:
    """Say it on the present connection; drop it when there is none (it will be repeated)."""

    update: link.Update


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Make the task durable before going on."""

    saved: SavedTask


@dataclass(frozen=True, slots=True)
class SaveMeta:
    """Make the agent's own record durable before going on."""

    meta: AgentMeta


@dataclass(frozen=True, slots=True)
class StartContainer:
    record: TaskRecord


@dataclass(frozen=True, slots=True)
class KillContainer:
    """Ask the container's processes to end, and end them after `grace_s` seconds. May be repeated with another grace."""

    container_id: str
    grace_s: float


@dataclass(frozen=True, slots=True)
class Forget:
    """The task's record goes; its sandbox stays until it is old."""

    record: TaskRecord


Effect = Send | Checkpoint | SaveMeta | StartContainer | KillContainer | Forget
