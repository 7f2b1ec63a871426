"""The shared ZooKeeper fixture."""

from __future__ import annotations

import pytest
from kazoo.client import KazooClient

from harness.zookeeper import ZooKeeperServer

pytestmark = pytest.mark.zookeeper


def test_a_real_zookeeper_keeps_what_is_written(
    zookeeper_server: ZooKeeperServer, zookeeper_root: str
) -> None:
    client = KazooClient(hosts=zookeeper_server.hosts)
    client.start(timeout=60)
    try:
        client.create(f"{zookeeper_root}/a", b"1", makepath=True)
        assert client.get(f"{zookeeper_root}/a")[0] == b"1"
    finally:
        client.stop()
        client.close()
