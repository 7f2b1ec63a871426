"""Replacement of the autoscaler's older agents, killed at every step: it always continues."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesaform.aws.ports import Machine, Template
from mesaform.common.errors import MesaformError
from mesaform.common.progress import Recorded
from mesaform.provision.autoscaled_agents import AutoscaledUpgrade, find_behind, replacement_of
from mesaform.topology.names import Tag
from tests.support.fake_terraform import Killed

TEMPLATES = {"default": Template("3", frozenset({"2", "3"}))}
BOUND_S = 60.0


def machine(number: int, version: str = "1", **fields: object) -> Machine:
    tags = {
        Tag.CLUSTER: "a",
        Tag.ROLE: "agent",
        Tag.MANAGED_BY: "autoscaler",
        Tag.POOL: "default",
        Tag.TEMPLATE_VERSION: version,
    }
    values: dict[str, object] = {
        "instance_id": f"i-{number}",
        "instance_type": "m5.large",
        "zone": "us-east-1a",
        "capacity": "on-demand",
        "state": "running",
        "private_address": "",
        "public_address": "",
        "launched_at": float(number),
        "tags": tags,
    }
    return Machine(**{**values, **fields})  # type: ignore[arg-type]


class Autoscaler:
    """Machines that are drained on order, and the work of those that ended, which waits."""

    def __init__(self, versions: Sequence[str]) -> None:
        self.machines = {
            f"i-{number}": machine(number, version) for number, version in enumerate(versions)
        }
        self.orders: set[str] = set()
        self.waits = 0
        self.largest_absence = 0
        self.steps_left: int | None = None
        self.now = 0.0
        self.is_working = True
        self.buys = True

    def step(self) -> None:
        """One call: a test may kill the run here. The cluster works on meanwhile."""
        if self.steps_left is not None:
            self.steps_left -= 1
            if self.steps_left < 0:
                raise Killed
        leaving = self.orders & self.machines.keys()
        self.largest_absence = max(self.largest_absence, len(leaving) + self.waits)
        if self.waits and self.buys:
            number = len(self.machines) + 100 + int(self.now)
            self.machines[f"i-{number}"] = machine(number, "3")
            self.waits -= 1
        elif leaving and self.is_working:
            self.machines.pop(min(leaving))
            self.waits += 1
        self.now += 1

    async def behind(self) -> Sequence[Machine]:
        self.step()
        return find_behind(self.machines.values(), TEMPLATES)

    async def living(self, instance_ids: Collection[str]) -> set[str]:
        self.step()
        return self.machines.keys() & set(instance_ids)

    async def draining(self) -> set[str]:
        self.step()
        return set(self.orders)

    async def drain(self, instance_id: str) -> None:
        self.step()
        self.orders.add(instance_id)

    async def withdraw(self, instance_ids: Collection[str]) -> None:
        self.step()
        self.orders -= set(instance_ids)

    async def waiting(self) -> int | None:
        self.step()
        return self.waits

    async def sleep(self, seconds: float) -> None:
        self.now += seconds

    def run(self, size: int = 1) -> None:
        """One `mesaform upgrade agents`, until its end or its kill."""
        upgrade = AutoscaledUpgrade(self, Recorded(), size, BOUND_S, lambda: self.now, self.sleep)
        asyncio.run(upgrade.run())


@settings(max_examples=60, deadline=None)
@given(
    versions=st.lists(st.sampled_from(("1", "3")), max_size=5),
    size=st.integers(1, 3),
    kills=st.lists(st.integers(0, 40), max_size=3),
)
def test_killed_at_any_step_at_most_a_batch_is_away_and_the_next_run_completes_it(
    versions: list[str], size: int, kills: list[int]
):
    cluster = Autoscaler(versions)
    for kill in kills:
        cluster.steps_left = kill
        try:
            cluster.run(size)
        except Killed:
            continue
    cluster.steps_left = None
    cluster.run(size)
    assert cluster.largest_absence <= size
    assert len(cluster.machines) + cluster.waits == len(versions)
    assert find_behind(cluster.machines.values(), TEMPLATES) == ()


def test_a_batch_that_does_not_end_stops_the_run_and_names_its_machine():
    cluster = Autoscaler(["1", "1"])
    cluster.is_working = False
    with pytest.raises(MesaformError, match="i-0 did not end within 60 s") as caught:
        cluster.run()
    assert "mesaform why i-0" in caught.value.fix
    assert cluster.orders == {"i-0"}, "the next run goes on with this one"


def test_work_that_does_not_run_again_stops_the_run_before_the_next_batch():
    cluster = Autoscaler(["1", "1"])
    cluster.buys = False
    with pytest.raises(MesaformError, match="1 instances wait"):
        cluster.run()
    assert cluster.machines.keys() == {"i-1"}


@pytest.mark.parametrize(
    ("subject", "changed", "is_behind"),
    [
        (machine(1, "1"), (), True),
        (machine(1, "2"), (), False),
        (machine(1, "3"), ("mesaform/a/default",), True),
        (machine(1, "3"), ("mesaform/a/other",), False),
        (machine(1, "1", state="terminated"), (), False),
        (machine(1, "1", instance_type="m7g.large"), (), False),
        (machine(1, ""), (), False),
    ],
    ids=[
        "older", "only tags differ", "about to change", "another pool", "ended", "no template",
        "unknown version",
    ],
)  # fmt: skip
def test_machines_are_behind_if_their_template_launches_others_now(
    subject: Machine, changed: tuple[str, ...], is_behind: bool
):
    assert bool(find_behind([subject], TEMPLATES, changed)) is is_behind


def test_machines_of_terraform_are_not_the_autoscalers():
    tags = {**machine(1).tags, Tag.MANAGED_BY: "terraform"}
    assert find_behind([machine(1, tags=tags)], TEMPLATES) == ()


def test_the_oldest_machine_is_replaced_first_and_shown_with_its_pool():
    first, _ = find_behind([machine(2), machine(1)], TEMPLATES)
    change = replacement_of(first)
    assert (change.instance_id, change.name) == ("i-1", "default (autoscaler)")
    assert change.is_disruptive
