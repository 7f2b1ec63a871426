"""Calls of operators: DEACTIVATE, REACTIVATE, DRAIN and MARK_GONE of agents; TEARDOWN.

The registry is written first, then the state changes, then the caller is answered. An agent is
DRAINED when the master holds none of its tasks: every terminal update was acknowledged.
"""

from __future__ import annotations

from collections.abc import Callable

from mesaform.engine import link
from mesaform.engine.master import agents, frameworks
from mesaform.engine.master.events import Operator, Reply, SendAgent, Store, Stored
from mesaform.engine.master.state import State
from mesaform.engine.master.status import Cause
from mesaform.engine.registry import Change, MarkDrained, MarkGone, SetDeactivated, StartDrain


def operate(state: State, call: Operator) -> None:
    """Refuse a call at once, or store its change and answer when it is stored."""
    _OPERATIONS[call.type](state, call)


def _reply(state: State, call: Operator, status: int, text: str = "") -> None:
    state.effects.append(Reply(call.token, status, text))


def _store(state: State, change: Change, origin: Operator | None) -> None:
    state.in_flight[change.agent_id] = type(change).__name__
    state.effects.append(Store(change, origin))


def _is_manageable(state: State, agent_id: str) -> bool:
    return agent_id in state.agents or agent_id in state.recovered or state.is_unreachable(agent_id)


def _deactivate(state: State, call: Operator) -> None:
    if not _is_manageable(state, call.id):
        _reply(state, call, 400, "Unknown agent")
    elif state.is_deactivated(call.id):
        _reply(state, call, 200)
    else:
        _store(state, SetDeactivated(call.id, deactivated=True), call)


def _reactivate(state: State, call: Operator) -> None:
    if not state.is_deactivated(call.id):  # also an unknown one, as in Mesos
        _reply(state, call, 400, "Agent is not deactivated")
    elif state.drain_state(call.id) == "DRAINING":
        _reply(state, call, 400, "Agent is still in the DRAINING state")
    elif call.id not in state.agents:
        _reply(state, call, 409, "Agent is not registered")
    else:
        _store(state, SetDeactivated(call.id, deactivated=False), call)


def _drain(state: State, call: Operator) -> None:
    if state.in_flight.get(call.id) == "MarkGone":
        _reply(state, call, 409, "Agent is currently being marked gone")
    elif not _is_manageable(state, call.id):
        _reply(state, call, 400, "Unknown agent")
    else:
        _store(state, StartDrain(call.id, state.now, call.max_grace_s, call.mark_gone), call)


def _mark_gone(state: State, call: Operator) -> None:
    if state.is_gone(call.id):
        _reply(state, call, 200)
    elif state.in_flight.get(call.id) is not None:
        _reply(state, call, 503, "Agent is currently being transitioned; try again")
    elif not _is_manageable(state, call.id):
        _reply(state, call, 404, f"Agent '{call.id}' not found")
    else:
        _store(state, MarkGone(call.id, state.now), call)


def _teardown(state: State, call: Operator) -> None:
    framework = state.frameworks.get(call.id)
    if framework is None:
        _reply(state, call, 400, "No framework found with specified ID")
        return
    frameworks.remove(state, framework)
    _reply(state, call, 200)


_OPERATIONS: dict[str, Callable[[State, Operator], None]] = {
    "DEACTIVATE_AGENT": _deactivate,
    "REACTIVATE_AGENT": _reactivate,
    "DRAIN_AGENT": _drain,
    "MARK_AGENT_GONE": _mark_gone,
    "TEARDOWN": _teardown,
}


def stored(state: State, event: Stored) -> None:
    """Carry out a change that the registry has stored, and answer its caller."""
    change = event.change
    origin = event.origin if isinstance(event.origin, Operator) else None
    if state.in_flight.get(change.agent_id) == type(change).__name__:
        del state.in_flight[change.agent_id]
    if isinstance(change, StartDrain) and _has_no_tasks(state, change.agent_id):
        _finish_drain(state, change.agent_id, origin)  # answers the caller when it is stored
        _start_drain(state, change)
        return
    _apply(state, change)
    if origin is not None:
        _reply(state, origin, 200)


def _apply(state: State, change: Change) -> None:
    match change:
        case MarkGone():
            _remove_gone(state, change)
        case StartDrain():
            _start_drain(state, change)
        case SetDeactivated(deactivated=True):
            _stop_offering(state, change.agent_id)
        case SetDeactivated():
            _resume(state, change)


def _stop_offering(state: State, agent_id: str) -> None:
    agent = state.agents.get(agent_id)
    if agent is not None:
        agents.stop_offering(state, agent)


def _start_drain(state: State, change: StartDrain) -> None:
    agent = state.agents.get(change.agent_id)
    if agent is not None:
        agents.stop_offering(state, agent)
        state.send_to_agent(agent, link.Drain(change.max_grace_s, change.mark_gone))


def _resume(state: State, change: SetDeactivated) -> None:
    agent = state.agents.get(change.agent_id)
    if agent is not None:
        state.send_to_agent(agent, link.Undrain())
        state.allocator.set_agent_active(agent.id, active=state.is_offerable(agent))
        state.wants_offers = True


def _remove_gone(state: State, change: MarkGone) -> None:
    state.recovered.discard(change.agent_id)
    agent = state.agents.get(change.agent_id)
    if agent is None:
        return
    if agent.link_id is not None:
        refusal = link.Refused(f"Agent {agent.id} has been marked gone")
        state.effects.append(SendAgent(agent.link_id, refusal))
    cause = Cause(
        "TASK_GONE_BY_OPERATOR", "REASON_SLAVE_REMOVED_BY_OPERATOR", "Agent has been marked gone"
    )
    agents.remove(state, agent, cause)
    state.wants_offers = True


def _has_no_tasks(state: State, agent_id: str) -> bool:
    agent = state.agents.get(agent_id)
    return agent is not None and not agent.tasks


def _finish_drain(state: State, agent_id: str, origin: Operator | None) -> None:
    record = state.record(agent_id)
    mark_gone = record is not None and record.drain is not None and record.drain.mark_gone
    change = MarkGone(agent_id, state.now) if mark_gone else MarkDrained(agent_id)
    _store(state, change, origin)


def finish_drains(state: State) -> None:
    """Mark each draining agent without tasks as DRAINED, or as gone when that was asked for."""
    for agent_id in sorted(state.draining):
        if agent_id not in state.in_flight and _has_no_tasks(state, agent_id):
            _finish_drain(state, agent_id, None)
