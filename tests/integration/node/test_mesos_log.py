"""Whose log of Apache Mesos' masters may be initialized, with a real ZooKeeper."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mesaform.node import mesos_log
from mesaform.node.mesos_log import may_initialize
from mesaform.zookeeper.session import ZooKeeper

pytestmark = pytest.mark.zookeeper


@pytest.fixture
async def zookeeper(
    zookeeper_hosts: str, zookeeper_root: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ZooKeeper]:
    monkeypatch.setattr(mesos_log, "LOG_BEGUN_PATH", f"{zookeeper_root}/engine-log")
    session = ZooKeeper(zookeeper_hosts)
    await session.start()
    yield session
    await session.stop()


async def test_the_first_log_of_a_member_may_be_initialized_at_each_start(
    zookeeper: ZooKeeper, tmp_path: Path
) -> None:
    assert await may_initialize(zookeeper, "10.0.0.10", tmp_path)
    assert await may_initialize(zookeeper, "10.0.0.10", tmp_path), "it may have ended before"
    (tmp_path / "other").mkdir()
    assert await may_initialize(zookeeper, "10.0.32.10", tmp_path / "other"), "another member"


async def test_a_member_that_lost_its_log_never_initializes_a_second_one(
    zookeeper: ZooKeeper, tmp_path: Path
) -> None:
    first, second = tmp_path / "volume", tmp_path / "replacement"
    first.mkdir()
    second.mkdir()
    assert await may_initialize(zookeeper, "10.0.0.10", first)
    shutil.rmtree(first)
    assert not await may_initialize(zookeeper, "10.0.0.10", second)
    assert not await may_initialize(zookeeper, "10.0.0.10", second), "nor after a restart"


async def test_a_member_that_ends_before_zookeeper_answers_may_still_initialize(
    zookeeper: ZooKeeper, tmp_path: Path
) -> None:
    (tmp_path / mesos_log.MARK).write_text("")
    assert await may_initialize(zookeeper, "10.0.0.10", tmp_path)


def test_the_program_becomes_the_master_and_passes_its_decision_on(
    zookeeper_url: str, tmp_path: Path
) -> None:
    member = tmp_path.name  # the real path in ZooKeeper, which other tests share
    environ = {**os.environ, "MESOS_ZK": zookeeper_url, "MESOS_HOSTNAME": member}
    shown = [
        subprocess.run(
            [sys.executable, "-m", "mesaform.node.mesos_log", "/usr/bin/env"],
            env={**environ, "MESOS_WORK_DIR": str(folder)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for folder in (tmp_path, tmp_path, tmp_path.parent)
    ]
    decisions = [
        line.partition("=")[2]
        for text in shown
        for line in text.splitlines()
        if line.startswith("MESOS_LOG_AUTO_INITIALIZE")
    ]
    assert decisions == ["true", "true", "false"]
