"""POST /api/v1: the operator API.

Reads are rendered from the state of the core. Calls that change something go through the core.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from aiohttp import web

from mesaform.common.errors import MesaformError
from mesaform.engine.documents import Document
from mesaform.engine.master.agent_calls import why_refused
from mesaform.engine.master.http_common import (
    JSON,
    NOT_ACCEPTABLE,
    RECORDIO,
    accepts,
    disconnector,
    document,
    empty,
    not_post,
    open_stream,
    read_call,
    text,
)
from mesaform.engine.master.render import (
    agents_json,
    frameworks_json,
    roles_json,
    state_json,
    tasks_json,
)
from mesaform.engine.master.streams import Stream, record
from mesaform.engine.master.term import HEARTBEAT, HEARTBEAT_S, Term
from mesaform.http import callers
from mesaform.mesos.operator_api import CALL_TYPES_WITH_BODY, OperatorCall
from mesaform.topology.instance_identity import IDENTITY_HEADER, InstanceVerifier


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """What the process knows beside the core, each read at the time of the call.

    `verifier` verifies callers on machines of agents.
    """

    version: Callable[[], Document]
    flags: Callable[[], dict[str, str]]
    metrics: Callable[[], dict[str, float]]
    master: Callable[[], Document]
    verifier: InstanceVerifier | None = None


@dataclass(frozen=True, slots=True)
class _Operation:
    """The arguments of `Term.operate`."""

    target: str
    max_grace_s: float | None = None
    mark_gone: bool = False


async def answer_call(request: web.Request, term: Term, facts: ProcessFacts) -> web.StreamResponse:
    """Answer a call of the operator API on a leading master."""
    refusal = not_post(request)
    if refusal is not None:
        return refusal
    call = await read_call(request, OperatorCall)
    if isinstance(call, web.Response):
        return call
    problem = _invalid(call)
    if problem is not None:
        return text(400, f"Failed to validate master::Call: {problem}")
    if call.type == "SUBSCRIBE":
        return await _subscribe(request, term)
    if not accepts(request, JSON):
        return text(406, NOT_ACCEPTABLE)
    return await _answer(request, term, facts, call)


async def _answer(
    request: web.Request, term: Term, facts: ProcessFacts, call: OperatorCall
) -> web.Response:
    type_ = call.type or ""
    if type_ in _READS:
        return document({"type": type_} | _READS[type_](term, facts))
    operation = _operation(call)
    if operation is None:
        return text(501, f"The embedded engine has no {type_} yet")
    sources, proof = callers(request), request.headers.get(IDENTITY_HEADER, "")
    why = why_refused(term.core.state, facts.verifier, sources, proof, (type_, operation.target))
    return text(403, why) if why else await _operate(term, type_, operation)


async def _operate(term: Term, type_: str, operation: _Operation) -> web.Response:
    try:
        reply = await term.operate(
            type_,
            operation.target,
            max_grace_s=operation.max_grace_s,
            mark_gone=operation.mark_gone,
        )
    except MesaformError as error:
        return text(503, str(error))
    return text(reply.status, reply.text) if reply.text else empty(reply.status)


def _invalid(call: OperatorCall) -> str | None:
    if call.type is None:
        return "Expecting 'type' to be present"
    name = call.type.lower()
    if call.type in CALL_TYPES_WITH_BODY and getattr(call, name) is None:
        return f"Expecting '{name}' to be present"
    return None


def _operation(call: OperatorCall) -> _Operation | None:
    """The operation of a call that changes something; None for one that is not supported."""
    match call.type:
        case "DRAIN_AGENT" if call.drain_agent is not None:
            grace = call.drain_agent.max_grace_period
            grace_s = grace.seconds + grace.nanos / 1e9 if grace is not None else None
            agent_id = call.drain_agent.agent_id.value
            return _Operation(agent_id, grace_s, call.drain_agent.mark_gone)
        case "TEARDOWN" if call.teardown is not None:
            return _Operation(call.teardown.framework_id.value)
        case "DEACTIVATE_AGENT" | "REACTIVATE_AGENT" | "MARK_AGENT_GONE":
            return _Operation(getattr(call, call.type.lower()).agent_id.value)
    return None


def _entries(values: Mapping[str, object]) -> list[Document]:
    return [{"name": name, "value": value} for name, value in values.items()]


_Read: TypeAlias = Callable[[Term, ProcessFacts], Document]


def _constant(body: Document) -> _Read:
    return lambda _term, _facts: body


_READS: dict[str, _Read] = {
    "GET_HEALTH": _constant({"get_health": {"healthy": True}}),
    "GET_VERSION": lambda _term, facts: {"get_version": {"version_info": facts.version()}},
    "GET_FLAGS": lambda _term, facts: {"get_flags": {"flags": _entries(facts.flags())}},
    "GET_METRICS": lambda _term, facts: {"get_metrics": {"metrics": _entries(facts.metrics())}},
    "GET_LOGGING_LEVEL": _constant({"get_logging_level": {"level": 0}}),
    "GET_STATE": lambda term, _facts: {"get_state": state_json(term.core.state)},
    "GET_AGENTS": lambda term, _facts: {"get_agents": agents_json(term.core.state)},
    "GET_FRAMEWORKS": lambda term, _facts: {"get_frameworks": frameworks_json(term.core.state)},
    "GET_EXECUTORS": _constant({"get_executors": {"executors": []}}),
    "GET_OPERATIONS": _constant({"get_operations": {}}),
    "GET_TASKS": lambda term, _facts: {"get_tasks": tasks_json(term.core.state)},
    "GET_ROLES": lambda term, _facts: {"get_roles": roles_json(term.core.state)},
    "GET_WEIGHTS": _constant({}),
    "GET_MASTER": lambda _term, facts: {"get_master": facts.master()},
    "GET_MAINTENANCE_STATUS": _constant({"get_maintenance_status": {"status": {}}}),
    "GET_MAINTENANCE_SCHEDULE": _constant({"get_maintenance_schedule": {"schedule": {}}}),
    "GET_QUOTA": _constant({"get_quota": {"status": {}}}),
}
"""The reads. An empty body means that nothing was ever set, as in Mesos."""


async def _subscribe(request: web.Request, term: Term) -> web.StreamResponse:
    headers = {"Content-Type": JSON}
    if not accepts(request, JSON):
        if not accepts(request, RECORDIO) or not accepts(request, JSON, "Message-Accept"):
            return text(406, NOT_ACCEPTABLE)
        headers = {"Content-Type": RECORDIO, "Message-Content-Type": JSON}
    response = await open_stream(request, headers)
    stream = Stream(disconnector(request))
    subscribed: Document = {
        "get_state": state_json(term.core.state),
        "heartbeat_interval_seconds": HEARTBEAT_S,
    }
    stream.push(record({"type": "SUBSCRIBED", "subscribed": subscribed}))
    stream.push(record(HEARTBEAT))
    term.subscribers.add(stream)
    if term.is_over:
        stream.finish()
    try:
        await stream.pump(response)
    finally:
        term.subscribers.discard(stream)
    return response
