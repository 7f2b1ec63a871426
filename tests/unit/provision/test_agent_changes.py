"""Drained changes of agents, killed at every step: no task is lost, and it always continues."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesaform.common.errors import MesaformError
from mesaform.common.json_types import Json
from mesaform.common.progress import Silent, Stage
from mesaform.provision.agent_changes import (
    RECORD_FILE,
    AgentBatches,
    AgentDrains,
    change_agents,
)
from mesaform.provision.machine_changes import MachineChange, changes_of
from mesaform.provision.rolling import ChangeRun
from tests.support.fake_terraform import NEW, OLD, FakeTerraform, Killed

BOUND_S = 100.0


class Cluster:
    """Agents on machines of Terraform, and an engine that moves the tasks of drained ones."""

    def __init__(self, folder: Path, images: Sequence[str], *, count: int, tasks: int = 2) -> None:
        addresses = [f"aws_instance.default-{number + 1}" for number in range(len(images))]
        self.terraform = FakeTerraform(
            folder, "agents", "agent", tuple(addresses[:count]), before_end=self.check_end
        )
        for address, image in zip(addresses, images, strict=True):
            self.terraform.put(address, image)
        self.tasks = dict.fromkeys(self.terraform.account, tasks)
        self.deactivated: set[str] = set()
        self.draining: set[str] = set()
        self.unmovable = 0
        self.now = 0.0
        self.largest_absence = 0

    def check_end(self, _address: str, instance_id: str) -> None:
        assert not self.tasks.get(instance_id), "a machine ends under its tasks"
        assert instance_id in self.deactivated, "new tasks could come until it ends"

    async def get_agents(self) -> Mapping[str, Json]:
        self.terraform.step()
        agents: list[Json] = [
            {
                "agent_info": {
                    "id": {"value": f"agent-{instance_id}"},
                    "attributes": [{"name": "instance_id", "text": {"value": instance_id}}],
                },
                "active": True,
                "deactivated": instance_id in self.deactivated,
            }
            for instance_id in self.terraform.account
        ]
        return {"agents": agents}

    async def get_tasks(self) -> Mapping[str, Json]:
        self.terraform.step()
        for instance_id in self.draining & set(self.terraform.account):
            self.tasks[instance_id] = max(self.unmovable, self.tasks.get(instance_id, 0) - 1)
        return {
            "tasks": [
                {"agent_id": {"value": f"agent-{instance_id}"}}
                for instance_id, number in self.tasks.items()
                if instance_id in self.terraform.account
                for _ in range(number)
            ]
        }

    async def deactivate(self, agent_id: str) -> None:
        self.terraform.step()
        self.deactivated.add(agent_id.removeprefix("agent-"))

    async def reactivate(self, agent_id: str) -> None:
        self.terraform.step()
        self.deactivated.discard(agent_id.removeprefix("agent-"))
        self.draining.discard(agent_id.removeprefix("agent-"))

    async def drain(
        self, agent_id: str, grace_s: float | None = None, *, mark_gone: bool = False
    ) -> None:
        assert not mark_gone, "a run that is given up gives the agent its work back"
        self.terraform.step()
        self.draining.add(agent_id.removeprefix("agent-"))
        away = len(self.draining & set(self.terraform.account))
        self.largest_absence = max(self.largest_absence, away)

    async def sleep(self, seconds: float) -> None:
        self.now += seconds

    def drains(self) -> AgentDrains:
        return AgentDrains(self, self.terraform.folder, 10.0, BOUND_S, lambda: self.now, self.sleep)

    def plan(self) -> tuple[MachineChange, ...]:
        return tuple(changes_of([self.terraform.document()]))  # type: ignore[list-item]

    def run(self, size: int = 1) -> None:
        """One `mesaform up --upgrade`, until its end or its kill."""
        self.terraform.take_over()
        batches = AgentBatches(
            size, lambda addresses: [self.terraform.state[address] for address in addresses]
        )
        asyncio.run(self._run(batches))

    async def _run(self, batches: AgentBatches) -> None:
        run = ChangeRun(self.terraform.folder, self.terraform, Silent(), 1.0)
        await change_agents(run, self.drains(), batches, self.plan())
        missing = [change for change in self.plan() if change.action == "add"]
        if missing:
            await run.apply("agents", missing)  # as the deployment does afterwards
        await self.drains().give_back(set(self.terraform.account))


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    images=st.lists(st.sampled_from((OLD, NEW)), min_size=1, max_size=4),
    removed=st.integers(0, 2),
    size=st.integers(1, 2),
    kills=st.lists(st.integers(0, 60), max_size=3),
)
def test_killed_at_any_step_no_machine_ends_under_its_tasks_and_the_next_run_completes_it(
    images: list[str], removed: int, size: int, kills: list[int]
):
    with TemporaryDirectory() as folder:
        count = max(1, len(images) - removed)
        cluster = Cluster(Path(folder), images, count=count)
        for kill in kills:
            cluster.terraform.steps_left = kill
            try:
                cluster.run(size)
            except Killed:
                continue
        cluster.terraform.steps_left = None
        cluster.run(size)
        assert [image for _, image in cluster.terraform.account.values()] == [NEW] * count
        assert not cluster.deactivated & set(cluster.terraform.account), "all have work again"
        assert not cluster.drains().recorded()


def test_a_fall_of_the_number_drains_what_goes_and_disturbs_nobody_else(tmp_path: Path):
    cluster = Cluster(tmp_path, [NEW, NEW, NEW], count=2)
    cluster.run()
    assert list(cluster.terraform.state) == ["aws_instance.default-1", "aws_instance.default-2"]
    assert [cluster.tasks[identity] for identity in cluster.terraform.account] == [2, 2]


def test_agents_are_replaced_one_batch_at_a_time(tmp_path: Path):
    cluster = Cluster(tmp_path, [OLD] * 5, count=5)
    cluster.run(size=2)
    assert cluster.largest_absence == 2


def test_agents_that_were_emptied_for_a_change_that_is_withdrawn_get_their_work_back(
    tmp_path: Path,
):
    cluster = Cluster(tmp_path, [NEW, NEW], count=1)
    cluster.terraform.steps_left = 6  # drained, and not destroyed yet
    with pytest.raises(Killed):
        cluster.run()
    assert cluster.deactivated
    cluster.terraform.steps_left = None
    cluster.terraform.wanted = ("aws_instance.default-1", "aws_instance.default-2")
    cluster.run()
    assert not cluster.deactivated
    assert len(cluster.terraform.account) == 2


@pytest.mark.parametrize("content", [b"", b"{", b'{"schema":"provision.drained-agents/2"}'])
def test_a_record_of_emptied_agents_that_cannot_be_read_is_kept(tmp_path: Path, content: bytes):
    cluster = Cluster(tmp_path, [OLD, OLD], count=2)
    record = tmp_path / RECORD_FILE
    record.write_bytes(content)
    cluster.run()
    kept = record.with_name(f"{RECORD_FILE}.set-aside")
    assert kept.read_bytes() == content
    assert not cluster.deactivated & set(cluster.terraform.account)


def test_tasks_that_outlast_their_grace_stop_the_run_before_their_machine_changes(tmp_path: Path):
    cluster = Cluster(tmp_path, [OLD], count=1)
    cluster.unmovable = 1
    with pytest.raises(MesaformError, match="1 on default-1") as caught:
        cluster.run()
    assert "same command again" in caught.value.fix
    assert list(cluster.terraform.account.values()) == [("aws_instance.default-1", OLD)]


def test_an_agent_that_does_not_register_stops_the_run_with_its_machine(tmp_path: Path):
    cluster = Cluster(tmp_path, [NEW], count=1)
    with pytest.raises(MesaformError, match="no active agent on i-9"):
        asyncio.run(cluster.drains().until_active(["i-9"], Stage(Silent(), "Replace")))
    assert cluster.now >= BOUND_S
