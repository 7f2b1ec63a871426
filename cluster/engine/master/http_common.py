"""What the HTTP parts share: plain answers, the checks of a body, what the client accepts."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from aiohttp import web

from mesaform.engine.master.parse import BadMessage, parse_body
from mesaform.mesos.messages import Message

M = TypeVar("M", bound=Message)

JSON = "application/json"
PROTOBUF = "application/x-protobuf"
RECORDIO = "application/recordio"
NOT_ACCEPTABLE = f"Expecting 'Accept' to allow '{PROTOBUF}' or '{JSON}'"


def text(status: int, body: str) -> web.Response:
    return web.Response(status=status, text=body)


def empty(status: int, headers: dict[str, str] | None = None) -> web.Response:
    """No body and no content type, as Mesos sends them."""
    response = web.Response(status=status, headers=headers)
    response.headers.popall("Content-Type", None)
    return response


def document(body: Any) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), content_type=JSON)


def not_post(request: web.Request) -> web.Response | None:
    if request.method == "POST":
        return None
    response = text(
        405,
        f"405 Method Not Allowed. Expecting one of {{ 'POST' }}, but received '{request.method}'.",
    )
    response.headers["Allow"] = "POST"
    return response


async def read_call(request: web.Request, of: type[M]) -> M | web.Response:
    """The call in the body, or the answer that says what is wrong with it."""
    kind = request.headers.get("Content-Type")
    if kind is None:
        return text(400, "Expecting 'Content-Type' to be present")
    kind = kind.partition(";")[0].strip().lower()
    if kind == PROTOBUF:
        return text(
            415,
            f"The embedded engine takes 'Content-Type' of {JSON} only, {PROTOBUF} is not supported yet",
        )
    if kind != JSON:
        return text(415, f"Expecting 'Content-Type' of {JSON} or {PROTOBUF}")
    try:
        return parse_body(await request.read(), of)
    except BadMessage as error:
        return text(400, str(error))


def accepts(request: web.Request, kind: str, header: str = "Accept") -> bool:
    """Whether the client takes this media type; it does when it does not say."""
    wanted = request.headers.get(header)
    if not wanted:
        return True
    ranges = {one.partition(";")[0].strip().lower() for one in wanted.split(",")}
    return bool(ranges & {kind, "*/*", kind.partition("/")[0] + "/*"})


async def open_stream(request: web.Request, headers: dict[str, str]) -> web.StreamResponse:
    """A 200 whose records follow, chunked."""
    response = web.StreamResponse(status=200, headers=headers)
    response.enable_chunked_encoding()
    await response.prepare(request)
    return response


def cutter(request: web.Request) -> Any:
    """What drops the connection without waiting for the other side."""

    def cut() -> None:
        if request.transport is not None:
            request.transport.abort()

    return cut
