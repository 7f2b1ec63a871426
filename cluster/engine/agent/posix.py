"""Containerizer whose containers are plain processes.

Each task has a runner (`runner.py`), a session and a folder of its own. Runners outlive the agent;
`recover` finds them by the files that they wrote below `<work>/meta/containers`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import structlog

from mesaform.common import proc
from mesaform.engine.agent.cgroups import Limiter
from mesaform.engine.agent.containerizer import ContainerSpec, Usage
from mesaform.engine.agent.events import ContainerEvent, Exited, LaunchFailed, Ran, Started
from mesaform.engine.agent.fetcher import FetchFailed, fetch
from mesaform.engine.agent.identity import Identity, ProcessUser, UnknownUser, UserPolicy
from mesaform.engine.agent.layout import Layout
from mesaform.engine.agent.output import OutputLimits
from mesaform.engine.agent.task_unit import TaskUnit
from mesaform.mesos.messages import CommandInfo

log = structlog.get_logger(__name__)

RUNNER = Path(__file__).with_name("runner.py")
INTERPRETER_OPTIONS = ("-I", "-S")  # no environment, no site-packages: the runner needs neither
SANDBOX_MODE = 0o750  # as Mesos' (slave/paths.cpp)
OUTPUT_MODE = 0o640
KILL_STRAYS_ROUNDS = 20
"""Rounds of killing processes that fork meanwhile; each round takes milliseconds."""
_CGROUP_RETRY_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


class NotStarted(Exception):
    """A runner could not start its task. The text says why."""


Spawn = Callable[[Coroutine[object, None, None], str], "asyncio.Task[None]"]


@dataclass(frozen=True, slots=True)
class TaskSettings:
    """What every task starts with.

    `environment` is what tasks inherit; their own variables have precedence. `users` is as whom
    they run. `output` limits what they write. `unit` has the control groups of runners.
    """

    environment: Mapping[str, str]
    users: UserPolicy = field(default_factory=UserPolicy)
    output: OutputLimits = field(default_factory=OutputLimits)
    unit: TaskUnit = field(default_factory=TaskUnit)


@dataclass(slots=True)
class _Container:
    spec: ContainerSpec
    work: asyncio.Task[None] | None = None
    runner_pid: int = 0
    pidfd: int = -1
    process: subprocess.Popen[bytes] | None = None
    kill_at: float | None = None
    timer: asyncio.TimerHandle | None = None
    is_over: bool = False
    is_given_up: bool = False
    was_entered: bool = False


class PosixContainerizer:
    """See the port.

    Args:
        layout: the agent's files.
        report: receives the containers' events.
        spawn: starts a named task in the agent's task group.
        limiter: limits containers, where the machine allows it.
        settings: what tasks start with.

    """

    def __init__(
        self,
        layout: Layout,
        report: Callable[[ContainerEvent], None],
        spawn: Spawn,
        limiter: Limiter,
        settings: TaskSettings,
    ) -> None:
        self._users = settings.users
        self._layout = layout
        self._report = report
        self._spawn = spawn
        self._limiter = limiter
        self._environment = settings.environment
        self._output = settings.output
        self._unit = settings.unit
        self._runner = layout.compiled(RUNNER)
        self._containers: dict[str, _Container] = {}

    def launch(self, spec: ContainerSpec) -> None:
        container = self._containers[spec.container_id] = _Container(spec)
        container.work = self._spawn(
            self._live(container, launch=True), f"container {spec.container_id}"
        )

    def recover(self, spec: ContainerSpec) -> None:
        mark = self._layout.runner_mark(spec.container_id)
        if mark is None:
            log.info("container_relaunched", container=spec.container_id)
            self.launch(spec)
            return
        container = self._containers[spec.container_id] = _Container(spec)
        self._adopt(container, *mark)
        container.work = self._spawn(
            self._live(container, launch=False), f"container {spec.container_id}"
        )

    def kill(self, container_id: str, grace_s: float) -> None:
        container = self._containers.get(container_id)
        if container is None or container.is_over:
            return
        if container.pidfd < 0:
            container.is_given_up = container.is_over = True
            if container.work is not None:
                container.work.cancel()
            self._report(LaunchFailed(container_id, "a kill was requested meanwhile"))
            return
        self._signal(container, signal.SIGTERM)
        loop = asyncio.get_running_loop()
        kill_at = loop.time() + max(grace_s, 0.0)
        if container.kill_at is None or kill_at < container.kill_at:
            container.kill_at = kill_at
            if container.timer is not None:
                container.timer.cancel()
            container.timer = loop.call_at(kill_at, self._signal, container, signal.SIGUSR1)

    def destroy(self, container_id: str) -> None:
        self._spawn(self._destroy(container_id), f"end of {container_id}")

    async def _destroy(self, container_id: str) -> None:
        """End a container of which only its files are known."""
        mark = self._layout.runner_mark(container_id)
        pidfd = -1 if mark is None else _open_runner(*mark)
        if pidfd >= 0:
            try:
                signal.pidfd_send_signal(pidfd, signal.SIGUSR1)
                await _readable(pidfd)
            finally:
                os.close(pidfd)
        _kill_strays(container_id)
        await self._remove_groups(container_id)
        self.forget(container_id)

    def forget(self, container_id: str) -> None:
        self._containers.pop(container_id, None)
        shutil.rmtree(self._layout.container(container_id), ignore_errors=True)

    async def run_inside(self, container_id: str, command: CommandInfo, timeout_s: float) -> bool:
        container = self._containers.get(container_id)
        if container is None or container.is_over:
            return False
        identity = self._users.identity_of(container.spec.user)
        environment = {**self._task_environment(container.spec, identity), **_variables(command)}
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
            **(identity.for_subprocess() if identity else ProcessUser()),
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
        processes = proc.running_processes()
        usages = {}
        for container_id, container in self._containers.items():
            if container.runner_pid and not container.is_over:
                below = proc.descendants(container.runner_pid, processes)
                usages[container_id] = Usage(
                    user_s=sum(process.user_s for process in below),
                    system_s=sum(process.system_s for process in below),
                    rss_bytes=sum(process.rss_bytes for process in below),
                    processes=len(below),
                )
        return usages

    def sandbox(self, spec: ContainerSpec) -> Path:
        return self._layout.sandbox(spec.framework_id, spec.task_id, spec.container_id)

    async def _live(self, container: _Container, *, launch: bool) -> None:
        """Start the container unless it runs, and follow it to its end."""
        try:
            if launch:
                await self._start(container)
            if container.pidfd >= 0:
                await _readable(container.pidfd)
            await self._end(container)
        except asyncio.CancelledError:
            if not container.is_given_up:
                raise  # the agent ends, and the task continues
            await self._remove_groups(container.spec.container_id)
        except Exception as error:  # a fault of one container must not end the agent
            await self._give_up(container, error)
        finally:
            self._release(container)

    async def _give_up(self, container: _Container, error: Exception) -> None:
        container_id = container.spec.container_id
        is_expected = isinstance(error, (OSError, ValueError, FetchFailed, UnknownUser, NotStarted))
        log.warning(
            "container_failed", container=container_id, error=str(error), exc_info=not is_expected
        )
        self._signal(container, signal.SIGUSR1)
        container.is_over = True
        await self._remove_groups(container.spec.container_id)
        if container.runner_pid and not isinstance(error, NotStarted):
            self._report(Exited(container_id, self._layout.exit_status(container_id)))
        else:
            self._report(LaunchFailed(container_id, str(error)))

    async def _start(self, container: _Container) -> None:
        spec = container.spec
        identity = self._users.identity_of(spec.user)
        sandbox = self.sandbox(spec)
        sandbox.mkdir(parents=True, exist_ok=True)
        sandbox.chmod(SANDBOX_MODE)
        for name in ("stdout", "stderr"):
            (sandbox / name).touch(mode=OUTPUT_MODE)
        for uri in spec.command.uris:
            await fetch(uri, sandbox, identity)
        if identity is not None:
            await asyncio.to_thread(identity.own, sandbox)
        groups = self._limiter.create(
            spec.container_id, spec.resources.cpus, spec.resources.mem_mib
        )
        await self._run(container, sandbox, identity, groups)

    async def _run(
        self, container: _Container, sandbox: Path, identity: Identity | None, groups: list[str]
    ) -> None:
        spec = container.spec
        attempt = self._layout.new_attempt(spec.container_id)
        environment = self._task_environment(spec, identity)
        program, argv = _program_and_argv(spec.command)
        started_read, started_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        arguments = (
            str(attempt),
            str(started_write),
            ":".join(self._unit.runner_groups()),
            "keep" if "LC_CTYPE" in environment else "unset",
            identity.argument if identity else "",
            ":".join(groups),
            self._output.limits_for(environment),
            program,
            *argv,
        )
        try:
            with _opened(sandbox / "stdout") as out, _opened(sandbox / "stderr") as err:
                # This blocks the event loop: a runner's fork and exec take about 2 ms.
                container.process = subprocess.Popen(  # noqa: ASYNC220
                    [sys.executable, *INTERPRETER_OPTIONS, str(self._runner), *arguments],
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
            line = os.read(started_read, 256)
            if line.startswith(b"!"):
                raise NotStarted(line[1:].decode("utf-8", "replace").strip())
            if line:
                self._report(Ran(spec.container_id))
        finally:
            os.close(started_read)
            if started_write >= 0:
                os.close(started_write)

    def _adopt(self, container: _Container, pid: int, start_time: int, boot_id: str) -> None:
        """Watch a runner of the agent's last run, unless another process has its pid."""
        container.runner_pid = pid
        self._report(Started(container.spec.container_id, pid))
        container.pidfd = _open_runner(pid, start_time, boot_id)
        if container.pidfd >= 0:
            self._report(Ran(container.spec.container_id))

    async def _end(self, container: _Container) -> None:
        container.is_over = True
        spec = container.spec
        wait_status = self._layout.exit_status(spec.container_id)
        if wait_status is None or container.was_entered:
            _kill_strays(spec.container_id)
        over_limit = self._limiter.over_limit(spec.container_id) if wait_status != 0 else ""
        await self._remove_groups(container.spec.container_id)
        self._report(Exited(spec.container_id, wait_status, over_limit))

    async def _remove_groups(self, container_id: str) -> None:
        for wait_s in _CGROUP_RETRY_S:
            if self._limiter.remove(container_id):
                return
            await asyncio.sleep(wait_s)
        log.warning("cgroups_not_removed", container=container_id)

    def _release(self, container: _Container) -> None:
        if container.timer is not None:
            container.timer.cancel()
        if container.process is not None:
            container.process.poll()  # reaps it
        if container.pidfd >= 0:
            os.close(container.pidfd)
            container.pidfd = -1

    def _signal(self, container: _Container, number: signal.Signals) -> None:
        if container.pidfd >= 0 and not container.is_over:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(container.pidfd, number)

    def _task_environment(self, spec: ContainerSpec, identity: Identity | None) -> dict[str, str]:
        sandbox = str(self.sandbox(spec))
        # Another user cannot write to the agent's home.
        home = {"HOME": sandbox} if identity else {}
        return {
            **self._environment,
            **home,
            "MESOS_SANDBOX": sandbox,
            "MESOS_DIRECTORY": sandbox,
            "MESOS_TASK_ID": spec.task_id,
            "MESOS_FRAMEWORK_ID": spec.framework_id,
            "MESOS_AGENT_ID": spec.agent_id,
            "MESOS_SLAVE_ID": spec.agent_id,
            "MESOS_CONTAINER_ID": spec.container_id,
            **_variables(spec.command),
        }


def _open_runner(pid: int, start_time: int, boot_id: str) -> int:
    """A pidfd of a runner; -1 when it has ended, also when another process has its pid."""
    try:
        pidfd = os.pidfd_open(pid)
    except (ProcessLookupError, OverflowError, ValueError):
        return -1
    # Read after the pidfd is open, so that both name the same process.
    if boot_id == proc.boot_id() and proc.is_alive(pid, start_time):
        return pidfd
    os.close(pidfd)
    return -1


def _kill_strays(container_id: str) -> None:
    """Kill processes of the container that are not below its runner.

    A health check may have left them, or their runner was killed.
    """
    entry = f"MESOS_CONTAINER_ID={container_id}"
    for _ in range(KILL_STRAYS_ROUNDS):
        strays = proc.pids_with_environment(entry)
        for pid in strays:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if not strays:
            return


def _variables(command: CommandInfo) -> dict[str, str]:
    if command.environment is None:
        return {}
    return {
        variable.name: variable.value
        for variable in command.environment.variables
        if variable.value is not None
    }


def _program_and_argv(command: CommandInfo) -> tuple[str, list[str]]:
    """The program of a command and its whole argv, as execve(2) takes them.

    Raises:
        NotStarted: the command has no value. The executor of Apache Mesos ends then, too.

    """
    if command.value is None:
        what = "Executable" if command.shell is False else "Shell command"
        raise NotStarted(f"{what} of the task is not specified")
    if command.shell is not False:
        return "/bin/sh", ["sh", "-c", command.value]
    return command.value, list(command.arguments) or [command.value]


def _opened(output: Path) -> BinaryIO:
    """An output file, opened to append.

    Tasks of one user can replace files in each other's sandboxes.

    Raises:
        OSError: a link or no regular file is in its place.

    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(output, flags, OUTPUT_MODE)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "no regular file", str(output))
    return os.fdopen(descriptor, "ab")


async def _readable(fd: int) -> None:
    """Return when `fd` is readable: a pipe has data or its end, a pidfd's process has ended."""
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
