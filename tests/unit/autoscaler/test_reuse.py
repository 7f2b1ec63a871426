"""What a pass takes over from the pass before, or does not compute, changes no result."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from harness.autoscaler_builders import NOW, a_machine, a_snapshot, a_spec, an_agent
from mesaform.autoscaler.disruption.context import DisruptionContext
from mesaform.autoscaler.model.cluster_tasks import Seen
from mesaform.autoscaler.model.demand_item import DemandItem
from mesaform.autoscaler.model.shape import make
from mesaform.autoscaler.model.supply_builder import build_supply
from mesaform.autoscaler.observation.agent_tasks import AgentTasks
from mesaform.autoscaler.packing import Placement
from mesaform.autoscaler.packing.free_capacity import FreeCapacity
from mesaform.autoscaler.planner.replacement_search import ReplacementSearch
from mesaform.placement.constraints import Constraint
from tests.support.profiles import examples

MACHINES = [a_machine("i-1"), a_machine("i-2")]
AGENTS = st.sampled_from(
    [
        [],
        [an_agent(MACHINES[1])],
        [an_agent(machine) for machine in MACHINES],
        [an_agent(machine, drain_state="DRAINING") for machine in MACHINES],
    ]
)
TASKS = st.lists(
    st.builds(
        Seen,
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from(["S-i-1", "S-i-2"]),
        st.sampled_from(["F-1", "F-2"]),
        st.sampled_from([None, "/web", "/api"]),
        st.sampled_from([make(1, 512), make(2, 1024)]),
        since=st.sampled_from([0.0, 10.0, 20.0]),
        config=st.sampled_from(["", "v1", "v2"]),
        runs_for_s=st.sampled_from([0.0, 60.0]),
    ),
    min_size=1,
    max_size=2,
)
NAMES = st.sampled_from([None, {"F-1": "batch"}, {"F-1": "etl"}])
PARTS: tuple[st.SearchStrategy, ...] = (AGENTS, TASKS, st.just([]) | TASKS, NAMES)
CHANGES = st.one_of(*(st.tuples(st.just(at), part) for at, part in enumerate(PARTS)))


@settings(max_examples=examples(100), deadline=None)
@given(st.tuples(*PARTS), st.lists(CHANGES, min_size=3, max_size=8))
def test_agents_of_the_pass_before_are_used_only_where_a_fresh_one_would_be_equal(reading, changes):
    kept = AgentTasks()
    for at, part in changes:
        assert kept.assign(*reading) == AgentTasks().assign(*reading)
        reading = (*reading[:at], part, *reading[at + 1 :])
    assert kept.assign(*reading) == AgentTasks().assign(*reading)


def test_only_agents_that_changed_are_made_again():
    kept = AgentTasks()
    agents = [an_agent(a_machine("i-1")), an_agent(a_machine("i-2"))]
    task = Seen("a", "S-i-1", "F-1", "/web", make(1, 512), since=10.0)
    names = {"F-1": "batch"}
    first = kept.assign(agents, [task], [], names)
    other = Seen("b", "S-i-2", "F-1", None, make(1, 512))
    second = kept.assign([replace(agent) for agent in agents], [task, other], [], names)
    assert second[0] is first[0]
    assert second[1].tasks == 1
    ended = kept.assign(agents, [task], [other], names)
    assert [agent.ended for agent in ended] == [0, 1]


WORK = st.lists(
    st.builds(
        lambda cpus, count, rules: DemandItem("displaced", "/a", make(cpus, 256), count, (), rules),
        st.sampled_from([0.5, 1.0, 2.0, 3.0]),
        st.integers(1, 3),
        st.sampled_from(
            [
                (),
                (Constraint("lifecycle", "LIKE", "spot"),),
                (Constraint("instance_type", "LIKE", "m5.2xlarge"),),
                (Constraint("@zone", "UNIQUE", ""),),
            ]
        ),
    ),
    min_size=1,
    max_size=3,
)


@settings(max_examples=examples(80), deadline=None)
@given(
    work=WORK,
    spot_share=st.sampled_from([0.0, 0.5, 1.0]),
    excluded=st.sets(st.sampled_from(["m5.large", "m5.xlarge"]), max_size=2),
)
def test_no_replacement_costs_less_than_the_price_below_which_none_is_sought(
    work, spot_share, excluded
):
    snapshot = a_snapshot(a_spec(pools=[{"count": 0, "spot_share": spot_share}]), machines=[])
    supply = build_supply(snapshot, NOW)
    find = ReplacementSearch(snapshot, supply, NOW)
    free = FreeCapacity(supply, [], Placement())
    context = DisruptionContext(snapshot, supply, free, frozenset(), {}, {}, NOW, find)
    left = {index: item.count for index, item in enumerate(work)}
    purchase = find("default", work, left, number=1000, excluded_types=excluded)
    if purchase is not None:
        assert purchase.usd_per_hour >= context.least_usd_per_hour("default", excluded)
