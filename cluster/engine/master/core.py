"""The master's mind for one term of leadership: `handle(event, now) -> effects`.

Which part decides what: frameworks, agents, launch and tasks, reconcile, drain. The order of effects is the order in which
the shell must carry them out. Nothing here waits, draws lots or reads a clock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mesaform.engine.allocator import Allocator
from mesaform.engine.master import agents, drain, frameworks, launch, reconcile, tasks
from mesaform.engine.master.events import (
    AgentLeaving,
    AgentPong,
    AgentRegistering,
    AgentUpdate,
    Effect,
    Event,
    LinkClosed,
    Operator,
    SchedulerCall,
    Stored,
    StreamClosed,
    Subscribe,
    Tick,
)
from mesaform.engine.master.state import Config, Framework, Ids, State
from mesaform.engine.registry import Admit, MarkUnreachable, Registry, Remove
from mesaform.mesos.scheduler_api import Call


class Master:
    """The core. `state` may be read by whoever renders it; only `handle` changes it.

    Args:
        info: MasterInfo as JSON, as schedulers see it.
        ids: where new ids come from.
        registry: what the leader before this one left.
        allocator: empty.
        config: time-outs.
        now: seconds since the epoch; must not go back.

    """

    def __init__(
        self,
        info: dict[str, Any],
        ids: Ids,
        registry: Registry,
        allocator: Allocator,
        config: Config | None = None,
        *,
        now: float,
    ) -> None:
        self.state = State(info, ids, registry, allocator, config or Config(), now=now)

    def handle(self, event: Event, now: float) -> list[Effect]:
        """What follows from an event."""
        m = self.state
        m.now = max(now, m.now)
        _HANDLERS[type(event)](m, event)
        if m.draining:
            drain.advance(m)
        if m.wants_offers:
            m.make_offers()
        effects, m.out = m.out, []
        return effects


def _call(state: State, event: SchedulerCall) -> None:
    framework = state.frameworks.get(event.framework_id)
    if framework is None:
        return
    kind = (event.call.type or "UNKNOWN").lower()
    framework.counters["calls"] += 1
    framework.counters[f"calls/{kind}"] += 1
    handler = _CALLS.get(event.call.type or "")
    if handler is not None:
        handler(state, framework, event.call)


def _accept(state: State, framework: Framework, call: Call) -> None:
    if call.accept is not None:
        launch.accept(state, framework, call.accept)


def _decline(state: State, framework: Framework, call: Call) -> None:
    if call.decline is not None:
        launch.decline(state, framework, call.decline)


def _revive(state: State, framework: Framework, call: Call) -> None:
    state.counters["messages_revive_offers"] += 1
    state.allocator.revive(
        framework.id, _roles(framework, call.revive.roles if call.revive else [])
    )
    state.wants_offers = True


def _suppress(state: State, framework: Framework, call: Call) -> None:
    state.counters["messages_suppress_offers"] += 1
    state.allocator.suppress(
        framework.id, _roles(framework, call.suppress.roles if call.suppress else [])
    )


def _roles(framework: Framework, wanted: list[str]) -> list[str]:
    return [role for role in wanted if role in framework.roles] if wanted else list(framework.roles)


def _kill(state: State, framework: Framework, call: Call) -> None:
    if call.kill is not None:
        tasks.kill(state, framework, call.kill)


def _acknowledge(state: State, framework: Framework, call: Call) -> None:
    if call.acknowledge is not None:
        tasks.acknowledge(state, framework, call.acknowledge)


def _reconcile(state: State, framework: Framework, call: Call) -> None:
    if call.reconcile is not None:
        reconcile.reconcile(state, framework, call.reconcile)


def _teardown(state: State, framework: Framework, _call: Call) -> None:
    state.counters["messages_unregister_framework"] += 1
    frameworks.remove(state, framework)


def _update(state: State, framework: Framework, call: Call) -> None:
    if call.update_framework is not None:
        frameworks.update(
            state,
            framework,
            call.update_framework.framework_info,
            tuple(call.update_framework.suppressed_roles),
        )


def _request(state: State, _framework: Framework, _call: Call) -> None:
    state.counters["messages_resource_request"] += 1


_CALLS: dict[str, Callable[[State, Framework, Call], None]] = {
    "ACCEPT": _accept,
    "DECLINE": _decline,
    "REVIVE": _revive,
    "SUPPRESS": _suppress,
    "KILL": _kill,
    "ACKNOWLEDGE": _acknowledge,
    "RECONCILE": _reconcile,
    "TEARDOWN": _teardown,
    "UPDATE_FRAMEWORK": _update,
    "REQUEST": _request,
}
"""Calls that do something. The others (inverse offers, operations, executor messages) are accepted and have no effect here."""


def _update_of_agent(state: State, event: AgentUpdate) -> None:
    agent = state.agents.get(state.links.get(event.link_id, ""))
    if agent is not None:
        agent.last_pong_at = state.now
        tasks.updated(state, agent, event.update)


def _pong(state: State, event: AgentPong) -> None:
    agent = state.agents.get(state.links.get(event.link_id, ""))
    if agent is not None:
        agent.last_pong_at = state.now


def _stored(state: State, event: Stored) -> None:
    state.registry = state.registry.apply(event.change)
    record = state.record(event.change.agent_id)
    if (
        record is not None
        and record.state != "gone"
        and record.drain is not None
        and record.drain.state == "DRAINING"
    ):
        state.draining.add(event.change.agent_id)
    else:
        state.draining.discard(event.change.agent_id)
    if isinstance(event.change, Admit):
        agents.stored(state, event)
    elif isinstance(event.change, MarkUnreachable):
        agents.unreachable_stored(state, event.change)
    elif isinstance(event.change, Remove):
        agents.remove_stored(state, event.change)
    else:
        drain.stored(state, event)


def _tick(state: State, _event: Tick) -> None:
    frameworks.tick(state)
    agents.tick(state)
    state.wants_offers = True


_HANDLERS: dict[type, Callable[[State, Any], None]] = {
    Subscribe: frameworks.subscribe,
    StreamClosed: frameworks.stream_closed,
    SchedulerCall: _call,
    AgentRegistering: agents.registering,
    AgentUpdate: _update_of_agent,
    AgentPong: _pong,
    AgentLeaving: agents.leaving,
    LinkClosed: agents.link_closed,
    Operator: drain.operator,
    Stored: _stored,
    Tick: _tick,
}
