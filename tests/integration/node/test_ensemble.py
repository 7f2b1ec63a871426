"""Three nodes with ZooKeeper only, on three addresses with the standard ports."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from kazoo.client import KazooClient

from harness.zookeeper import available
from mesaform.topology.user_data import NODE_DOCUMENT_VERSION, NodeDocument, ZooKeeperMember
from tests.integration.node.nodes import REPOSITORY, until

pytestmark = [
    pytest.mark.zookeeper,
    pytest.mark.slow,
    pytest.mark.skipif(not available(), reason="needs Debian's zookeeper and Java"),
]

ADDRESSES = ("127.72.0.10", "127.72.32.10", "127.72.64.10")
DOCUMENT = NodeDocument(
    version=NODE_DOCUMENT_VERSION,
    cluster="demo",
    role="master",
    region="us-east-1",
    engine="embedded",
    zookeeper=tuple(
        ZooKeeperMember(number + 1, address) for number, address in enumerate(ADDRESSES)
    ),
    recipe="abc",
)

# The desired state of a real master, reduced to its first service.
DRIVER = """
import os, sys
from dataclasses import replace
from pathlib import Path, PurePosixPath
from mesaform.node import machine, roles
from mesaform.node.main import serve
from mesaform.node.model import Hardware, Identity
from mesaform.topology.user_data import parse_node_document
document, folder = parse_node_document(sys.argv[1]), sys.argv[3]
identity = Identity("i-" + sys.argv[2], "t3.medium", "us-east-1a", sys.argv[2], "on-demand")
desired = roles.desired(
    document, identity, Hardware(2, 4096), machine.programs(), PurePosixPath(folder)
)
desired = replace(desired, services=desired.services[:1])
sys.exit(serve(document, identity, desired, Path(folder), os.environ))
"""


class Ensemble:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.nodes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, address: str) -> None:
        with (self.folder / f"{address}.console").open("ab") as console:
            self.nodes[address] = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    DRIVER,
                    msgspec.json.encode(DOCUMENT).decode(),
                    address,
                    str(self.folder / address),
                ],
                cwd=REPOSITORY,
                stdout=console,
                stderr=console,
            )

    def mode(self, address: str) -> str:
        """`leader` or `follower`; empty while there is no quorum."""
        try:
            with socket.create_connection((address, 2181), timeout=1) as peer:
                peer.sendall(b"srvr")
                answer = b"".join(iter(lambda: peer.recv(4096), b"")).decode()
        except OSError:
            return ""
        return next(
            (line.split()[1] for line in answer.splitlines() if line.startswith("Mode:")), ""
        )

    def modes(self) -> list[str]:
        return sorted(self.mode(address) for address in ADDRESSES)

    def stop(self) -> list[int]:
        for node in self.nodes.values():
            node.terminate()
        return [node.wait(timeout=60) for node in self.nodes.values()]


@pytest.fixture
def ensemble(tmp_path: Path) -> Iterator[Ensemble]:
    three_nodes = Ensemble(tmp_path)
    yield three_nodes
    for node in three_nodes.nodes.values():
        if node.poll() is None:
            node.kill()
            node.wait()


def test_three_masters_form_a_quorum_that_survives_its_leader(ensemble: Ensemble) -> None:
    began = time.monotonic()
    for address in ADDRESSES:
        ensemble.start(address)
    until("a quorum", lambda: ensemble.modes() == ["follower", "follower", "leader"])
    formed_s = time.monotonic() - began
    client = KazooClient(hosts=",".join(f"{address}:2181" for address in ADDRESSES), timeout=30.0)
    client.start(timeout=60)
    try:
        client.create("/data", b"1")
        leader = next(address for address in ADDRESSES if ensemble.mode(address) == "leader")
        (server,) = [
            int(entry.name)
            for entry in Path("/proc").iterdir()
            if entry.name.isdigit()
            and str(ensemble.folder / leader / "zookeeper/conf/zoo.cfg") in _command(entry)
        ]
        os.kill(server, signal.SIGKILL)
        killed = time.monotonic()
        others = [address for address in ADDRESSES if address != leader]
        until(
            "a new leader",
            lambda: "leader" in [ensemble.mode(address) for address in others],
        )
        assert client.retry(client.get, "/data")[0] == b"1"
        until(
            "the killed server is back",
            lambda: ensemble.modes() == ["follower", "follower", "leader"],
        )
        sys.stdout.write(
            f"formed in {formed_s:.1f} s;"
            f" all servers back {time.monotonic() - killed:.1f} s after the kill\n"
        )
    finally:
        client.stop()
        client.close()
    assert ensemble.stop() == [0, 0, 0]


def _command(entry: Path) -> str:
    try:
        return (entry / "cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""
