"""An agent follows the leading master in a real ZooKeeper."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator

import pytest

from harness.agent_process import AgentProcess
from mesaform.engine import link
from mesaform.zookeeper.session import ZooKeeper
from tests.integration.engine_agent.fake_master import FakeMaster
from tests.unit.engine_agent.builders import framework, task

pytestmark = [pytest.mark.slow, pytest.mark.zookeeper]
OWNER = framework("PARTITION_AWARE")


@pytest.fixture
async def masters() -> AsyncIterator[list[FakeMaster]]:
    """Two at addresses of their own, with the same link port."""
    masters = [FakeMaster("127.61.0.21"), FakeMaster("127.61.0.22")]
    for master in masters:
        master.port = masters[0].port
        await master.start()
    yield masters
    for master in masters:
        await master.stop()


async def elect(zk: ZooKeeper, root: str, master: FakeMaster) -> str:
    """The way Mesos' masters contend: the lowest leads."""
    info = {
        "address": {"hostname": "m", "ip": master.host, "port": 5050},
        "pid": f"master@{master.host}:5050",
    }
    return await zk.create_sequential(f"{root}/json.info_", json.dumps(info).encode())


async def test_the_agent_follows_the_leader_and_stays_while_there_is_none(
    tmp_path, masters, zookeeper_hosts, zookeeper_root
):
    first, second = masters
    work_dir = tmp_path / "work"
    work_dir.mkdir()
    zk = ZooKeeper(zookeeper_hosts)
    await zk.start()
    agent = AgentProcess(
        work_dir, "127.61.0.20", first.port, MESOS_MASTER=f"zk://{zookeeper_hosts}{zookeeper_root}"
    )
    agent.start()
    try:
        node = await elect(zk, zookeeper_root, first)
        await first.registered()
        first.launch(task("t", "sleep 1000"), OWNER)
        await first.status("t", "TASK_RUNNING")
        await zk.delete(node)
        first.say(link.Kill("fw", "ghost"))
        await first.status("ghost", "TASK_GONE")
        await elect(zk, zookeeper_root, second)
        register = await second.registered()
        assert [known.latest_state for known in register.tasks] == ["TASK_RUNNING"]
        assert len(first.registrations) == 1
    finally:
        agent.signal(signal.SIGUSR1)
        await agent.ended()
        await zk.stop()
