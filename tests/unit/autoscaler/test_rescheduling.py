"""Capacity for tasks that move: reserved, not given twice, and reported when it is gone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.autoscaler_builders import NOW, a_machine, a_reason, a_snapshot, a_spec, an_agent
from mesaform.autoscaler.disruption.rescheduling import reserve, work_of
from mesaform.autoscaler.model.cluster_view import RunningTask
from mesaform.autoscaler.model.command import Deactivate, Reactivate
from mesaform.autoscaler.model.demand_item import DemandItem
from mesaform.autoscaler.model.planner_state import PlannerState
from mesaform.autoscaler.model.removal import Removal
from mesaform.autoscaler.model.shape import make
from mesaform.autoscaler.model.snapshot import Snapshot
from mesaform.autoscaler.model.supply import Node, Supply
from mesaform.autoscaler.model.supply_builder import build_supply
from mesaform.autoscaler.packing import Placement, place
from mesaform.autoscaler.packing.free_capacity import FreeCapacity
from mesaform.autoscaler.planner.planner import plan
from mesaform.placement.constraints import Constraint, InstanceCounts

SLOT = make(1, 512)


def an_emptied_machine(*others, tasks: int = 1, **fields) -> Snapshot:
    """A machine deactivated for low use, with tasks of /web; `others` are the other agents."""
    work = tuple(
        RunningTask(f"web.instance-{n}", "/web", "marathon", SLOT, NOW - 900) for n in range(tasks)
    )
    leaving = an_agent(
        a_machine("i-1"),
        active=False,
        deactivated=True,
        work=work,
        tasks=tasks,
        allocated=make(tasks, 512 * tasks),
    )
    memory = PlannerState(
        leader_since=NOW - 9000,
        idle_since={"i-2": NOW - 9000},
        registered_at=dict.fromkeys(["i-1", *(agent.instance_id for agent in others)], NOW - 4000),
        removals={
            "i-1": Removal("S-i-1", "deactivated", NOW - 0.5, a_reason(), policy="underused")
        },
    )
    machines = [a_machine("i-1"), *(a_machine(agent.instance_id) for agent in others)]
    spec = a_spec(pools=[{"count": 0}], consolidation={"enabled": True})
    return a_snapshot(
        spec,
        machines=machines,
        agents=[leaving, *others],
        state=memory,
        app_constraints={"/web": ()},
        **fields,
    )


def room_in(snapshot: Snapshot) -> FreeCapacity:
    return FreeCapacity(build_supply(snapshot, NOW), [], Placement())


def test_a_machine_that_tasks_are_to_move_to_is_not_idle_however_long_it_was_empty():
    snapshot = an_emptied_machine(an_agent(a_machine("i-2")))
    assert reserve(snapshot, build_supply(snapshot, NOW), room_in(snapshot)).hosts == {"i-2"}
    planned = plan(snapshot, NOW)
    assert "i-2" not in planned.state.idle_since
    assert planned.commands == ()


def test_each_machine_that_takes_some_of_the_tasks_is_kept():
    others = [an_agent(a_machine(name), allocated=make(1, 512), tasks=1) for name in ("i-2", "i-3")]
    snapshot = an_emptied_machine(*others, tasks=2)
    assert reserve(snapshot, build_supply(snapshot, NOW), room_in(snapshot)).hosts == {"i-2", "i-3"}


def test_a_machine_whose_tasks_have_lost_their_place_is_homeless_and_taken_back():
    total = an_agent(a_machine("i-2")).total
    snapshot = an_emptied_machine(
        an_agent(a_machine("i-2"), allocated=(total[0], total[1], 0, 0, 0), tasks=2)
    )
    assert reserve(snapshot, build_supply(snapshot, NOW), room_in(snapshot)).unschedulable == {
        "i-1"
    }
    actions = [action for step in plan(snapshot, NOW).commands for action in step.actions]
    assert actions == [Reactivate("i-1", "S-i-1")]


def test_a_machine_whose_tasks_have_a_place_goes_on():
    snapshot = an_emptied_machine(an_agent(a_machine("i-2"), allocated=make(0.5, 100), tasks=1))
    assert reserve(snapshot, build_supply(snapshot, NOW), room_in(snapshot)).unschedulable == set()
    assert plan(snapshot, NOW).commands == ()


def some_machines(count: int, cpus: float) -> Snapshot:
    """Machines of two cpus with `cpus` in use by tasks of half a cpu, idle for long enough."""
    tasks = round(cpus * 2)
    machines = [a_machine(f"i-{n}") for n in range(count)]
    agents = [
        an_agent(
            machine,
            allocated=make(cpus, 100 * tasks),
            tasks=tasks,
            work=tuple(
                RunningTask(
                    f"web.instance-{machine.instance_id}-{n}",
                    "/web",
                    "marathon",
                    make(0.5, 100),
                    NOW - 9000,
                )
                for n in range(tasks)
            ),
        )
        for machine in machines
    ]
    names = [machine.instance_id for machine in machines]
    memory = PlannerState(
        leader_since=NOW - 9000,
        underused_since=dict.fromkeys(names, NOW - 9000),
        registered_at=dict.fromkeys(names, NOW - 9000),
    )
    spec = a_spec(
        pools=[{"count": 0}],
        consolidation={
            "enabled": True,
            "max_agents_percent": 100.0,
            "underused_percent": 90.0,
            "usd_per_task": 0,
            "usd_per_task_hour": 0,
        },
    )
    return a_snapshot(
        spec, machines=machines, agents=agents, state=memory, app_constraints={"/web": ()}
    )


def test_what_was_promised_tasks_in_a_pass_does_not_itself_go_in_that_pass():
    snapshot = some_machines(6, 0.5)
    gone = {
        action.instance_id
        for step in plan(snapshot, NOW).commands
        for action in step.actions
        if isinstance(action, Deactivate)
    }
    assert len(gone) == 4
    stay = [agent for agent in snapshot.cluster.agents if agent.instance_id not in gone]
    assert sum(agent.free[0] for agent in stay) >= 4 * 500


def test_a_node_that_took_demand_has_that_much_less_to_give():
    snapshot = an_emptied_machine(an_agent(a_machine("i-2")))
    supply, units = build_supply(snapshot, NOW), [DemandItem("services", "/new", SLOT, 1, ())]
    room = FreeCapacity(supply, units, place(units, supply.nodes, supply.usage))
    assert room.fit([DemandItem("displaced", "/web", SLOT, 2, ())], set()) is None
    assert room.fit([DemandItem("displaced", "/web", SLOT, 1, ())], set()) == {"i-2"}
    assert room.fit([DemandItem("displaced", "/web", SLOT, 1, ())], set()) is None


def test_what_does_not_all_fit_takes_nothing():
    snapshot = an_emptied_machine(an_agent(a_machine("i-2")))
    room = room_in(snapshot)
    assert room.fit([DemandItem("displaced", "/web", SLOT, 3, ())], set()) is None
    assert room.hosts == set()
    assert room.fit([DemandItem("displaced", "/web", SLOT, 2, ())], set()) == {"i-2"}
    assert room.hosts == {"i-2"}


def test_what_found_a_place_counts_for_its_constraints_from_then_on():
    unique = (Constraint("hostname", "UNIQUE"),)
    snapshot = an_emptied_machine(an_agent(a_machine("i-2")))
    room = room_in(snapshot)
    assert room.fit([DemandItem("displaced", "/web", SLOT, 1, (), unique)], set()) == {"i-2"}
    assert room.fit([DemandItem("displaced", "/web", SLOT, 1, (), unique)], set()) is None
    assert room.fit([DemandItem("displaced", "/api", SLOT, 1, (), unique)], set()) == {"i-2"}


def test_machines_on_their_way_count_only_when_asked_for_and_those_on_their_way_out_never():
    nodes = [
        Node("new", "coming", "h1", {}, SLOT, "default"),
        Node("old", "leaving", "h2", {}, SLOT, "default"),
    ]
    room = FreeCapacity(Supply((), tuple(nodes), InstanceCounts(), 0.0, {}, {}), [], Placement())
    assert room.fit([DemandItem("displaced", "/web", SLOT, 1, ())], set()) is None
    assert (
        room.fit([DemandItem("displaced", "/web", SLOT, 2, ())], set(), use_arriving=True) is None
    )
    assert room.fit([DemandItem("displaced", "/web", SLOT, 1, ())], set(), use_arriving=True) == {
        "new"
    }


def test_asking_what_would_be_left_takes_nothing():
    room = room_in(an_emptied_machine(an_agent(a_machine("i-2"))))
    wanted = [
        DemandItem("displaced", "/web", SLOT, 3, ()),
        DemandItem("displaced", "/big", make(99), 1, ()),
    ]
    assert room.remaining(wanted, set()) == room.remaining(wanted, set()) == {0: 1, 1: 1}
    assert room.remaining(wanted, {"i-2"}) == {0: 3, 1: 1}


SHAPES = st.builds(make, st.sampled_from([0.5, 1, 2]), st.sampled_from([0, 256, 1024]))
CONSTRAINTS = st.sampled_from(
    [
        (),
        (Constraint("hostname", "UNIQUE"),),
        (Constraint("zone", "GROUP_BY"),),
        (Constraint("zone", "MAX_PER", "2"),),
    ]
)


@st.composite
def some_work(draw: st.DrawFn) -> list[DemandItem]:
    count = draw(st.integers(1, 4))
    return [
        DemandItem(
            "displaced", f"/{n}", draw(SHAPES), draw(st.integers(1, 5)), (), draw(CONSTRAINTS)
        )
        for n in range(count)
    ]


@given(
    sizes=st.lists(
        st.builds(make, st.sampled_from([0.5, 1, 2, 4]), st.sampled_from([256, 1024, 8192])),
        min_size=1,
        max_size=6,
    ),
    asked=st.lists(some_work(), min_size=1, max_size=4),
)
def test_places_are_those_that_demand_would_get_one_after_another(sizes, asked):
    """`Room` remembers which nodes are full; the answer equals a placement without memory."""
    nodes = [
        Node(f"n{n}", "settled", f"h{n}", {"zone": f"z{n % 3}"}, size, "default")
        for n, size in enumerate(sizes)
    ]
    room, usage = (
        FreeCapacity(Supply((), tuple(nodes), InstanceCounts(), 0.0, {}, {}), [], Placement()),
        InstanceCounts(),
    )
    for work in asked:
        trial = usage.copy()
        placement = place(work, nodes, trial)
        assert room.remaining(work, set()) == placement.left
        result = room.fit(work, set())
        if any(placement.left.values()):
            assert result is None
            continue
        assert result == {name for names in placement.placed.values() for name in names}
        usage = trial
        nodes = [replace(node, free=_less(node, work, placement)) for node in nodes]


def _less(node: Node, work: list[DemandItem], placement: Placement):
    free: tuple[int, ...] = node.free
    for index, names in placement.placed.items():
        for _ in range(names.get(node.name, 0)):
            free = tuple(have - want for have, want in zip(free, work[index].shape, strict=True))
    return free


@pytest.mark.parametrize("apps", [None, {"/web": (Constraint("hostname", "UNIQUE"),)}])
def test_equal_tasks_of_an_agent_are_one_unit_with_the_constraints_of_their_app(apps):
    agent = an_emptied_machine(tasks=3).cluster.agents[0]
    (unit,) = work_of(agent, apps)
    assert (unit.name, unit.count, unit.shape) == ("/web", 3, SLOT)
    assert unit.constraints == (apps or {}).get("/web", ())
