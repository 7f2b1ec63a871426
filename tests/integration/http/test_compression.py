"""Large answers are compressed for clients on other machines that take it."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from mesaform.http import HttpPort, HttpServer
from mesaform.http.compression import IN_THREAD_BYTES, MIN_BYTES, accepts_gzip

HOST, OTHER = "127.76.1.1", "127.76.1.2"
SIZES = (MIN_BYTES - 1, MIN_BYTES, IN_THREAD_BYTES * 2)


async def _answer(request: web.Request) -> web.Response:
    return web.Response(body=b"a" * int(request.query["bytes"]), content_type="application/json")


async def _stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"a" * MIN_BYTES)
    return response


@pytest.fixture
async def url() -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_get("/", _answer)
    app.router.add_get("/stream", _stream)
    server = HttpServer(app, HttpPort("test"))
    number = await server.listen(HOST, 0)
    yield f"http://{HOST}:{number}"
    await server.stop()


async def fetch(
    url: str, encoding: str = "gzip, deflate", *, source: str = OTHER, method: str = "GET"
) -> tuple[Any, bytes]:
    connector = aiohttp.TCPConnector(local_addr=(source, 0))
    async with (
        aiohttp.ClientSession(connector=connector, auto_decompress=False) as session,
        session.request(method, url, headers={"Accept-Encoding": encoding}) as response,
    ):
        return response.headers, await response.read()


@pytest.mark.parametrize("size", SIZES)
async def test_an_answer_of_a_kibibyte_or_more_is_compressed(url: str, size: int) -> None:
    headers, body = await fetch(f"{url}/?bytes={size}")
    is_large = size >= MIN_BYTES
    assert headers.get("Content-Encoding") == ("gzip" if is_large else None)
    assert int(headers["Content-Length"]) == len(body)
    assert (gzip.decompress(body) if is_large else body) == b"a" * size
    if is_large:
        assert len(body) < size / 10
        assert headers["Vary"] == "Accept-Encoding"


@pytest.mark.parametrize(
    ("encoding", "source", "path", "method"),
    [
        ("identity", OTHER, "/?bytes=9000", "GET"),
        ("gzip;q=0", OTHER, "/?bytes=9000", "GET"),
        ("gzip", HOST, "/?bytes=9000", "GET"),
        ("gzip", "127.0.0.1", "/?bytes=9000", "GET"),
        ("gzip", OTHER, "/stream", "GET"),
        ("gzip", OTHER, "/?bytes=9000", "HEAD"),
    ],
)
async def test_streams_and_answers_to_others_stay_as_they_are(
    url: str, encoding: str, source: str, path: str, method: str
) -> None:
    headers, body = await fetch(url + path, encoding, source=source, method=method)
    assert "Content-Encoding" not in headers
    assert set(body) <= set(b"a")


async def test_the_programs_own_clients_read_a_compressed_answer(url: str) -> None:
    connector = aiohttp.TCPConnector(local_addr=(OTHER, 0))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get(f"{url}/?bytes=9000") as response,
    ):
        assert response.headers["Content-Encoding"] == "gzip"
        assert await response.read() == b"a" * 9000


@pytest.mark.parametrize(
    ("header", "is_accepted"),
    [
        ("gzip", True),
        ("GZIP;q=0.5, br", True),
        ("br, gzip ; q=0.0", False),
        ("gzip;q=1", True),
        ("", False),
        ("xgzip", False),
    ],
)
def test_a_weight_of_0_refuses_gzip(header: str, is_accepted: bool) -> None:
    assert accepts_gzip(header) is is_accepted
