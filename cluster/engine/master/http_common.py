"""Helpers of the HTTP endpoints: plain answers, checks of a request, and open streams."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec
from aiohttp import web

from mesaform.engine.master.parse import BadMessage, parse_body
from mesaform.http import mark_stream, read_json
from mesaform.mesos.messages import Message

M = TypeVar("M", bound=Message)

JSON = "application/json"
PROTOBUF = "application/x-protobuf"
RECORDIO = "application/recordio"
NOT_ACCEPTABLE = f"Expecting 'Accept' to allow '{PROTOBUF}' or '{JSON}'"


def text(status: int, body: str) -> web.Response:
    """An answer in plain text."""
    return web.Response(status=status, text=body)


def empty(status: int, headers: dict[str, str] | None = None) -> web.Response:
    """An answer without body and content type, as Mesos sends them."""
    response = web.Response(status=status, headers=headers)
    response.headers.popall("Content-Type", None)
    return response


def document(body: object) -> web.Response:
    """An answer in JSON."""
    return web.Response(body=msgspec.json.encode(body), content_type=JSON)


def not_post(request: web.Request) -> web.Response | None:
    """The refusal of a request that is not POST."""
    if request.method == "POST":
        return None
    response = text(
        405,
        f"405 Method Not Allowed. Expecting one of {{ 'POST' }}, but received '{request.method}'.",
    )
    response.headers["Allow"] = "POST"
    return response


async def read_call(request: web.Request, message: type[M]) -> M | web.Response:
    """The call in the body, or the answer that says why it cannot be read."""
    content_type = request.headers.get("Content-Type")
    if content_type is None:
        return text(400, "Expecting 'Content-Type' to be present")
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == PROTOBUF:
        return text(
            415,
            f"The embedded engine takes 'Content-Type' of {JSON} only, "
            f"{PROTOBUF} is not supported yet",
        )
    if media_type != JSON:
        return text(415, f"Expecting 'Content-Type' of {JSON} or {PROTOBUF}")
    try:
        return parse_body(await read_json(request, large_integers=True), message)
    except BadMessage as error:
        return text(400, str(error))


def accepts(request: web.Request, media_type: str, header: str = "Accept") -> bool:
    """Whether the client takes this media type. Without the header it takes any."""
    wanted = request.headers.get(header)
    if not wanted:
        return True
    ranges = {entry.partition(";")[0].strip().lower() for entry in wanted.split(",")}
    return bool(ranges & {media_type, "*/*", media_type.partition("/")[0] + "/*"})


async def open_stream(request: web.Request, headers: dict[str, str]) -> web.StreamResponse:
    """A chunked answer of status 200 to which records can be written."""
    mark_stream(request)
    response = web.StreamResponse(status=200, headers=headers)
    response.enable_chunked_encoding()
    await response.prepare(request)
    return response


def disconnector(request: web.Request) -> Callable[[], None]:
    """A function that drops the request's connection without waiting for the peer."""

    def disconnect() -> None:
        if request.transport is not None:
            request.transport.abort()

    return disconnect
