"""Compression of large answers for clients on other machines.

The autoscaler reads every task of the leading master at each pass, and in most clusters from
another availability zone, where each GB costs money. Mesos compresses from the same size on
(libprocess, `GZIP_MINIMUM_BODY_LENGTH`). Depends on aiohttp and zlib.
"""

from __future__ import annotations

import asyncio
import re
import zlib

from aiohttp import web

MIN_BYTES = 1024
LEVEL = 1
"""The fastest one: JSON of tasks becomes about a tenth of its size."""
IN_THREAD_BYTES = 64 * 1024
"""Larger bodies are compressed in a thread, so that the event loop goes on."""
_NO_WEIGHT = re.compile(r"q\s*=\s*0(\.0*)?")
_GZIP_WINDOW = 16 + zlib.MAX_WBITS
_LOCALHOSTS = frozenset({"127.0.0.1", "::1"})


async def compress_answer(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Compress the body of an answer that is not sent yet, where that is of use.

    Streams, answers that are compressed already, and those to this machine itself stay.
    """
    body = _whole_body(response)
    if body is None or request.method == "HEAD" or _is_local(request):
        return
    response.headers.add("Vary", "Accept-Encoding")
    if not accepts_gzip(request.headers.get("Accept-Encoding", "")):
        return
    if len(body) < IN_THREAD_BYTES:
        compressed = _compress(body)
    else:
        compressed = await asyncio.to_thread(_compress, body)
    response.headers["Content-Encoding"] = "gzip"
    if isinstance(response, web.Response):
        response.body = compressed


def _whole_body(response: web.StreamResponse) -> bytes | None:
    """The body, where there is one of sufficient size that nobody has sent or compressed."""
    if not isinstance(response, web.Response) or response.prepared:
        return None
    body = response.body
    if not isinstance(body, bytes) or len(body) < MIN_BYTES:
        return None
    return None if "Content-Encoding" in response.headers else body


def accepts_gzip(header: str) -> bool:
    """Whether `Accept-Encoding` names gzip with a weight above 0 (RFC 9110, 12.5.3)."""
    for item in header.lower().split(","):
        name, _, weight = item.partition(";")
        if name.strip() == "gzip":
            return not _NO_WEIGHT.fullmatch(weight.strip())
    return False


def _is_local(request: web.BaseRequest) -> bool:
    transport = request.transport
    own = transport.get_extra_info("sockname") if transport is not None else None
    return request.remote in _LOCALHOSTS or (own is not None and request.remote == own[0])


def _compress(body: bytes) -> bytes:
    compressor = zlib.compressobj(LEVEL, zlib.DEFLATED, _GZIP_WINDOW)
    return compressor.compress(body) + compressor.flush()
