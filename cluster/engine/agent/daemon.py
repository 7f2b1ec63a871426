"""The agent's shell: composes its parts and turns the core's effects into deeds."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
import uuid
from collections import Counter, deque
from collections.abc import Coroutine
from typing import Any

from mesaform.common.errors import Exit, MesaformError
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
    KillContainer,
    KillEverything,
    Ran,
    SaveMeta,
    Send,
    StartContainer,
    Tick,
)
from mesaform.engine.agent.gc import collect_for_ever, touch
from mesaform.engine.agent.layout import Layout
from mesaform.engine.agent.posix import PosixContainerizer
from mesaform.engine.agent.tasks import TaskRecord
from mesaform.engine.agent.uplink import Uplink
from mesaform.engine.agent.views import Scene
from mesaform.engine.agent.web import serve

log = logging.getLogger(__name__)

FAREWELL_S = 4.0
"""How long an agent that ends for good waits, after the last task's death, for its updates to be acknowledged."""


class Stop(Exception):
    """Leaves the task group."""


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
        self._dispatching = False
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
        limiter, words = detect(config.isolation)
        limiter.remove_abandoned(time.time())
        log.info("%s", words)
        self.containerizer: Containerizer = PosixContainerizer(
            self.layout, self.dispatch, self._spawn, limiter, config.task_environment
        )

    def now(self) -> float:
        """Seconds since the epoch that never run backwards."""
        return time.monotonic() + self._clock_offset

    def scene(self) -> Scene:
        """The agent as its pages show it."""
        records = list(self.core.tasks.values())
        leader = self.uplink.leader
        return Scene(
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
        """Until a signal or a refusal; tasks go on unless the agent ends for good."""
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
                    collect_for_ever(
                        self.layout.sandboxes, self.config.gc_delay_s, self._containers
                    ),
                    name="sandbox gc",
                )
                group.create_task(self._end_for_good(), name="end for good")
                group.create_task(_stop_after(stopping), name="signals")
        except* Stop:
            pass
        return Exit.FAILED if self._refused else Exit.OK

    def dispatch(self, event: Event) -> None:
        """Feed the core; events that come up while effects are carried out wait their turn."""
        self._events.append(event)
        if self._dispatching:
            return
        self._dispatching = True
        try:
            while self._events:
                self._handle(self._events.popleft())
        finally:
            self._dispatching = False
        self._wake.set()
        self._progress.set()

    def _handle(self, event: Event) -> None:
        try:
            for effect in self.core.handle(event, self.now()):
                self._perform(effect)
            self._follow_health(event)
        except Exception:  # one task's fault must not end the agent that the others depend on
            log.exception("could not handle %r", event)

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
                self.layout.remove_task(effect.record.container_id)
                self.containerizer.forget(effect.record.container_id)
                touch(self.layout.sandbox(*effect.record.key, effect.record.container_id))
                self._counted.discard(effect.record.container_id)

    def _count(self, record: TaskRecord) -> None:
        if record.is_over and record.container_id not in self._counted:
            self._counted.add(record.container_id)
            self.counters[f"tasks_{record.told.removeprefix('TASK_').lower()}"] += 1

    def _follow_health(self, event: Event) -> None:
        match event:
            case Ran():
                record = next(
                    (
                        one
                        for one in self.core.tasks.values()
                        if one.container_id == event.container_id
                    ),
                    None,
                )
                if (
                    record is not None
                    and record.task.health_check
                    and not record.is_over
                    and event.container_id not in self._checks
                ):
                    watch = watch_health(record, self.containerizer, self.config.ip, self.dispatch)
                    self._checks[event.container_id] = self._spawn(
                        watch, f"health of {record.task_id}"
                    )
            case Exited():
                self._stop_check(event.container_id)

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
            log.info("recovered %d tasks", len(known))

    def _registration(self) -> link.Register:
        return link.Register(
            info=self.config.info,
            agent_id=self.core.meta.agent_id,
            address=f"{self.config.ip}:{self.http_port}",
            version=MESOS_VERSION,
            tasks=self.core.known_tasks(),
        )

    def _on_master(self, message: link.FromMaster) -> None:
        match message:
            case link.Registered():
                log.info("registered as %s", message.agent_id)
                self.dispatch(Connected(message.agent_id))
            case link.Refused():
                log.error("refused by the master: %s; killing all tasks and ending", message.why)
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

    async def _end_for_good(self) -> None:
        """After a refusal or SIGUSR1: no task survives, and nothing waits for acknowledgements that cannot come."""
        await self._ending.wait()
        self.dispatch(KillEverything(untold=bool(self._refused)))
        while any(not record.is_over for record in self.core.tasks.values()):
            await self._handled()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL_S):
                while self.core.tasks and self.uplink.registered:
                    await self._handled()
                self.uplink.send(link.Leaving())
                await self.uplink.drain()
        raise Stop

    async def _handled(self) -> None:
        """Return after the next event."""
        self._progress.clear()
        await self._progress.wait()

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        if self._group is None:
            work.close()
            raise RuntimeError("the agent does not run")
        return self._group.create_task(work, name=name)


async def _stop_after(signalled: asyncio.Event) -> None:
    await signalled.wait()
    raise Stop


def run() -> int:
    """The program: an exit code of `mesaform.common.errors.Exit`."""
    logging.basicConfig(
        level=os.environ.get("MESOS_LOGGING_LEVEL", "INFO").upper(),
        format="%(asctime)s %(levelname).1s %(name)s: %(message)s",
    )
    try:
        agent = Agent(Config.from_environment(os.environ))
        return int(asyncio.run(agent.run()))
    except MesaformError as error:
        sys.stderr.write(f"engine agent: {error}\n")
        return int(error.exit_code)
