"""Real master processes: a leader is killed or ends, another leads, and tasks survive."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from harness.master_process import HttpScheduler, Running, agent_on
from harness.zookeeper import SESSION_AT_MOST_S
from mesaform.engine import link
from tests.integration.engine_master.test_http import first_info
from tests.unit.engine_master.world import FrameworkIdentity, known

pytestmark = [pytest.mark.zookeeper, pytest.mark.slow]

IDLE_MIB = 120


class Program(Running):
    """`python -m mesaform.engine master` as a process of its own."""

    def __init__(self, zk_url: str, log: Path, **settings: str) -> None:
        super().__init__(zk_url)
        self._log = log
        self._env = {
            "MESOS_IP": self.address,
            "MESOS_PORT": str(self.port),
            "MESAFORM_LINK_PORT": str(self.link_port),
            "MESOS_ZK": zk_url,
            "MESOS_CLUSTER": "test",
            **settings,
        }
        self.child = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "mesaform.engine", "master"]
        with self._log.open("ab") as out:
            return subprocess.Popen(
                command,
                env={**os.environ, **self._env},
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def restart(self) -> None:
        """Start the program again at the same address, as a node does after its end."""
        self.child = self._start()

    def kill(self, number: int = signal.SIGKILL) -> int:
        self.child.send_signal(number)
        return self.child.wait(60)

    def rss_mib(self) -> float:
        status = Path(f"/proc/{self.child.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024


async def until_leading(
    session: aiohttp.ClientSession, masters: list[Program], timeout_s: float = 60.0
) -> Program:
    async with asyncio.timeout(timeout_s):
        while True:
            for master in masters:
                try:
                    async with session.get(f"{master.base}/metrics/snapshot") as answer:
                        if (await answer.json())["master/elected"] == 1.0:
                            return master
                except aiohttp.ClientError:
                    pass
            await asyncio.sleep(0.05)


@pytest.fixture
async def masters(zookeeper_url, tmp_path):
    async with programs(zookeeper_url, tmp_path) as started:
        yield started


@pytest.fixture
async def long_sessions(zookeeper_url, tmp_path):
    """Masters whose sessions last longer than a test: nothing here waits for the end of one."""
    async with programs(
        zookeeper_url, tmp_path, MESOS_ZK_SESSION_TIMEOUT=f"{SESSION_AT_MOST_S}secs"
    ) as started:
        yield started


@asynccontextmanager
async def programs(url: str, folder: Path, **settings: str) -> AsyncIterator[list[Program]]:
    started = [Program(url, folder / f"master{number}.log", **settings) for number in range(2)]
    yield started
    for process in started:
        if process.child.poll() is None:
            process.kill()


async def test_a_killed_leader_is_replaced_and_offers_come_with_the_tasks_still_there(masters):
    """benchmarks.road measures how soon."""
    async with aiohttp.ClientSession() as session:
        leader = await until_leading(session, masters)
        async with agent_on(leader) as agent:
            scheduler = await HttpScheduler.subscribe(session, leader.base, failover_timeout=600.0)
            await scheduler.launch(
                (await scheduler.events.next("OFFERS"))["offers"]["offers"][0], "t"
            )
            await agent.receive(link.Launch)
            rss_mib = leader.rss_mib()
            leader.kill()
        other = next(master for master in masters if master is not leader)
        await until_leading(session, [other])
        framework = FrameworkIdentity(first_info(scheduler), scheduler.id)
        async with agent_on(other, agent_id=agent.id, tasks=[known(framework, "t", agent.id)]):
            again = await HttpScheduler.subscribe(
                session, other.base, framework_id=scheduler.id, failover_timeout=600.0
            )
            await again.events.next("OFFERS")
            await again.call("RECONCILE", reconcile={"tasks": []})
            status = (await again.events.next("UPDATE"))["update"]["status"]
            assert (status["task_id"]["value"], status["state"]) == ("t", "TASK_RUNNING")
        assert rss_mib <= IDLE_MIB


async def test_a_killed_leader_that_is_started_again_is_replaced_before_its_session_ends(
    long_sessions,
):
    """The new process ends its predecessor's candidacy."""
    async with aiohttp.ClientSession() as session:
        leader = await until_leading(session, long_sessions)
        other = next(master for master in long_sessions if master is not leader)
        leader.kill()
        leader.restart()
        assert await until_leading(session, long_sessions) is other


async def test_sigterm_ends_a_leader_cleanly_and_the_next_one_leads_at_once(long_sessions):
    async with aiohttp.ClientSession() as session:
        leader = await until_leading(session, long_sessions)
        assert leader.kill(signal.SIGTERM) == 0
        await until_leading(session, [master for master in long_sessions if master is not leader])


def test_a_missing_setting_is_named_with_the_next_step():
    answer = subprocess.run(
        [sys.executable, "-m", "mesaform.engine", "master"],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 2
    assert "MESOS_IP: is not set" in answer.stderr
    assert "Traceback" not in answer.stderr
