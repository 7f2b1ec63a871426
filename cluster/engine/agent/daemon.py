"""The agent's shell: composes its parts and carries out the core's effects."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from logging import INFO, getLevelNamesMapping

import structlog

from mesaform.common.backoff import Backoff
from mesaform.common.errors import Exit, MesaformError
from mesaform.common.logs import configure_logging
from mesaform.engine import link
from mesaform.engine.agent.cgroups import detect
from mesaform.engine.agent.checkpoints import Checkpoints
from mesaform.engine.agent.checks import CheckPace, watch_health
from mesaform.engine.agent.config import MESOS_VERSION, Config
from mesaform.engine.agent.containerizer import Containerizer, ContainerSpec
from mesaform.engine.agent.core import AgentCore
from mesaform.engine.agent.disk_quota import Quota, enforce
from mesaform.engine.agent.events import (
    Checkpoint,
    Connected,
    Disconnected,
    Effect,
    Event,
    Exited,
    Forget,
    KillAll,
    KillContainer,
    LaunchFailed,
    Ran,
    SaveMeta,
    Send,
    StartContainer,
    TaskLost,
    Tick,
)
from mesaform.engine.agent.gc import collect_repeatedly, touch
from mesaform.engine.agent.layout import Layout
from mesaform.engine.agent.posix import PosixContainerizer, TaskSettings
from mesaform.engine.agent.proof import current_proof
from mesaform.engine.agent.task_unit import read_task_unit
from mesaform.engine.agent.tasks import SavedTask, TaskRecord
from mesaform.engine.agent.uplink import FromMaster, Uplink
from mesaform.engine.agent.views import Snapshot
from mesaform.engine.agent.web import serve
from mesaform.engine.link_validation import problem_of_task
from mesaform.http import UNHANDLED
from mesaform.mesos.messages import from_wire

log = structlog.get_logger(__name__)

FAULTS = "agent"
"""Label of `mesaform_unhandled_errors_total` for faults outside the HTTP port."""
RESTART = Backoff(first_s=0.5, cap_s=30.0)
"""Pauses before a part of the agent starts again after a fault."""
ACKNOWLEDGE_TIMEOUT_S = 4.0
"""Seconds for which an agent that shuts down waits for acknowledgements of its last updates."""

MOST_ENDED = 150
"""Ended tasks that the agent still lists; Apache Mesos lists as many of each framework."""


class Stop(Exception):
    """Ends the task group."""


class Agent:
    """One running agent."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.started_at = time.time()
        self.layout = Layout(config.work_dir)
        self.layout.lock()
        self.checkpoints = Checkpoints(self.layout)
        self.core = AgentCore(config.ip, lambda: uuid.uuid4().bytes, self.layout.load_meta())
        self.uplink = Uplink(
            config, self._registration, self._on_master, lambda: self.dispatch(Disconnected())
        )
        self.http_port = config.port
        self._clock_offset = time.time() - time.monotonic()
        self._events: deque[Event] = deque()
        self._is_dispatching = False
        self._checks: dict[str, asyncio.Task[None]] = {}
        self._check_pace = CheckPace()
        self._wake = asyncio.Event()
        self._progress = asyncio.Event()
        self._ending = asyncio.Event()
        self._refused = ""
        self._counted: set[str] = set()
        self._ended: deque[TaskRecord] = deque(maxlen=MOST_ENDED)
        self.counters = Counter(
            dict.fromkeys(
                (f"tasks_{name}" for name in ("failed", "finished", "gone", "killed", "lost")), 0
            )
        )
        self._group: asyncio.TaskGroup | None = None
        unit = read_task_unit(config.task_unit_file)
        limiter, limits = detect(config.isolation, unit=unit)
        limiter.remove_abandoned(time.time())
        log.info("limits_detected", limits=limits)
        self.containerizer: Containerizer = PosixContainerizer(
            self.layout,
            self.dispatch,
            self._spawn,
            limiter,
            TaskSettings(config.task_environment, config.users, config.output, unit),
        )

    def now(self) -> float:
        """Seconds since the epoch, never decreasing."""
        return time.monotonic() + self._clock_offset

    def snapshot(self) -> Snapshot:
        """The agent as its endpoints show it."""
        records, ended = list(self.core.tasks.values()), list(self._ended)
        leader = self.uplink.leader
        return Snapshot(
            config=self.config,
            agent_id=self.core.meta.agent_id or "",
            master_hostname=leader.hostname if leader else "",
            port=self.http_port,
            started_at=self.started_at,
            tasks=records,
            sandboxes={
                record.container_id: str(
                    self.layout.sandbox(record.framework_id, record.task_id, record.container_id)
                )
                for record in (*records, *ended)
            },
            ended=ended,
            own_state={
                "records_set_aside": [
                    {"id": entry.id, "place": entry.place, "detail": entry.detail}
                    for entry in self.layout.set_aside()
                ],
                "rejected_by_master": self.uplink.rejected,
                "unwritten_checkpoints": self.checkpoints.unwritten,
            },
        )

    def own_metrics(self) -> dict[str, float]:
        """Metrics that Apache Mesos does not have."""
        values = {
            "mesaform/unwritten_checkpoints": float(self.checkpoints.unwritten),
            "mesaform/messages_ignored": float(self.uplink.ignored),
        }
        for kind, count in self.layout.records.counts.items():
            values[f"mesaform/records_set_aside/{kind.replace('-', '_')}"] = float(count)
        return values

    async def run(self) -> Exit:
        """Run until a signal or a refusal. After SIGTERM and SIGINT the tasks continue."""
        loop = asyncio.get_running_loop()
        stopping = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, stopping.set)
        loop.add_signal_handler(signal.SIGINT, stopping.set)
        loop.add_signal_handler(signal.SIGUSR1, self._ending.set)
        try:
            async with serve(self) as self.http_port, asyncio.TaskGroup() as group:
                self._group = group
                self._recover()
                for name, work in self._parts().items():
                    group.create_task(self._repeated(work, name), name=name)
                group.create_task(self._shut_down(), name="shutdown")
                group.create_task(_stop_after(stopping), name="signals")
        except* Stop:
            pass
        return Exit.FAILED if self._refused else Exit.OK

    def _parts(self) -> dict[str, Callable[[], Coroutine[object, None, None]]]:
        """What runs as long as the agent, by name."""
        parts: dict[str, Callable[[], Coroutine[object, None, None]]] = {
            "uplink": self.uplink.run,
            "ticker": self._tick,
            "checkpoints": self.checkpoints.retry,
            "sandbox gc": lambda: collect_repeatedly(
                self.layout.sandboxes, self.config.gc_delay_s, self._containers
            ),
        }
        interval_s = self.config.disk_watch_s
        if interval_s is not None:
            parts["disk quota"] = lambda: enforce(self._quotas, self.dispatch, interval_s)
        return parts

    def _quotas(self) -> list[Quota]:
        """The quotas of live tasks that state their disk."""
        quotas = []
        for record in self.core.tasks.values():
            disk_mib = from_wire(record.task.resources).disk_mib
            if not record.is_over and disk_mib > 0:
                sandbox = self.layout.sandbox(*record.key, record.container_id)
                quotas.append(Quota(record.container_id, sandbox, int(disk_mib * 2**20)))
        return quotas

    def dispatch(self, event: Event) -> None:
        """Feed the core. An event that occurs while effects are carried out is queued."""
        self._events.append(event)
        if self._is_dispatching:
            return
        self._is_dispatching = True
        try:
            while self._events:
                self._handle(self._events.popleft())
        finally:
            self._is_dispatching = False
        self._wake.set()
        self._progress.set()

    def _handle(self, event: Event) -> None:
        """Feed the core. A fault ends the task of the event, and nothing else."""
        try:
            self._carry_out(self.core.handle(event, self.now()))
            self._follow_health(event)
        except Exception as error:
            self._log_fault(type(event).__name__, error)
            kind, cause = type(event).__name__, f"{type(error).__name__}: {error}"
            why = f"The agent failed to handle {kind} of the task: {cause:.200}"
            try:
                self._carry_out(self.core.fail_task(event, why, self.now()))
            except Exception as second:
                self._log_fault("fail_task", second)

    def _log_fault(self, kind: str, error: Exception) -> None:
        """Log a fault without the event, which may have variables of a task's environment."""
        UNHANDLED.add(FAULTS)
        log.error("event_failed", kind=kind, exc_info=error)

    def _carry_out(self, effects: list[Effect]) -> None:
        """Carry out effects in their order.

        A launch whose checkpoint cannot be written fails, because a crash would lose its task.
        """
        unwritten: dict[str, str] = {}
        for effect in effects:
            if isinstance(effect, Checkpoint):
                record = effect.saved.record
                unwritten[record.container_id] = self.checkpoints.save_task(effect.saved)
                self._count(record)
            elif isinstance(effect, StartContainer):
                self._start(effect.record, unwritten.get(effect.record.container_id, ""))
            else:
                self._perform(effect)

    def _start(self, record: TaskRecord, unwritten: str) -> None:
        if unwritten:
            why = f"the task's checkpoint cannot be written: {unwritten}"
            self.dispatch(LaunchFailed(record.container_id, why))
        else:
            self.containerizer.launch(ContainerSpec.of(record))

    def _perform(self, effect: Effect) -> None:
        match effect:
            case SaveMeta():
                self.checkpoints.save_meta(effect.meta)
            case Send():
                self.uplink.send(effect.update)
            case KillContainer():
                self._stop_check(effect.container_id)
                self.containerizer.kill(effect.container_id, effect.grace_s)
            case Forget():
                self._forget(effect.record)

    def _forget(self, record: TaskRecord) -> None:
        container_id = record.container_id
        self.checkpoints.remove_task(container_id)
        self.containerizer.forget(container_id)
        touch(self.layout.sandbox(*record.key, container_id))
        self._ended.append(record)
        self._counted.discard(container_id)

    def _count(self, record: TaskRecord) -> None:
        if record.is_over and record.container_id not in self._counted:
            self._counted.add(record.container_id)
            self.counters[f"tasks_{record.reported_state.removeprefix('TASK_').lower()}"] += 1

    def _follow_health(self, event: Event) -> None:
        match event:
            case Ran():
                self._start_check(event.container_id)
            case Exited():
                self._stop_check(event.container_id)

    def _start_check(self, container_id: str) -> None:
        """Start the health check of a live task that has one."""
        record = self._record_of(container_id)
        if record is None or record.is_over or not record.task.health_check:
            return
        if container_id not in self._checks:
            watch = watch_health(
                record, self.containerizer, self.config.ip, self.dispatch, self._check_pace
            )
            self._checks[container_id] = self._spawn(watch, f"health of {record.task_id}")

    def _record_of(self, container_id: str) -> TaskRecord | None:
        records = self.core.tasks.values()
        return next((record for record in records if record.container_id == container_id), None)

    def _stop_check(self, container_id: str) -> None:
        check = self._checks.pop(container_id, None)
        if check is not None:
            check.cancel()

    def _recover(self) -> None:
        """Take over the tasks of the last run. What cannot be taken over is killed and reported."""
        saved, unreadable = self.layout.load_tasks()
        taken = [entry for entry in saved if self._is_restorable(entry, unreadable)]
        self.core.restore(taken)
        known = {record.container_id for record in self.core.tasks.values()}
        for container_id in set(self.layout.containers()) - known:
            self._destroy(container_id, unreadable.get(container_id))
        for record in list(self.core.tasks.values()):
            if not record.is_over:
                self._adopt(record)
        log.info("tasks_recovered", count=len(known), unreadable=len(unreadable))

    def _is_restorable(self, entry: SavedTask, unreadable: dict[str, str]) -> bool:
        """Whether a record can be handled; one that cannot is set aside."""
        problem = problem_of_task(entry.record.framework, entry.record.task)
        if problem is not None:
            unreadable[entry.record.container_id] = problem
            self.layout.set_task_aside(entry.record.container_id, problem)
        return problem is None

    def _destroy(self, container_id: str, why: str | None) -> None:
        """Kill a container without a record, and report its task if the record was unreadable."""
        self.containerizer.destroy(container_id)
        ids = self.layout.task_of(container_id) if why is not None else None
        if ids is not None:
            self.dispatch(TaskLost(*ids, f"The task's checkpoint could not be read: {why}"))

    def _adopt(self, record: TaskRecord) -> None:
        try:
            self.containerizer.recover(ContainerSpec.of(record))
        except Exception as error:
            self._log_fault("recover", error)
            self.containerizer.destroy(record.container_id)
            self.dispatch(Exited(record.container_id, None))
            return
        if record.kill_grace_s is not None:
            self.containerizer.kill(record.container_id, record.kill_grace_s)

    def _registration(self) -> link.Register:
        return link.Register(
            info=self.config.info,
            agent_id=self.core.meta.agent_id,
            address=f"{self.config.ip}:{self.http_port}",
            version=MESOS_VERSION,
            tasks=self.core.known_tasks(),
            identity=current_proof(self.config.proof_file),
            records_set_aside=len(self.layout.set_aside()),
        )

    def _on_master(self, message: FromMaster) -> None:
        match message:
            case link.Registered():
                log.info("registered", agent=message.agent_id)
                self.dispatch(Connected(message.agent_id))
            case link.Refused():
                log.error("refused_by_master", reason=message.why, action="kill tasks and end")
                self._refused = message.why or "no reason given"
                self._ending.set()
            case link.Ping():
                self.uplink.send(link.Pong())
            case _:
                self.dispatch(message)

    def _containers(self) -> list[str]:
        return [record.container_id for record in self.core.tasks.values()]

    async def _tick(self) -> None:
        while True:
            self._wake.clear()
            due = self.core.wake_at()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if due is None else max(due - self.now(), 0.0)):
                    await self._wake.wait()
            if due is not None and due <= self.now():
                self.dispatch(Tick())

    async def _shut_down(self) -> None:
        """Kill all tasks after a refusal or SIGUSR1, and leave the master.

        A master that refused the agent acknowledges nothing, so nothing is waited for.
        """
        await self._ending.wait()
        self.dispatch(KillAll(is_refused=bool(self._refused)))
        while any(not record.is_over for record in self.core.tasks.values()):
            await self._next_event()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ACKNOWLEDGE_TIMEOUT_S):
                while self.core.tasks and self.uplink.is_registered:
                    await self._next_event()
                self.uplink.send(link.Leaving())
                await self.uplink.drain()
        raise Stop

    async def _next_event(self) -> None:
        """Return after the next event."""
        self._progress.clear()
        await self._progress.wait()

    def _spawn(self, work: Coroutine[object, None, None], name: str) -> asyncio.Task[None]:
        if self._group is None:
            work.close()
            raise RuntimeError("the agent is not running")
        return self._group.create_task(self._contained(work, name), name=name)

    async def _contained(self, work: Coroutine[object, None, None], name: str) -> None:
        try:
            await work
        except Exception as error:
            self._log_fault(name, error)

    async def _repeated(self, work: Callable[[], Coroutine[object, None, None]], name: str) -> None:
        """Start a part of the agent again after a fault."""
        failures = 0
        while True:
            await self._contained(work(), name)
            failures += 1
            await asyncio.sleep(RESTART.delay_s(failures))


async def _stop_after(signalled: asyncio.Event) -> None:
    await signalled.wait()
    raise Stop


def _log_level(name: str) -> int:
    return getLevelNamesMapping().get(name.upper(), INFO)


def run() -> int:
    """Run the program, and return an exit code of `mesaform.common.errors.Exit`."""
    configure_logging(_log_level(os.environ.get("MESOS_LOGGING_LEVEL", "INFO")))
    try:
        agent = Agent(Config.from_environment(os.environ))
        return int(asyncio.run(agent.run()))
    except MesaformError as error:
        sys.stderr.write(f"engine agent: {error}\n")
        return int(error.exit_code)
