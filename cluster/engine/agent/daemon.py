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
from collections.abc import Coroutine
from logging import INFO, getLevelNamesMapping

import structlog

from mesaform.common.errors import Exit, MesaformError
from mesaform.common.logs import configure_logging
from mesaform.engine import link
from mesaform.engine.agent.cgroups import detect
from mesaform.engine.agent.checks import watch_health
from mesaform.engine.agent.config import MESOS_VERSION, Config
from mesaform.engine.agent.containerizer import Containerizer, ContainerSpec
from mesaform.engine.agent.core import AgentCore
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
    Ran,
    SaveMeta,
    Send,
    StartContainer,
    Tick,
)
from mesaform.engine.agent.gc import collect_repeatedly, touch
from mesaform.engine.agent.layout import Layout
from mesaform.engine.agent.posix import PosixContainerizer
from mesaform.engine.agent.proof import current_proof
from mesaform.engine.agent.tasks import TaskRecord
from mesaform.engine.agent.uplink import Uplink
from mesaform.engine.agent.views import Snapshot
from mesaform.engine.agent.web import serve

log = structlog.get_logger(__name__)

ACKNOWLEDGE_TIMEOUT_S = 4.0
"""Seconds for which an agent that shuts down waits for acknowledgements of its last updates."""


class Stop(Exception):
    """Ends the task group."""


class Agent:
    """One running agent."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.started_at = time.time()
        self.layout = Layout(config.work_dir)
        self.layout.lock()
        self.core = AgentCore(config.ip, lambda: uuid.uuid4().bytes, self.layout.load_meta())
        self.uplink = Uplink(
            config, self._registration, self._on_master, lambda: self.dispatch(Disconnected())
        )
        self.http_port = config.port
        self._clock_offset = time.time() - time.monotonic()
        self._events: deque[Event] = deque()
        self._is_dispatching = False
        self._checks: dict[str, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()
        self._progress = asyncio.Event()
        self._ending = asyncio.Event()
        self._refused = ""
        self._counted: set[str] = set()
        self.counters = Counter(
            dict.fromkeys(
                (f"tasks_{name}" for name in ("failed", "finished", "gone", "killed", "lost")), 0
            )
        )
        self._group: asyncio.TaskGroup | None = None
        limiter, limits = detect(config.isolation)
        limiter.remove_abandoned(time.time())
        log.info("limits_detected", limits=limits)
        self.containerizer: Containerizer = PosixContainerizer(
            self.layout,
            self.dispatch,
            self._spawn,
            limiter,
            config.task_environment,
            config.users,
        )

    def now(self) -> float:
        """Seconds since the epoch, never decreasing."""
        return time.monotonic() + self._clock_offset

    def snapshot(self) -> Snapshot:
        """The agent as its endpoints show it."""
        records = list(self.core.tasks.values())
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
                for record in records
            },
        )

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
                group.create_task(self.uplink.run(), name="uplink")
                group.create_task(self._tick(), name="ticker")
                group.create_task(
                    collect_repeatedly(
                        self.layout.sandboxes, self.config.gc_delay_s, self._containers
                    ),
                    name="sandbox gc",
                )
                group.create_task(self._shut_down(), name="shutdown")
                group.create_task(_stop_after(stopping), name="signals")
        except* Stop:
            pass
        return Exit.FAILED if self._refused else Exit.OK

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
        try:
            for effect in self.core.handle(event, self.now()):
                self._perform(effect)
            self._follow_health(event)
        except Exception:  # a fault of one task must not end the agent
            log.exception("event_failed", failed_event=repr(event))

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Checkpoint():
                self.layout.save_task(effect.saved)
                self._count(effect.saved.record)
            case SaveMeta():
                self.layout.save_meta(effect.meta)
            case Send():
                self.uplink.send(effect.update)
            case StartContainer():
                self.containerizer.launch(ContainerSpec.of(effect.record))
            case KillContainer():
                self._stop_check(effect.container_id)
                self.containerizer.kill(effect.container_id, effect.grace_s)
            case Forget():
                self._forget(effect.record)

    def _forget(self, record: TaskRecord) -> None:
        container_id = record.container_id
        self.layout.remove_task(container_id)
        self.containerizer.forget(container_id)
        touch(self.layout.sandbox(*record.key, container_id))
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
            watch = watch_health(record, self.containerizer, self.config.ip, self.dispatch)
            self._checks[container_id] = self._spawn(watch, f"health of {record.task_id}")

    def _record_of(self, container_id: str) -> TaskRecord | None:
        records = self.core.tasks.values()
        return next((record for record in records if record.container_id == container_id), None)

    def _stop_check(self, container_id: str) -> None:
        check = self._checks.pop(container_id, None)
        if check is not None:
            check.cancel()

    def _recover(self) -> None:
        self.core.restore(self.layout.load_tasks())
        known = {record.container_id for record in self.core.tasks.values()}
        for container_id in self.layout.containers():
            if container_id not in known:
                self.containerizer.forget(container_id)
        for record in list(self.core.tasks.values()):
            if not record.is_over:
                self.containerizer.recover(ContainerSpec.of(record))
                if record.kill_grace_s is not None:
                    self.containerizer.kill(record.container_id, record.kill_grace_s)
        if known:
            log.info("tasks_recovered", count=len(known))

    def _registration(self) -> link.Register:
        return link.Register(
            info=self.config.info,
            agent_id=self.core.meta.agent_id,
            address=f"{self.config.ip}:{self.http_port}",
            version=MESOS_VERSION,
            tasks=self.core.known_tasks(),
            identity=current_proof(self.config.proof_file),
        )

    def _on_master(self, message: link.FromMaster) -> None:
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
        return self._group.create_task(work, name=name)


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
