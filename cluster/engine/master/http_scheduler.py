"""POST /api/v1/scheduler: the checks in Mesos' order, then the core. Its answers go out on the framework's stream."""

from __future__ import annotations

import uuid

from aiohttp import web

from mesaform.engine.master.events import SchedulerCall, Subscribe
from mesaform.engine.master.frameworks import invalid_change
from mesaform.engine.master.http_common import (
    JSON,
    NOT_ACCEPTABLE,
    accepts,
    cutter,
    empty,
    not_post,
    open_stream,
    read_call,
    text,
)
from mesaform.engine.master.streams import Stream
from mesaform.engine.master.term import Term
from mesaform.mesos.scheduler_api import CALL_TYPES_WITH_BODY, Call
from mesaform.mesos.scheduler_api import Subscribe as SubscribeCall

STREAM_ID = "Mesos-Stream-Id"
UUID_BYTES = 16


async def scheduler(request: web.Request, term: Term) -> web.StreamResponse:
    """One call of the scheduler API, on a leading master."""
    refused = not_post(request)
    if refused is not None:
        return refused
    call = await read_call(request, Call)
    if isinstance(call, web.Response):
        return call
    problem = invalid(call)
    if problem is not None:
        return text(400, f"Failed to validate scheduler::Call: {problem}")
    if call.type == "SUBSCRIBE" and call.subscribe is not None:
        return await _subscribe(request, term, call.subscribe)
    return _call(
        request, term, call, call.framework_id.value if call.framework_id is not None else ""
    )


def invalid(call: Call) -> str | None:
    """Why a parsed call is no valid call, or None."""
    if call.type is None:
        return "Expecting 'type' to be present"
    body = call.type.lower()
    if call.type == "SUBSCRIBE":
        if call.subscribe is None:
            return "Expecting 'subscribe' to be present"
        inner = call.subscribe.framework_info.id
        return (
            None
            if inner == call.framework_id
            else "'framework_id' differs from 'subscribe.framework_info.id'"
        )
    if call.framework_id is None:
        return "Expecting 'framework_id' to be present"
    if call.type in CALL_TYPES_WITH_BODY and getattr(call, body) is None:
        return f"Expecting '{body}' to be present"
    if call.acknowledge is not None and len(call.acknowledge.uuid) != UUID_BYTES:
        return "Not a valid UUID"
    if (
        call.update_framework is not None
        and call.update_framework.framework_info.id != call.framework_id
    ):
        return "'framework_id' differs from 'update_framework.framework_info.id'"
    return None


async def _subscribe(request: web.Request, term: Term, call: SubscribeCall) -> web.StreamResponse:
    if not accepts(request, JSON):
        return text(406, NOT_ACCEPTABLE)
    if STREAM_ID in request.headers:
        return text(400, f"Subscribe calls should not include the '{STREAM_ID}' header")
    stream_id = str(uuid.uuid4())
    response = await open_stream(request, {"Content-Type": JSON, STREAM_ID: stream_id})
    stream = Stream(cutter(request))
    term.streams[stream_id] = stream
    info = call.framework_info
    framework_id = (info.id.value or None) if info.id is not None else None
    try:
        term.handle(Subscribe(stream_id, info, framework_id, tuple(call.suppressed_roles)))
        if term.over:
            stream.finish()
        await stream.pump(response)
    finally:
        term.stream_closed(stream_id)
    return response


def _call(request: web.Request, term: Term, call: Call, framework_id: str) -> web.Response:
    framework = term.core.state.frameworks.get(framework_id)
    if framework is None:
        return text(400, "Framework cannot be found")
    if framework.stream_id is None:
        return text(403, "Framework is not subscribed")
    stream_id = request.headers.get(STREAM_ID)
    if stream_id is None:
        return text(400, f"All non-subscribe calls should include the '{STREAM_ID}' header")
    if stream_id != framework.stream_id:
        return text(
            400,
            f"The stream ID '{stream_id}' included in this request didn't match the stream ID currently associated with "
            f"framework ID {framework.id}",
        )
    if call.update_framework is not None and call.type == "UPDATE_FRAMEWORK":
        problem = invalid_change(framework.info, call.update_framework.framework_info)
        if problem is not None:
            return text(400, problem)
    term.handle(SchedulerCall(framework.id, call))
    return empty(200 if call.type == "UPDATE_FRAMEWORK" else 202)
