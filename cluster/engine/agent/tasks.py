"""The agent's records: what it checkpoints, lists in `Register` and shows on its HTTP endpoints.

The persisted names of some fields differ from their names here; they are those of the first
release.
"""

from __future__ import annotations

import msgspec

from mesaform.engine.agent.task_fsm import STAGING
from mesaform.mesos.messages import TERMINAL_STATES, FrameworkInfo, TaskInfo, TaskStatus

DEFAULT_GRACE_S = 3.0  # Mesos' default of KillPolicy.grace_period

TaskKey = tuple[str, str]
"""Framework id and task id."""


class TaskRecord(msgspec.Struct, kw_only=True):
    """One task. Times are in seconds since the epoch.

    `state` is its present state; `reported_state` is that of its latest update, which lacks
    TASK_KILLING for some frameworks. `is_orphan`: its updates are not acknowledged any more, so
    none are sent. `statuses` has the latest of each run of equal states, as Mesos lists them.
    `kill_grace_s` is set when its end is requested.
    """

    framework: FrameworkInfo
    task: TaskInfo
    container_id: str
    received_at: float
    state: str = STAGING
    reported_state: str = msgspec.field(default=STAGING, name="told")
    executor_pid: int | None = None
    running_since: float | None = None
    kill_grace_s: float | None = None
    is_unhealthy: bool = msgspec.field(default=False, name="unhealthy")
    is_orphan: bool = msgspec.field(default=False, name="orphan")
    statuses: list[TaskStatus] = []

    @property
    def framework_id(self) -> str:
        """The id of its framework."""
        return self.framework.id.value if self.framework.id else ""

    @property
    def task_id(self) -> str:
        """The id that the framework chose."""
        return self.task.task_id.value

    @property
    def key(self) -> TaskKey:
        """Its identity on this agent."""
        return (self.framework_id, self.task_id)

    @property
    def is_over(self) -> bool:
        """Whether the task has ended."""
        return self.state in TERMINAL_STATES

    @property
    def own_grace_s(self) -> float:
        """The grace period of the task's own kill policy, in seconds."""
        policy = self.task.kill_policy
        if policy is None or policy.grace_period is None:
            return DEFAULT_GRACE_S
        return policy.grace_period.nanoseconds / 1e9

    @property
    def history(self) -> list[str]:
        """For errors: its identity and the states that it reported."""
        identity = f"task {self.task_id} of {self.framework_id}, container {self.container_id}"
        return [identity, *(status.state for status in self.statuses)]

    def add_status(self, status: TaskStatus) -> None:
        """Add a status that is reported."""
        if self.statuses and self.statuses[-1].state == status.state:
            self.statuses.pop()
        self.statuses.append(status)
        self.reported_state = status.state


class SavedTask(msgspec.Struct, frozen=True):
    """A task on disk: its record, and its updates that are not acknowledged yet."""

    record: TaskRecord
    pending: list[TaskStatus] = []


class Draining(msgspec.Struct, frozen=True):
    """The agent kills its tasks and takes none. `max_grace_s` limits each task's grace."""

    max_grace_s: float | None = None
    mark_gone: bool = False


class AgentMeta(msgspec.Struct, frozen=True):
    """The agent's own record on disk."""

    agent_id: str | None = None
    draining: Draining | None = None
