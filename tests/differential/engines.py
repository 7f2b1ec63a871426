"""A real Apache Mesos and the embedded engine, each with one master and one agent of equal size."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import aiohttp

from harness.ports import free_port

RESOURCES = "cpus:4;mem:4096;disk:8192;ports:[31000-32000]"
ALLOCATION_INTERVAL = "50ms"
START_S = 60.0


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


async def registered(base: str, processes_: list[asyncio.subprocess.Process]) -> None:
    """Wait until the master has an active agent."""
    async with aiohttp.ClientSession() as session, asyncio.timeout(START_S):
        while True:
            ended = [process.returncode for process in processes_ if process.returncode is not None]
            assert not ended, f"a process ended with {ended[0]}; see its log"
            with contextlib.suppress(aiohttp.ClientError, ValueError, KeyError):
                async with session.post(f"{base}/api/v1", json={"type": "GET_AGENTS"}) as response:
                    body = await response.json(content_type=None)
                    agents = body["get_agents"].get("agents", [])
                    if any(agent["active"] for agent in agents):
                        return
            await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def apache_mesos(prefix: Path, folder: Path) -> AsyncIterator[str]:
    """The URL of a running Apache Mesos."""
    address = "127.97.1.1"
    port, agent_port = free_port(address), free_port(address)
    async with processes(folder) as started:
        master = [
            str(prefix / "sbin" / "mesos-master"), f"--ip={address}", f"--port={port}",
            f"--work_dir={folder / 'master'}", f"--webui_dir={prefix / 'share/mesos/webui'}",
            "--no-hostname_lookup", f"--allocation_interval={ALLOCATION_INTERVAL}",
            "--registry=in_memory", "--quorum=1",
        ]  # fmt: skip
        agent = [
            str(prefix / "sbin" / "mesos-agent"), f"--ip={address}", f"--port={agent_port}",
            f"--master={address}:{port}", f"--work_dir={folder / 'agent'}",
            f"--runtime_dir={folder / 'run'}", f"--launcher_dir={prefix / 'libexec/mesos'}",
            "--no-hostname_lookup", "--launcher=posix", "--no-systemd_enable_support",
            "--isolation=posix/cpu,posix/mem", f"--resources={RESOURCES}", "--no-switch_user",
        ]  # fmt: skip
        await start(started, master, {}, folder / "master.log")
        await start(started, agent, {}, folder / "agent.log")
        base = f"http://{address}:{port}"
        await registered(base, started)
        yield base


@contextlib.asynccontextmanager
async def embedded_engine(folder: Path, zk_url: str) -> AsyncIterator[str]:
    """The URL of the embedded engine's master. `zk_url` is an empty path of a ZooKeeper."""
    address = "127.97.1.2"
    port, link_port, agent_port = (free_port(address) for _ in range(3))
    common = {"MESOS_IP": address, "MESAFORM_LINK_PORT": str(link_port)}
    async with processes(folder) as started:
        await start(
            started,
            [sys.executable, "-m", "mesaform.engine", "master"],
            {
                **common,
                "MESOS_PORT": str(port),
                "MESOS_ZK": zk_url,
                "MESOS_ALLOCATION_INTERVAL": ALLOCATION_INTERVAL,
            },
            folder / "master.log",
        )
        await start(
            started,
            [sys.executable, "-m", "mesaform.engine", "agent"],
            {
                **common,
                "MESOS_PORT": str(agent_port),
                "MESOS_MASTER": zk_url,
                "MESOS_WORK_DIR": str(folder / "agent"),
                "MESOS_RESOURCES": RESOURCES,
            },
            folder / "agent.log",
        )
        base = f"http://{address}:{port}"
        await registered(base, started)
        yield base
