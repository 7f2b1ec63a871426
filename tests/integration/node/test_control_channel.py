"""A service that controls its node: real processes, a real control channel."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesaform.node.control_channel import ChannelBroken, ControlChannel
from tests.integration.node.nodes import PARENT, Node, is_alive, until

pytestmark = pytest.mark.slow

# Sends the requests that the test writes to its file and prints the answers.
CONTROLLER = """
import asyncio, sys, time
from pathlib import Path
from mesaform.node.control_channel import ControlChannel
requests = Path(sys.argv[1])
async def main():
    channel = await ControlChannel.open()
    print("connected", flush=True)
    done = 0
    while True:
        names = requests.read_text().split() if requests.exists() else []
        for name in names[done:]:
            if name == "hold":
                print("held:", *await channel.hold(), flush=True)
            elif name == "release":
                await channel.release()
                print("released", flush=True)
            else:
                await channel.power_off()
        done = len(names)
        await asyncio.sleep(0.02)
asyncio.run(main())
"""


class ControlledNode(Node):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.requests = folder / "requests"

    def controller(self) -> dict[str, object]:
        return {
            "name": "controller",
            "argv": [sys.executable, "-c", CONTROLLER, str(self.requests)],
            "controls_node": True,
        }

    def request(self, *names: str) -> None:
        with self.requests.open("a") as file:
            file.write("".join(f"{name}\n" for name in names))


@pytest.fixture
def node(tmp_path: Path) -> Iterator[ControlledNode]:
    controlled = ControlledNode(tmp_path)
    yield controlled
    controlled.cleanup()


def test_held_services_stop_and_start_again_after_the_release(
    node: ControlledNode,
) -> None:
    node.start([node.recorder("a"), node.controller()])
    until("both run", lambda: node.notes() and "connected" in node.log("controller"))
    pid = node.service_pid("controller")
    node.request("hold")
    until("it is held", lambda: "held:" in node.log("controller"))
    assert node.log("controller").splitlines()[-1] == "held:"
    assert node.notes() == [("start", "a"), ("stop", "a")]
    assert node.status()["a"]["state"] == "stopped"
    node.request("release")
    until("it runs again", lambda: len(node.notes()) == 3)
    assert "released" in node.log("controller")
    assert node.service_pid("controller") == pid


def test_remaining_processes_of_a_held_service_are_named(node: ControlledNode) -> None:
    node.start([{"name": "engine", "argv": [sys.executable, "-c", PARENT]}, node.controller()])
    until(
        "its child runs",
        lambda: node.log("engine").strip() and "connected" in node.log("controller"),
    )
    child = int(node.log("engine"))
    node.request("hold")
    until("it is held", lambda: "held:" in node.log("controller"))
    assert "python" in node.log("controller").splitlines()[-1]
    assert is_alive(child), "an executor outlives its agent"


def test_the_node_releases_held_services_when_the_controller_dies(node: ControlledNode) -> None:
    node.start([node.recorder("a"), node.controller()])
    until("both run", lambda: node.notes() and "connected" in node.log("controller"))
    node.request("hold")
    until("it is held", lambda: "held:" in node.log("controller"))
    pid = node.service_pid("controller")
    assert pid is not None
    node.requests.unlink()
    os.kill(pid, signal.SIGKILL)
    until("the held service runs again", lambda: node.notes()[2:] == [("start", "a")])
    until("the controller is back", lambda: node.log("controller").count("connected") == 2)
    node.request("hold")
    until("and controls", lambda: node.log("controller").count("held:") == 2)


def test_a_controller_can_power_the_machine_off_with_all_others_held(
    node: ControlledNode, tmp_path: Path
) -> None:
    marker = tmp_path / "powered-off"
    node.start([node.recorder("a"), node.controller()], MESAFORM_POWEROFF=f"touch {marker}")
    until("both run", lambda: node.notes() and "connected" in node.log("controller"))
    node.request("hold", "poweroff")
    code, out = node.finish()
    assert code == 0, out
    assert marker.exists()
    assert node.notes() == [("start", "a"), ("stop", "a")]


async def test_a_controller_needs_the_channel_of_its_node() -> None:
    with pytest.raises(
        ChannelBroken, match="MESAFORM_NODE_FD is not set: only the node starts this program"
    ):
        await ControlChannel.open({})
