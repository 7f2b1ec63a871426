"""A real Apache Mesos and the embedded engine, each with one master and one agent of equal size."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from harness.ports import free_port
from mesaform.common import proc

RESOURCES = "cpus:4;mem:4096;disk:8192;ports:[31000-32000]"
ALLOCATION_INTERVAL = "50ms"
START_S = 60.0
LOG_LINES = 12
"""Of the log of a process that ended by itself, which a message shows, besides fatal ones."""
FATAL = re.compile(r"F\d{4} ")
FRAME = "    @ "
"""How Apache Mesos begins a line of a stack trace, which such a message leaves out."""


@contextlib.asynccontextmanager
async def processes(folder: Path) -> AsyncIterator[list[asyncio.subprocess.Process]]:
    """Processes that end with the block."""
    folder.mkdir(parents=True, exist_ok=True)
    started: list[asyncio.subprocess.Process] = []
    try:
        yield started
    finally:
        for process in reversed(started):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in started:
            try:
                await asyncio.wait_for(process.wait(), 10)
            except TimeoutError:
                os.killpg(process.pid, signal.SIGKILL)
                await process.wait()


async def start(
    started: list[asyncio.subprocess.Process],
    command: list[str],
    env: Mapping[str, str],
    log: Path,
) -> None:
    """Start a process in a session of its own."""
    inherited = {
        name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ
    }
    with log.open("ab") as out:
        started.append(
            await asyncio.create_subprocess_exec(
                *command, env={**inherited, **env}, stdout=out, stderr=out, start_new_session=True
            )
        )


async def registered(base: str) -> None:
    """Wait until the master has an active agent."""
    async with aiohttp.ClientSession() as session, asyncio.timeout(START_S):
        while True:
            with contextlib.suppress(aiohttp.ClientError, ValueError, KeyError):
                async with session.post(f"{base}/api/v1", json={"type": "GET_AGENTS"}) as response:
                    body = await response.json(content_type=None)
                    agents = body["get_agents"].get("agents", [])
                    if any(agent["active"] for agent in agents):
                        return
            await asyncio.sleep(0.1)


class EngineEnded(Exception):
    """A process of an engine ended by itself. The text has its name, how it ended and its log."""


@dataclass(frozen=True, slots=True)
class End:
    """How a process of an engine ended by itself.

    Attributes:
        part: `master` or `agent`.
        status: the exit status, or the name of the signal.
        log: the last lines of its log.

    """

    part: str
    status: str
    log: str

    def __str__(self) -> str:
        return f"{self.part} ended with {self.status}; the last lines of its log:\n{self.log}"


@dataclass(frozen=True, slots=True)
class Setup:
    """One start of an engine: its master's URL, and command and environment of each process."""

    base: str
    commands: dict[str, tuple[list[str], dict[str, str]]]


@dataclass(slots=True)
class Engine:
    """The processes of one engine: a master and its agent.

    Args:
        name: of the engine, for messages.
        folder: gets a folder for each start, with the logs and the state of the processes.
        commands: the base URL of the master, and command and environment of each process, for a
            folder. It is asked again for each start.

    """

    name: str
    folder: Path
    commands: Callable[[Path], Setup]
    base: str = ""
    starts: int = 0
    processes: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)
    _stack: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)

    async def start(self) -> None:
        """Start the processes, and wait for the agent's registration.

        Raises:
            EngineEnded: a process ended before.

        """
        self.starts += 1
        folder = self.folder / str(self.starts)
        started = await self._stack.enter_async_context(processes(folder))
        setup = self.commands(folder)
        for part, (command, environment) in setup.commands.items():
            await start(started, command, environment, self._log(part))
            self.processes[part] = started[-1]
        self.base = setup.base
        end = asyncio.create_task(self.until_end())
        ready = asyncio.create_task(registered(self.base))
        try:
            await asyncio.wait([end, ready], return_when=asyncio.FIRST_COMPLETED)
            if not ready.done():
                raise EngineEnded(f"{self.name}: {end.result()}")
            ready.result()
        finally:
            end.cancel()
            ready.cancel()

    async def stop(self) -> None:
        """End the processes that still run."""
        self.processes.clear()
        await self._stack.aclose()

    async def restart(self) -> None:
        """Start it with empty folders again, after a process of it ended."""
        await self.stop()
        await self.start()

    @property
    def has_ended(self) -> bool:
        """Whether a process ended, also if asyncio has not noticed it yet."""
        return any(
            (seen := proc.read_process(process.pid)) is None or seen.has_ended
            for process in self.processes.values()
        )

    def ends(self) -> list[End]:
        """The processes that ended by themselves since the last start."""
        return [
            End(part, _status(process.returncode), self._log_tail(part))
            for part, process in self.processes.items()
            if process.returncode is not None
        ]

    async def until_end(self) -> End:
        """Wait for the end of a process."""
        waits = [asyncio.create_task(process.wait()) for process in self.processes.values()]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waits:
                task.cancel()
        return self.ends()[0]

    def _log(self, part: str) -> Path:
        return self.folder / str(self.starts) / f"{part}.log"

    def _log_tail(self, part: str) -> str:
        text = self._log(part).read_text(encoding="utf-8", errors="replace")
        lines = [line for line in text.splitlines() if not line.startswith(FRAME)]
        fatal = [line for line in lines[:-LOG_LINES] if FATAL.match(line)]
        return "\n".join([*fatal, *lines[-LOG_LINES:]])


def _status(returncode: int) -> str:
    return signal.Signals(-returncode).name if returncode < 0 else f"exit status {returncode}"


@contextlib.asynccontextmanager
async def running(engine: Engine) -> AsyncIterator[Engine]:
    """The engine with its processes, which end with the block."""
    try:
        await engine.start()
        yield engine
    finally:
        await engine.stop()


def apache_mesos(prefix: Path, folder: Path) -> Engine:
    """A real Apache Mesos, installed at `prefix`."""
    address = "127.97.1.1"

    def commands(own: Path) -> Setup:
        port, agent_port = free_port(address), free_port(address)
        master = [
            str(prefix / "sbin" / "mesos-master"), f"--ip={address}", f"--port={port}",
            f"--work_dir={own / 'master'}", f"--webui_dir={prefix / 'share/mesos/webui'}",
            "--no-hostname_lookup", f"--allocation_interval={ALLOCATION_INTERVAL}",
            "--registry=in_memory", "--quorum=1",
        ]  # fmt: skip
        agent = [
            str(prefix / "sbin" / "mesos-agent"), f"--ip={address}", f"--port={agent_port}",
            f"--master={address}:{port}", f"--work_dir={own / 'agent'}",
            f"--runtime_dir={own / 'run'}", f"--launcher_dir={prefix / 'libexec/mesos'}",
            "--no-hostname_lookup", "--launcher=posix", "--no-systemd_enable_support",
            "--isolation=posix/cpu,posix/mem", f"--resources={RESOURCES}", "--no-switch_user",
        ]  # fmt: skip
        return Setup(f"http://{address}:{port}", {"master": (master, {}), "agent": (agent, {})})

    return Engine("Apache Mesos", folder, commands)


def embedded_engine(folder: Path, zk_url: str) -> Engine:
    """The embedded engine. `zk_url` is an empty path of a ZooKeeper."""
    address = "127.97.1.2"

    def commands(own: Path) -> Setup:
        port, link_port, agent_port = (free_port(address) for _ in range(3))
        common = {"MESOS_IP": address, "MESAFORM_LINK_PORT": str(link_port)}
        master = {
            **common,
            "MESOS_PORT": str(port),
            "MESOS_ZK": zk_url,
            "MESOS_ALLOCATION_INTERVAL": ALLOCATION_INTERVAL,
        }
        agent = {
            **common,
            "MESOS_PORT": str(agent_port),
            "MESOS_MASTER": zk_url,
            "MESOS_WORK_DIR": str(own / "agent"),
            "MESOS_RESOURCES": RESOURCES,
        }
        program = [sys.executable, "-m", "mesaform.engine"]
        both = {"master": ([*program, "master"], master), "agent": ([*program, "agent"], agent)}
        return Setup(f"http://{address}:{port}", both)

    return Engine("the embedded engine", folder, commands)
