"""The end of a cluster with a ttl: who does what when, and to which machines."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesaform.autoscaler.daemon.expiry import (
    DRAIN_S,
    GRACE_S,
    NOTICE_S,
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
from mesaform.common.records import Unreadable
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
        self.is_known = False
        self.machines = machines
        self.control.write_record(NAME, EXPIRY, Expiry("d1", END, 28800.0))
        self.expiry = ClusterExpiry(
            address=ADDRESS,
            control=self.control,
            leaders_control=self.control,
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
        """A step at `now`, by an autoscaler that has known the end for two hours."""
        if not self.is_known:
            self.is_known = True
            await self.expiry.step()
            self.left.clear()
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


@pytest.mark.parametrize("until", [END - 3600, END - 6600, 1e-300, 5.0])
@pytest.mark.parametrize("is_leading", [True, False])
async def test_an_end_in_the_past_ends_nothing_before_the_operator_had_notice(until, is_leading):
    scene = Scene(is_leading=is_leading)
    scene.engine.tasks = []
    await scene.at(END - 7000)
    scene.control.write_record(NAME, EXPIRY, Expiry("d1", until, 28800.0))
    seen = END - 3500
    for now in (seen, seen + NOTICE_S - 1):
        await scene.at(now)
    assert (scene.ended, scene.engine.drained, scene.control.frozen_reason()) == ([], [], None)
    assert scene.codes == ["cluster_expires"] * is_leading
    scene.control.write_record(NAME, EXPIRY, Expiry("d1", END, 28800.0))  # mesaform up
    await scene.at(seen + NOTICE_S)
    assert not scene.ended


async def test_an_autoscaler_that_starts_after_the_end_announces_it_first():
    scene = Scene()
    scene.is_known, scene.engine.tasks = True, []
    await scene.at(END + 3600)
    assert (scene.ended, scene.codes) == ([], ["cluster_expires"])
    await scene.at(END + 3600 + NOTICE_S)
    assert scene.ended


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"\xff\xfe",
        b'{"deployment":"d1","until":-5}',
        b'{"deployment":"d1","until":1e400}',
        b'{"deployment":"d1","until":"1"}',
        b'{"schema":"control.expiry/2","deployment":"d1","until":1}',
        b'{"schema":"control.freeze/1","deployment":"d1","until":1}',
        b'{"deployment":"d1","until":1,"by":"' + b"x" * 2_000_000 + b'"}',
    ],
)
@pytest.mark.parametrize("is_leading", [True, False])
async def test_a_record_that_cannot_be_read_ends_nothing_and_the_leader_replaces_it(
    body, is_leading
):
    scene = Scene(is_leading=is_leading)
    scene.control.write_bytes(NAME, body)
    for later in (0.0, 15.0, 30 * 86400.0):
        await scene.at(END + later)
    assert (scene.ended, scene.decisions) == ([], [])
    stored = scene.control.read_record(NAME, EXPIRY)
    if is_leading:
        assert isinstance(stored, Expiry)
        assert (stored.deployment, stored.until) == ("", 0.0), "mesaform up writes it anew"
        assert settled(stored, "d1", 3600.0, 0.0, "up") == Expiry("d1", 3600.0, 3600.0, "up")
    else:
        assert isinstance(stored, Unreadable)


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
