"""The operator's hand on agents: DEACTIVATE, REACTIVATE, DRAIN, MARK_AGENT_GONE; and TEARDOWN of a framework.

The registry is written first, then memory changes, then the caller is answered.
An agent is DRAINED when the master holds none of its tasks: every terminal update was acknowledged.
"""

from __future__ import annotations

from collections.abc import Callable

from mesaform.engine import link
from mesaform.engine.master import agents, frameworks
from mesaform.engine.master.events import Operator, Reply, SendAgent, Store, Stored
from mesaform.engine.master.state import State
from mesaform.engine.registry import Change, MarkDrained, MarkGone, SetDeactivated, StartDrain


def operator(state: State, call: Operator) -> None:
    """One call: refused at once, or stored first and answered when that is done."""
    _CALLS[call.type](state, call)


def _answer(state: State, call: Operator, status: int, text: str = "") -> None:
    state.out.append(Reply(call.token, status, text))


def _store(state: State, change: Change, origin: Operator | None) -> None:
    state.in_flight[change.agent_id] = type(change).__name__
    state.out.append(Store(change, origin))


def _is_manageable(state: State, agent_id: str) -> bool:
    return agent_id in state.agents or agent_id in state.recovered or state.is_unreachable(agent_id)


def _deactivate(state: State, call: Operator) -> None:
    if not _is_manageable(state, call.id):
        _answer(state, call, 400, "Unknown agent")
    elif state.is_deactivated(call.id):
        _answer(state, call, 200)
    else:
        _store(state, SetDeactivated(call.id, deactivated=True), call)


def _reactivate(state: State, call: Operator) -> None:
    if not _is_manageable(state, call.id):
        _answer(state, call, 400, "Unknown agent")
    elif not state.is_deactivated(call.id):
        _answer(state, call, 400, "Agent is not deactivated")
    elif state.drain_state(call.id) == "DRAINING":
        _answer(state, call, 400, "Agent is still in the DRAINING state")
    elif call.id not in state.agents:
        _answer(state, call, 409, "Agent is not registered")
    else:
        _store(state, SetDeactivated(call.id, deactivated=False), call)


def _drain(state: State, call: Operator) -> None:
    if state.in_flight.get(call.id) == "MarkGone":
        _answer(state, call, 409, "Agent is currently being marked gone")
    elif not _is_manageable(state, call.id):
        _answer(state, call, 400, "Unknown agent")
    else:
        _store(state, StartDrain(call.id, state.now, call.max_grace_s, call.mark_gone), call)


def _mark_gone(state: State, call: Operator) -> None:
    if state.is_gone(call.id):
        _answer(state, call, 200)
    elif state.in_flight.get(call.id) is not None:
        _answer(state, call, 503, "Agent is currently being transitioned; try again")
    elif not _is_manageable(state, call.id):
        _answer(state, call, 404, f"Agent '{call.id}' not found")
    else:
        _store(state, MarkGone(call.id, state.now), call)


def _teardown(state: State, call: Operator) -> None:
    framework = state.frameworks.get(call.id)
    if framework is None:
        _answer(state, call, 400, "No framework found with specified ID")
        return
    frameworks.remove(state, framework)
    _answer(state, call, 200)


_CALLS: dict[str, Callable[[State, Operator], None]] = {
    "DEACTIVATE_AGENT": _deactivate,
    "REACTIVATE_AGENT": _reactivate,
    "DRAIN_AGENT": _drain,
    "MARK_AGENT_GONE": _mark_gone,
    "TEARDOWN": _teardown,
}


def stored(state: State, event: Stored) -> None:
    """The registry holds the change: carry it out and answer."""
    change = event.change
    origin = event.origin if isinstance(event.origin, Operator) else None
    if state.in_flight.get(change.agent_id) == type(change).__name__:
        del state.in_flight[change.agent_id]
    if isinstance(change, StartDrain) and _drained(state, change.agent_id):
        _finish(state, change.agent_id, origin)
        _stop(state, change)
        return
    if isinstance(change, MarkGone):
        _gone(state, change)
    elif isinstance(change, StartDrain) or (
        isinstance(change, SetDeactivated) and change.deactivated
    ):
        _stop(state, change)
    elif isinstance(change, SetDeactivated):
        _resume(state, change)
    if origin is not None:
        _answer(state, origin, 200)


def _stop(state: State, change: StartDrain | SetDeactivated) -> None:
    agent = state.agents.get(change.agent_id)
    if agent is None:
        return
    agents.stop_offering(state, agent)
    if isinstance(change, StartDrain):
        state.tell(agent, link.Drain(change.max_grace_s, change.mark_gone))


def _resume(state: State, change: SetDeactivated) -> None:
    agent = state.agents.get(change.agent_id)
    if agent is not None:
        state.tell(agent, link.Undrain())
        state.allocator.set_agent_active(agent.id, active=state.may_offer(agent))
        state.wants_offers = True


def _gone(state: State, change: MarkGone) -> None:
    state.recovered.discard(change.agent_id)
    agent = state.agents.get(change.agent_id)
    if agent is None:
        return
    if agent.link_id is not None:
        state.out.append(
            SendAgent(agent.link_id, link.Refused(f"Agent {agent.id} has been marked gone"))
        )
    agents.remove(
        state,
        agent,
        "TASK_GONE_BY_OPERATOR",
        "REASON_SLAVE_REMOVED_BY_OPERATOR",
        "Agent has been marked gone",
    )
    state.wants_offers = True


def _drained(state: State, agent_id: str) -> bool:
    agent = state.agents.get(agent_id)
    return agent is not None and not agent.tasks


def _finish(state: State, agent_id: str, origin: Operator | None) -> None:
    record = state.record(agent_id)
    gone = record is not None and record.drain is not None and record.drain.mark_gone
    _store(state, MarkGone(agent_id, state.now) if gone else MarkDrained(agent_id), origin)


def advance(state: State) -> None:
    """Draining agents whose last task went are DRAINED (or gone, when that was asked for)."""
    for agent_id in sorted(state.draining):
        if agent_id not in state.in_flight and _drained(state, agent_id):
            _finish(state, agent_id, None)
