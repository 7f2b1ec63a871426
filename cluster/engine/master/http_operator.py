"""POST /api/v1: the operator API. Reads are rendered from the core's memory; what changes something goes through the core."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiohttp import web

from mesaform.common.errors import MesaformError
from mesaform.engine.master.http_common import (
    JSON,
    NOT_ACCEPTABLE,
    RECORDIO,
    accepts,
    cutter,
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
from mesaform.mesos.operator_api import CALL_TYPES_WITH_BODY, OperatorCall

Facts = dict[str, Callable[[], Any]]
"""What the process itself knows: `version`, `flags`, `metrics`, `master`."""


async def operator(request: web.Request, term: Term, facts: Facts) -> web.StreamResponse:
    """One call of the operator API, on a leading master."""
    refused = not_post(request)
    if refused is not None:
        return refused
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
    kind = call.type or ""
    if kind in _READS:
        return document({"type": kind} | _READS[kind](term, facts))
    change = _change(call)
    if change is None:
        return text(501, f"The embedded engine has no {kind} yet")
    try:
        reply = await term.operate(kind, change.pop("target"), **change)
    except MesaformError as error:
        return text(503, str(error))
    return text(reply.status, reply.text) if reply.text else empty(reply.status)


def _invalid(call: OperatorCall) -> str | None:
    if call.type is None:
        return "Expecting 'type' to be present"
    if call.type in CALL_TYPES_WITH_BODY and getattr(call, call.type.lower()) is None:
        return f"Expecting '{call.type.lower()}' to be present"
    return None


def _change(call: OperatorCall) -> dict[str, Any] | None:
    """The arguments of a call that changes something, or None for one that does not exist here."""
    match call.type:
        case "DRAIN_AGENT" if call.drain_agent is not None:
            grace = call.drain_agent.max_grace_period
            grace_s = grace.seconds + grace.nanos / 1e9 if grace is not None else None
            return {
                "target": call.drain_agent.agent_id.value,
                "max_grace_s": grace_s,
                "mark_gone": call.drain_agent.mark_gone,
            }
        case "TEARDOWN" if call.teardown is not None:
            return {"target": call.teardown.framework_id.value}
        case "DEACTIVATE_AGENT" | "REACTIVATE_AGENT" | "MARK_AGENT_GONE":
            return {"target": getattr(call, call.type.lower()).agent_id.value}
    return None


def _fact(
    name: str, body: str, field: str | None = None
) -> Callable[[Term, Facts], dict[str, Any]]:
    def read(_term: Term, facts: Facts) -> dict[str, Any]:
        value = facts[name]()
        return {body: {field: value} if field else value}

    return read


def _named(values: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"name": name, "value": values[name]} for name in values]


_READS: dict[str, Callable[[Term, Facts], dict[str, Any]]] = {
    "GET_HEALTH": lambda _term, _facts: {"get_health": {"healthy": True}},
    "GET_VERSION": _fact("version", "get_version", "version_info"),
    "GET_FLAGS": lambda _term, facts: {"get_flags": {"flags": _named(facts["flags"]())}},
    "GET_METRICS": lambda _term, facts: {"get_metrics": {"metrics": _named(facts["metrics"]())}},
    "GET_LOGGING_LEVEL": lambda _term, _facts: {"get_logging_level": {"level": 0}},
    "GET_STATE": lambda term, _facts: {"get_state": state_json(term.core.state)},
    "GET_AGENTS": lambda term, _facts: {"get_agents": agents_json(term.core.state)},
    "GET_FRAMEWORKS": lambda term, _facts: {"get_frameworks": frameworks_json(term.core.state)},
    "GET_EXECUTORS": lambda _term, _facts: {"get_executors": {"executors": []}},
    "GET_OPERATIONS": lambda _term, _facts: {"get_operations": {}},
    "GET_TASKS": lambda term, _facts: {"get_tasks": tasks_json(term.core.state)},
    "GET_ROLES": lambda term, _facts: {"get_roles": roles_json(term.core.state)},
    "GET_WEIGHTS": lambda _term, _facts: {},
    "GET_MASTER": _fact("master", "get_master"),
    "GET_MAINTENANCE_STATUS": lambda _term, _facts: {"get_maintenance_status": {"status": {}}},
    "GET_MAINTENANCE_SCHEDULE": lambda _term, _facts: {
        "get_maintenance_schedule": {"schedule": {}}
    },
    "GET_QUOTA": lambda _term, _facts: {"get_quota": {"status": {}}},
}


async def _subscribe(request: web.Request, term: Term) -> web.StreamResponse:
    headers = {"Content-Type": JSON}
    if not accepts(request, JSON):
        if not accepts(request, RECORDIO) or not accepts(request, JSON, "Message-Accept"):
            return text(406, NOT_ACCEPTABLE)
        headers = {"Content-Type": RECORDIO, "Message-Content-Type": JSON}
    response = await open_stream(request, headers)
    stream = Stream(cutter(request))
    subscribed = {
        "get_state": state_json(term.core.state),
        "heartbeat_interval_seconds": HEARTBEAT_S,
    }
    stream.push(record({"type": "SUBSCRIBED", "subscribed": subscribed}))
    stream.push(record(HEARTBEAT))
    term.subscribers.add(stream)
    if term.over:
        stream.finish()
    try:
        await stream.pump(response)
    finally:
        term.subscribers.discard(stream)
    return response
