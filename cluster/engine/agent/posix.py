"""Containers that are nothing but processes: each task has a runner (`runner.py`), a session and a folder of its own.

Runners outlive the agent, so `recover` finds them again by what they wrote below `<work>/meta/containers`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mesaform.engine.agent import procfs
from mesaform.engine.agent.cgroups import Limiter
from mesaform.engine.agent.containerizer import ContainerSpec, Usage
from mesaform.engine.agent.events import ContainerEvent, Exited, LaunchFailed, Ran, Started
from mesaform.engine.agent.fetcher import FetchFailed, fetch
from mesaform.engine.agent.identity import Identity, UnknownUser, identity_of
from mesaform.engine.agent.layout import Layout
from mesaform.mesos.messages import CommandInfo

log = logging.getLogger(__name__)

RUNNER = Path(__file__).with_name("runner.py")
_CGROUP_RETRY_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)

Spawn = Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"]


@dataclass(slots=True)
class _Container:
    spec: ContainerSpec
    work: asyncio.Task[None] | None = None
    runner_pid: int = 0
    pidfd: int = -1
    process: subprocess.Popen[bytes] | None = None
    dead_by: float | None = None
    timer: asyncio.TimerHandle | None = None
    over: bool = False
    given_up: bool = False
    was_entered: bool = False


class PosixContainerizer:
    """See the port.

    Args:
        layout: where files go.
        report: takes what becomes of containers.
        spawn: starts a task in the agent's task group, by name.
        limiter: limits containers, where that is possible.
        environment: what tasks inherit, before their own.

    """

    def __init__(
        self,
        layout: Layout,
        report: Callable[[ContainerEvent], None],
        spawn: Spawn,
        limiter: Limiter,
        environment: Mapping[str, str],
    ) -> None:
        self._layout = layout
        self._report = report
        self._spawn = spawn
        self._limiter = limiter
        self._environment = environment
        self._containers: dict[str, _Container] = {}

    def launch(self, spec: ContainerSpec) -> None:
        container = self._containers[spec.container_id] = _Container(spec)
        container.work = self._spawn(
            self._live(container, launch=True), f"container {spec.container_id}"
        )

    def recover(self, spec: ContainerSpec) -> None:
        mark = self._layout.runner_mark(spec.container_id)
        if mark is None:
            log.info(
                "container %s had not begun when the agent ended; launching it again",
                spec.container_id,
            )
            self.launch(spec)
            return
        container = self._containers[spec.container_id] = _Container(spec)
        self._adopt(container, *mark)
        container.work = self._spawn(
            self._live(container, launch=False), f"container {spec.container_id}"
        )

    def kill(self, container_id: str, grace_s: float) -> None:
        container = self._containers.get(container_id)
        if container is None or container.over:
            return
        if container.pidfd < 0:
            container.given_up = container.over = True
            if container.work is not None:
                container.work.cancel()
            self._report(LaunchFailed(container_id, "a kill was requested meanwhile"))
            return
        self._signal(container, signal.SIGTERM)
        loop = asyncio.get_running_loop()
        dead_by = loop.time() + max(grace_s, 0.0)
        if container.dead_by is None or dead_by < container.dead_by:
            container.dead_by = dead_by
            if container.timer is not None:
                container.timer.cancel()
            container.timer = loop.call_at(dead_by, self._signal, container, signal.SIGUSR1)

    def forget(self, container_id: str) -> None:
        self._containers.pop(container_id, None)
        shutil.rmtree(self._layout.container(container_id), ignore_errors=True)

    async def run_inside(self, container_id: str, command: CommandInfo, timeout_s: float) -> bool:
        container = self._containers.get(container_id)
        if container is None or container.over:
            return False
        environment = {**self._task_environment(container.spec), **_variables(command)}
        identity = identity_of(container.spec.user)
        program, argv = _program_and_argv(command)
        container.was_entered = True
        process = await asyncio.create_subprocess_exec(
            *argv,
            executable=program,
            cwd=self.sandbox(container.spec),
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
            **(identity.for_subprocess() if identity else {}),
        )
        try:
            async with asyncio.timeout(timeout_s or None):
                return await process.wait() == 0
        except TimeoutError:
            return False
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()

    def usage(self) -> dict[str, Usage]:
        processes = procfs.all_processes()
        found = {}
        for container_id, container in self._containers.items():
            if container.runner_pid and not container.over:
                family = procfs.descendants(container.runner_pid, processes)
                found[container_id] = Usage(
                    user_s=sum(process.user_s for process in family),
                    system_s=sum(process.system_s for process in family),
                    rss_bytes=sum(process.rss_bytes for process in family),
                    processes=len(family),
                )
        return found

    def sandbox(self, spec: ContainerSpec) -> Path:
        return self._layout.sandbox(spec.framework_id, spec.task_id, spec.container_id)

    async def _live(self, container: _Container, *, launch: bool) -> None:
        """A container from here to its end."""
        try:
            if launch:
                await self._start(container)
            if container.pidfd >= 0:
                await _readable(container.pidfd)
            await self._end(container)
        except asyncio.CancelledError:
            if not container.given_up:
                raise  # the agent ends; the task goes on
            await self._remove_groups(container)
        except Exception as error:  # one broken container must not take the others' agent along
            await self._give_up(container, error)
        finally:
            self._release(container)

    async def _give_up(self, container: _Container, error: Exception) -> None:
        container_id = container.spec.container_id
        expected = isinstance(error, (OSError, ValueError, FetchFailed, UnknownUser))
        log.warning("container %s failed: %s", container_id, error, exc_info=not expected)
        self._signal(container, signal.SIGUSR1)
        container.over = True
        await self._remove_groups(container)
        if container.runner_pid:
            self._report(Exited(container_id, self._layout.exit_status(container_id)))
        else:
            self._report(LaunchFailed(container_id, str(error)))

    async def _start(self, container: _Container) -> None:
        spec = container.spec
        identity = identity_of(spec.user)
        sandbox = self.sandbox(spec)
        sandbox.mkdir(parents=True, exist_ok=True)
        for name in ("stdout", "stderr"):
            (sandbox / name).touch()
        if identity is not None:
            identity.own(sandbox)
        for uri in spec.command.uris:
            await fetch(uri, sandbox, identity)
        groups = self._limiter.create(
            spec.container_id, spec.resources.cpus, spec.resources.mem_mib
        )
        await self._run(container, sandbox, identity, groups)

    async def _run(
        self, container: _Container, sandbox: Path, identity: Identity | None, groups: list[str]
    ) -> None:
        spec = container.spec
        attempt = self._layout.new_attempt(spec.container_id)
        environment = self._task_environment(spec)
        program, argv = _program_and_argv(spec.command)
        started_read, started_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        arguments = (
            str(attempt),
            str(started_write),
            "keep" if "LC_CTYPE" in environment else "unset",
            identity.argument if identity else "",
            ":".join(groups),
            program,
            *argv,
        )
        try:
            with (sandbox / "stdout").open("ab") as out, (sandbox / "stderr").open("ab") as err:
                # A short block of the loop: a runner's fork and exec take about 2 ms.
                container.process = subprocess.Popen(  # noqa: ASYNC220
                    [sys.executable, "-I", "-S", str(RUNNER), *arguments],
                    cwd=sandbox,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    pass_fds=[started_write],
                    start_new_session=True,
                )
            os.close(started_write)
            started_write = -1
            container.runner_pid = container.process.pid
            container.pidfd = os.pidfd_open(container.runner_pid)
            self._report(Started(spec.container_id, container.runner_pid))
            await _readable(started_read)
            if os.read(started_read, 64):
                self._report(Ran(spec.container_id))
        finally:
            os.close(started_read)
            if started_write >= 0:
                os.close(started_write)

    def _adopt(self, container: _Container, pid: int, start_time: int, boot_id: str) -> None:
        """Watch a runner of the agent's last run, unless the pid is somebody else's by now."""
        container.runner_pid = pid
        self._report(Started(container.spec.container_id, pid))
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        process = procfs.read(pid)  # after opening: what is read now is what the pidfd names
        if process is None or process.start_time != start_time or boot_id != procfs.boot_id():
            os.close(pidfd)
            return
        container.pidfd = pidfd
        self._report(Ran(container.spec.container_id))

    async def _end(self, container: _Container) -> None:
        container.over = True
        spec = container.spec
        wait_status = self._layout.exit_status(spec.container_id)
        if wait_status is None or container.was_entered:
            self._kill_strays(container)
        over_limit = self._limiter.over_limit(spec.container_id) if wait_status != 0 else ""
        await self._remove_groups(container)
        self._report(Exited(spec.container_id, wait_status, over_limit))

    def _kill_strays(self, container: _Container) -> None:
        """What is not the runner's family (any more): what a check left, or a family whose runner was killed."""
        for _ in range(20):
            strays = procfs.with_environment(f"MESOS_CONTAINER_ID={container.spec.container_id}")
            for pid in strays:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            if not strays:
                return

    async def _remove_groups(self, container: _Container) -> None:
        for wait_s in _CGROUP_RETRY_S:
            if self._limiter.remove(container.spec.container_id):
                return
            await asyncio.sleep(wait_s)
        log.warning(
            "control groups of container %s could not be removed", container.spec.container_id
        )

    def _release(self, container: _Container) -> None:
        if container.timer is not None:
            container.timer.cancel()
        if container.process is not None:
            container.process.poll()  # reaps it
        if container.pidfd >= 0:
            os.close(container.pidfd)
            container.pidfd = -1

    def _signal(self, container: _Container, number: signal.Signals) -> None:
        if container.pidfd >= 0 and not container.over:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(container.pidfd, number)

    def _task_environment(self, spec: ContainerSpec) -> dict[str, str]:
        sandbox = str(self.sandbox(spec))
        return {
            **self._environment,
            "MESOS_SANDBOX": sandbox,
            "MESOS_DIRECTORY": sandbox,
            "MESOS_TASK_ID": spec.task_id,
            "MESOS_FRAMEWORK_ID": spec.framework_id,
            "MESOS_AGENT_ID": spec.agent_id,
            "MESOS_SLAVE_ID": spec.agent_id,
            "MESOS_CONTAINER_ID": spec.container_id,
            **_variables(spec.command),
        }


def _variables(command: CommandInfo) -> dict[str, str]:
    if command.environment is None:
        return {}
    return {
        variable.name: variable.value
        for variable in command.environment.variables
        if variable.value is not None
    }


def _program_and_argv(command: CommandInfo) -> tuple[str, list[str]]:
    """A shell line, or a program with its whole argv, whose first element may differ from the program as in execve(2)."""
    if command.shell is not False:
        return "/bin/sh", ["sh", "-c", command.value or ""]
    arguments = list(command.arguments)
    program = command.value or arguments[0]
    return program, arguments or [program]


async def _readable(fd: int) -> None:
    """Return when `fd` can be read: a pipe has data or its end, a pidfd's process is over."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(fd, wake)
    try:
        await ready
    finally:
        loop.remove_reader(fd)
