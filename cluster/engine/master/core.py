"""Pure core of the master for one term of leadership: `handle(event, now) -> effects`.

Each event type has one handler in `frameworks`, `agents`, `launch`, `tasks`, `reconcile` or
`drain`. The shell must carry out the effects in their order. Nothing here waits, reads a clock or
is random. docs/engine.md has a table of events, handlers and effects.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TypeAlias

from mesaform.common.transitions import UnknownTransition
from mesaform.engine.allocator import Allocator
from mesaform.engine.documents import Document
from mesaform.engine.master import agents, drain, frameworks, launch, reconcile, repair, tasks
from mesaform.engine.master.events import (
    AgentLeaving,
    AgentPong,
    AgentRegistering,
    AgentUpdate,
    Effect,
    Event,
    LinkClosed,
    NotStored,
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


class EventFailed(Exception):
    """A handler raised unexpectedly. The state is repaired.

    `effects` must be carried out. `is_handled`: the event itself was handled, and what failed
    comes after it or belongs to another owner. `faults` has the exceptions with their owners.
    """

    def __init__(
        self,
        event: str,
        effects: list[Effect],
        faults: list[tuple[str, Exception]],
        *,
        is_handled: bool,
    ) -> None:
        owner, fault = faults[0]
        super().__init__(f"{event}: {owner}: {type(fault).__name__}: {fault}"[:500])
        self.effects = effects
        self.faults = faults
        self.is_handled = is_handled


DRAINS, OFFERS = STEPS = ("drains", "offers")
"""Steps after each event; owners of faults that are not those of one agent or framework."""
HISTORY_LENGTH = 50
"""Events that an error lists; enough for one framework's life between two ticks."""


class Master:
    """The core. Anyone may read `state`; only `handle` changes it.

    Args:
        info: MasterInfo as JSON, as schedulers see it.
        ids: the source of new ids.
        registry: as the leader before this one left it.
        allocator: an empty one.
        config: time-outs.
        now: seconds since the epoch.

    """

    def __init__(
        self,
        info: Document,
        ids: Ids,
        registry: Registry,
        allocator: Allocator,
        config: Config | None = None,
        *,
        now: float,
    ) -> None:
        self.state = State(info, ids, registry, allocator, config or Config(), now=now)
        self._history: deque[str] = deque(maxlen=HISTORY_LENGTH)

    def handle(self, event: Event, now: float) -> list[Effect]:
        """The effects of an event at `now`, in seconds since the epoch.

        Raises:
            UnknownTransition: the event has no handler, with the events before it.
            EventFailed: a handler raised. The event's owner is released and the state is repaired.

        """
        state = self.state
        state.now = max(now, state.now)
        kind = type(event)
        handler = HANDLERS.get(kind)
        if handler is None:
            raise UnknownTransition(
                f"the master's core has no handler for {kind.__name__}",
                where=" > ".join(self._history),
                fix="report this history as a defect",
            )
        self._history.append(kind.__name__)
        is_handled = self._attempt(kind.__name__, handler, event)
        if not is_handled:
            self._attempt("repair", repair.release_owner, event)
        if state.draining:
            self._attempt(DRAINS, drain.finish_drains)
        if state.wants_offers:
            self._attempt(OFFERS, State.make_offers)
        effects, state.effects = state.effects, []
        if state.faults:
            faults, state.faults = state.faults, []
            raise EventFailed(kind.__name__, effects, faults, is_handled=is_handled)
        return effects

    def _attempt(self, owner: str, step: Callable[..., None], *arguments: object) -> bool:
        """Run one step of an event, and repair the accounts after a fault.

        Return whether the step itself was carried out to its end.
        """
        state = self.state
        known = len(state.faults)
        with state.contain(owner):
            step(state, *arguments)
        faults = state.faults[known:]
        if faults:
            repair.restore_accounts(state)
        return all(fault_owner != owner for fault_owner, _ in faults)


def _call(state: State, event: SchedulerCall) -> None:
    framework = state.frameworks.get(event.framework_id)
    if framework is None:
        return
    type_ = event.call.type or "UNKNOWN"
    framework.counters["calls"] += 1
    framework.counters[f"calls/{type_.lower()}"] += 1
    handler = CALL_HANDLERS.get(type_)
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
    roles = call.revive.roles if call.revive else []
    state.allocator.revive(framework.id, _roles(framework, roles))
    state.wants_offers = True


def _suppress(state: State, framework: Framework, call: Call) -> None:
    state.counters["messages_suppress_offers"] += 1
    roles = call.suppress.roles if call.suppress else []
    state.allocator.suppress(framework.id, _roles(framework, roles))


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


def _reconcile_operations(state: State, framework: Framework, call: Call) -> None:
    if call.reconcile_operations is not None:
        reconcile.reconcile_operations(state, framework, call.reconcile_operations)


def _teardown(state: State, framework: Framework, _call: Call) -> None:
    state.counters["messages_unregister_framework"] += 1
    frameworks.remove(state, framework)


def _update(state: State, framework: Framework, call: Call) -> None:
    body = call.update_framework
    if body is not None:
        frameworks.update(state, framework, body.framework_info, tuple(body.suppressed_roles))


def _request(state: State, _framework: Framework, _call: Call) -> None:
    state.counters["messages_resource_request"] += 1


CallHandler: TypeAlias = Callable[[State, Framework, Call], None]
CALL_HANDLERS: dict[str, CallHandler] = {
    "ACCEPT": _accept,
    "DECLINE": _decline,
    "REVIVE": _revive,
    "SUPPRESS": _suppress,
    "KILL": _kill,
    "ACKNOWLEDGE": _acknowledge,
    "RECONCILE": _reconcile,
    "RECONCILE_OPERATIONS": _reconcile_operations,
    "TEARDOWN": _teardown,
    "UPDATE_FRAMEWORK": _update,
    "REQUEST": _request,
}
"""The calls that have an effect here. Inverse offers, operations and messages have none."""


def _agent_update(state: State, event: AgentUpdate) -> None:
    agent = state.agents.get(state.links.get(event.link_id, ""))
    if agent is not None:
        agent.last_pong_at = state.now
        tasks.forward_update(state, agent, event.update)


def _agent_pong(state: State, event: AgentPong) -> None:
    agent = state.agents.get(state.links.get(event.link_id, ""))
    if agent is not None:
        agent.last_pong_at = state.now


def _stored(state: State, event: Stored) -> None:
    change = event.change
    state.registry = state.registry.apply(change)
    record = state.record(change.agent_id)
    if record is not None and record.is_draining:
        state.draining.add(change.agent_id)
    else:
        state.draining.discard(change.agent_id)
    match change:
        case Admit():
            agents.stored(state, event)
        case MarkUnreachable():
            agents.unreachable_stored(state, change)
        case Remove():
            agents.remove_stored(state, change)
        case _:
            drain.stored(state, event)


def _tick(state: State, _event: Tick) -> None:
    frameworks.tick(state)
    agents.tick(state)
    state.wants_offers = True


# `Callable[..., None]`: each handler takes the event type that is its key.
HANDLERS: dict[type, Callable[..., None]] = {
    Subscribe: frameworks.subscribe,
    StreamClosed: frameworks.stream_closed,
    SchedulerCall: _call,
    AgentRegistering: agents.register,
    AgentUpdate: _agent_update,
    AgentPong: _agent_pong,
    AgentLeaving: agents.leave,
    LinkClosed: agents.link_closed,
    Operator: drain.operate,
    Stored: _stored,
    NotStored: agents.not_stored,
    Tick: _tick,
}
"""The handler of each event type."""
