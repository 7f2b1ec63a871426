"""A service that steers its node: real processes, a real line."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesaform.node.control_channel import ControlChannel, LineBroken
from tests.integration.node.nodes import PARENT, Node, alive, until

pytestmark = pytest.mark.slow

# Says to the node what the test writes into its file, one word a line, and notes what it hears.
STEERING = """
import asyncio, sys, time
from pathlib import Path
from mesaform.node.control_channel import Line
orders = Path(sys.argv[1])
async def main():
    line = await Line.open()
    print("on the line", flush=True)
    done = 0
    while True:
        words = orders.read_text().split() if orders.exists() else []
        for word in words[done:]:
            if word == "hold":
                print("held:", *await line.hold(), flush=True)
            elif word == "release":
                await line.release()
                print("released", flush=True)
            else:
                await line.power_off()
        done = len(words)
        await asyncio.sleep(0.02)
asyncio.run(main())
"""


class Steered(Node):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.orders = folder / "orders"

    def steering(self) -> dict[str, object]:
        return {
            "name": "steering",
            "argv": [sys.executable, "-c", STEERING, str(self.orders)],
            "steers": True,
        }

    def say(self, *words: str) -> None:
        with self.orders.open("a") as file:
            file.write("".join(f"{word}\n" for word in words))


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Steered]:
    found = Steered(tmp_path)
    yield found
    found.cleanup()


def test_what_is_held_stops_while_the_steering_service_runs_on_and_starts_again_when_released(
    node: Steered,
) -> None:
    node.start([node.faithful("a"), node.steering()])
    until("both run", lambda: node.notes() and "on the line" in node.log("steering"))
    pid = node.service_pid("steering")
    node.say("hold")
    until("it is held", lambda: "held:" in node.log("steering"))
    assert node.log("steering").splitlines()[-1] == "held:"
    assert node.notes() == [("start", "a"), ("stop", "a")]
    assert node.status()["a"]["state"] == "stopped"
    node.say("release")
    until("it runs again", lambda: len(node.notes()) == 3)
    assert "released" in node.log("steering")
    assert node.service_pid("steering") == pid


def test_processes_that_the_held_service_leaves_behind_are_named(node: Steered) -> None:
    node.start([{"name": "engine", "argv": [sys.executable, "-c", PARENT]}, node.steering()])
    until(
        "its child runs",
        lambda: node.log("engine").strip() and "on the line" in node.log("steering"),
    )
    child = int(node.log("engine"))
    node.say("hold")
    until("it is held", lambda: "held:" in node.log("steering"))
    assert "python" in node.log("steering").splitlines()[-1]
    assert alive(child), "an executor outlives its agent"


def test_a_steering_service_that_dies_leaves_nothing_held(node: Steered) -> None:
    node.start([node.faithful("a"), node.steering()])
    until("both run", lambda: node.notes() and "on the line" in node.log("steering"))
    node.say("hold")
    until("it is held", lambda: "held:" in node.log("steering"))
    pid = node.service_pid("steering")
    assert pid is not None
    node.orders.unlink()
    os.kill(pid, signal.SIGKILL)
    until("what was held runs again", lambda: node.notes()[2:] == [("start", "a")])
    until("the steering service is back", lambda: node.log("steering").count("on the line") == 2)
    node.say("hold")
    until("and steers", lambda: node.log("steering").count("held:") == 2)


def test_a_steering_service_may_power_the_machine_off_with_all_else_held(
    node: Steered, tmp_path: Path
) -> None:
    witness = tmp_path / "powered-off"
    node.start([node.faithful("a"), node.steering()], MESAFORM_POWEROFF=f"touch {witness}")
    until("both run", lambda: node.notes() and "on the line" in node.log("steering"))
    node.say("hold", "poweroff")
    code, out = node.finish()
    assert code == 0, out
    assert witness.exists()
    assert node.notes() == [("start", "a"), ("stop", "a")]


async def test_only_the_node_can_start_a_steering_service() -> None:
    with pytest.raises(
        LineBroken, match="MESAFORM_NODE_FD is not set: only the node starts this program"
    ):
        await ControlChannel.open({})
