"""The mode of a ZooKeeper server, asked as the rolling change of masters asks for it."""

from __future__ import annotations

import asyncio

from kazoo.client import KazooClient

from harness.ports import free_port
from mesaform.services.settings import Settings
from mesaform.zookeeper.four_letter import parse_mode, read_mode


async def test_a_real_server_tells_its_mode(zookeeper_server):
    client = KazooClient(zookeeper_server.hosts)
    client.start(timeout=30)  # it answers commands some time before it serves requests
    client.stop()
    host, _, port = zookeeper_server.hosts.partition(":")
    assert await read_mode(host, int(port)) == "standalone"


async def test_a_server_that_is_away_or_says_nothing_has_no_mode():
    port = free_port("127.0.0.1")
    assert await read_mode("127.0.0.1", port) is None

    async def say_nothing(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", port):
        assert await read_mode("127.0.0.1", port, timeout_s=0.05) is None


def test_a_server_without_a_quorum_has_no_mode():
    assert parse_mode("This ZooKeeper instance is not currently serving requests\n") is None
    assert parse_mode("Zookeeper version: 3.8\nMode: follower\nNode count: 5\n") == "follower"
    assert parse_mode("Mode: something\n") is None


def test_the_services_of_a_master_ask_the_member_on_their_own_machine():
    zk = "zk://10.0.0.1:2181,10.0.0.2:2181/marathon"
    own = Settings("zk://10.0.0.1:2181/mesos", zk, "10.0.0.2", 8080, "10.0.0.2")
    assert own.own_zookeeper == ("10.0.0.2", 2181)
    other = Settings("zk://10.0.0.1:2181/mesos", zk, "10.0.0.9", 8080, "10.0.0.9")
    assert other.own_zookeeper is None
