"""Fixtures that every part's tests share."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.support.zookeeper import ZooKeeperServer, available

# In CI the same code is judged by the same examples; whoever works on the code looks for new ones with every run.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


@pytest.fixture(scope="session")
def zookeeper_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZooKeeperServer]:
    """One ZooKeeper for the whole session. Do not hurt it: a test that kills or pauses a server starts its own."""
    if not available():
        pytest.skip("needs Java and Debian's zookeeper package: apt-get install zookeeper")
    server = ZooKeeperServer(tmp_path_factory.mktemp("zookeeper"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def zookeeper_hosts(zookeeper_server: ZooKeeperServer) -> str:
    """What a client takes: "127.99.0.1:34567". Shared, so keep below a path of your own (`zookeeper_root`)."""
    return zookeeper_server.hosts


@pytest.fixture
def zookeeper_root() -> str:
    """A path no other test uses, such as "/t-3f…"."""
    return f"/t-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def zookeeper_url(zookeeper_hosts: str, zookeeper_root: str) -> str:
    """A Mesos-style URL below that path: "zk://127.99.0.1:34567/t-3f…"."""
    return f"zk://{zookeeper_hosts}{zookeeper_root}"
