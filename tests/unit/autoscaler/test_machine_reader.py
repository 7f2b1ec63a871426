"""When the autoscaler reads EC2's list of machines again."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from harness.autoscaler_builders import NOW, a_machine
from mesaform.autoscaler.observation.machine_reader import FRESH_BELOW, KEPT_MOST_S, MachineReader
from mesaform.aws.ports import Machine
from mesaform.testing.fake_cloud import FakeFleet


class CountingFleet(FakeFleet):
    reads = 0

    def machines(self, cluster: str) -> list[Machine]:
        self.reads += 1
        return super().machines(cluster)


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def reader_of(count: int, clock: Clock) -> tuple[MachineReader, CountingFleet]:
    fleet = CountingFleet(lambda: NOW)
    for number in range(count):
        fleet.add(a_machine(f"i-{number}"))
    return MachineReader(fleet, clock), fleet


def test_a_thousand_machines_are_read_twice_a_minute_and_not_at_each_pass(clock: Clock) -> None:
    reader, fleet = reader_of(1000, clock)
    for _ in range(30):
        assert len(reader.read("toy", must_be_fresh=False)) == 1000
        clock.now += 2.0
    assert fleet.reads == 60 / KEPT_MOST_S


def test_a_small_cluster_is_read_at_each_pass(clock: Clock) -> None:
    reader, fleet = reader_of(FRESH_BELOW - 1, clock)
    for _ in range(3):
        reader.read("toy", must_be_fresh=False)
    assert fleet.reads == 3


@pytest.mark.parametrize("event", ["fresh", "changed", "agents", "starting", "ending"])
def test_what_a_pass_must_see_is_read_at_once(clock: Clock, event: str) -> None:
    reader, fleet = reader_of(500, clock)
    if event in {"starting", "ending"}:
        state = "pending" if event == "starting" else "shutting-down"
        fleet.add(a_machine("i-500", state=state))
    reader.read("toy", must_be_fresh=False)
    if event == "changed":
        reader.forget()
    if event == "agents":
        reader.saw_agents(frozenset({"i-1"}))
    reader.read("toy", must_be_fresh=event == "fresh")
    assert fleet.reads == 2
    if event == "agents":
        reader.saw_agents(frozenset({"i-1"}))
        reader.read("toy", must_be_fresh=False)
        assert fleet.reads == 2, "the same agents are no news"


def test_a_small_cluster_is_read_twice_a_minute_while_events_arrive(clock: Clock) -> None:
    reader, fleet = reader_of(3, clock)
    reader.has_events = lambda: True
    for _ in range(30):
        reader.read("toy", must_be_fresh=False)
        clock.now += 2.0
    assert fleet.reads == 60 / KEPT_MOST_S
    fleet.add(a_machine("i-4", state="pending"))
    reader.forget()
    for _ in range(3):
        reader.read("toy", must_be_fresh=False)
    assert fleet.reads == 60 / KEPT_MOST_S + 3, "a machine starts"
