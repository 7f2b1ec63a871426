"""The agent's record of one task: what is checkpointed, listed in `Register`, and shown on the HTTP pages."""

from __future__ import annotations

import msgspec

from mesaform.engine.agent.task_fsm import STAGING
from mesaform.mesos.messages import TERMINAL_STATES, FrameworkInfo, TaskInfo, TaskStatus

DEFAULT_GRACE_S = 3.0

TaskKey = tuple[str, str]
"""Framework id and task id."""


class TaskRecord(msgspec.Struct, kw_only=True):
    """One task. `state` is where it is; `told` is the latest state in an update (KILLING is not told to everybody).

    `orphan`: its framework was shut down or the agent is gone, so nobody is told anything any more. `statuses` keeps the
    latest of each run of equal states, as Mesos lists them. `kill_grace_s` is set once somebody wants the task dead.
    """

    framework: FrameworkInfo
    task: TaskInfo
    container_id: str
    received_at: float
    state: str = STAGING
    told: str = STAGING
    executor_pid: int | None = None
    running_since: float | None = None
    kill_grace_s: float | None = None
    unhealthy: bool = False
    orphan: bool = False
    statuses: list[TaskStatus] = []

    @property
    def framework_id(self) -> str:
        return self.framework.id.value if self.framework.id else ""

    @property
    def task_id(self) -> str:
        return self.task.task_id.value

    @property
    def key(self) -> TaskKey:
        return (self.framework_id, self.task_id)

    @property
    def is_over(self) -> bool:
        return self.state in TERMINAL_STATES

    @property
    def own_grace_s(self) -> float:
        """The grace of the task's own kill policy, in seconds."""
        policy = self.task.kill_policy
        if policy is None or policy.grace_period is None:
            return DEFAULT_GRACE_S
        return policy.grace_period.nanoseconds / 1e9

    @property
    def history(self) -> str:
        """For errors: who it is and what it went through."""
        states = " -> ".join(status.state for status in self.statuses) or "nothing told yet"
        return (
            f"task {self.task_id} of {self.framework_id}, container {self.container_id}: {states}"
        )

    def remember(self, status: TaskStatus) -> None:
        if self.statuses and self.statuses[-1].state == status.state:
            self.statuses.pop()
        self.statuses.append(status)
        self.told = status.state


class SavedTask(msgspec.Struct, frozen=True):
    """What is on disk for a task: the record, and the updates that nobody acknowledged yet."""

    record: TaskRecord
    pending: list[TaskStatus] = []


class Draining(msgspec.Struct, frozen=True):
    """The agent kills everything and takes nothing. `max_grace_s` caps each task's grace."""

    max_grace_s: float | None = None
    mark_gone: bool = False


class AgentMeta(msgspec.Struct, frozen=True):
    """What is on disk for the agent itself. An agent that was refused is gone for ever: it stays so after a restart."""

    agent_id: str | None = None
    draining: Draining | None = None
