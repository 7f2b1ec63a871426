"""Pure core of the agent: `handle(event, now) -> effects`.

It has no sockets, processes, files, clock or randomness. The shell must carry out the effects in
their order: a `Checkpoint` must be durable before the effects after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from mesaform.engine import link
from mesaform.engine.agent import statuses, task_fsm
from mesaform.engine.agent.events import (
    CheckFailed,
    Checkpoint,
    Connected,
    Disconnected,
    DiskExceeded,
    Effect,
    Event,
    Exited,
    Forget,
    HealthChecked,
    KillAll,
    KillContainer,
    LaunchFailed,
    Ran,
    SaveMeta,
    Send,
    StartContainer,
    Started,
    TaskLost,
    Tick,
)
from mesaform.engine.agent.streams import UpdateStreams
from mesaform.engine.agent.task_fsm import Stimulus
from mesaform.engine.agent.tasks import AgentMeta, Draining, SavedTask, TaskKey, TaskRecord
from mesaform.engine.agent.validation import why_not_runnable
from mesaform.engine.link_validation import RejectedLaunch
from mesaform.mesos.messages import Id, TaskStatus, ident


@dataclass(frozen=True, slots=True)
class _Note:
    """The fields of a status beside its state."""

    message: str | None = None
    reason: str | None = None
    source: str = statuses.BY_EXECUTOR
    healthy: bool | None = None


_NO_NOTE = _Note()
_Handler: TypeAlias = Callable[..., None]


class AgentCore:
    """The tasks of one agent, their updates, and its draining.

    Args:
        address: the agent's IP address, for statuses.
        new_uuid: returns 16 random bytes. They are uuids of updates and names of containers.
        meta: as the last run left it.

    """

    def __init__(
        self, address: str, new_uuid: Callable[[], bytes], meta: AgentMeta | None = None
    ) -> None:
        #: The agent's own record as last saved.
        self.meta = meta or AgentMeta()
        #: Tasks that are live, or whose terminal update is not acknowledged. Each is on disk.
        self.tasks: dict[TaskKey, TaskRecord] = {}
        self._by_container: dict[str, TaskRecord] = {}
        self._streams: UpdateStreams[TaskKey] = UpdateStreams()
        self._address = address
        self._new_uuid = new_uuid
        self._now = 0.0
        self._effects: list[Effect] = []
        #: The handler of each event but those of containers. Constant.
        self.handlers: dict[type, _Handler] = {
            link.Launch: self._on_launch,
            link.Kill: self._on_kill,
            link.Acknowledge: self._on_acknowledge,
            link.Drain: self._on_drain,
            link.Undrain: self._on_undrain,
            link.ShutdownFramework: self._on_shutdown_framework,
            Connected: self._on_connected,
            Disconnected: self._on_disconnected,
            Tick: self._on_tick,
            KillAll: self._on_kill_all,
            RejectedLaunch: self._on_rejected_launch,
            TaskLost: self._on_task_lost,
        }
        #: The handler of each container event; it also takes the live task's record. Constant.
        self.container_handlers: dict[type, _Handler] = {
            Started: self._on_started,
            Ran: self._on_ran,
            Exited: self._on_exited,
            LaunchFailed: self._on_launch_failed,
            HealthChecked: self._on_health,
            CheckFailed: self._on_check_failed,
            DiskExceeded: self._on_disk_exceeded,
        }

    def restore(self, saved: Iterable[SavedTask]) -> None:
        """Take over the tasks of the last run. The containerizer reports which are alive."""
        for entry in saved:
            self._add(entry.record)
            self._streams.restore(entry.record.key, entry.pending)

    def known_tasks(self) -> list[link.KnownTask]:
        """The tasks that `Register` lists: those whose updates are acknowledged."""
        return [
            link.KnownTask(
                framework=record.framework,
                task=record.task,
                latest_state=record.reported_state,
                statuses=record.statuses,
            )
            for record in self.tasks.values()
            if not record.is_orphan
        ]

    def wake_at(self) -> float | None:
        """When the next `Tick` is due; None while nothing waits for the clock."""
        return self._streams.next_due()

    def pending(self, key: TaskKey) -> list[TaskStatus]:
        """The task's updates that are not acknowledged."""
        return self._streams.pending(key)

    def handle(self, event: Event, now: float) -> list[Effect]:
        """The effects of an event at `now`, in seconds since the epoch, which never decreases.

        Raises:
            UnknownTransition: the event cannot happen to its task; the error has its history.
            TypeError: the event has no handler.

        """
        self._now = now
        self._effects = []
        kind = type(event)
        container_handler = self.container_handlers.get(kind)
        if container_handler is not None:
            self._handle_container(event, container_handler)
        elif kind in self.handlers:
            self.handlers[kind](event)
        else:
            raise TypeError(f"the agent's core has no handler for {kind.__name__}")
        return self._effects

    def fail_task(self, event: Event, why: str, now: float) -> list[Effect]:
        """End the task of an event that met an unexpected exception.

        Its container is killed at once, and its framework gets TASK_FAILED with the reason.
        """
        self._now = now
        self._effects = []
        record = self._record_of(event)
        if record is not None and not record.is_over:
            self._fault(record, why)
        return self._effects

    def _record_of(self, event: Event) -> TaskRecord | None:
        if type(event) in self.container_handlers:
            return self._by_container.get(getattr(event, "container_id", ""))
        if isinstance(event, link.Launch):
            framework_id = event.framework.id.value if event.framework.id else ""
            return self.tasks.get((framework_id, event.task.task_id.value))
        if isinstance(event, link.Kill):
            return self.tasks.get((event.framework_id, event.task_id))
        return None

    def _fault(self, record: TaskRecord, why: str, reason: str = statuses.CHECK_FAILED) -> None:
        self._effects.append(KillContainer(record.container_id, 0.0))
        note = _Note(why, reason, statuses.BY_AGENT)
        self._advance(record, Stimulus.FAULT, note)

    def _handle_container(self, event: Event, handler: _Handler) -> None:
        """Handle an event of a live task. Reports after its end are ignored."""
        record = self._by_container.get(getattr(event, "container_id", ""))
        if record is not None and not record.is_over:
            handler(record, event)

    # --- events of the master

    def _on_connected(self, event: Connected) -> None:
        self._save_meta(AgentMeta(agent_id=event.agent_id, draining=self.meta.draining))
        self._send(self._streams.connected(self._now))

    def _on_disconnected(self, _event: Disconnected) -> None:
        self._streams.disconnected()

    def _on_tick(self, _event: Tick) -> None:
        self._send(self._streams.due(self._now))

    def _on_undrain(self, _event: link.Undrain) -> None:
        self._save_meta(AgentMeta(agent_id=self.meta.agent_id))

    def _on_shutdown_framework(self, event: link.ShutdownFramework) -> None:
        self._abandon(
            record for record in self.tasks.values() if record.framework_id == event.framework_id
        )

    def _on_kill_all(self, event: KillAll) -> None:
        if event.is_refused:
            self._abandon(self.tasks.values())
            return
        for record in list(self.tasks.values()):
            self._kill(record, record.own_grace_s)

    def _on_drain(self, event: link.Drain) -> None:
        draining = Draining(max_grace_s=event.max_grace_s, mark_gone=event.mark_gone)
        self._save_meta(AgentMeta(agent_id=self.meta.agent_id, draining=draining))
        for record in list(self.tasks.values()):
            grace_s = record.own_grace_s
            if event.max_grace_s is not None:
                grace_s = min(grace_s, event.max_grace_s)
            self._kill(record, grace_s)

    def _on_launch(self, launch: link.Launch) -> None:
        record = TaskRecord(
            framework=launch.framework,
            task=launch.task,
            container_id=_as_uuid_text(self._new_uuid()),
            received_at=self._now,
        )
        if record.key in self.tasks:
            return  # a repetition on a new connection
        self._add(record)
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
            self._report_unknown(kill)
        else:
            self._kill(record, record.own_grace_s if kill.grace_s is None else kill.grace_s)

    def _on_rejected_launch(self, launch: RejectedLaunch) -> None:
        """Answer a launch that the agent cannot take with TASK_ERROR, as Mesos does."""
        key = (launch.framework_id, launch.task_id)
        if key not in self.tasks:
            self._report_without_record(key, "TASK_ERROR", statuses.TASK_INVALID, launch.why)

    def _on_task_lost(self, lost: TaskLost) -> None:
        """Report a task whose record cannot be read. Its framework's capabilities are unknown."""
        key = (lost.framework_id, lost.task_id)
        if key not in self.tasks:
            self._report_without_record(key, "TASK_FAILED", statuses.RUNNER_LOST, lost.why)

    def _report_unknown(self, kill: link.Kill) -> None:
        """Report a task that the master knows and the agent does not: its launch was lost."""
        framework = next(
            (
                record.framework
                for record in self.tasks.values()
                if record.framework_id == kill.framework_id
            ),
            None,
        )
        is_aware = framework is not None and statuses.is_partition_aware(framework)
        self._report_without_record(
            (kill.framework_id, kill.task_id),
            "TASK_GONE" if is_aware else "TASK_LOST",
            statuses.TASK_UNKNOWN,
            "A kill was requested for a task that this agent does not know",
        )

    def _report_without_record(self, key: TaskKey, state: str, reason: str, message: str) -> None:
        """Report the end of a task that has no record here. It is repeated in this run only."""
        status = TaskStatus(
            task_id=ident(key[1]),
            state=state,
            message=message,
            source=statuses.BY_AGENT,
            reason=reason,
            agent_id=self._agent_id(),
            timestamp=self._now,
            uuid=self._new_uuid(),
        )
        if not self._streams.pending(key):
            self._send((key, status) for status in self._streams.add(key, status, self._now))

    def _on_acknowledge(self, acknowledge: link.Acknowledge) -> None:
        key = (acknowledge.framework_id, acknowledge.task_id)
        outcome, to_send = self._streams.acknowledge(key, acknowledge.uuid, self._now)
        record = self.tasks.get(key)
        if outcome.has_ended and record is not None:
            self._forget(record)
        elif outcome.is_accepted and record is not None:
            self._checkpoint(record)
        self._send((key, status) for status in to_send)

    # --- events of containers

    def _on_started(self, record: TaskRecord, event: Started) -> None:
        record.executor_pid = event.executor_pid
        self._advance(record, Stimulus.STARTED)

    def _on_ran(self, record: TaskRecord, _event: Ran) -> None:
        record.running_since = record.running_since or self._now
        self._advance(record, Stimulus.RAN)

    def _on_launch_failed(self, record: TaskRecord, event: LaunchFailed) -> None:
        message = f"Failed to launch container: {event.why}"
        note = _Note(message, statuses.LAUNCH_FAILED, statuses.BY_AGENT)
        self._advance(record, Stimulus.NOT_LAUNCHED, note)

    def _on_exited(self, record: TaskRecord, event: Exited) -> None:
        healthy = False if record.is_unhealthy else None
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
            record.is_unhealthy = True
            self._kill(record, record.own_grace_s)

    def _on_check_failed(self, record: TaskRecord, event: CheckFailed) -> None:
        self._fault(record, f"The health check cannot be carried out: {event.why}")

    def _on_disk_exceeded(self, record: TaskRecord, event: DiskExceeded) -> None:
        used, limit = event.used_bytes // 2**20, event.limit_bytes // 2**20
        why = f"Disk usage ({used}MB) exceeds quota ({limit}MB)"  # Mesos' words (disk/du.cpp)
        self._fault(record, why, statuses.OUT_OF_DISK)

    # --- operations on tasks

    def _kill(self, record: TaskRecord, grace_s: float) -> None:
        if record.is_over:
            return
        record.kill_grace_s = (
            grace_s if record.kill_grace_s is None else min(grace_s, record.kill_grace_s)
        )
        # First of all: a kill must not depend on what is written before it.
        self._effects.append(KillContainer(record.container_id, record.kill_grace_s))
        if record.state == task_fsm.STAGING:
            note = _Note(
                "A kill was requested before the task was started",
                statuses.KILLED_DURING_LAUNCH,
                statuses.BY_AGENT,
            )
            self._advance(record, Stimulus.KILL, note)
        else:
            self._advance(record, Stimulus.KILL)

    def _abandon(self, records: Iterable[TaskRecord]) -> None:
        """Kill tasks whose updates are not acknowledged."""
        for record in list(records):
            record.is_orphan = True
            self._streams.drop(record.key)
            if record.is_over:
                self._forget(record)
            else:
                self._kill(record, record.own_grace_s)

    def _advance(self, record: TaskRecord, stimulus: Stimulus, note: _Note = _NO_NOTE) -> None:
        before = record.state
        record.state = task_fsm.TASKS.next_state(before, stimulus, record.history)
        if record.is_orphan and record.is_over:
            self._forget(record)
            return
        to_send: list[TaskStatus] = []
        if not record.is_orphan and (record.state != before or stimulus is Stimulus.CHECKED):
            to_send = self._report(record, note)
        self._checkpoint(record)
        self._send((record.key, status) for status in to_send)

    def _report(self, record: TaskRecord, note: _Note) -> list[TaskStatus]:
        """Add an update of the task's state, and return what must be sent now."""
        draining = self.meta.draining
        state = statuses.state_to_report(
            record.framework, record.state, mark_gone=draining is not None and draining.mark_gone
        )
        if state is None:
            return []
        is_by_executor = note.source == statuses.BY_EXECUTOR
        pid = record.executor_pid
        is_drained = draining is not None and record.state in {task_fsm.KILLING, task_fsm.KILLED}
        status = TaskStatus(
            task_id=record.task.task_id,
            state=state,
            message=note.message,
            source=note.source,
            reason=statuses.DRAINING if is_drained else note.reason,
            agent_id=self._agent_id() or record.task.agent_id,
            executor_id=record.task.task_id if is_by_executor else None,
            timestamp=self._now,
            uuid=self._new_uuid(),
            healthy=note.healthy,
            container_status=statuses.container_status(record.container_id, self._address, pid)
            if pid
            else None,
        )
        record.add_status(status)
        return self._streams.add(record.key, status, self._now)

    def _agent_id(self) -> Id | None:
        return ident(self.meta.agent_id) if self.meta.agent_id else None

    def _send(self, updates: Iterable[tuple[TaskKey, TaskStatus]]) -> None:
        for key, status in updates:
            record = self.tasks.get(key)
            latest = record.reported_state if record is not None else status.state
            self._effects.append(
                Send(link.Update(framework_id=key[0], status=status, latest_state=latest))
            )

    def _add(self, record: TaskRecord) -> None:
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


def _as_uuid_text(raw: bytes) -> str:
    digits = raw.hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
