"""The node with real processes: restarts, order of starts and stops, no remaining process."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from harness.ports import free_port
from mesaform.common.files import open_log, rotate_log
from tests.integration.node.nodes import IGNORES_SIGTERM, PARENT, Node, is_alive, until

pytestmark = pytest.mark.slow


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    machine_node = Node(tmp_path)
    yield machine_node
    machine_node.cleanup()


def test_services_start_in_order_and_stop_in_reverse(node: Node) -> None:
    node.start([node.recorder(name) for name in "abc"])
    until("all have started", lambda: len(node.notes()) == 3)
    node.signal(signal.SIGTERM)
    code, out = node.finish()
    assert code == 0, out
    stops = [name for event, name in node.notes() if event == "stop"]
    assert stops == ["c", "b", "a"]
    assert {entry["state"] for entry in node.status().values()} == {"stopped"}


def test_a_killed_service_is_restarted_with_another_pid(node: Node) -> None:
    node.start([node.recorder("a"), node.recorder("b")])
    until(
        "both run",
        lambda: node.service_pid("a") and node.service_pid("b") and len(node.notes()) == 2,
    )
    before, other = node.service_pid("a"), node.service_pid("b")
    assert before is not None
    os.kill(before, signal.SIGKILL)
    until("it is back", lambda: node.service_pid("a") not in (before, None))
    after = node.service_pid("a")
    assert after is not None
    assert is_alive(after)
    status = node.status()
    assert (status["a"]["restarts"], status["a"]["last_end"]) == (1, "signal SIGKILL")
    assert (status["b"]["restarts"], status["b"]["pid"]) == (0, other)


def test_a_service_that_ignores_the_request_to_stop_is_killed(node: Node) -> None:
    node.start(
        [
            {
                "name": "stubborn",
                "argv": [sys.executable, "-c", IGNORES_SIGTERM],
                "stop_within_s": 0.3,
            }
        ]
    )
    until("it runs", lambda: "up" in node.log("stubborn"))
    pid = until("its pid is published", lambda: node.service_pid("stubborn"))
    node.signal(signal.SIGTERM)
    code, out = node.finish()
    assert code == 0
    assert "did not stop in time: killing it" in out
    assert not is_alive(pid)


def test_remaining_processes_end_with_the_node(node: Node) -> None:
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
    assert is_alive(grandchild), "an executor outlives its agent"
    grandchildren = [int(text) for text in node.log("parent").split()]
    node.signal(signal.SIGTERM)
    code, out = node.finish()
    assert code == 0
    assert "that services did not stop" in out
    assert not [pid for pid in grandchildren if is_alive(pid)]


def test_services_end_when_the_node_is_killed(node: Node) -> None:
    node.start([node.recorder("a")])
    until("it runs", node.notes)
    pid = int(node.journal.read_text().split()[2])
    node.signal(signal.SIGKILL)
    node.finish()
    until("it ended too", lambda: not is_alive(pid))


def test_a_missing_program_is_named_and_started_again_later(node: Node) -> None:
    node.start([{"name": "ghost", "argv": ["/no/such/program"]}, node.recorder("b")])
    until("the next service runs all the same", lambda: ("start", "b") in node.notes())
    until("it was tried again", lambda: node.status()["ghost"]["restarts"] >= 2)
    assert node.status()["ghost"]["last_end"] == "/no/such/program: No such file or directory"
    node.signal(signal.SIGTERM)
    assert node.finish()[0] == 0


def test_a_service_waits_for_the_port_of_the_one_before_it(node: Node) -> None:
    host = "127.71.0.3"
    port = free_port(host)
    node.start([node.recorder("a", ready=[host, port]), node.recorder("b")])
    until("the first runs", lambda: node.notes() == [("start", "a")])
    assert node.status()["b"]["state"] == "waiting"
    with socket.create_server((host, port)):
        until("the second follows", lambda: ("start", "b") in node.notes())


def test_sigusr1_powers_the_machine_off_once_every_service_is_stopped(
    node: Node, tmp_path: Path
) -> None:
    marker = tmp_path / "powered-off"
    node.start([node.recorder("a")], MESAFORM_POWEROFF=f"touch {marker}")
    until("it runs", node.notes)
    node.signal(signal.SIGUSR1)
    assert node.finish()[0] == 0
    assert node.notes()[-1] == ("stop", "a")
    assert marker.exists()


def test_sigterm_does_not_power_the_machine_off(node: Node, tmp_path: Path) -> None:
    marker = tmp_path / "powered-off"
    node.start([node.recorder("a")], MESAFORM_POWEROFF=f"touch {marker}")
    until("it runs", node.notes)
    node.signal(signal.SIGTERM)
    assert node.finish()[0] == 0
    assert not marker.exists()


def test_systemd_is_notified_when_the_node_is_ready_and_when_it_stops(
    node: Node, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(10)
        node.start([node.recorder("a")], NOTIFY_SOCKET=str(tmp_path / "notify"))
        messages = ""
        while "READY=1" not in messages:
            messages += systemd.recv(4096).decode()
        until("it runs", node.notes)
        node.signal(signal.SIGTERM)
        while "STOPPING=1" not in messages:
            messages += systemd.recv(4096).decode()
        assert "STATUS=1 of 1 up" in messages
    assert node.finish()[0] == 0


def test_the_node_uses_less_than_40_mib(node: Node) -> None:
    node.start([node.recorder("a")])
    until("it runs", node.notes)
    assert psutil.Process(node.pid).memory_info().rss < 40 * 1024 * 1024


def test_the_log_of_a_service_is_closed_to_other_users(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_bytes(b"of an earlier release")
    log.chmod(0o644)
    with open_log(log) as output:
        output.write(b"x" * 200)
    assert rotate_log(log, 100)
    modes = [oct(path.stat().st_mode & 0o777) for path in (log, tmp_path / "a.log.1")]
    assert modes == ["0o640", "0o640"]


def test_a_log_over_its_cap_is_rotated_while_its_writer_continues(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"a" * 100)
        assert not rotate_log(log, 100)
        writer.write(b"b")
        assert rotate_log(log, 100)
        writer.write(b"c")
    assert log.read_bytes() == b"c"
    assert (tmp_path / "x.log.1").read_bytes() == b"a" * 100 + b"b"
    assert not rotate_log(tmp_path / "none.log", 100)
