"""The supervisor's hands: carries out what `Supervisor` decides with real processes, signals and time."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from cluster.node import process, status
from cluster.node.model import Desired, Service
from cluster.node.supervisor import (
    Begin,
    Effect,
    Event,
    Exited,
    Finished,
    Kill,
    Policy,
    Ready,
    Spawn,
    Spawned,
    SpawnFailed,
    State,
    StopAll,
    Supervisor,
    Terminate,
    Tick,
)

LOG_CHECK_S = 5.0
PROBE_EVERY_S = 0.05


def say(line: str) -> None:
    """A line on the console: systemd's journal on AWS, the machine's console log locally."""
    sys.stdout.write(f"node: {line}\n")
    sys.stdout.flush()


class Daemon:
    """Runs `desired` below `machine_dir` until told to stop.

    SIGTERM and SIGINT stop the services in order and end the node. SIGUSR1 does the same and asks for the machine to be powered
    off: a service of the machine may send it to its parent. `report(services)` is called after every change.
    """

    def __init__(
        self,
        desired: Desired,
        machine_dir: Path,
        environ: Mapping[str, str],
        report: Callable[[list[status.ServiceStatus]], None],
        policy: Policy | None = None,
    ) -> None:
        self._desired = desired
        self._machine_dir = machine_dir
        self._environ = dict(environ)
        self._report = report
        self._supervisor = Supervisor(desired.services, policy)
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._pids: dict[int, str] = {}
        self._probes: dict[str, asyncio.Task[None]] = {}
        self.poweroff_requested = False

    async def run(self) -> None:
        """Start everything, keep it running, and return when everything has been stopped and nothing is left below this process."""
        self._prepare()
        process.adopt_orphans()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, self._reap)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            loop.add_signal_handler(number, self._stop, number)
        self._events.put_nowait(Begin())
        try:
            async with asyncio.TaskGroup() as tasks:
                rotation = tasks.create_task(self._rotate_logs(), name="rotate logs")
                await self._serve(tasks)
                rotation.cancel()
                for probe in self._probes.values():
                    probe.cancel()
        finally:
            for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
                loop.remove_signal_handler(number)
            if left := process.end_descendants():
                say(f"ended {left} processes that the services left behind")

    def _prepare(self) -> None:
        self._log_dir.mkdir(parents=True, exist_ok=True)
        for folder in self._desired.folders:
            Path(folder).mkdir(parents=True, exist_ok=True)
        for file in self._desired.files:
            path = Path(file.path)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(file.text)

    @property
    def _log_dir(self) -> Path:
        return self._machine_dir / "log"

    async def _serve(self, tasks: asyncio.TaskGroup) -> None:
        while not self._supervisor.finished:
            event = await self._next_event()
            pending: list[Event] = [event]
            while pending:
                now = time.monotonic()
                for effect in self._supervisor.handle(pending.pop(0), now):
                    pending += self._perform(effect, tasks)
            self._publish()

    async def _next_event(self) -> Event:
        deadline = self._supervisor.deadline()
        wait_s = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            async with asyncio.timeout(wait_s):
                return await self._events.get()
        except TimeoutError:
            return Tick()

    def _perform(self, effect: Effect, tasks: asyncio.TaskGroup) -> list[Event]:
        match effect:
            case Spawn(name):
                return [self._spawn(self._supervisor.entries[name].service, tasks)]
            case Terminate(name, pid):
                say(f"stopping {name} (pid {pid})")
                process.terminate(pid)
            case Kill(name, pid):
                say(f"{name} (pid {pid}) does not stop: killing it")
                process.kill(pid)
            case Finished():
                say("everything is stopped")
        return []

    def _spawn(self, service: Service, tasks: asyncio.TaskGroup) -> Event:
        log = self._log_dir / f"{service.name}.log"
        try:
            pid = process.spawn(service.argv, {**self._environ, **service.env}, log, self._machine_dir)
        except OSError as error:
            say(f"cannot start {service.name}: {service.argv[0]}: {error.strerror or error}")
            return SpawnFailed(service.name, f"{service.argv[0]}: {error.strerror or error}")
        say(f"started {service.name} (pid {pid})")
        self._pids[pid] = service.name
        if service.ready:
            probe = self._probe(service.name, pid, *service.ready)
            self._probes[service.name] = tasks.create_task(probe, name=f"probe {service.name}")
        return Spawned(service.name, pid)

    async def _probe(self, name: str, pid: int, host: str, port: int) -> None:
        entry = self._supervisor.entries[name]
        while entry.pid in (pid, None) and entry.state in (State.SPAWNING, State.STARTING):
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(1.0):
                    _, writer = await asyncio.open_connection(host, port)
                writer.close()
                self._events.put_nowait(Ready(name, pid))
                return
            await asyncio.sleep(PROBE_EVERY_S)

    def _reap(self) -> None:
        for pid, how in process.reap():
            name = self._pids.pop(pid, None)
            if name is None:
                continue  # an orphan that some service left to us
            if not self._supervisor.stopping:
                say(f"{name} (pid {pid}) ended: {how}")
            self._events.put_nowait(Exited(name, pid, how))

    def _stop(self, number: signal.Signals) -> None:
        if number is signal.SIGUSR1:
            self.poweroff_requested = True
        if not self._supervisor.stopping:
            say(f"{number.name}: stopping")
            status.notify("STOPPING=1", self._environ)
        self._events.put_nowait(StopAll())

    def _publish(self) -> None:
        entries = list(self._supervisor.entries.values())
        self._report(status.services_status(entries, time.time() - time.monotonic()))
        ready = not self._supervisor.stopping and all(entry.state is not State.WAITING for entry in entries)
        status.notify(("READY=1\n" if ready else "") + "STATUS=" + status.summary(entries), self._environ)

    async def _rotate_logs(self) -> None:
        while True:
            await asyncio.sleep(LOG_CHECK_S)
            for service in self._desired.services:
                try:
                    process.rotate(self._log_dir / f"{service.name}.log")
                except OSError as error:
                    say(f"cannot rotate {service.name}'s log: {error.strerror or error}")
