"""How long a pass takes at size."""

from __future__ import annotations

import time

import pytest

from mesaform.autoscaler.model.planner_state import PlannerState
from mesaform.autoscaler.model.shape import make
from mesaform.autoscaler.planner.planner import plan
from tests.unit.autoscaler.builders import (
    NOW,
    ZONES,
    a_machine,
    a_snapshot,
    a_spec,
    an_agent,
    queued,
)


@pytest.mark.slow
def test_a_pass_over_a_thousand_agents_with_nothing_to_do_is_quick():
    spec = a_spec(pools=[{"max": 1000}])
    machines = [a_machine(f"i-{number}", zone=ZONES[number % 3]) for number in range(1000)]
    agents = [
        an_agent(machine, allocated=make(1.5, 6000), tasks=30, apps={"/web": 30})
        for machine in machines
    ]
    first = plan(
        a_snapshot(
            spec, machines=machines, agents=agents, state=PlannerState(leader_since=NOW - 900)
        ),
        NOW,
    )
    snapshot = a_snapshot(
        spec, machines=machines, agents=agents, state=first.state, queue=[queued(count=0)]
    )
    started = time.process_time()
    made = plan(snapshot, NOW + 2)
    assert time.process_time() - started < 0.3
    assert (made.commands, made.state) == ((), first.state)
