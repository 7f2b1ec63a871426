"""Raw HTTP over a socket, for requests that no client library sends."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

ANSWER_S = 60.0
"""A test fails, rather than hangs, when no answer comes."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered. `status` is 0 if it closed the connection without an answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0]


def request(
    method: str,
    path: str,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
    host: str = "127.0.0.1",
) -> bytes:
    """A whole request; an empty header value leaves the header out."""
    fields = {"Host": host, "Connection": "close"}
    if body or method in {"POST", "PUT", "PATCH"}:
        fields["Content-Length"] = str(len(body))
    fields |= headers or {}
    lines = [f"{method} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in fields.items() if v)]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


async def send(address: str, port: int, data: bytes, *, ends: bool = False) -> Answer:
    """Send bytes on a new connection and read until the server closes it."""
    reader, writer = await asyncio.open_connection(address, port)
    try:
        async with asyncio.timeout(ANSWER_S):
            received = await _exchange(reader, writer, data, ends=ends)
    finally:
        writer.close()
    return parse(received)


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes, *, ends: bool
) -> bytes:
    """Read while sending, as a server may answer before it has read everything."""

    async def write() -> None:
        try:
            writer.write(data)
            await writer.drain()
            if ends:
                writer.write_eof()
        except ConnectionError:
            pass

    task = asyncio.create_task(write())
    try:
        received = bytearray()
        while part := await reader.read(65536):
            received += part
        return bytes(received)
    except ConnectionError:
        return bytes(received)
    finally:
        task.cancel()


def parse(received: bytes) -> Answer:
    """The first answer in the bytes."""
    if not received:
        return Answer(0, {}, b"")
    head, _, body = received.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    fields = (line.partition(":") for line in lines)
    headers = {name.lower(): value.strip() for name, _, value in fields}
    return Answer(int(first.split(" ")[1]), headers, body)
