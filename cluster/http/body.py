"""The body of a request, read within the port's limits of size and time.

Handlers read bodies only with these functions. Depends on aiohttp and msgspec.
"""

from __future__ import annotations

import asyncio
import zlib
from typing import TypeVar, overload

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from mesaform.http import json_limits
from mesaform.http.connection import Connection
from mesaform.http.errors import BadRequest
from mesaform.http.port import HttpPort, Limits

T = TypeVar("T")

PORT = web.RequestKey("http_port", HttpPort)
"""The port on which a request arrived."""
_DEFAULT_LIMITS = Limits()
_GZIP = frozenset({"gzip", "x-gzip"})
_PIECE_BYTES = 256 * 1024


def limits_of(request: web.BaseRequest) -> Limits:
    """The limits of the request's port."""
    port = request.get(PORT)
    return port.limits if port is not None else _DEFAULT_LIMITS


async def read_body(
    request: web.Request, *, max_bytes: int | None = None, decompresses: bool = True
) -> bytes:
    """The whole body, decompressed. A second call gives the same bytes.

    Args:
        request: the request.
        max_bytes: a limit in place of the port's.
        decompresses: false gives the body as it was sent, such as an object of S3.

    Raises:
        BadRequest: 413 for a body that is too large as sent or decompressed, 408 for one that
            comes too slowly, 400 for one that is broken, 415 for an unknown compression.

    """
    if _BODY in request:
        return request[_BODY]
    limits = limits_of(request)
    max_body_bytes = max_bytes or limits.body_bytes
    decoder = _decoder(request, max_body_bytes) if decompresses else _Plain(max_body_bytes)
    connection = request.protocol
    if isinstance(connection, Connection):
        connection.is_receiving = True
    try:
        async with asyncio.timeout(limits.body_s):
            await _feed(request, decoder, limits.stall_s)
    except TimeoutError:
        raise BadRequest("The body was not sent in time", 408, closes=True) from None
    except (web.RequestPayloadError, HttpProcessingError):
        raise BadRequest("The body is not framed as HTTP/1.1 demands", closes=True) from None
    finally:
        if isinstance(connection, Connection):
            connection.is_receiving = False
    body = decoder.finish()
    request[_BODY] = body
    return body


async def read_json(
    request: web.Request, *, max_bytes: int | None = None, large_integers: bool = False
) -> bytes:
    """The body as a JSON text within the limits of elements, depth and integers.

    Whether it is JSON shows the decoder. `large_integers` allows integers of more than 64 bits, for
    a reader that takes them as Mesos does.

    Raises:
        BadRequest: as `read_body` and `json_limits.check`.

    """
    text = await read_body(request, max_bytes=max_bytes)
    limits = limits_of(request)
    json_limits.check_shape(text, max_elements=limits.json_elements, max_depth=limits.json_depth)
    if not large_integers:
        json_limits.check_integers(text)
    return text


@overload
async def decode_json(request: web.Request) -> object: ...
@overload
async def decode_json(request: web.Request, of: type[T]) -> T: ...
async def decode_json(request: web.Request, of: object = object) -> object:
    """The body's JSON as a value of the type `of`; without a type, as plain values.

    Raises:
        BadRequest: as `read_json`; 400 for a text that is not such JSON.

    """
    text = await read_json(request)
    try:
        if of is object:
            return msgspec.json.decode(text)
        return msgspec.json.decode(text, type=of)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise BadRequest(f"Failed to parse the body as JSON: {str(error)[:500]}") from None


class _Plain:
    """A body that is not compressed."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._content = bytearray()

    def add(self, data: bytes) -> None:
        self._content += data
        if len(self._content) > self._max_bytes:
            raise too_large(self._max_bytes)

    def finish(self) -> bytes:
        return bytes(self._content)


class _Compressed:
    """A gzip or zlib body, expanded piece by piece up to the limit."""

    def __init__(self, max_bytes: int, *, window_bits: int) -> None:
        self._plain = _Plain(max_bytes)
        self._window_bits = window_bits
        self._member = zlib.decompressobj(window_bits)
        self._is_empty = True

    def add(self, data: bytes) -> None:
        try:
            while data:
                self._is_empty = False
                if self._member.eof:  # a gzip body may have several members
                    self._member = zlib.decompressobj(self._window_bits)
                self._plain.add(self._member.decompress(data, _PIECE_BYTES))
                data = self._member.unconsumed_tail or self._member.unused_data
        except zlib.error:
            raise _broken() from None

    def finish(self) -> bytes:
        if not self._is_empty and not self._member.eof:
            raise _broken()
        return self._plain.finish()


_BODY = web.RequestKey("body", bytes)
_Decoder = _Plain | _Compressed


def _decoder(request: web.Request, max_bytes: int) -> _Decoder:
    if (request.content_length or 0) > max_bytes:
        raise too_large(max_bytes)
    encoding = ",".join(request.headers.getall("Content-Encoding", ())).strip().lower()
    if encoding in {"", "identity"}:
        return _Plain(max_bytes)
    if encoding in _GZIP:
        return _Compressed(max_bytes, window_bits=16 + zlib.MAX_WBITS)
    if encoding == "deflate":
        return _Compressed(max_bytes, window_bits=zlib.MAX_WBITS)
    raise BadRequest("Expecting 'Content-Encoding' of gzip, deflate or identity", 415)


async def _feed(request: web.Request, decoder: _Decoder, stall_s: float) -> None:
    content = request.content
    while not content.at_eof():
        async with asyncio.timeout(stall_s):
            data = await content.readany()
        decoder.add(data)


def too_large(max_bytes: int) -> BadRequest:
    """The refusal of a body above the limit."""
    return BadRequest(f"The body is larger than {max_bytes} bytes", 413)


def _broken() -> BadRequest:
    return BadRequest("Failed to decompress the body", 400)
