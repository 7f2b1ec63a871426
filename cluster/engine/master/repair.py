"""Repair of the state after an unexpected exception in a handler. Pure.

A handler that raises may stop between two changes. Its effects so far describe what it has done,
so they are kept; `restore_accounts` then makes the collections and the allocator agree with the
tasks and offers that exist, and `release_owner` ends what the event came from: its link, its
registration or its operator's call. docs/adr/0030 has the reasons.
"""

from __future__ import annotations

from collections.abc import Iterator

from mesaform.common.resources import Resources
from mesaform.engine.master.events import (
    AgentLeaving,
    AgentPong,
    AgentRegistering,
    AgentUpdate,
    CloseLink,
    Event,
    NotStored,
    Operator,
    Reply,
    Stored,
)
from mesaform.engine.master.frameworks import add_to_allocator
from mesaform.engine.master.state import INTERNAL_ERROR, Agent, Framework, Offer, State


def restore_accounts(state: State) -> None:
    """Make every collection agree with the frameworks' tasks and with `state.offers`."""
    _restore_frameworks(state)
    _restore_tasks(state)
    _restore_offers(state)
    for link_id, agent_id in list(state.links.items()):
        agent = state.agents.get(agent_id)
        if agent is None or agent.link_id != link_id:
            del state.links[link_id]
    for agent in state.agents.values():
        if agent.link_id is not None:
            state.links[agent.link_id] = agent.id
        state.allocator.restore_agent(agent.id, _held(agent), active=state.is_offerable(agent))


def _restore_frameworks(state: State) -> None:
    """Let the allocator know each framework, and let a disconnected one end after its time-out."""
    for framework in state.frameworks.values():
        if not framework.is_connected:
            framework.is_active = False
            if framework.remove_at is None and not framework.is_recovered:
                framework.remove_at = state.now + (framework.info.failover_timeout or 0.0)
        if not state.allocator.has_framework(framework.id):
            add_to_allocator(state, framework)
        if not framework.is_active:
            state.allocator.deactivate_framework(framework.id)


def _restore_tasks(state: State) -> None:
    for agent in state.agents.values():
        agent.tasks.clear()
    for framework in state.frameworks.values():
        for task in list(framework.tasks.values()):
            owner = state.agents.get(task.agent_id)
            if owner is None:
                del framework.tasks[task.id]
            else:
                owner.tasks[framework.id, task.id] = task


def _restore_offers(state: State) -> None:
    for holder in state.frameworks.values():
        holder.offers.clear()
    for agent in state.agents.values():
        agent.offers.clear()
    for offer in list(state.offers.values()):
        owners = _owners(state, offer)
        if owners is None:
            del state.offers[offer.id]
        else:
            for owner in owners:
                owner.offers[offer.id] = offer


def _owners(state: State, offer: Offer) -> tuple[Framework, Agent] | None:
    """The framework and the agent of an offer; None when it cannot be accepted any more."""
    framework = state.frameworks.get(offer.framework_id)
    agent = state.agents.get(offer.agent_id)
    if framework is None or agent is None:
        return None
    return (framework, agent) if framework.is_active and state.is_active(agent) else None


def _held(agent: Agent) -> Iterator[tuple[str, str, Resources]]:
    """What the agent's live tasks and offers hold, as (framework, role, resources)."""
    for task in agent.tasks.values():
        if not task.is_terminal:
            yield task.framework_id, task.role, task.resources
    for offer in agent.offers.values():
        yield offer.framework_id, offer.role, offer.resources


def release_owner(state: State, event: Event) -> None:
    """End what the event came from. A scheduler's call has its owner at the HTTP port."""
    match event:
        case AgentRegistering() | AgentUpdate() | AgentPong() | AgentLeaving():
            close_link(state, event.link_id)
        case Stored() | NotStored():
            if state.in_flight.get(event.change.agent_id) == type(event.change).__name__:
                del state.in_flight[event.change.agent_id]
            if isinstance(event.origin, AgentRegistering):
                close_link(state, event.origin.link_id)
            elif isinstance(event.origin, Operator):
                state.effects.append(Reply(event.origin.token, 500, INTERNAL_ERROR))
        case _:
            pass


def close_link(state: State, link_id: str) -> None:
    """Close a link and stop offering its agent, which registers again."""
    state.registering.discard(link_id)
    agent = state.agents.get(state.links.get(link_id, ""))
    if agent is not None and agent.link_id == link_id:
        state.disconnect(agent, INTERNAL_ERROR)
    else:
        state.links.pop(link_id, None)
        state.effects.append(CloseLink(link_id, INTERNAL_ERROR))
