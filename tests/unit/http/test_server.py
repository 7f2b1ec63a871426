"""The boundary, with a small application on a real port."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
import structlog
from aiohttp import web

from mesaform.common.errors import Busy
from mesaform.http import (
    UNHANDLED,
    AcceptedHosts,
    BadRequest,
    HttpPort,
    HttpServer,
    Limits,
    decode_json,
    integer,
    mark_stream,
    read_body,
)
from mesaform.http.errors import json_member, json_message
from tests.support.raw_http import Answer, parse, request, send

LOOPBACK = "127.0.0.1"
SMALL = Limits(body_bytes=100_000, json_elements=1000, json_depth=10, header_bytes=4000)
PORT = HttpPort("test", SMALL, json_message)
HASTY = replace(
    PORT,
    limits=replace(
        SMALL, header_s=0.2, stall_s=0.2, body_s=0.6, idle_s=0.4, blocked_s=0.4, peer_connections=20
    ),
)


def application(extra: Callable[[web.Application], object] | None = None) -> web.Application:
    app = web.Application()

    async def echo(received: web.Request) -> web.Response:
        return web.json_response(await decode_json(received))

    async def size(received: web.Request) -> web.Response:
        return web.json_response(len(await read_body(received)))

    async def number(received: web.Request) -> web.Response:
        return web.json_response(integer(received, "n", 7, minimum=-1))

    async def fail(_received: web.Request) -> web.Response:
        raise KeyError("a defect")

    async def fail_late(received: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(received)
        await response.write(b"begun")
        raise KeyError("a defect")

    async def bad_header(_received: web.Request) -> web.Response:
        return web.Response(headers={"X-Name": "a\r\nb"})

    app.router.add_post("/echo", echo)
    app.router.add_post("/size", size)
    app.router.add_get("/number", number)
    app.router.add_get("/fail", fail)
    app.router.add_get("/late", fail_late)
    app.router.add_get("/header", bad_header)
    if extra is not None:
        extra(app)
    return app


@asynccontextmanager
async def served(
    port: HttpPort = PORT,
    hosts: AcceptedHosts | None = None,
    extra: Callable[[web.Application], object] | None = None,
) -> AsyncIterator[tuple[HttpServer, Callable[..., Awaitable[Answer]]]]:
    server = HttpServer(application(extra), port, hosts)
    number = await server.listen(LOOPBACK, 0)
    try:

        async def ask(*args: Any, **named: Any) -> Answer:
            return await send(LOOPBACK, number, request(*args, **named))

        yield server, ask
    finally:
        await server.stop()


JSON_BODIES = {
    "too many elements": (b"[" + b"1," * 1001 + b"1]", 413),
    "too many members": (b'{"a":[' + b'{"a":1},' * 600 + b'{"a":1}]}', 413),
    "too deep": (b"[" * 11 + b"]" * 11, 400),
    "very deep": (b'{"a":' * 900 + b"1" + b"}" * 900, 400),
    "deep and never closed": (b"[" * 900, 400),
    "a string that does not end": (b'["' + b"x" * 50_000, 400),
    "a string that ends with a backslash": (b'["' + b'\\"' * 20_000 + b"\\", 400),
    "an integer of 400 digits": (b"[" + b"9" * 400 + b"]", 400),
    "an integer of 5,000 digits": (b"[-" + b"9" * 5000 + b"]", 400),
    "an integer of 65 bits": (b"[18446744073709551616]", 400),
    "a number beyond a double": (b"[1e400]", 400),
    "NaN": (b"[NaN]", 400),
    "not UTF-8": (b'["\xff"]', 400),
    "half a surrogate": (b'["\\ud800"]', 400),
    "nothing": (b"", 400),
    "an integer of 64 bits": (b"[18446744073709551615]", 200),
    "a long fraction": (b"[0." + b"1" * 40 + b"]", 200),
    "digits in a string": (b'["' + b"9" * 400 + b'"]', 200),
    "brackets in a string": (b'["' + b"[" * 400 + b'"]', 200),
    "commas in a string": (b'["' + b"," * 4000 + b'"]', 200),
    "escaped quotes": (b'["' + b'\\",\\\\' * 2000 + b'"]', 200),
    "the allowed depth": (b"[" * 10 + b"]" * 10, 200),
    "the allowed elements": (b"[" + b"1," * 999 + b"1]", 200),
}


@pytest.mark.parametrize("name", JSON_BODIES)
async def test_json_is_checked_before_it_is_decoded(name: str) -> None:
    body, status = JSON_BODIES[name]
    async with served() as (_, ask):
        answer = await ask("POST", "/echo", body)
    assert answer.status == status
    if status != 200:
        assert set(msgspec.json.decode(answer.body)) == {"message"}


def _two_members() -> bytes:
    return gzip.compress(b"a" * 10) + gzip.compress(b"b" * 10)


COMPRESSED = {
    "gzip": (gzip.compress(b"x" * 90_000), "gzip", 200),
    "two members": (_two_members(), "gzip", 200),
    "deflate": (zlib.compress(b"x" * 90_000), "deflate", 200),
    "a bomb": (gzip.compress(b"\0" * 50_000_000), "gzip", 413),
    "half of a stream": (gzip.compress(b"x" * 90_000)[:-9], "gzip", 400),
    "garbage": (b"this is not gzip", "gzip", 400),
    "garbage behind a stream": (gzip.compress(b"x") + b"garbage", "gzip", 400),
    "an unknown compression": (b"x", "br", 415),
    "two compressions": (b"x", "gzip, gzip", 415),
}


@pytest.mark.parametrize("name", COMPRESSED)
async def test_compressed_bodies_are_bounded(name: str) -> None:
    body, encoding, status = COMPRESSED[name]
    async with served() as (_, ask):
        answer = await ask("POST", "/size", body, {"Content-Encoding": encoding})
    assert answer.status == status


async def test_a_body_above_the_limit_is_refused_from_its_length_alone() -> None:
    async with served(HASTY) as (_, ask):
        answer = await ask("POST", "/size", b"", {"Content-Length": "100001"})
    assert answer.status == 413


async def test_a_body_above_the_limit_is_refused_in_chunks_too() -> None:
    chunks = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    async with served() as (server, _):
        head = request("POST", "/size", headers={"Transfer-Encoding": "chunked"})
        head = head.replace(b"Content-Length: 0\r\n", b"")
        answer = await send(LOOPBACK, server.addresses[0][1], head + chunks * 4 + b"0\r\n\r\n")
    assert answer.status == 413


NOT_HTTP = {
    "garbage": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n",
    "no version": b"GET /number\r\n\r\n",
    "a long line": b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a long header": b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 9000 + b"\r\n\r\n",
    "many headers": b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * 300 + b"\r\n",
    "large headers": request("GET", "/number", headers={f"X{i}": "a" * 500 for i in range(20)}),
    "no host": b"GET /number HTTP/1.1\r\nConnection: close\r\n\r\n",
    "two hosts": b"GET /number HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
    "a length twice": b"POST /size HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n"
    b"Content-Length: 2\r\n\r\nab",
    "a huge chunk": b"POST /size HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"FFFFFFFFFFFFFFFFFFFF\r\nabc\r\n",
    "a bad chunk": b"POST /size HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"zz\r\nabc\r\n",
    "an expectation": request("POST", "/size", b"a", {"Expect": "the impossible"}),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/1.2": b"GET /number HTTP/1.2\r\nHost: localhost\r\n\r\n",
    "a transfer coding that is not undone": b"POST /size HTTP/1.1\r\nHost: localhost\r\n"
    b"Transfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "a content coding twice": b"POST /size HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n"
    b"Connection: close\r\nContent-Encoding: identity\r\nContent-Encoding: gzip\r\n\r\n{}",
}


@pytest.mark.parametrize("name", NOT_HTTP)
async def test_what_is_not_a_valid_request_is_answered_in_the_port_s_format(name: str) -> None:
    async with served() as (server, _):
        answer = await send(LOOPBACK, server.addresses[0][1], NOT_HTTP[name])
    assert 400 <= answer.status < 500
    assert set(msgspec.json.decode(answer.body)) == {"message"}
    assert "server" not in answer.headers


ERRORS = {
    "an unknown path": ("GET", "/none", 404),
    "a long path": ("GET", "/" + "a" * 4000, 404),
    "another method": ("DELETE", "/echo", 405),
    "an unknown method": ("BREW", "/echo", 400),
    "bytes in a path": ("GET", "/%ff%00", 404),
}


@pytest.mark.parametrize("name", ERRORS)
async def test_errors_of_the_router_are_in_the_port_s_format(name: str) -> None:
    method, path, status = ERRORS[name]
    for port in (PORT, replace(PORT, render_error=json_member("error"))):
        async with served(port) as (_, ask):
            answer = await ask(method, path)
        assert answer.status == status
        key = "message" if port is PORT else "error"
        assert set(msgspec.json.decode(answer.body)) == {key}


async def test_head_is_answered_wherever_get_is() -> None:
    async with served() as (_, ask):
        answer = await ask("HEAD", "/number")
    assert (answer.status, answer.body) == (200, b"")


NUMBERS = {
    "": 200, "0": 200, "-1": 200, "+5": 200, "9223372036854775807": 200,
    "-2": 400, "9223372036854775808": 400, "1" * 400: 400, "1e3": 400, "x": 400, "٣": 400,
    "1_0": 400, " 1": 400,
}  # fmt: skip


@pytest.mark.parametrize("text", NUMBERS)
async def test_numbers_of_the_query_have_bounds(text: str) -> None:
    async with served() as (_, ask):
        answer = await ask("GET", f"/number?n={quote(text)}")
    assert answer.status == NUMBERS[text]


# --- hosts and origins

HOSTS = {
    "127.0.0.1": True, "127.0.0.1:8080": True, "127.9.9.9": True, "localhost": True,
    "LOCALHOST:1": True, "localhost.": True, "a.localhost": True, "[::1]:80": True,
    "master-1": True, "Master-1:5050": True, "mesos.example.com": True, "10.1.2.3": True,
    "ip-10-1-2-3": True, "ip-10-1-2-3.eu-central-1.compute.internal:5050": True,
    "ec2-10-1-2-3.compute-1.amazonaws.com": True,
    "ip-10-1-2-4": False, "ip-10-1-2-3.evil.example": False, "evil.example": False,
    "evil.example:8080": False, "10.1.2.4": False, "localhost.evil.example": False,
    "127.0.0.1.evil.example": False, "mesos.example.com.evil.example": False,
    "x.mesos.example.com": False, "localhost:99999": False, "local host": False,
    "evil.example@localhost": False, "localhost/": False, "2130706433": False, "[::1": False,
}  # fmt: skip


@pytest.mark.parametrize("host", HOSTS)
async def test_only_names_of_this_machine_are_accepted(host: str) -> None:
    hosts = AcceptedHosts.of(["master-1", "mesos.example.com", "10.1.2.3:5050"])
    async with served(hosts=hosts) as (_, ask):
        answer = await ask("GET", "/number", host=host)
    assert (answer.status == 200) is HOSTS[host]
    if not HOSTS[host]:
        assert answer.status in {400, 421}


async def test_the_target_s_own_host_counts_as_well() -> None:
    async with served() as (_, ask):
        assert (await ask("GET", "http://evil.example/number")).status == 421
        assert (await ask("GET", "http://localhost/number")).status == 200
        assert (await ask("OPTIONS", "*")).status in {400, 404, 421}


ORIGINS = {
    "a program": ({}, 200),
    "the own page": ({"Origin": "http://127.0.0.1"}, 200),
    "the own page by its mark": ({"Sec-Fetch-Site": "same-origin"}, 200),
    "the address bar": ({"Sec-Fetch-Site": "none"}, 200),
    "another page": ({"Origin": "http://evil.example"}, 403),
    "a page of another port": ({"Origin": "http://127.0.0.1:5051"}, 403),
    "a sandboxed frame": ({"Origin": "null"}, 403),
    "another site by its mark": ({"Sec-Fetch-Site": "cross-site"}, 403),
    "another site with a false origin": (
        {"Origin": "http://127.0.0.1", "Sec-Fetch-Site": "cross-site"},
        403,
    ),
    "a subdomain": ({"Sec-Fetch-Site": "same-site"}, 403),
    "a rebound name": ({"Host": "evil.example:8080", "Origin": "http://evil.example:8080"}, 421),
}


@pytest.mark.parametrize("name", ORIGINS)
async def test_pages_of_others_change_nothing(name: str) -> None:
    headers, status = ORIGINS[name]
    async with served() as (_, ask):
        answer = await ask("POST", "/echo", b"1", headers)
    assert answer.status == status


# --- defects


@pytest.mark.expects_unhandled_errors
@pytest.mark.parametrize("path", ["/fail", "/header"])
async def test_an_unexpected_exception_is_a_500_with_the_id_of_one_log_entry(path: str) -> None:
    with structlog.testing.capture_logs() as entries:
        async with served() as (_, ask):
            answer = await ask("GET", path)
    assert answer.status == 500
    errors = [entry for entry in entries if entry["event"] == "unhandled_error"]
    assert len(errors) == 1
    assert errors[0]["port"] == "test"
    assert errors[0]["id"] in msgspec.json.decode(answer.body)["message"]
    assert UNHANDLED.by_port()["test"] == 1
    assert 'mesaform_unhandled_errors_total{port="test"} 1' in UNHANDLED.prometheus()


@pytest.mark.expects_unhandled_errors
async def test_an_exception_after_the_answer_began_breaks_the_connection() -> None:
    async with served() as (_, ask):
        answer = await ask("GET", "/late")
    assert not answer.body.endswith(b"0\r\n\r\n")
    assert UNHANDLED.by_port()["test"] == 1


# --- connections


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", 0),
        (b"GET /number HTT", 408),
        (b"GET /number HTTP/1.1\r\nHost: localhost\r\nX: ", 408),
        (request("POST", "/size", headers={"Content-Length": "10"}) + b"abc", 408),
    ],
)
async def test_a_half_sent_request_does_not_keep_its_connection(sent: bytes, status: int) -> None:
    async with served(HASTY) as (server, _):
        answer = await send(LOOPBACK, server.addresses[0][1], sent)
    assert answer.status == status


async def test_a_body_byte_by_byte_ends_at_the_time_limit() -> None:
    async with served(HASTY) as (server, _):
        reader, writer = await asyncio.open_connection(*server.addresses[0])
        writer.write(request("POST", "/size", headers={"Content-Length": "1000"}))

        async def drip() -> None:
            while True:
                writer.write(b"x")
                await asyncio.sleep(0.05)

        task = asyncio.create_task(drip())
        head = await reader.readuntil(b"\r\n\r\n")
        task.cancel()
        writer.close()
    assert parse(head).status == 408


async def test_an_idle_connection_is_closed_and_a_stream_is_not() -> None:
    ended = asyncio.Event()

    def extra(app: web.Application) -> None:
        async def stream(received: web.Request) -> web.StreamResponse:
            mark_stream(received)
            response = web.StreamResponse()
            await response.prepare(received)
            await ended.wait()
            await response.write(b"late")
            return response

        app.router.add_get("/stream", stream)

    async with served(HASTY, extra=extra) as (server, _):
        address = server.addresses[0]
        streaming, stream_writer = await asyncio.open_connection(*address)
        stream_writer.write(request("GET", "/stream"))
        await streaming.readuntil(b"\r\n\r\n")
        idle, writer = await asyncio.open_connection(*address)
        writer.write(request("GET", "/number", headers={"Connection": ""}))
        await idle.readuntil(b"\r\n\r\n")
        await idle.read()  # until the server closes it
        ended.set()
        assert b"late" in await streaming.read()
        writer.close()
        stream_writer.close()


async def test_a_peer_that_reads_nothing_loses_its_connection() -> None:
    def extra(app: web.Application) -> None:
        async def large(_received: web.Request) -> web.Response:
            return web.Response(body=b"x" * 30_000_000)

        app.router.add_get("/large", large)

    async with served(HASTY, extra=extra) as (server, _):
        _unread, writer = await asyncio.open_connection(*server.addresses[0])
        writer.write(request("GET", "/large"))
        await writer.drain()
        while not server.connection_count:
            await asyncio.sleep(0)
        while server.connection_count:
            await asyncio.sleep(0.01)
        writer.close()


async def test_half_sent_requests_of_a_peer_make_place_for_whole_ones() -> None:
    patient = replace(HASTY, limits=replace(HASTY.limits, header_s=60, idle_s=60))
    async with served(patient) as (server, ask):
        held = [await asyncio.open_connection(*server.addresses[0]) for _ in range(40)]
        for _, writer in held:
            writer.write(b"GET /number HTT")
            await writer.drain()
        assert (await ask("GET", "/number")).status == 200
        assert server.connection_count <= 20
        for _, writer in held:
            writer.close()


async def test_streams_of_a_peer_are_never_closed_for_further_ones() -> None:
    def extra(app: web.Application) -> None:
        async def stream(received: web.Request) -> web.StreamResponse:
            mark_stream(received)
            response = web.StreamResponse()
            await response.prepare(received)
            await asyncio.Event().wait()
            return response

        app.router.add_get("/stream", stream)

    async with served(replace(HASTY, cancels_handlers=True), extra=extra) as (server, ask):
        held = [await asyncio.open_connection(*server.addresses[0]) for _ in range(20)]
        for reader, writer in held:
            writer.write(request("GET", "/stream"))
            await reader.readuntil(b"\r\n\r\n")
        assert (await ask("GET", "/number")).status == 503
        for _, writer in held:
            writer.close()


async def test_a_taken_port_is_busy() -> None:
    async with served() as (server, _):
        other = HttpServer(application(), PORT)
        with pytest.raises(Busy, match="cannot listen"):
            await other.listen(*server.addresses[0], fix="set MESOS_PORT")
        await other.stop()


async def test_a_refusal_of_a_handler_has_its_status_and_headers() -> None:
    def extra(app: web.Application) -> None:
        async def refuse(_received: web.Request) -> web.Response:
            raise BadRequest("not now", 429, {"Retry-After": "3"})

        app.router.add_get("/refuse", refuse)

    async with served(extra=extra) as (_, ask):
        answer = await ask("GET", "/refuse")
    assert (answer.status, answer.headers["retry-after"]) == (429, "3")
