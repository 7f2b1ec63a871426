"""HTTP entry point of the endpoint: the local cloud's own routes, and AWS for everything else.

A request is read whole within the port's limits before anything happens. Calls are executed by one
thread; what waits, waits here: long polls and delayed responses hold no thread. Depends on aiohttp.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import replace
from typing import TypeVar

import structlog
from aiohttp import web
from multidict import CIMultiDict

from mesaform.http import BadRequest, HttpPort, Limits, read_body
from mesaform.http.errors import ErrorBody
from mesaform.localcloud import calls, error_responses
from mesaform.localcloud.aws_api import AwsApi
from mesaform.localcloud.aws_request import AwsRequest
from mesaform.localcloud.calls import Call
from mesaform.localcloud.changes import ChangeSignal
from mesaform.localcloud.control import Control
from mesaform.localcloud.error_responses import Answer, ErrorForm, Fault
from mesaform.localcloud.protocol import PREFIX
from mesaform.localcloud.signatures import Signature, parse_signature

log = structlog.get_logger(__name__)
T = TypeVar("T")
RECEIVE_INTERVAL_S = 0.5
"""How often a waiting ReceiveMessage looks for messages when nothing else wakes it."""
MAX_BODY_BYTES = 64 * 1024 * 1024
"""The largest object that one request uploads; SDKs split above 8 MiB."""
_DROPPED = frozenset(
    {"connection", "content-length", "date", "keep-alive", "server", "transfer-encoding"}
)
"""Headers that the server sets itself."""


def render_error(status: int, message: str) -> ErrorBody:
    """An error of the HTTP boundary, which knows no AWS service, in S3's form."""
    codes = {413: "EntityTooLarge", 408: "RequestTimeout", 421: "PermanentRedirect"}
    code = codes.get(status, "AccessDenied" if status == 403 else "InvalidRequest")
    if status >= 500:
        code = "InternalError"
    answer = error_responses.error(ErrorForm.S3, Fault(status, code, message))
    return ErrorBody(answer.body, error_responses.XML_TYPE)


PORT = HttpPort(
    name="local",
    limits=Limits(body_bytes=MAX_BODY_BYTES, idle_s=120.0),
    render_error=render_error,
)


class Gateway:
    """Answers the requests of the endpoint's port."""

    def __init__(
        self, api: AwsApi, control: Control, changes: ChangeSignal, executor: Executor
    ) -> None:
        self._api = api
        self._control = control
        self._changes = changes
        self._executor = executor

    def application(self) -> web.Application:
        """The application of the port."""
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_route("*", "/{path:.*}", self._handle)
        return app

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if not request.raw_path.startswith("/"):
            raise BadRequest("The request target must begin with '/'")
        headers = tuple((name, value) for name, value in request.headers.items())
        head = AwsRequest(request.method, request.raw_path, headers)
        if head.path.startswith(PREFIX + "/"):
            return _response(await self._control.answer(request, head))
        return _response(await self._aws(request, head))

    async def _aws(self, request: web.Request, head: AwsRequest) -> Answer:
        """The answer to an AWS call; the body of a caller without a key is not read."""
        signature = parse_signature(head)
        call = calls.classify(head, signature)
        form = error_responses.form_of(call.service if signature else "", head)
        if (refusal := await self._run(self._api.refuse_caller, signature, form)) is not None:
            return refusal
        body = await read_body(request, decompresses=False)
        whole = replace(head, body=body)
        call = calls.classify(whole, signature)
        if call.service == "sqs" and call.action == "ReceiveMessage":
            return await self._receive(request, call, whole, signature)
        answer, delay_s = await self._run(self._api.execute, call, whole, signature)
        if delay_s:
            log.info("call.response_delayed", action=call.action, seconds=delay_s)
            await asyncio.sleep(delay_s)
        return answer

    async def _receive(
        self, request: web.Request, call: Call, whole: AwsRequest, signature: Signature | None
    ) -> Answer:
        """ReceiveMessage: moto would wait in the thread of all calls, so it is asked repeatedly."""
        form = error_responses.form_of(call.service, whole)
        refusal = await self._run(self._api.refuse_request, whole, signature, form)
        if refusal is not None:
            return refusal
        try:
            wait_s, body = calls.without_wait(whole)
        except calls.InvalidWait as error:
            return error_responses.error(form, Fault(400, "InvalidParameterValue", str(error)))
        asked = replace(whole, body=body)
        until = time.monotonic() + wait_s
        while True:
            ticket = self._changes.ticket()
            answer, is_final = await self._run(self._api.receive, call, asked)
            remaining_s = until - time.monotonic()
            if is_final or remaining_s <= 0 or _is_gone(request):
                return answer
            await self._changes.wait(ticket, min(remaining_s, RECEIVE_INTERVAL_S))

    async def _run(self, function: Callable[..., T], *arguments: object) -> T:
        """Run a function in the thread that calls moto."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, lambda: function(*arguments))


def _is_gone(request: web.Request) -> bool:
    """Whether the client has closed the connection."""
    return request.transport is None or request.transport.is_closing()


def _response(answer: Answer) -> web.Response:
    headers: CIMultiDict[str] = CIMultiDict()
    for name, value in answer.headers:
        is_header_of_browsers = name.lower().startswith("access-control-")
        if name.lower() not in _DROPPED and not is_header_of_browsers:
            headers.add(_one_line(name), _one_line(value))
    if not answer.body and (length := _stated_length(answer)):
        headers["Content-Length"] = length
    return web.Response(status=answer.status, headers=headers, body=answer.body)


def _stated_length(answer: Answer) -> str:
    """The length that moto states for HEAD: the object's size."""
    return next((value for name, value in answer.headers if name.lower() == "content-length"), "")


def _one_line(text: str) -> str:
    """The text without control characters, which could begin another header."""
    return "".join(item if item.isprintable() else " " for item in text)
