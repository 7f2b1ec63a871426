"""The daemon: runs the endpoint and the hypervisor, restarts them, ends everything on SIGTERM.

It keeps the listening socket and the lock and does nothing else, so that little can end it.
Machines outlive both programs: the next hypervisor adopts them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import structlog

from mesaform.common import proc
from mesaform.common.backoff import Backoff, Delay
from mesaform.common.files import open_log
from mesaform.localcloud import processes
from mesaform.localcloud.endpoint_file import Endpoint, write_endpoint
from mesaform.localcloud.layout import Layout

log = structlog.get_logger(__name__)
WATCHED = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD}
HYPERVISOR_STOP_S = 25.0
"""How long the hypervisor may take to end all machines."""
ENDPOINT_STOP_S = 3.0
RESTART_BACKOFF = Backoff(first_s=0.1, cap_s=5.0)
STEADY_S = 10.0
"""A program that ran this long does not fail at its start: its back-off begins anew."""
IDLE_S = 3600.0
"""The longest wait for a signal when no restart is due."""
POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Listener:
    """The endpoint's address and its listening socket, a file descriptor."""

    socket_fd: int
    host: str
    port: int

    @property
    def url(self) -> str:
        """The address as a URL."""
        return f"http://{self.host}:{self.port}"


class Child:
    """A program that has to run; it is restarted with a back-off while it fails early."""

    def __init__(self, name: str, command: list[str], logfile: Path, fds: tuple[int, ...]) -> None:
        self.name = name
        self._command = command
        self._logfile = logfile
        self._fds = fds
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._delay = Delay()
        self._due_at: float | None = 0.0

    @property
    def pid(self) -> int | None:
        """The pid of its process; None when it has none."""
        return self._process.pid if self._process else None

    def start_if_due(self, now: float) -> float:
        """Start its process if it is due; the seconds until it is due, at most `IDLE_S`."""
        if self._due_at is not None and self._due_at <= now:
            self._start()
        return IDLE_S if self._due_at is None else self._due_at - now

    def _start(self) -> None:
        with self._open_log() as output:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=self._fds,
                preexec_fn=_prepare_child,  # noqa: PLW1509  # this process has one thread
            )
        self._started_at = time.monotonic()
        self._due_at = None
        log.info("child.started", name=self.name, pid=self._process.pid)

    def _open_log(self) -> BinaryIO:
        """The log; nothing where a full disk has no place for it."""
        try:
            return open_log(self._logfile)
        except OSError:
            return Path(os.devnull).open("ab")

    def ended(self, status: int) -> None:
        """Note that its process was reaped, and plan the next start."""
        if self._process is not None:
            self._process.returncode = os.waitstatus_to_exitcode(status)
        now = time.monotonic()
        if now - self._started_at > STEADY_S:
            self._delay = self._delay.after_success()
        self._delay = self._delay.after_failure(RESTART_BACKOFF, now)
        self._process = None
        self._due_at = self._delay.until
        restart_in_s = round(self._delay.remaining_s(now), 1)
        log.warning("child.ended", name=self.name, status=status, restart_in_s=restart_in_s)


def _prepare_child() -> None:
    proc.die_with_parent()
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def supervise(layout: Layout, listener: Listener, lock_fd: int) -> None:
    """Run until SIGTERM.

    `lock_fd` is held and not used: the file can be locked by others only when this process is gone.
    """
    del lock_fd
    signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    proc.become_subreaper()
    pid = os.getpid()
    write_endpoint(layout, Endpoint(listener.url, pid))
    endpoint, hypervisor = _children(layout, listener)
    try:
        _watch((endpoint, hypervisor))
    finally:
        _stop(hypervisor, HYPERVISOR_STOP_S)
        _stop(endpoint, ENDPOINT_STOP_S)
        layout.endpoint.unlink(missing_ok=True)
        layout.pid.unlink(missing_ok=True)
        log.info("daemon.stopped")


def _children(layout: Layout, listener: Listener) -> tuple[Child, Child]:
    program = [sys.executable, "-m", "mesaform.localcloud"]
    root, fd = str(layout.root), str(listener.socket_fd)
    endpoint = Child(
        "endpoint",
        [*program, "endpoint", root, fd],
        layout.log / "endpoint.log",
        (listener.socket_fd,),
    )
    hypervisor = Child(
        "hypervisor",
        [*program, "hypervisor", root, listener.url],
        layout.log / "hypervisor.log",
        (),
    )
    return endpoint, hypervisor


def _watch(children: tuple[Child, ...]) -> None:
    """Start what is due and reap what ended, until a signal asks to stop."""
    while True:
        wait_s = min(child.start_if_due(time.monotonic()) for child in children)
        received = signal.sigtimedwait(WATCHED, wait_s)
        if received is None:
            continue
        if received.si_signo != signal.SIGCHLD:
            return
        _reap(children)


def _reap(children: tuple[Child, ...]) -> None:
    """Reap everything that ended: children, and orphans of machines whose hypervisor is gone."""
    for pid, status in proc.reap():
        for child in children:
            if child.pid == pid:
                child.ended(status)


def _stop(child: Child, timeout_s: float) -> None:
    """End a child: SIGTERM, and SIGKILL after the time-out."""
    pid = child.pid
    if pid is None:
        return
    processes.send(pid, signal.SIGTERM)
    until = time.monotonic() + timeout_s
    while child.pid is not None and time.monotonic() < until:
        signal.sigtimedwait({signal.SIGCHLD}, POLL_S)
        _reap((child,))
    if child.pid is not None:
        log.warning("child.killed", name=child.name)
        processes.send(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
