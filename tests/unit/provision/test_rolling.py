"""The rolling change of masters, killed at every step: no two are away, and it always continues."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesaform.common.errors import BadInput, CloudError
from mesaform.common.progress import Recorded, Silent
from mesaform.provision.machine_changes import MachineChange, changes_of
from mesaform.provision.orphans import interrupted_at, unfinished
from mesaform.provision.preview import Preview
from mesaform.provision.rolling import (
    ChangeRun,
    change_masters,
    is_first_deployment,
    require_same_count,
    require_same_network,
)
from mesaform.provision.stack_targets import targets_of
from mesaform.provision.terraform_run import Ended, Planned
from tests.support.fake_terraform import NEW, OLD, FakeTerraform, Killed


class Ensemble:
    """Masters as ZooKeeper sees them: who has its data, and who is known to serve."""

    def __init__(self, folder: Path, images: Sequence[str | None]) -> None:
        addresses = tuple(f"aws_instance.master-{number + 1}" for number in range(len(images)))
        self.terraform = FakeTerraform(
            folder, "masters", "master", addresses, before_end=self.check_end
        )
        self.count = len(images)
        self.serving: set[str] = set()
        for address, image in zip(addresses, images, strict=True):
            if image is not None:
                self.terraform.put(address, image)
        self.with_data = set(self.terraform.account)

    def check_end(self, _address: str, instance_id: str) -> None:
        others = set(self.terraform.account) - {instance_id}
        assert len(others) == self.count - 1, "another master is away"
        assert others <= self.serving, "another master does not serve yet"

    def check_data(self) -> None:
        if self.count == 1:
            return  # only its volume keeps the data
        empty = set(self.terraform.account) - self.with_data
        assert len(empty) <= self.count // 2, "the empty ones are a majority and lose the data"

    async def wait(self, count: int) -> None:
        self.terraform.step()
        living = set(self.terraform.account)
        assert len(living) >= count, "nobody creates what this waits for"
        self.check_data()
        self.with_data = living
        self.serving = set(living)

    def run(self) -> None:
        """One `mesaform up --upgrade`, until its end or its kill."""
        self.terraform.take_over()
        self.serving.clear()
        masters = tuple(changes_of([self.terraform.document()]))  # type: ignore[list-item]
        run = ChangeRun(self.terraform.folder, self.terraform, Silent(), 1.0)
        asyncio.run(change_masters(run, masters, self.count, self.wait))


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with TemporaryDirectory() as name:
        yield Path(name)


@st.composite
def images(draw: st.DrawFn) -> list[str | None]:
    """Masters of 1, 3 or 5: with the old or the new image, or ended by something else."""
    number = draw(st.sampled_from((1, 3, 5)))
    one = st.sampled_from((OLD, NEW, None))
    return draw(st.lists(one, min_size=number, max_size=number).filter(any))


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(images=images(), kills=st.lists(st.integers(0, 40), max_size=5))
def test_killed_at_any_step_it_never_takes_two_masters_away_and_the_next_run_completes_it(
    folder: Path, images: list[str | None], kills: list[int]
):
    unfinished(folder).unlink(missing_ok=True)
    ensemble = Ensemble(folder, images)
    for kill in kills:
        ensemble.terraform.steps_left = kill
        try:
            ensemble.run()
        except Killed:
            ensemble.check_data()
    ensemble.terraform.steps_left = None
    ensemble.run()
    assert set(ensemble.terraform.state.values()) == set(ensemble.terraform.account)
    assert [image for _, image in ensemble.terraform.account.values()] == [NEW] * len(images)
    assert ensemble.with_data == set(ensemble.terraform.account)


def test_every_single_kill_of_a_replacement_of_three_is_survived(folder: Path):
    for kill in range(60):
        unfinished(folder).unlink(missing_ok=True)
        ensemble = Ensemble(folder, [OLD, OLD, OLD])
        ensemble.terraform.steps_left = kill
        try:
            ensemble.run()
        except Killed:
            pass
        else:
            assert kill > 20, "the whole procedure has more steps than that"
            return
        ensemble.terraform.steps_left = None
        ensemble.run()
        assert {image for _, image in ensemble.terraform.account.values()} == {NEW}
    raise AssertionError("the procedure has no end")


def test_a_missing_master_is_created_before_anything_waits_for_the_whole_cluster(folder: Path):
    ensemble = Ensemble(folder, [NEW, None, OLD])
    report = Recorded()
    masters = tuple(changes_of([ensemble.terraform.document()]))  # type: ignore[list-item]
    run = ChangeRun(folder, ensemble.terraform, report, 1.0)
    asyncio.run(change_masters(run, masters, 3, ensemble.wait))
    begun = [stage for state, stage, _ in report.events if state == "started"]
    assert begun == ["Create master-2", "Update network", "Replace master-3 (1 of 1)"]


def test_the_time_of_the_run_is_recorded_before_its_first_change_and_only_once(folder: Path):
    unfinished(folder).unlink(missing_ok=True)
    run = ChangeRun(folder, FakeTerraform(folder, "masters", "master", ()), Silent(), 1700.0)
    assert interrupted_at(folder) is None
    asyncio.run(run.apply_network())
    assert interrupted_at(folder) == 1700.0


class Greedy(FakeTerraform):
    """Terraform whose plan takes another resource along."""

    async def plan(self, folder: Path, *_options: str) -> Planned:
        return Planned(self.document())  # type: ignore[arg-type] # JSON all the same

    async def apply(self, folder: Path) -> Ended:
        raise AssertionError("a plan that takes another machine along must not be applied")


def test_a_plan_that_takes_another_master_along_is_not_applied(folder: Path):
    terraform = Greedy(folder, "masters", "master", ("aws_instance.a", "aws_instance.b"))
    terraform.put("aws_instance.a", OLD)
    terraform.put("aws_instance.b", OLD)
    masters = tuple(changes_of([terraform.document()]))  # type: ignore[list-item]
    with pytest.raises(CloudError, match=r"would take aws_instance\.b along"):
        asyncio.run(ChangeRun(folder, terraform, Silent(), 1.0).apply("masters", masters[:1]))


class Forgetful(Greedy):
    """Terraform whose plan deletes the data volume of the master."""

    async def plan(self, folder: Path, *_options: str) -> Planned:
        volume = {"address": "aws_ebs_volume.a", "type": "aws_ebs_volume"}
        return Planned({"resource_changes": [{**volume, "change": {"actions": ["delete"]}}]})


def test_a_plan_that_deletes_a_data_volume_is_not_applied(folder: Path):
    terraform = Forgetful(folder, "masters", "master", ("aws_instance.a",))
    master = MachineChange("i-1", "a", "master", "replace", (), "aws_instance.a")
    with pytest.raises(CloudError, match=r"aws_ebs_volume\.a along"):
        asyncio.run(ChangeRun(folder, terraform, Silent(), 1.0).apply("masters", [master]))


def test_what_needs_no_other_master_is_changed_with_one(tmp_path: Path):
    document = {
        "resource": {
            "aws_instance": {"a": {"subnet_id": "s"}, "b": {}},
            "aws_ebs_volume": {"a": {"size": 10}},
            "aws_iam_role_policy": {"rights": {"role": "${aws_iam_role.role.id}"}},
            "aws_iam_role": {"role": {}},
            "aws_volume_attachment": {
                "a": {"instance_id": "${aws_instance.a.id}", "volume_id": "${aws_ebs_volume.a.id}"},
                "b": {"instance_id": "${aws_instance.b.id}"},
            },
            "aws_route53_record": {
                "masters": {
                    "records": ["${aws_instance.a.private_ip}", "${aws_instance.b.private_ip}"]
                }
            },
        }
    }
    (tmp_path / "cdk.tf.json").write_text(json.dumps(document))
    assert targets_of(tmp_path, ["aws_instance.a"]) == (
        "aws_instance.a",
        "aws_ebs_volume.a",
        "aws_iam_role.role",
        "aws_iam_role_policy.rights",
        "aws_volume_attachment.a",
    )


def test_no_master_at_all_is_a_first_deployment():
    missing = MachineChange("", "master-1", "master", "add")
    assert is_first_deployment([missing] * 3, 3)
    assert not is_first_deployment([missing] * 2, 3)


def test_the_number_of_masters_and_the_network_below_them_stay():
    require_same_count(0, 3)
    require_same_count(3, 3)
    with pytest.raises(BadInput, match="has 3 masters, the file asks for 5"):
        require_same_count(3, 5)
    living = MachineChange("i-1", "master-1", "master", "replace", ("network",))
    with pytest.raises(BadInput, match="ZooKeeper's data"):
        require_same_network(Preview((living,), replaces_network=True))
