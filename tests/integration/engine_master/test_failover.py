"""Real master processes: time from a leader's kill -9 to the next offers, and what survives."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import aiohttp
import pytest

from mesaform.engine import link
from tests.integration.engine_master.process import HttpScheduler, Running, agent_on
from tests.integration.engine_master.test_http import first_info
from tests.unit.engine_master.world import FrameworkIdentity, known

pytestmark = [pytest.mark.zookeeper, pytest.mark.slow]

NEXT_OFFERS_S = 10.0
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
        return self.child.wait(10)

    def rss_mib(self) -> float:
        status = Path(f"/proc/{self.child.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024


async def until_leading(
    session: aiohttp.ClientSession, masters: list[Program], timeout_s: float = 30.0
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
    started = [Program(zookeeper_url, tmp_path / f"master{number}.log") for number in range(2)]
    yield started
    for process in started:
        if process.child.poll() is None:
            process.kill()


async def test_a_killed_leader_is_replaced_and_offers_come_within_10_s_with_the_tasks_still_there(
    masters,
):
    async with aiohttp.ClientSession() as session:
        leader = await until_leading(session, masters)
        async with agent_on(leader) as agent:
            scheduler = await HttpScheduler.subscribe(session, leader.base, failover_timeout=600.0)
            await scheduler.launch(
                (await scheduler.events.next("OFFERS"))["offers"]["offers"][0], "t"
            )
            await agent.receive(link.Launch)
            rss_mib = leader.rss_mib()
            killed_at = time.monotonic()
            leader.kill()
        other = next(master for master in masters if master is not leader)
        await until_leading(session, [other])
        framework = FrameworkIdentity(first_info(scheduler), scheduler.id)
        async with agent_on(other, agent_id=agent.id, tasks=[known(framework, "t", agent.id)]):
            again = await HttpScheduler.subscribe(
                session, other.base, framework_id=scheduler.id, failover_timeout=600.0
            )
            await again.events.next("OFFERS")
            took_s = time.monotonic() - killed_at
            await again.call("RECONCILE", reconcile={"tasks": []})
            status = (await again.events.next("UPDATE"))["update"]["status"]
            assert (status["task_id"]["value"], status["state"]) == ("t", "TASK_RUNNING")
        sys.stdout.write(
            f"next offers after {took_s:.1f} s; a leading master used {rss_mib:.0f} MiB\n"
        )
        assert took_s <= NEXT_OFFERS_S
        assert rss_mib <= IDLE_MIB


async def test_a_killed_leader_that_is_started_again_is_replaced_before_its_session_ends(
    zookeeper_url, tmp_path
):
    """The session lasts longer than the test: the new process ends its predecessor's candidacy."""
    started = [
        Program(zookeeper_url, tmp_path / f"m{number}.log", MESOS_ZK_SESSION_TIMEOUT="60secs")
        for number in range(2)
    ]
    try:
        async with aiohttp.ClientSession() as session:
            leader = await until_leading(session, started)
            other = next(master for master in started if master is not leader)
            leader.kill()
            leader.restart()
            assert await until_leading(session, started, timeout_s=20.0) is other
    finally:
        for master in started:
            if master.child.poll() is None:
                master.kill()


async def test_sigterm_ends_a_leader_cleanly_and_the_next_one_leads_at_once(masters):
    async with aiohttp.ClientSession() as session:
        leader = await until_leading(session, masters)
        asked_at = time.monotonic()
        assert leader.kill(signal.SIGTERM) == 0
        assert time.monotonic() - asked_at < 5.0
        await until_leading(
            session, [master for master in masters if master is not leader], timeout_s=4.0
        )


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
