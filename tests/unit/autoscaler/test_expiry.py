"""The end of a cluster with a ttl: who does what when, and to which machines."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesaform.autoscaler.daemon.expiry import (
    DRAIN_S,
    GRACE_S,
    STANDBY_S,
    ClusterExpiry,
    Step,
    due_warning,
    next_step,
)
from mesaform.autoscaler.model.decision import Decision
from mesaform.aws.expiry import EXPIRY, NAME, Expiry, settled
from mesaform.aws.ports import Machine
from mesaform.common.errors import Retryable
from mesaform.testing.fake_cloud import FakeControl

END = 100_000.0
ADDRESS = "10.0.0.10"


def machine(name: str, role: str, address: str, deployment: str = "d1") -> Machine:
    tags = {"mesaform:role": role, "mesaform:deployment": deployment}
    return Machine(name, "m5.large", "a", "on-demand", "running", address, "", 0.0, tags)


MACHINES = (
    machine("i-own", "master", ADDRESS),
    machine("i-agent", "agent", "10.0.0.99"),
    machine("i-master", "master", "10.0.1.10"),
)


class Engine:
    """The operator API of an engine with two agents and some tasks."""

    def __init__(self) -> None:
        self.tasks, self.is_silent = ["t"], False
        self.drained: list[str] = []

    async def get_agents(self):
        if self.is_silent:
            raise Retryable("no master answers", after_s=1.0)
        return {
            "agents": [
                {
                    "agent_info": {"id": {"value": name}},
                    **({"drain_info": {}} if name in self.drained else {}),
                }
                for name in ("S0", "S1")
            ]
        }

    async def get_tasks(self):
        return {"tasks": [{"task_id": {"value": name}} for name in self.tasks]}

    async def drain(self, agent_id, grace_s=None):
        assert grace_s == GRACE_S
        self.drained.append(agent_id)


class Scene:
    """An autoscaler on a master of a cluster that ends at `END`."""

    def __init__(self, *, is_leading: bool = True, machines=MACHINES) -> None:
        self.control, self.engine, self.now = FakeControl(), Engine(), END - 7200
        self.ended: list[list[str]] = []
        self.decisions: list[Decision] = []
        self.left: list[float | None] = []
        self.machines = machines
        self.control.write_record(NAME, EXPIRY, Expiry("d1", END, 28800.0))
        self.expiry = ClusterExpiry(
            address=ADDRESS,
            control=self.control,
            machines=lambda: self.machines,
            terminator=self,
            operator=self.engine,
            is_leading=lambda: is_leading,
            decided=self.decisions.append,
            left_s=self.left.append,
            clock=lambda: self.now,
        )

    def terminate(self, machines, deployment):
        assert deployment == "d1"
        self.ended.append([item.instance_id for item in machines])

    async def at(self, now: float) -> None:
        self.now = now
        await self.expiry.step()

    @property
    def codes(self) -> list[str]:
        return [decision.reasons[0].code for decision in self.decisions]


async def test_the_leader_warns_once_an_hour_and_once_ten_minutes_before():
    scene = Scene()
    for before in (7200, 3600, 3000, 600, 599, 15):
        await scene.at(END - before)
    assert scene.codes == ["cluster_expires"] * 2
    assert scene.left == [7200, 3600, 3000, 600, 599, 15]
    scene.control.write_record(NAME, EXPIRY, Expiry("d1", END + 3600, 28800.0))
    await scene.at(END)
    assert scene.codes == ["cluster_expires"] * 3, "an extension warns again"
    assert not scene.ended
    assert scene.control.frozen_reason() is None


async def test_the_leader_freezes_drains_and_terminates_its_own_machine_last():
    scene = Scene()
    await scene.at(END)
    assert "ttl is over" in str(scene.control.frozen_reason())
    assert scene.engine.drained == ["S0", "S1"]
    await scene.at(END + 15)
    assert scene.engine.drained == ["S0", "S1"], "draining agents are not drained again"
    assert not scene.ended, "a task runs"
    scene.engine.tasks = []
    await scene.at(END + 30)
    assert scene.ended == [["i-agent"], ["i-master"], ["i-own"]]
    assert scene.codes == ["cluster_expired"]


async def test_tasks_that_do_not_end_are_ended_with_their_machines():
    scene = Scene()
    await scene.at(END + DRAIN_S - 1)
    assert not scene.ended
    await scene.at(END + DRAIN_S)
    assert scene.ended == [["i-agent"], ["i-master"], ["i-own"]]


async def test_a_silent_engine_does_not_delay_the_end():
    scene = Scene()
    scene.engine.is_silent = True
    await scene.at(END)
    assert scene.ended


async def test_a_standby_ends_the_cluster_only_if_the_leader_did_not():
    scene = Scene(is_leading=False)
    await scene.at(END - 60)
    await scene.at(END + STANDBY_S - 1)
    assert (scene.ended, scene.engine.drained, scene.codes) == ([], [], [])
    await scene.at(END + STANDBY_S)
    assert scene.ended == [["i-agent"], ["i-master"], ["i-own"]]


@pytest.mark.parametrize(
    "machines",
    [
        (machine("i-own", "master", ADDRESS, "d2"), machine("i-other", "agent", "10.0.0.9")),
        (machine("i-other", "agent", "10.0.0.9"),),
    ],
)
async def test_the_record_of_another_deployment_ends_nothing(machines):
    scene = Scene(machines=machines)
    await scene.at(END + 10 * STANDBY_S)
    assert scene.ended == []
    assert scene.control.frozen_reason() is None


async def test_machines_of_other_deployments_stay():
    stranger = machine("i-stranger", "agent", "10.0.0.50", "d2")
    scene = Scene(machines=(*MACHINES, stranger))
    await scene.at(END + DRAIN_S)
    assert "i-stranger" not in [name for group in scene.ended for name in group]


async def test_a_cluster_without_an_end_has_none():
    scene = Scene()
    scene.control.write_record(NAME, EXPIRY, Expiry("d1", 0.0))
    await scene.at(END)
    assert scene.left == [None]
    assert not scene.ended


@given(
    st.floats(-1e6, 1e6),
    st.booleans(),
    st.booleans(),
)
def test_nothing_ends_before_its_time_and_everything_ends_after_it(late_s, is_leading, has_tasks):
    step = next_step(END, END + late_s, is_leading=is_leading, has_tasks=has_tasks)
    now = END + late_s
    if now < END:
        assert step is Step.WAIT
    if now - END >= STANDBY_S:
        assert step is Step.TERMINATE
    if step is Step.TERMINATE and now - END < STANDBY_S:
        assert is_leading
        assert not has_tasks or now - END >= DRAIN_S


def test_a_warning_is_due_within_its_time():
    assert due_warning(END, END - 3601) is None
    assert due_warning(END, END - 3600) == 3600
    assert due_warning(END, END - 600) == 600
    assert math.isclose(due_warning(END, END - 1), 600)


def test_up_starts_the_time_once_and_anew_after_the_end_or_with_another_ttl():
    first = settled(None, "d1", 3600.0, 0.0, "a")
    assert first == Expiry("d1", 3600.0, 3600.0, "a")
    assert settled(first, "d1", 3600.0, 3599.0, "b") is None
    assert settled(first, "d1", 3600.0, 3600.0, "b") == Expiry("d1", 7200.0, 3600.0, "b")
    assert settled(first, "d1", 7200.0, 100.0, "b") == Expiry("d1", 7300.0, 7200.0, "b")
    assert settled(first, "d2", 3600.0, 100.0, "b") == Expiry("d2", 3700.0, 3600.0, "b")


def test_up_without_a_ttl_takes_the_end_away():
    first = Expiry("d1", 3600.0, 3600.0, "a")
    assert settled(first, "d1", None, 0.0, "b") == Expiry("d1", 0.0, 0.0, "b")
    assert settled(first, "d2", None, 0.0, "b") is None
    assert settled(None, "d1", None, 0.0, "b") is None
