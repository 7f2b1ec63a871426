"""A fake master, and an agent process with a work folder of its own."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from harness.agent_process import AgentProcess, processes_of
from tests.integration.engine_agent.fake_master import FakeMaster

HOST = "127.61.0.12"
SMALL_DISK_MIB = 4


@pytest.fixture
async def master() -> AsyncIterator[FakeMaster]:
    master = FakeMaster(HOST)
    await master.start()
    yield master
    await master.stop()


@pytest.fixture
async def agent(tmp_path: Path, master: FakeMaster) -> AsyncIterator[AgentProcess]:
    """A running agent. Afterwards it shuts down, and none of its processes may be left."""
    work_dir = tmp_path / "work"
    work_dir.mkdir()
    async for started in running_agent(work_dir, master):
        yield started


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few MiB."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a file system")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK_MIB}m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine does not allow mounts")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


async def running_agent(
    work_dir: Path, master: FakeMaster, **settings: str
) -> AsyncIterator[AgentProcess]:
    """An agent that runs with these variables; see the fixture `agent`."""
    agent = AgentProcess(work_dir, HOST, master.port, **settings)
    agent.start()
    yield agent
    if agent.process is not None and agent.process.poll() is None:
        agent.signal(signal.SIGUSR1)
        await agent.ended()
    assert processes_of(work_dir) == []
