"""POST /api/v1/scheduler: checks in Mesos' order, then the core.

The core's events go out on the framework's stream. The order of the checks is that of
Master::Http::scheduler and validation::scheduler::call of Mesos.
"""

from __future__ import annotations

import uuid

import msgspec
from aiohttp import web

from mesaform.engine.master.authentication import (
    CHALLENGE,
    FrameworkAuthenticator,
    Unauthenticated,
)
from mesaform.engine.master.events import SchedulerCall, Subscribe
from mesaform.engine.master.frameworks import invalid_change, unauthorized
from mesaform.engine.master.http_common import (
    JSON,
    NOT_ACCEPTABLE,
    accepts,
    disconnector,
    empty,
    not_post,
    open_stream,
    read_call,
    text,
)
from mesaform.engine.master.state import Framework, State
from mesaform.engine.master.streams import Stream
from mesaform.engine.master.term import Term
from mesaform.engine.validation.names import invalid_uuid
from mesaform.engine.validation.support import unsupported_accept
from mesaform.mesos.messages import Id
from mesaform.mesos.scheduler_api import (
    CALL_TYPES_WITH_BODY,
    Acknowledge,
    AcknowledgeOperationStatus,
    Call,
    UpdateFramework,
)
from mesaform.mesos.scheduler_api import Subscribe as SubscribeBody

STREAM_ID = "Mesos-Stream-Id"


async def answer_call(
    request: web.Request, term: Term, authenticator: FrameworkAuthenticator
) -> web.StreamResponse:
    """Answer a call of the scheduler API on a leading master."""
    try:
        principal = authenticator.principal_of(request.headers.get("Authorization"))
        return await _answer(request, term, authenticator, principal)
    except Unauthenticated:
        return web.Response(status=401, text="401 Unauthorized.", headers=CHALLENGE)


async def _answer(
    request: web.Request,
    term: Term,
    authenticator: FrameworkAuthenticator,
    principal: str | None,
) -> web.StreamResponse:
    refusal = not_post(request)
    if refusal is not None:
        return refusal
    call = await read_call(request, Call)
    if isinstance(call, web.Response):
        return call
    problem = invalid_call(call)
    if problem is not None:
        return text(400, f"Failed to validate scheduler::Call: {problem}")
    if call.type == "SUBSCRIBE" and call.subscribe is not None:
        problem = authenticator.check(principal, call.subscribe.framework_info.principal)
        if problem is not None:
            return text(400, f"Failed to validate scheduler::Call: {problem}")
        return await _subscribe(request, term, call.subscribe, principal)
    return _feed_known(request, term, call, authenticator, principal)


def _feed_known(
    request: web.Request,
    term: Term,
    call: Call,
    authenticator: FrameworkAuthenticator,
    principal: str | None,
) -> web.Response:
    """Feed a call of a framework that subscribed, if the caller has its principal."""
    if call.type == "RECONCILE_OPERATIONS" and not accepts(request, JSON):
        return text(406, NOT_ACCEPTABLE)
    framework_id = call.framework_id.value if call.framework_id is not None else ""
    framework = term.core.state.frameworks.get(framework_id)
    if framework is None:
        return text(400, "Framework cannot be found")
    problem = authenticator.check(principal, framework.info.principal or "")
    if problem is not None:
        return text(400, problem)
    return _feed(request, term, call, framework)


def invalid_call(call: Call) -> str | None:
    """Why a parsed call is invalid; None when it is valid."""
    if call.type is None:
        return "Expecting 'type' to be present"
    if call.type == "SUBSCRIBE":
        return _invalid_subscribe(call)
    if call.framework_id is None:
        return "Expecting 'framework_id' to be present"
    name = call.type.lower()
    if call.type in CALL_TYPES_WITH_BODY and getattr(call, name) is None:
        return f"Expecting '{name}' to be present"
    return _invalid_body(call)


def _invalid_subscribe(call: Call) -> str | None:
    if call.subscribe is None:
        return "Expecting 'subscribe' to be present"
    if _id_text(call.subscribe.framework_info.id) != _id_text(call.framework_id):
        return "'framework_id' differs from 'subscribe.framework_info.id'"
    return None


def _id_text(framework_id: Id | None) -> str:
    """An absent id equals an empty one, as in protobuf."""
    return framework_id.value if framework_id is not None else ""


def _invalid_body(call: Call) -> str | None:
    """Why the body that the call's type names is invalid. Other bodies have no effect."""
    match call:
        case Call(type="ACKNOWLEDGE", acknowledge=Acknowledge(uuid=uuid_)):
            return invalid_uuid(uuid_)
        case Call(
            type="ACKNOWLEDGE_OPERATION_STATUS",
            acknowledge_operation_status=AcknowledgeOperationStatus() as operation,
        ):
            missing = "Expecting 'agent_id' to be present" if operation.agent_id is None else None
            return invalid_uuid(operation.uuid) or missing
        case Call(type="UPDATE_FRAMEWORK", update_framework=UpdateFramework() as update):
            if _id_text(update.framework_info.id) != _id_text(call.framework_id):
                return "'framework_id' differs from 'update_framework.framework_info.id'"
    return None


async def _subscribe(
    request: web.Request, term: Term, body: SubscribeBody, principal: str | None
) -> web.StreamResponse:
    if not accepts(request, JSON):
        return text(406, NOT_ACCEPTABLE)
    if STREAM_ID in request.headers:
        return text(400, f"Subscribe calls should not include the '{STREAM_ID}' header")
    stream_id = str(uuid.uuid4())
    response = await open_stream(request, {"Content-Type": JSON, STREAM_ID: stream_id})
    stream = Stream(disconnector(request))
    term.streams[stream_id] = stream
    info = body.framework_info
    if principal is not None and info.principal is None:
        info = msgspec.structs.replace(info, principal=principal)
    framework_id = (info.id.value or None) if info.id is not None else None
    try:
        term.handle(
            Subscribe(
                stream_id, info, framework_id, tuple(body.suppressed_roles), body.offer_constraints
            )
        )
        if term.is_over:
            stream.finish()
        await stream.pump(response)
    finally:
        term.stream_closed(stream_id)
    return response


def _feed(request: web.Request, term: Term, call: Call, framework: Framework) -> web.Response:
    refusal = _wrong_stream(request, framework)
    if refusal is None:  # a response is falsy, so `or` does not do
        refusal = _refused(term.core.state, framework, call)
    if refusal is not None:
        return refusal
    term.handle(SchedulerCall(framework.id, call))
    return empty(200 if call.type == "UPDATE_FRAMEWORK" else 202)


def _wrong_stream(request: web.Request, framework: Framework) -> web.Response | None:
    if framework.stream_id is None:
        return text(403, "Framework is not subscribed")
    stream_id = request.headers.get(STREAM_ID)
    if stream_id is None:
        return text(400, f"All non-subscribe calls should include the '{STREAM_ID}' header")
    if stream_id != framework.stream_id:
        return text(
            400,
            f"The stream ID '{stream_id}' included in this request didn't match the stream ID "
            f"currently associated with framework ID {framework.id}",
        )
    return None


def _refused(state: State, framework: Framework, call: Call) -> web.Response | None:
    """The answer to a call that this engine does not carry out."""
    if call.type == "UNKNOWN":
        return text(501, "")
    if call.type == "UPDATE_FRAMEWORK" and call.update_framework is not None:
        return _refused_change(state, framework, call.update_framework)
    if call.type == "ACCEPT" and call.accept is not None:
        problem = unsupported_accept(call.accept)
        return None if problem is None else text(400, problem)
    return None


def _refused_change(
    state: State, framework: Framework, update: UpdateFramework
) -> web.Response | None:
    if (problem := invalid_change(framework, update)) is not None:
        return text(400, problem)
    denied = unauthorized(state, framework.id, update.framework_info)
    return None if denied is None else text(403, denied)
