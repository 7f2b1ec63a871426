"""Local clouds of several checkouts on one machine find ports of their own."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesaform.common.errors import Busy
from mesaform.localcloud import daemon
from mesaform.localcloud.layout import DEFAULT_PORTS
from tests.integration.localcloud.conftest import Cloud

pytestmark = pytest.mark.slow


@pytest.fixture
def checkouts(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """The state folders of two checkouts; what runs there is stopped afterwards."""
    folders = tmp_path / "first" / "local", tmp_path / "second" / "local"
    yield folders
    for folder in folders:
        daemon.stop(folder)


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def default_network(root: Path, url: str) -> str:
    vpcs = Cloud(root, url, 0, "").ec2.describe_vpcs()["Vpcs"]
    (network,) = [vpc["CidrBlock"] for vpc in vpcs if vpc["IsDefault"]]
    return str(network)


def test_two_checkouts_have_ports_of_their_own_and_keep_them(
    checkouts: tuple[Path, Path],
) -> None:
    urls = [daemon.start(root).url for root in checkouts]
    assert port_of(urls[0]) != port_of(urls[1])
    assert all(port_of(url) in DEFAULT_PORTS for url in urls)
    assert [json.loads((root / "endpoint.json").read_text())["url"] for root in checkouts] == urls
    networks = {default_network(root, url) for root, url in zip(checkouts, urls, strict=True)}
    assert len(networks) == 2
    for root in checkouts:
        daemon.stop(root)
    assert [daemon.start(root).url for root in reversed(checkouts)] == urls[::-1]


def test_a_last_port_that_is_taken_is_replaced_by_a_free_one(
    checkouts: tuple[Path, Path],
) -> None:
    root, _ = checkouts
    with socket.create_server(("127.0.0.1", 0)) as other:
        root.mkdir(parents=True)
        (root / "port").write_text(f"{other.getsockname()[1]}\n")
        port = port_of(daemon.start(root).url)
    assert port in DEFAULT_PORTS
    assert (root / "port").read_text() == f"{port}\n"


def test_a_given_port_that_is_taken_is_an_error(checkouts: tuple[Path, Path]) -> None:
    first, second = checkouts
    port = port_of(daemon.start(first).url)
    with pytest.raises(Busy, match=f"port {port} cannot be used"):
        daemon.start(second, port=port)
    assert daemon.find(second) is None
