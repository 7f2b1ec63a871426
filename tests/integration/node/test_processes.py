"""The node with real processes: what dies comes back, what stops stops in order, and nothing is left."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from mesaform.node import process
from tests.integration.node.nodes import PARENT, STUBBORN, Node, alive, until
from tests.support.zookeeper import free_port

pytestmark = pytest.mark.slow


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    found = Node(tmp_path)
    yield found
    found.cleanup()


def test_services_start_in_order_and_stop_in_reverse(node: Node) -> None:
    node.start([node.faithful(name) for name in "abc"])
    until("all have started", lambda: len(node.notes()) == 3)
    node.signal(signal.SIGTERM)
    code, out = node.finish()
    assert code == 0, out
    stops = [name for word, name in node.notes() if word == "stop"]
    assert stops == ["c", "b", "a"]
    assert {entry["state"] for entry in node.status().values()} == {"stopped"}


def test_a_service_killed_by_force_is_back_with_another_pid(node: Node) -> None:
    node.start([node.faithful("a"), node.faithful("b")])
    until(
        "both run",
        lambda: node.service_pid("a") and node.service_pid("b") and len(node.notes()) == 2,
    )
    before, neighbour = node.service_pid("a"), node.service_pid("b")
    assert before is not None
    os.kill(before, signal.SIGKILL)
    until("it is back", lambda: node.service_pid("a") not in (before, None))
    after = node.service_pid("a")
    assert after is not None
    assert alive(after)
    status = node.status()
    assert (status["a"]["restarts"], status["a"]["last_end"]) == (1, "signal SIGKILL")
    assert (status["b"]["restarts"], status["b"]["pid"]) == (0, neighbour)


def test_a_service_that_ignores_the_request_to_stop_is_killed(node: Node) -> None:
    node.start([{"name": "deaf", "argv": [sys.executable, "-c", STUBBORN], "stop_within_s": 0.3}])
    until("it runs", lambda: "up" in node.log("deaf"))
    pid = node.service_pid("deaf")
    node.signal(signal.SIGTERM)
    code, out = node.finish()
    assert code == 0
    assert "does not stop: killing it" in out
    assert pid is not None
    assert not alive(pid)


def test_what_a_service_left_behind_ends_with_the_node(node: Node) -> None:
    node.start([{"name": "parent", "argv": [sys.executable, "-c", PARENT]}])
    until("the grandchild runs", lambda: node.log("parent").strip())
    grandchild = int(node.log("parent"))
    first = node.service_pid("parent")
    assert first is not None
    os.kill(first, signal.SIGKILL)
    until(
        "the service is back",
        lambda: node.status()["parent"]["restarts"] == 1 and len(node.log("parent").split()) == 2,
    )
    assert alive(grandchild), "an executor outlives its agent"
    grandchildren = [int(text) for text in node.log("parent").split()]
    node.signal(signal.SIGTERM)
    code, out = node.finish()
    assert code == 0
    assert "left behind" in out
    assert not [pid for pid in grandchildren if alive(pid)]


def test_services_end_when_the_node_is_killed(node: Node) -> None:
    node.start([node.faithful("a")])
    until("it runs", node.notes)
    pid = int(node.journal.read_text().split()[2])
    node.signal(signal.SIGKILL)
    node.finish()
    until("it ended too", lambda: not alive(pid))


def test_a_program_that_is_not_there_is_named_and_tried_again(node: Node) -> None:
    node.start([{"name": "ghost", "argv": ["/no/such/program"]}, node.faithful("b")])
    until("the next service runs all the same", lambda: ("start", "b") in node.notes())
    until("it was tried again", lambda: node.status()["ghost"]["restarts"] >= 2)
    assert node.status()["ghost"]["last_end"] == "/no/such/program: No such file or directory"
    node.signal(signal.SIGTERM)
    assert node.finish()[0] == 0


def test_a_service_waits_for_the_port_of_the_one_before_it(node: Node) -> None:
    host = "127.71.0.3"
    port = free_port(host)
    node.start([node.faithful("a", ready=[host, port]), node.faithful("b")])
    until("the first runs", lambda: node.notes() == [("start", "a")])
    assert node.status()["b"]["state"] == "waiting"
    with socket.create_server((host, port)):
        until("the second follows", lambda: ("start", "b") in node.notes(), timeout_s=2.0)


def test_a_request_to_shut_down_powers_the_machine_off_once_all_is_stopped(
    node: Node, tmp_path: Path
) -> None:
    witness = tmp_path / "powered-off"
    node.start([node.faithful("a")], MESAFORM_POWEROFF=f"touch {witness}")
    until("it runs", node.notes)
    node.signal(signal.SIGUSR1)
    assert node.finish()[0] == 0
    assert node.notes()[-1] == ("stop", "a")
    assert witness.exists()


def test_an_ordinary_stop_does_not_power_the_machine_off(node: Node, tmp_path: Path) -> None:
    witness = tmp_path / "powered-off"
    node.start([node.faithful("a")], MESAFORM_POWEROFF=f"touch {witness}")
    until("it runs", node.notes)
    node.signal(signal.SIGTERM)
    assert node.finish()[0] == 0
    assert not witness.exists()


def test_systemd_hears_when_the_node_is_ready_and_when_it_stops(node: Node, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(10)
        node.start([node.faithful("a")], NOTIFY_SOCKET=str(tmp_path / "notify"))
        heard = ""
        while "READY=1" not in heard:
            heard += systemd.recv(4096).decode()
        until("it runs", node.notes)
        node.signal(signal.SIGTERM)
        while "STOPPING=1" not in heard:
            heard += systemd.recv(4096).decode()
        assert "STATUS=1 of 1 up" in heard
    assert node.finish()[0] == 0


def test_the_node_itself_stays_small(node: Node) -> None:
    node.start([node.faithful("a")])
    until("it runs", node.notes)
    assert psutil.Process(node.pid).memory_info().rss < 40 * 1024 * 1024


def test_a_log_over_its_cap_moves_aside_while_its_writer_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"a" * 100)
        assert not process.rotate(log, 100)
        writer.write(b"b")
        assert process.rotate(log, 100)
        writer.write(b"c")
    assert log.read_bytes() == b"c"
    assert (tmp_path / "x.log.1").read_bytes() == b"a" * 100 + b"b"
    assert not process.rotate(tmp_path / "none.log", 100)
