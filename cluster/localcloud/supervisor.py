"""The daemon: starts the endpoint and the hypervisor, starts them again when they die, and ends everything on SIGTERM.

It keeps the listening socket and the lock, and does nothing else, so that there is little that could make it die. Machines
outlive both of its children: the hypervisor that comes next finds them again.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import structlog

from mesaform.localcloud import processes
from mesaform.localcloud.layout import Layout, write_atomically

log = structlog.get_logger(__name__)
WATCHED = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD}
HYPERVISOR_STOP_S = 25.0
ENDPOINT_STOP_S = 3.0
LONGEST_BACKOFF_S = 5.0
STEADY_S = 10.0


class Child:
    """A program that has to run. Restarted with a backoff that grows while it dies young."""

    def __init__(self, name: str, command: list[str], logfile: Path, fds: tuple[int, ...]) -> None:
        self.name = name
        self._command = command
        self._logfile = logfile
        self._fds = fds
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._backoff_s = 0.1
        self.due_at: float | None = 0.0

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> None:
        with self._logfile.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=self._fds,
                preexec_fn=_prepare_child,  # noqa: PLW1509  # this process has one thread
            )
        self._started_at = time.monotonic()
        self.due_at = None
        log.info("child.started", name=self.name, pid=self._process.pid)

    def ended(self, status: int) -> None:
        """Its process was reaped: plan the next start."""
        if self._process is not None:
            self._process.returncode = os.waitstatus_to_exitcode(status)
        now = time.monotonic()
        steady = now - self._started_at > STEADY_S
        self._backoff_s = 0.1 if steady else min(self._backoff_s * 2, LONGEST_BACKOFF_S)
        self._process = None
        self.due_at = now + self._backoff_s
        log.warning("child.ended", name=self.name, status=status, again_in_s=self._backoff_s)


def _prepare_child() -> None:
    processes.die_with_parent()
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def supervise(layout: Layout, socket_fd: int, lock_fd: int, host: str, port: int) -> None:
    """Run until SIGTERM. `lock_fd` is held, not used: whoever can lock the file knows that this process is gone."""
    del lock_fd
    signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    processes.become_subreaper()
    url = f"http://{host}:{port}"
    write_atomically(layout.pid, f"{os.getpid()}\n".encode())
    write_atomically(layout.endpoint, msgspec.json.encode({"url": url, "pid": os.getpid()}))
    this = [sys.executable, "-m", "mesaform.localcloud"]
    endpoint = Child(
        "endpoint",
        [*this, "endpoint", str(layout.root), str(socket_fd), host, str(port)],
        layout.log / "endpoint.log",
        (socket_fd,),
    )
    hypervisor = Child(
        "hypervisor",
        [*this, "hypervisor", str(layout.root), url],
        layout.log / "hypervisor.log",
        (),
    )
    children = (endpoint, hypervisor)
    try:
        _watch(children)
    finally:
        _stop(hypervisor, HYPERVISOR_STOP_S)
        _stop(endpoint, ENDPOINT_STOP_S)
        layout.endpoint.unlink(missing_ok=True)
        layout.pid.unlink(missing_ok=True)
        log.info("daemon.stopped")


def _watch(children: tuple[Child, ...]) -> None:
    while True:
        now = time.monotonic()
        for child in children:
            if child.due_at is not None and child.due_at <= now:
                child.start()
        due = [child.due_at - now for child in children if child.due_at is not None]
        received = signal.sigtimedwait(WATCHED, min(due, default=3600.0))
        if received is None:
            continue
        if received.si_signo != signal.SIGCHLD:
            return
        _reap(children)


def _reap(children: tuple[Child, ...]) -> None:
    """Collect whoever ended: children, and the orphans of a dead hypervisor's machines."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        for child in children:
            if child.pid == pid:
                child.ended(status)


def _stop(child: Child, patience_s: float) -> None:
    pid = child.pid
    if pid is None:
        return
    processes.send(pid, signal.SIGTERM)
    until = time.monotonic() + patience_s
    while child.pid is not None and time.monotonic() < until:
        signal.sigtimedwait({signal.SIGCHLD}, 0.2)
        _reap((child,))
    if child.pid is not None:
        log.warning("child.killed", name=child.name)
        processes.send(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
