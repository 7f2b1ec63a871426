"""Services pack the fullest agents or spread, and group instances by expected end."""

from __future__ import annotations

import itertools
from collections import Counter
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesaform.common.resources import Resources
from mesaform.config.schema import ClusterSpec
from mesaform.mesos.messages import (
    Offer,
    TaskStatus,
    TimeInfo,
    Unavailability,
    from_wire,
    ident,
    to_wire,
)
from mesaform.placement.preference import AgentUse, Strategy, rank
from mesaform.placement.run_times import RunTimes
from mesaform.services.commands import ApiCommands
from mesaform.services.core import Core
from mesaform.services.effects import Send
from mesaform.services.model import App
from mesaform.services.settings import Settings
from mesaform.services.state import State

TOTAL = Resources.of(cpus=8, mem_mib=16384, ports=[(31000, 32000)])


class Cluster:
    """A core with agents that keep what was launched on them."""

    def __init__(self, placement: Strategy, agents: int = 3, **totals: Resources) -> None:
        numbers = itertools.count(1)
        self.core = Core(State(), lambda: UUID(int=next(numbers)), placement=placement)
        self.free = {f"s{n}": TOTAL for n in range(agents)} | totals
        self.leaving: set[str] = set()
        self.now = 1_000_000.0
        self._numbers = itertools.count(1)
        self.core.subscribed(self.now)

    def start(self, app_id: str, instances: int, cpus: float = 1.0, **fields: object) -> None:
        app = App(id=app_id, cmd="x", instances=instances, cpus=cpus, mem=64, **fields)  # type: ignore[arg-type]
        version = f"v{next(self._numbers)}"
        ApiCommands(self.core).put([app], version, self.now, force=True)
        self.offer()

    def offer(self) -> None:
        offers = {f"o{next(self._numbers)}": agent for agent in self.free}
        effects = self.core.offers([self._offer(*item) for item in offers.items()], self.now)
        for effect in effects:
            if isinstance(effect, Send) and effect.call.accept is not None:
                agent = offers[effect.call.accept.offer_ids[0].value]
                for info in effect.call.accept.operations[0].launch.task_infos:
                    self.free[agent] -= from_wire(info.resources)
                    self._report(info.task_id.value, agent, "TASK_RUNNING")

    def _offer(self, name: str, agent: str) -> Offer:
        start = TimeInfo(nanoseconds=int((self.now + 60) * 1e9))
        return Offer(
            id=ident(name),
            framework_id=ident("f"),
            agent_id=ident(agent),
            hostname=agent,
            resources=to_wire(self.free[agent], role="*", allocated_to="*"),
            unavailability=Unavailability(start=start) if agent in self.leaving else None,
        )

    def _report(self, task: str, agent: str, state: str) -> None:
        status = TaskStatus(task_id=ident(task), state=state, agent_id=ident(agent))
        self.core.status(status, self.now)

    def end_all(self, app_id: str, cpus: float = 1.0) -> None:
        """The app's instances finish; the app is deleted first, so that none is started again."""
        for instance in self.core.state.instances_of(app_id):
            self.free[instance.agent_id] += Resources.of(cpus=cpus, mem_mib=64)
            self._report(instance.task_id, instance.agent_id, "TASK_FINISHED")

    def agents_of(self, app_id: str) -> Counter[str]:
        return Counter(item.agent_id for item in self.core.state.instances_of(app_id))


def test_pack_fills_one_agent_before_the_next():
    cluster = Cluster("pack")
    cluster.start("/a", 10)
    assert sorted(cluster.agents_of("/a").values()) == [2, 8]


def test_spread_puts_instances_of_an_app_on_different_agents():
    cluster = Cluster("spread")
    cluster.start("/a", 10)
    assert sorted(cluster.agents_of("/a").values()) == [3, 3, 4]


def test_pack_prefers_the_fullest_agent_in_use_to_a_smaller_empty_one():
    cluster = Cluster("pack", agents=1, s9=Resources.of(cpus=2, mem_mib=4096))
    cluster.start("/a", 1, cpus=5)
    cluster.start("/b", 2)
    assert cluster.agents_of("/a") == {"s0": 1}
    assert cluster.agents_of("/b") == {"s0": 2}


@pytest.mark.parametrize("strategy", ["pack", "spread"])
def test_agents_that_are_announced_to_end_are_the_last_choice(strategy):
    cluster = Cluster(strategy, agents=2)
    cluster.start("/a", 1)
    (used,) = cluster.agents_of("/a")
    cluster.leaving = {used}
    cluster.start("/b", 8)
    assert used not in cluster.agents_of("/b")
    cluster.start("/c", 1)
    assert cluster.agents_of("/c") == {used: 1}, "better there than nowhere"


def test_pack_groups_short_tasks_apart_from_long_ones():
    """The agent with the short tasks is fuller, and still gets no task that outlives them."""
    cluster = Cluster("pack", agents=2)
    for app_id, ran_s in (("/short", 60.0), ("/long", 36_000.0)):
        cluster.start(app_id, 1)
        cluster.now += ran_s
        cluster.end_all(app_id)
        cluster.start(app_id, 0)
    for app_id in ("/short", "/long"):
        cluster.core.state.launch_delay(app_id).reset()
    first, second = cluster.free
    cluster.free = {first: TOTAL}
    cluster.start("/short", 6)
    cluster.free = {second: TOTAL}
    cluster.start("/long", 2)
    cluster.free = {
        agent: TOTAL - Resources.of(cpus=cpus) for agent, cpus in ((first, 6), (second, 2))
    }
    cluster.start("/long", 4)
    cluster.start("/short", 7)
    assert cluster.agents_of("/long") == {second: 4}
    assert cluster.agents_of("/short")[first] >= 6


@given(
    counts=st.lists(st.integers(0, 5), min_size=2, max_size=5),
    strategy=st.sampled_from(["pack", "spread"]),
    groups=st.sampled_from([[], [["hostname", "GROUP_BY"]], [["hostname", "MAX_PER", "3"]]]),
)
def test_both_strategies_place_as_many_as_fit(counts, strategy, groups):
    """One batch of offers places all that the agents hold, whatever the order."""
    cluster = Cluster(strategy, agents=len(counts))
    for n, used in enumerate(counts):
        cluster.free[f"s{n}"] = TOTAL - Resources.of(cpus=used)
    cluster.start("/a", len(counts) * 3, constraints=groups)
    placed = cluster.agents_of("/a")
    assert sum(placed.values()) == len(counts) * 3
    if groups:
        assert max(placed.values()) == 3


def test_run_times_follow_the_newest_and_survivors_run_on():
    times = RunTimes()
    assert times.end_of("/a", 0.0, 0.0) == float("inf")
    times.learn("/a", 100.0)
    assert times.end_of("/a", 1000.0, 1000.0) == 1100
    assert times.end_of("/a", 1000.0, 1300.0) == 1600
    for _ in range(30):
        times.learn("/a", 200.0)
    assert times.end_of("/a", 0.0, 0.0) == pytest.approx(200, abs=1)
    times.forget("/a")
    assert times.end_of("/a", 0.0, 0.0) == float("inf")


def test_a_task_that_ends_with_an_agent_prefers_it_to_one_that_it_keeps_longer():
    soon, late = AgentUse(2, 4096, 3, ends_at=100.0), AgentUse(4, 4096, 3, ends_at=10_000.0)
    assert rank("pack", late, 9_000.0) < rank("pack", soon, 9_000.0)
    assert rank("pack", soon, 90.0) < rank("pack", late, 90.0), "the fullest of equals"


def test_autoscaled_clusters_pack_unless_told_otherwise():
    def placement(text: str, *, autoscaled: bool = True) -> str:
        return ClusterSpec.model_validate(
            {"name": "one", "tasks": {"placement": text}, "autoscaler": {"enabled": autoscaled}}
        ).placement

    assert placement("automatic") == "pack"
    assert placement("automatic", autoscaled=False) == "spread"
    assert placement("spread") == "spread"
    assert placement("pack", autoscaled=False) == "pack"
    zk = {"MARATHON_MASTER": "zk://h:1/m", "MARATHON_ZK": "zk://h:1/s"}
    assert Settings.from_environment({**zk, "MESAFORM_PLACEMENT": "pack"}).placement == "pack"
    assert Settings.from_environment(zk).placement == "spread"
