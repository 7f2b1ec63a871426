"""What holds for the state of the engine's master after every event."""

from __future__ import annotations

from mesaform.common.resources import merge_ranges, subtract_ranges
from mesaform.engine.master.state import Agent, State, total


def check_state(state: State) -> None:
    """Check that resources are conserved, that each has an owner, and who may be offered."""
    for agent in state.agents.values():
        _check_agent(state, agent)
    for offer in state.offers.values():
        framework, agent = state.frameworks[offer.framework_id], state.agents[offer.agent_id]
        assert framework.is_active
        assert framework.offers[offer.id] is agent.offers[offer.id] is offer
    for framework in state.frameworks.values():
        for task in framework.tasks.values():
            assert state.agents[task.agent_id].tasks[framework.id, task.id] is task
    _check_sets(state)


def _check_sets(state: State) -> None:
    """Check the relations between the collections."""
    assert not state.effects
    assert not state.faults
    assert not state.wants_offers
    assert not set(state.frameworks) & set(state.completed_frameworks)
    assert not set(state.agents) & state.recovered
    assert all(state.agents[id_].link_id == link_id for link_id, id_ in state.links.items())


def _check_agent(state: State, agent: Agent) -> None:
    allocator = state.allocator
    taken = total([agent.used(), agent.offered()])
    free = allocator.free(agent.id)
    assert (free + taken).milli == agent.total.milli, f"{agent.id}: resources are not conserved"
    outside = subtract_ranges(taken.ports, agent.total.ports)  # of tasks from before a smaller size
    inside = subtract_ranges(taken.ports, outside)
    assert subtract_ranges(free.ports, inside) == free.ports, f"{agent.id}: a port is counted twice"
    assert merge_ranges((*free.ports, *inside)) == agent.total.ports, f"{agent.id}: a port is lost"
    allocated = total(allocator.allocated(agent.id).values())
    assert allocated == taken, f"{agent.id}: the allocator counts {allocated}, the master {taken}"
    if agent.offers:
        assert state.is_active(agent), f"{agent.id} may not be offered"
