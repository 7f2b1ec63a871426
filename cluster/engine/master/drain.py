"""The operator's hand on agents: DEACTIVATE, REACTIVATE, DRAIN, MARK_AGENT_GONE; and TEARDOWN of a framework.

The registry is written first, then memory changes, then the caller is answered.
An agent is DRAINED when the master holds none of its tasks: every terminal update was acknowledged.
"""

from __future__ import annotations

from collections.abc import Callable

from cluster.engine import link
from cluster.engine.master import agents, frameworks
from cluster.engine.master.events import Operator, Reply, SendAgent, Store, Stored
from cluster.engine.master.state import State
from cluster.engine.registry import Change, MarkDrained, MarkGone, SetDeactivated, StartDrain


def operator(m: State, call: Operator) -> None:
    """One call: refused at once, or stored first and answered when that is done."""
    _CALLS[call.type](m, call)


def _answer(m: State, call: Operator, status: int, text: str = "") -> None:
    m.out.append(Reply(call.token, status, text))


def _store(m: State, change: Change, origin: Operator | None) -> None:
    m.in_flight[change.agent_id] = type(change).__name__
    m.out.append(Store(change, origin))


def _is_manageable(m: State, agent_id: str) -> bool:
    return agent_id in m.agents or agent_id in m.recovered or m.is_unreachable(agent_id)


def _deactivate(m: State, call: Operator) -> None:
    if not _is_manageable(m, call.id):
        _answer(m, call, 400, "Unknown agent")
    elif m.is_deactivated(call.id):
        _answer(m, call, 200)
    else:
        _store(m, SetDeactivated(call.id, deactivated=True), call)


def _reactivate(m: State, call: Operator) -> None:
    if not _is_manageable(m, call.id):
        _answer(m, call, 400, "Unknown agent")
    elif not m.is_deactivated(call.id):
        _answer(m, call, 400, "Agent is not deactivated")
    elif m.drain_state(call.id) == "DRAINING":
        _answer(m, call, 400, "Agent is still in the DRAINING state")
    elif call.id not in m.agents:
        _answer(m, call, 409, "Agent is not registered")
    else:
        _store(m, SetDeactivated(call.id, deactivated=False), call)


def _drain(m: State, call: Operator) -> None:
    if m.in_flight.get(call.id) == "MarkGone":
        _answer(m, call, 409, "Agent is currently being marked gone")
    elif not _is_manageable(m, call.id):
        _answer(m, call, 400, "Unknown agent")
    else:
        _store(m, StartDrain(call.id, m.now, call.max_grace_s, call.mark_gone), call)


def _mark_gone(m: State, call: Operator) -> None:
    if m.is_gone(call.id):
        _answer(m, call, 200)
    elif m.in_flight.get(call.id) is not None:
        _answer(m, call, 503, "Agent is currently being transitioned; try again")
    elif not _is_manageable(m, call.id):
        _answer(m, call, 404, f"Agent '{call.id}' not found")
    else:
        _store(m, MarkGone(call.id, m.now), call)


def _teardown(m: State, call: Operator) -> None:
    framework = m.frameworks.get(call.id)
    if framework is None:
        _answer(m, call, 400, "No framework found with specified ID")
        return
    frameworks.remove(m, framework)
    _answer(m, call, 200)


_CALLS: dict[str, Callable[[State, Operator], None]] = {
    "DEACTIVATE_AGENT": _deactivate,
    "REACTIVATE_AGENT": _reactivate,
    "DRAIN_AGENT": _drain,
    "MARK_AGENT_GONE": _mark_gone,
    "TEARDOWN": _teardown,
}


def stored(m: State, event: Stored) -> None:
    """The registry holds the change: carry it out and answer."""
    change = event.change
    origin = event.origin if isinstance(event.origin, Operator) else None
    if m.in_flight.get(change.agent_id) == type(change).__name__:
        del m.in_flight[change.agent_id]
    if isinstance(change, StartDrain) and _drained(m, change.agent_id):
        _finish(m, change.agent_id, origin)
        _stop(m, change)
        return
    if isinstance(change, MarkGone):
        _gone(m, change)
    elif isinstance(change, StartDrain) or (
        isinstance(change, SetDeactivated) and change.deactivated
    ):
        _stop(m, change)
    elif isinstance(change, SetDeactivated):
        _resume(m, change)
    if origin is not None:
        _answer(m, origin, 200)


def _stop(m: State, change: StartDrain | SetDeactivated) -> None:
    agent = m.agents.get(change.agent_id)
    if agent is None:
        return
    agents.stop_offering(m, agent)
    if isinstance(change, StartDrain):
        m.tell(agent, link.Drain(change.max_grace_s, change.mark_gone))


def _resume(m: State, change: SetDeactivated) -> None:
    agent = m.agents.get(change.agent_id)
    if agent is not None:
        m.tell(agent, link.Undrain())
        m.allocator.set_agent_active(agent.id, active=m.may_offer(agent))
        m.wants_offers = True


def _gone(m: State, change: MarkGone) -> None:
    m.recovered.discard(change.agent_id)
    agent = m.agents.get(change.agent_id)
    if agent is None:
        return
    if agent.link_id is not None:
        m.out.append(
            SendAgent(agent.link_id, link.Refused(f"Agent {agent.id} has been marked gone"))
        )
    agents.remove(
        m,
        agent,
        "TASK_GONE_BY_OPERATOR",
        "REASON_SLAVE_REMOVED_BY_OPERATOR",
        "Agent has been marked gone",
    )
    m.wants_offers = True


def _drained(m: State, agent_id: str) -> bool:
    agent = m.agents.get(agent_id)
    return agent is not None and not agent.tasks


def _finish(m: State, agent_id: str, origin: Operator | None) -> None:
    record = m.record(agent_id)
    gone = record is not None and record.drain is not None and record.drain.mark_gone
    _store(m, MarkGone(agent_id, m.now) if gone else MarkDrained(agent_id), origin)


def advance(m: State) -> None:
    """Draining agents whose last task went are DRAINED (or gone, when that was asked for)."""
    for agent_id in sorted(m.draining):
        if agent_id not in m.in_flight and _drained(m, agent_id):
            _finish(m, agent_id, None)
