"""Shell of the process supervisor: carries out the effects of `Supervisor` with real processes.

Depends on asyncio, `mesaform.common` and the other modules of `mesaform.node`. It prints plain
lines instead of using structlog: the node runs on every machine and must use little memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from mesaform.common import proc
from mesaform.common.files import PRIVATE_FOLDER_MODE, rotate_log, write_atomically
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
    Ready,
    Release,
    RestartPolicy,
    Spawn,
    Spawned,
    SpawnFailed,
    State,
    StopAll,
    Supervisor,
    Terminate,
    Tick,
)

LOG_CHECK_INTERVAL_S = 5.0
"""Between two checks of the sizes of logs."""

PROBE_INTERVAL_S = 0.05
"""Between two attempts to connect to a service that starts."""

PROBE_TIMEOUT_S = 1.0


def log_line(line: str) -> None:
    """Write a line to the console: systemd's journal on AWS, the console log locally."""
    sys.stdout.write(f"node: {line}\n")
    sys.stdout.flush()


class Daemon:
    """Runs `desired` below `machine_dir` until it is asked to stop.

    SIGTERM and SIGINT stop the services in order and end the node. SIGUSR1 also asks for the
    machine to be powered off. A service with `controls_node` sends its requests over its channel
    (`mesaform.node.control_channel`). `report(services)` is called after every change.
    """

    def __init__(
        self,
        desired: Desired,
        machine_dir: Path,
        environ: Mapping[str, str],
        report: Callable[[list[status.ServiceStatus]], None],
        policy: RestartPolicy | None = None,
    ) -> None:
        self._desired = desired
        self._machine_dir = machine_dir
        self._log_dir = machine_dir / "log"
        self._environ = dict(environ)
        self._report = report
        self._supervisor = Supervisor(desired.services, policy)
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._pids: dict[int, str] = {}
        self._probes: dict[str, asyncio.Task[None]] = {}
        self._channels: dict[str, asyncio.Task[None]] = {}
        self._hold_requester: asyncio.StreamWriter | None = None
        self.is_poweroff_requested = False

    async def run(self) -> None:
        """Run every service; return once all are stopped and no process remains below this one."""
        self._prepare()
        proc.become_subreaper()
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
                for task in (*self._probes.values(), *self._channels.values()):
                    task.cancel()
        finally:
            for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
                loop.remove_signal_handler(number)
            if killed := process.kill_descendants():
                log_line(f"killed {killed} processes that services did not stop")

    def _prepare(self) -> None:
        for folder in self._desired.folders:
            Path(folder).mkdir(parents=True, exist_ok=True)
        for name in (self._log_dir, *self._desired.private_folders):
            private = Path(name)
            private.mkdir(parents=True, exist_ok=True)
            private.chmod(PRIVATE_FOLDER_MODE)
        for file in self._desired.files:
            path = Path(file.path)
            path.parent.mkdir(parents=True, exist_ok=True)
            mode = 0o600 if file.is_secret else 0o644
            write_atomically(path, file.text.encode(), mode=mode)

    async def _serve(self, tasks: asyncio.TaskGroup) -> None:
        while not self._supervisor.is_finished:
            pending: list[Event] = [await self._next_event()]
            while pending:
                now = time.monotonic()
                for effect in self._supervisor.handle(pending.pop(0), now):
                    pending += self._perform(effect, tasks)
            self._publish()  # before the answer: the requester may read the status file
            self._answer_hold()

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
                log_line(f"{name} (pid {pid}) did not stop in time: killing it")
                process.kill(pid)
            case Finished():
                log_line("every service is stopped")
        return []

    def _spawn(self, service: Service, tasks: asyncio.TaskGroup) -> Event:
        try:
            pid = self._start_process(service, tasks)
        except OSError as error:
            reason = f"{service.argv[0]}: {error.strerror or error}"
            log_line(f"cannot start {service.name}: {reason}")
            return SpawnFailed(service.name, reason)
        log_line(f"started {service.name} (pid {pid})")
        self._pids[pid] = service.name
        if service.ready:
            probe = self._probe(service.name, pid, *service.ready)
            self._probes[service.name] = tasks.create_task(probe, name=f"probe {service.name}")
        return Spawned(service.name, pid)

    def _start_process(self, service: Service, tasks: asyncio.TaskGroup) -> int:
        """Start the process, with a control channel where the service controls the node."""
        log = self._log_dir / f"{service.name}.log"
        environ = {**self._environ, **service.env}
        if not service.controls_node:
            return process.spawn(service.argv, environ, log, self._machine_dir)
        node_end, service_end = socket.socketpair()
        with service_end:
            number = service_end.fileno()
            environ[NODE_FD] = str(number)
            try:
                pid = process.spawn(service.argv, environ, log, self._machine_dir, (number,))
            except OSError:
                node_end.close()
                raise
        self._channels[service.name] = tasks.create_task(
            self._serve_channel(service.name, node_end), name=f"control channel of {service.name}"
        )
        return pid

    async def _probe(self, name: str, pid: int, host: str, port: int) -> None:
        """Report the service as ready once its port accepts a connection."""
        entry = self._supervisor.entries[name]
        while entry.pid in (pid, None) and entry.state in (State.SPAWNING, State.STARTING):
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(PROBE_TIMEOUT_S):
                    _, writer = await asyncio.open_connection(host, port)
                writer.close()
                self._events.put_nowait(Ready(name, pid))
                return
            await asyncio.sleep(PROBE_INTERVAL_S)

    async def _serve_channel(self, name: str, node_end: socket.socket) -> None:
        """Carry out the requests of a service that controls the node, until its channel closes."""
        reader, writer = await asyncio.open_connection(sock=node_end)
        try:
            while request := (await reader.readline()).strip():
                self._carry_out(name, request, writer)
        except ConnectionError:
            return
        finally:
            self._release(name)
            writer.close()

    def _carry_out(self, name: str, request: bytes, writer: asyncio.StreamWriter) -> None:
        if request == b"hold":
            others = frozenset(self._supervisor.entries) - {name}
            log_line(f"{name} asks to hold {', '.join(sorted(others))}")
            self._hold_requester = writer
            self._events.put_nowait(Hold(others))
        elif request == b"release":
            self._release(name)
            writer.write(b"released\n")
        elif request == b"poweroff":
            log_line(f"{name} asks for the machine to be powered off")
            self._stop(signal.SIGUSR1)

    def _release(self, name: str) -> None:
        self._hold_requester = None
        if self._supervisor.held_names and not self._supervisor.is_stopping:
            log_line(f"{name} releases {', '.join(sorted(self._supervisor.held_names))}")
        self._events.put_nowait(Release())

    def _answer_hold(self) -> None:
        """Once every held service has stopped, send the names of the processes that remain."""
        if self._hold_requester is None or not self._supervisor.is_holding:
            return
        service_pids = {entry.pid or 0 for entry in self._supervisor.entries.values()}
        remaining = [process.name_of(pid) for pid in process.remaining(service_pids)]
        self._hold_requester.write(f"{' '.join(['held', *remaining])}\n".encode())
        self._hold_requester = None

    def _reap(self) -> None:
        for pid, ending in process.reap():
            name = self._pids.pop(pid, None)
            if name is None:
                continue  # an orphan whose parent was a service
            if not self._supervisor.is_stopping:
                log_line(f"{name} (pid {pid}) ended: {ending}")
            self._events.put_nowait(Exited(name, pid, ending))

    def _stop(self, number: signal.Signals) -> None:
        if number is signal.SIGUSR1:
            self.is_poweroff_requested = True
        if not self._supervisor.is_stopping:
            log_line(f"{number.name}: stopping")
            status.notify("STOPPING=1", self._environ)
        self._events.put_nowait(StopAll())

    def _publish(self) -> None:
        entries = list(self._supervisor.entries.values())
        self._report(status.services_status(entries, time.time() - time.monotonic()))
        has_started = not self._supervisor.is_stopping and all(
            entry.state is not State.WAITING for entry in entries
        )
        readiness = "READY=1\n" if has_started else ""
        status.notify(f"{readiness}STATUS={status.summary(entries)}", self._environ)

    async def _rotate_logs(self) -> None:
        while True:
            await asyncio.sleep(LOG_CHECK_INTERVAL_S)
            for service in self._desired.services:
                try:
                    rotate_log(self._log_dir / f"{service.name}.log")
                except OSError as error:
                    log_line(f"cannot rotate the log of {service.name}: {error.strerror or error}")
