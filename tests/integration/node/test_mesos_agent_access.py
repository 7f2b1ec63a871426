"""What an agent of Apache Mesos, with the node's ACLs, refuses to a task that calls its API."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import aiohttp
import pytest

from harness.mesos_prefix import PREFIX_VARIABLE, mesos_prefix
from harness.ports import free_port
from mesaform.node import identities
from mesaform.topology.user_data import NODE_DOCUMENT_VERSION, NodeDocument
from tests.differential.engines import START_S, processes, start

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(mesos_prefix() is None, reason=f"{PREFIX_VARIABLE} names no Apache Mesos"),
]
ADDRESS = "127.77.2.1"
DOCUMENT = NodeDocument(
    NODE_DOCUMENT_VERSION, "demo", "agent", "eu-west-1", "mesos", recipe="abc", zookeeper=()
)
CALLS = {
    "a container of its own": {
        "type": "LAUNCH_CONTAINER",
        "launch_container": {"container_id": {"value": "own"}, "command": {"value": "true"}},
    },
    "another level of the log": {
        "type": "SET_LOGGING_LEVEL",
        "set_logging_level": {"level": 3, "duration": {"nanoseconds": 1_000_000_000}},
    },
    "images away": {"type": "PRUNE_IMAGES"},
}


async def answered(session: aiohttp.ClientSession, url: str, call: object) -> int:
    """The status of a call, once the agent has recovered."""
    async with asyncio.timeout(START_S):
        while True:
            with contextlib.suppress(aiohttp.ClientConnectionError):
                async with session.post(url, json=call) as response:
                    if response.status not in {404, 503}:
                        return response.status
            await asyncio.sleep(0.1)


async def test_an_agent_of_apache_mesos_starts_nothing_for_who_only_reaches_its_port(
    tmp_path: Path,
) -> None:
    prefix = mesos_prefix()
    assert prefix is not None
    port = free_port(ADDRESS)
    agent = [
        str(prefix / "sbin" / "mesos-agent"), f"--ip={ADDRESS}", f"--port={port}",
        f"--master={ADDRESS}:1", f"--work_dir={tmp_path / 'work'}",
        f"--runtime_dir={tmp_path / 'run'}", f"--launcher_dir={prefix / 'libexec/mesos'}",
        "--no-hostname_lookup", "--launcher=posix", "--no-systemd_enable_support",
        "--isolation=posix/cpu,posix/mem", "--resources=cpus:1;mem:64;disk:64",
    ]  # fmt: skip
    acls = identities.agent_acls_environment(DOCUMENT)
    async with processes(tmp_path / "mesos") as started, aiohttp.ClientSession() as session:
        await start(started, agent, acls, tmp_path / "mesos" / "agent.log")
        url = f"http://{ADDRESS}:{port}/api/v1"
        statuses = {name: await answered(session, url, call) for name, call in CALLS.items()}
    assert statuses == dict.fromkeys(CALLS, 403)
