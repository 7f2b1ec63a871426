"""A real agent process, and the processes that it started."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import aiohttp

from harness.ports import free_port
from mesaform.common import proc


class AgentProcess:
    """`python -m mesaform.engine agent`, or what that calls, with its own work folder.

    Args:
        work_dir: kept over restarts.
        host: where it listens.
        link_port: of the master, which is at the same host.

    """

    def __init__(self, work_dir: Path, host: str, link_port: int, **environment: str) -> None:
        self.work_dir = work_dir
        self.host = host
        self.port = free_port(host)
        self._environment = {
            "PATH": os.environ["PATH"],
            "MESOS_MASTER": f"{host}:5050",
            "MESOS_IP": host,
            "MESOS_PORT": str(self.port),
            "MESOS_WORK_DIR": str(work_dir),
            "MESOS_RESOURCES": "cpus:4;mem:4096;disk:8192;ports:[31000-32000]",
            "MESOS_ATTRIBUTES": "zone:a",
            "MESAFORM_LINK_PORT": str(link_port),
            **environment,
        }
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> None:
        log = self.work_dir.parent / "agent.log"
        program = "import sys; from mesaform.engine.agent import main; sys.exit(main())"
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-c", program], env=self._environment, stdout=out, stderr=out
            )

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    async def ended(self) -> int:
        assert self.process is not None
        return await asyncio.to_thread(self.process.wait, 60)

    async def kill(self) -> None:
        self.signal(signal.SIGKILL)
        await self.ended()

    async def get(self, page: str, **query: str) -> tuple[int, object]:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://{self.host}:{self.port}{page}", params=query) as response,
        ):
            kind = response.content_type
            return response.status, await (
                response.json() if kind == "application/json" else response.text()
            )

    def rss_mib(self) -> float:
        process = proc.read_process(self.pid)
        assert process is not None
        return process.rss_bytes / 2**20


def processes_of(work_dir: Path) -> list[int]:
    """Every runner and task that belongs to a work folder."""
    wanted = str(work_dir).encode()
    pids = []
    for pid in proc.running_processes():
        try:
            text = (
                Path(f"/proc/{pid}/cmdline").read_bytes()
                + Path(f"/proc/{pid}/environ").read_bytes()
            )
        except OSError:
            continue
        if wanted in text and pid != os.getpid() and is_running(pid):
            pids.append(pid)
    return pids


def is_running(pid: int) -> bool:
    """Whether there is such a process, and not only its zombie."""
    process = proc.read_process(pid)
    return process is not None and not process.has_ended


async def gone(pid: int) -> None:
    """Return when a process is no more."""
    async with asyncio.timeout(60):
        while is_running(pid):
            await asyncio.sleep(0.02)
