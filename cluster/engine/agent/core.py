"""Everything an agent decides: `handle(event, now) -> effects`. No sockets, processes, files, clock or randomness here.

Effects are to be carried out in their order; a `Checkpoint` must be durable before the effects after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from mesaform.engine import link
from mesaform.engine.agent import statuses, task_fsm
from mesaform.engine.agent.events import (
    Checkpoint,
    Connected,
    Disconnected,
    Effect,
    Event,
    Exited,
    Forget,
    HealthChecked,
    KillContainer,
    KillEverything,
    LaunchFailed,
    Ran,
    SaveMeta,
    Send,
    StartContainer,
    Started,
    Tick,
)
from mesaform.engine.agent.streams import UpdateStreams
from mesaform.engine.agent.task_fsm import Stimulus
from mesaform.engine.agent.tasks import AgentMeta, Draining, SavedTask, TaskKey, TaskRecord
from mesaform.engine.agent.validation import why_not_runnable
from mesaform.mesos.messages import FrameworkInfo, Id, TaskStatus, ident


@dataclass(frozen=True, slots=True)
class _Note:
    """What a status says besides its state."""

    message: str | None = None
    reason: str | None = None
    source: str = statuses.BY_EXECUTOR
    healthy: bool | None = None


_NOTHING = _Note()


class AgentCore:
    """One agent's tasks, their updates, and its draining.

    Args:
        address: the agent's IP address, for statuses.
        new_uuid: 16 fresh random bytes a call; also names containers.
        meta: what the last run left.

    """

    def __init__(
        self, address: str, new_uuid: Callable[[], bytes], meta: AgentMeta | None = None
    ) -> None:
        self.meta = meta or AgentMeta()
        self.tasks: dict[TaskKey, TaskRecord] = {}
        self._by_container: dict[str, TaskRecord] = {}
        self._streams: UpdateStreams[TaskKey] = UpdateStreams()
        self._address = address
        self._new_uuid = new_uuid
        self._now = 0.0
        self._effects: list[Effect] = []

    def restore(self, saved: Iterable[SavedTask]) -> None:
        """Take over the tasks of the last run; whether their containers live is the containerizer's to report."""
        for one in saved:
            self._keep(one.record)
            self._streams.restore(one.record.key, one.pending)

    def known_tasks(self) -> list[link.KnownTask]:
        """What `Register` lists: tasks that somebody is still told about."""
        return [
            link.KnownTask(
                framework=record.framework,
                task=record.task,
                latest_state=record.told,
                statuses=record.statuses,
            )
            for record in self.tasks.values()
            if not record.orphan
        ]

    def wake_at(self) -> float | None:
        """When the next `Tick` is due; None while nothing waits for the clock."""
        return self._streams.next_due()

    def pending(self, key: TaskKey) -> list[TaskStatus]:
        return self._streams.pending(key)

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take one event in. `now` is seconds since the epoch and must not run backwards."""
        self._now = now
        self._effects = []
        self._dispatch(event)
        return self._effects

    def _dispatch(self, event: Event) -> None:
        match event:
            case link.Launch():
                self._on_launch(event)
            case link.Kill():
                self._on_kill(event)
            case link.Acknowledge():
                self._on_acknowledge(event)
            case Started() | Ran() | Exited() | LaunchFailed() | HealthChecked():
                self._on_container(event)
            case Tick():
                self._send(self._streams.due(self._now))
            case _:
                self._on_agent(event)

    def _on_agent(self, event: Event) -> None:
        match event:
            case Connected():
                self._save_meta(AgentMeta(agent_id=event.agent_id, draining=self.meta.draining))
                self._send(self._streams.connected(self._now))
            case Disconnected():
                self._streams.disconnected()
            case link.Drain():
                self._on_drain(Draining(max_grace_s=event.max_grace_s, mark_gone=event.mark_gone))
            case link.Undrain():
                self._save_meta(AgentMeta(agent_id=self.meta.agent_id))
            case link.ShutdownFramework():
                self._abandon(
                    record
                    for record in self.tasks.values()
                    if record.framework_id == event.framework_id
                )
            case KillEverything(untold=True):
                self._abandon(self.tasks.values())
            case KillEverything():
                for record in list(self.tasks.values()):
                    self._kill(record, record.own_grace_s)
            case _:
                raise TypeError(f"no agent handles {event!r}")

    def _on_launch(self, launch: link.Launch) -> None:
        record = TaskRecord(
            framework=launch.framework,
            task=launch.task,
            container_id=_as_uuid_text(self._new_uuid()),
            received_at=self._now,
        )
        if record.key in self.tasks:
            return  # the same launch over a new connection
        self._keep(record)
        why_not = why_not_runnable(launch.task)
        if self.meta.draining is not None:
            note = _Note(
                "The agent is draining and takes no tasks", statuses.DRAINING, statuses.BY_AGENT
            )
            self._advance(record, Stimulus.DROPPED, note)
        elif why_not:
            self._advance(
                record, Stimulus.REJECTED, _Note(why_not, statuses.TASK_INVALID, statuses.BY_AGENT)
            )
        else:
            self._checkpoint(record)
            self._effects.append(StartContainer(record))

    def _on_kill(self, kill: link.Kill) -> None:
        record = self.tasks.get((kill.framework_id, kill.task_id))
        if record is None:
            self._deny(kill)
        else:
            self._kill(record, record.own_grace_s if kill.grace_s is None else kill.grace_s)

    def _deny(self, kill: link.Kill) -> None:
        """The master believes in a task that is not here: its launch was lost with a connection."""
        framework = next(
            (
                record.framework
                for record in self.tasks.values()
                if record.framework_id == kill.framework_id
            ),
            None,
        )
        aware = framework is not None and statuses.is_partition_aware(framework)
        status = TaskStatus(
            task_id=ident(kill.task_id),
            state="TASK_GONE" if aware else "TASK_LOST",
            message="A kill was requested for a task that this agent does not know",
            source=statuses.BY_AGENT,
            reason=statuses.TASK_UNKNOWN,
            agent_id=self._agent_id(),
            timestamp=self._now,
            uuid=self._new_uuid(),
        )
        key = (kill.framework_id, kill.task_id)
        if not self._streams.pending(key):
            self._send((key, sent) for sent in self._streams.add(key, status, self._now))

    def _on_acknowledge(self, acknowledge: link.Acknowledge) -> None:
        key = (acknowledge.framework_id, acknowledge.task_id)
        outcome, to_send = self._streams.acknowledge(key, acknowledge.uuid, self._now)
        record = self.tasks.get(key)
        if outcome.ended and record is not None:
            self._forget(record)
        elif outcome.accepted and record is not None:
            self._checkpoint(record)
        self._send((key, status) for status in to_send)

    def _on_container(self, event: Started | Ran | Exited | LaunchFailed | HealthChecked) -> None:
        record = self._by_container.get(event.container_id)
        if record is None or record.is_over:
            return  # its last words after a kill that was not waited for
        match event:
            case Started():
                record.executor_pid = event.executor_pid
                self._advance(record, Stimulus.STARTED)
            case Ran():
                record.running_since = record.running_since or self._now
                self._advance(record, Stimulus.RAN)
            case Exited():
                self._on_exit(record, event)
            case LaunchFailed():
                note = _Note(
                    f"Failed to launch container: {event.why}",
                    statuses.LAUNCH_FAILED,
                    statuses.BY_AGENT,
                )
                self._advance(record, Stimulus.NOT_LAUNCHED, note)
            case HealthChecked():
                self._on_health(record, event)

    def _on_exit(self, record: TaskRecord, event: Exited) -> None:
        healthy = False if record.unhealthy else None
        if event.wait_status is None:
            note = _Note(
                "The task's runner ended without reporting the task's exit",
                statuses.RUNNER_LOST,
                statuses.BY_AGENT,
                healthy,
            )
        elif event.over_limit:
            note = _Note(event.over_limit, statuses.OUT_OF_MEMORY, statuses.BY_AGENT, healthy)
        else:
            note = _Note(statuses.describe_exit(event.wait_status), healthy=healthy)
        self._advance(
            record, Stimulus.SUCCEEDED if event.wait_status == 0 else Stimulus.BROKE, note
        )

    def _on_health(self, record: TaskRecord, event: HealthChecked) -> None:
        if record.state != task_fsm.RUNNING:
            return
        self._advance(
            record, Stimulus.CHECKED, _Note(reason=statuses.HEALTH_CHECKED, healthy=event.healthy)
        )
        if event.kill:
            record.unhealthy = True
            self._kill(record, record.own_grace_s)

    def _on_drain(self, draining: Draining) -> None:
        self._save_meta(AgentMeta(agent_id=self.meta.agent_id, draining=draining))
        for record in list(self.tasks.values()):
            grace_s = record.own_grace_s
            self._kill(
                record,
                grace_s if draining.max_grace_s is None else min(grace_s, draining.max_grace_s),
            )

    def _kill(self, record: TaskRecord, grace_s: float) -> None:
        if record.is_over:
            return
        record.kill_grace_s = (
            grace_s if record.kill_grace_s is None else min(grace_s, record.kill_grace_s)
        )
        if record.state == task_fsm.STAGING:
            note = _Note(
                "A kill was requested before the task was started",
                statuses.KILLED_DURING_LAUNCH,
                statuses.BY_AGENT,
            )
            self._advance(record, Stimulus.KILL, note)
        else:
            self._advance(record, Stimulus.KILL)
        self._effects.append(KillContainer(record.container_id, record.kill_grace_s))

    def _abandon(self, records: Iterable[TaskRecord]) -> None:
        """Kill tasks whose updates nobody will acknowledge."""
        for record in list(records):
            record.orphan = True
            self._streams.drop(record.key)
            if record.is_over:
                self._forget(record)
            else:
                self._kill(record, record.own_grace_s)

    def _advance(self, record: TaskRecord, stimulus: Stimulus, note: _Note = _NOTHING) -> None:
        before = record.state
        record.state = task_fsm.next_state(before, stimulus, record.history)
        if record.orphan and record.is_over:
            self._forget(record)
            return
        to_send: list[TaskStatus] = []
        if not record.orphan and (record.state != before or stimulus is Stimulus.CHECKED):
            to_send = self._tell(record, note)
        self._checkpoint(record)
        self._send((record.key, status) for status in to_send)

    def _tell(self, record: TaskRecord, note: _Note) -> list[TaskStatus]:
        draining = self.meta.draining
        told = statuses.told_state(
            record.framework, record.state, gone=draining is not None and draining.mark_gone
        )
        if told is None:
            return []
        by_executor = note.source == statuses.BY_EXECUTOR
        pid = record.executor_pid
        drained = draining is not None and record.state in {task_fsm.KILLING, task_fsm.KILLED}
        status = TaskStatus(
            task_id=record.task.task_id,
            state=told,
            message=note.message,
            source=note.source,
            reason=statuses.DRAINING if drained else note.reason,
            agent_id=self._agent_id() or record.task.agent_id,
            executor_id=record.task.task_id if by_executor else None,
            timestamp=self._now,
            uuid=self._new_uuid(),
            healthy=note.healthy,
            container_status=statuses.container_status(record.container_id, self._address, pid)
            if pid
            else None,
        )
        record.remember(status)
        return self._streams.add(record.key, status, self._now)

    def _agent_id(self) -> Id | None:
        return ident(self.meta.agent_id) if self.meta.agent_id else None

    def _send(self, updates: Iterable[tuple[TaskKey, TaskStatus]]) -> None:
        for key, status in updates:
            record = self.tasks.get(key)
            latest = record.told if record is not None else status.state
            self._effects.append(
                Send(link.Update(framework_id=key[0], status=status, latest_state=latest))
            )

    def _keep(self, record: TaskRecord) -> None:
        self.tasks[record.key] = record
        self._by_container[record.container_id] = record

    def _checkpoint(self, record: TaskRecord) -> None:
        self._effects.append(Checkpoint(SavedTask(record, self._streams.pending(record.key))))

    def _forget(self, record: TaskRecord) -> None:
        self.tasks.pop(record.key, None)
        self._by_container.pop(record.container_id, None)
        self._effects.append(Forget(record))

    def _save_meta(self, meta: AgentMeta) -> None:
        if meta != self.meta:
            self.meta = meta
            self._effects.append(SaveMeta(meta))


def frameworks_of(records: Iterable[TaskRecord]) -> dict[str, FrameworkInfo]:
    """The frameworks that have tasks here, by id."""
    return {record.framework_id: record.framework for record in records}


def _as_uuid_text(raw: bytes) -> str:
    digits = raw.hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
