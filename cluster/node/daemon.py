"""The supervisor's hands: carries out what `Supervisor` decides with real processes, signals and time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from mesaform.node import process, status
from mesaform.node.control_channel import NODE_FD
from mesaform.node.model import Desired, Service
from mesaform.node.supervisor import (
    Begin,
    Effect,
    Event,
    Exited,
    Finished,
    Hold,
    Kill,
    Policy,
    Ready,
    Release,
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


def log_line(line: str) -> None:
    """A line on the console: systemd's journal on AWS, the machine's console log locally."""
    sys.stdout.write(f"node: {line}\n")
    sys.stdout.flush()


class Daemon:
    """Runs `desired` below `machine_dir` until told to stop.

    SIGTERM and SIGINT stop the services in order and end the node. SIGUSR1 does the same and asks for the machine to be powered
    off: a service of the machine may send it to its parent. A service that steers says what it wants by its line (`mesaform.node.control_channel`).
    `report(services)` is called after every change.
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
        self._lines: dict[str, asyncio.Task[None]] = {}
        self._asked: asyncio.StreamWriter | None = None
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
                for task in (*self._probes.values(), *self._lines.values()):
                    task.cancel()
        finally:
            for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
                loop.remove_signal_handler(number)
            if left := process.end_descendants():
                log_line(f"ended {left} processes that the services left behind")

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
            self._tell_held()
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
                log_line(f"stopping {name} (pid {pid})")
                process.terminate(pid)
            case Kill(name, pid):
                log_line(f"{name} (pid {pid}) does not stop: killing it")
                process.kill(pid)
            case Finished():
                log_line("everything is stopped")
        return []

    def _spawn(self, service: Service, tasks: asyncio.TaskGroup) -> Event:
        log = self._log_dir / f"{service.name}.log"
        ours, theirs = socket.socketpair() if service.controls_node else (None, None)
        fds = (theirs.fileno(),) if theirs else ()
        env = {**self._environ, **service.env, **({NODE_FD: str(fds[0])} if fds else {})}
        try:
            pid = process.spawn(service.argv, env, log, self._machine_dir, fds)
        except OSError as error:
            if ours:
                ours.close()
            log_line(f"cannot start {service.name}: {service.argv[0]}: {error.strerror or error}")
            return SpawnFailed(service.name, f"{service.argv[0]}: {error.strerror or error}")
        finally:
            if theirs:
                theirs.close()
        if ours:
            self._lines[service.name] = tasks.create_task(
                self._listen(service.name, ours), name=f"line of {service.name}"
            )
        log_line(f"started {service.name} (pid {pid})")
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

    async def _listen(self, name: str, ours: socket.socket) -> None:
        """Do what a steering service says, until its line breaks."""
        others = frozenset(self._supervisor.entries) - {name}
        reader, writer = await asyncio.open_connection(sock=ours)
        try:
            while word := (await reader.readline()).strip():
                if word == b"hold":
                    log_line(f"{name} asks to hold {', '.join(sorted(others))}")
                    self._asked = writer
                    self._events.put_nowait(Hold(others))
                elif word == b"release":
                    self._release(name)
                    writer.write(b"released\n")
                elif word == b"poweroff":
                    log_line(f"{name} asks for the machine to be powered off")
                    self._stop(signal.SIGUSR1)
        except ConnectionError:
            return
        finally:
            self._release(name)
            writer.close()

    def _release(self, name: str) -> None:
        self._asked = None
        if self._supervisor.held and not self._supervisor.stopping:
            log_line(f"{name} lets {', '.join(sorted(self._supervisor.held))} go on")
        self._events.put_nowait(Release())

    def _tell_held(self) -> None:
        """Once everything that was to be held has ended: which processes are left."""
        if self._asked is None or not self._supervisor.holds:
            return
        services = {entry.pid for entry in self._supervisor.entries.values()}
        left = [
            process.name_of(pid) for pid in process.children(os.getpid()) if pid not in services
        ]
        self._asked.write(f"{' '.join(['held', *left])}\n".encode())
        self._asked = None

    def _reap(self) -> None:
        for pid, how in process.reap():
            name = self._pids.pop(pid, None)
            if name is None:
                continue  # an orphan that some service left to us
            if not self._supervisor.stopping:
                log_line(f"{name} (pid {pid}) ended: {how}")
            self._events.put_nowait(Exited(name, pid, how))

    def _stop(self, number: signal.Signals) -> None:
        if number is signal.SIGUSR1:
            self.poweroff_requested = True
        if not self._supervisor.stopping:
            log_line(f"{number.name}: stopping")
            status.notify("STOPPING=1", self._environ)
        self._events.put_nowait(StopAll())

    def _publish(self) -> None:
        entries = list(self._supervisor.entries.values())
        self._report(status.services_status(entries, time.time() - time.monotonic()))
        ready = not self._supervisor.stopping and all(
            entry.state is not State.WAITING for entry in entries
        )
        status.notify(
            ("READY=1\n" if ready else "") + "STATUS=" + status.summary(entries), self._environ
        )

    async def _rotate_logs(self) -> None:
        while True:
            await asyncio.sleep(LOG_CHECK_S)
            for service in self._desired.services:
                try:
                    process.rotate(self._log_dir / f"{service.name}.log")
                except OSError as error:
                    log_line(f"cannot rotate {service.name}'s log: {error.strerror or error}")
