"""A standby has the leader answer clients that cannot reach the leader's private address."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from harness.ports import free_port
from mesaform.autoscaler.reporting.http_server import Page
from mesaform.autoscaler.reporting.http_server import http_port as autoscaler_port
from mesaform.autoscaler.reporting.telemetry import Telemetry
from mesaform.http import (
    AcceptedHosts,
    HttpPort,
    HttpServer,
    Standbys,
    is_passed_on,
    pass_on,
    read_body,
)

LEADER, STANDBY = "127.73.0.1", "127.73.0.2"
GO_ON = web.AppKey("go_on", asyncio.Event)
OUTSIDE = "masters.example.com"
BALANCER = "toy-masters-0123456789abcdef.elb.eu-west-1.amazonaws.com"
HOSTS = AcceptedHosts.of([OUTSIDE, "toy-masters-*.elb.eu-west-1.amazonaws.com"])


async def echo(request: web.Request) -> web.StreamResponse:
    """What the leader received."""
    if request.path == "/stream":
        answer = web.StreamResponse()
        await answer.prepare(request)
        await answer.write(b"first")
        await request.app[GO_ON].wait()
        await answer.write(b"second")
        return answer
    body = await read_body(request)
    seen = {
        "path": request.raw_path,
        "host": request.host,
        "headers": {name.lower(): value for name, value in request.headers.items()},
        "body": body.decode(),
    }
    return web.json_response(seen, status=418, headers={"Mesos-Stream-Id": "abc"})


@asynccontextmanager
async def pair(
    standbys: Standbys = Standbys.AUTOMATIC,
) -> AsyncIterator[tuple[int, int, asyncio.Event]]:
    """A leader and a standby; their ports, and the event for which the leader's stream waits."""
    ports = free_port(LEADER), free_port(STANDBY)

    async def answer(request: web.Request) -> web.StreamResponse:
        if is_passed_on(request):
            return await pass_on(request, f"{LEADER}:{ports[0]}")
        return web.Response(status=307, headers={"Location": f"http://{LEADER}:{ports[0]}"})

    leading, waiting = web.Application(), web.Application()
    leading[GO_ON] = asyncio.Event()
    leading.router.add_route("*", "/{path:.*}", echo)
    waiting.router.add_route("*", "/{path:.*}", answer)
    servers = (
        HttpServer(leading, HttpPort("leader"), HOSTS),
        HttpServer(waiting, HttpPort("standby", standbys=standbys), HOSTS),
    )
    for server, address, port in zip(servers, (LEADER, STANDBY), ports, strict=True):
        await server.listen(address, port)
    try:
        yield (*ports, leading[GO_ON])
    finally:
        for server in servers:
            await server.stop()


def session(host: str) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(headers={"Host": host})


@pytest.mark.parametrize("name", [OUTSIDE, BALANCER])
async def test_a_client_from_outside_gets_the_leaders_own_answer(name: str) -> None:
    async with pair() as (leader, standby, _), session(f"{name}:{standby}") as client:
        url, headers = f"http://{STANDBY}:{standby}/a%2Fb?x=1", {"Authorization": "t"}
        async with client.post(url, data=b"text", headers=headers) as answer:
            seen = await answer.json()
            assert answer.status == 418
            assert answer.headers["Mesos-Stream-Id"] == "abc"
    assert (seen["path"], seen["host"], seen["body"]) == (
        "/a%2Fb?x=1",
        f"{LEADER}:{leader}",
        "text",
    )
    assert seen["headers"]["authorization"] == "t"


async def test_a_page_of_the_own_origin_may_change_something_through_a_standby() -> None:
    async with pair() as (_, standby, _), session(f"{OUTSIDE}:{standby}") as client:
        for origin, expected in ((f"https://{OUTSIDE}:{standby}", 418), ("https://evil.com", 403)):
            headers = {"Origin": origin}
            url = f"http://{STANDBY}:{standby}/"
            async with client.post(url, data=b"{}", headers=headers) as answer:
                assert answer.status == expected


async def test_a_stream_is_passed_on_piece_by_piece() -> None:
    async with pair() as (_, standby, go_on), session(f"{OUTSIDE}:{standby}") as client:
        url = f"http://{STANDBY}:{standby}/stream"
        async with client.get(url) as answer:
            async with asyncio.timeout(60):
                assert await answer.content.readexactly(5) == b"first"
                go_on.set()
                assert await answer.content.read() == b"second"


async def test_a_client_at_the_private_address_is_redirected_as_in_mesos() -> None:
    async with pair() as (leader, standby, _), aiohttp.ClientSession() as client:
        url = f"http://{STANDBY}:{standby}/"
        async with client.get(url, allow_redirects=False) as answer:
            assert (answer.status, answer.headers["Location"]) == (307, f"http://{LEADER}:{leader}")


@pytest.mark.parametrize(
    ("setting", "host", "status"),
    [(Standbys.REDIRECT, OUTSIDE, 307), (Standbys.PROXY, STANDBY, 418)],
)
async def test_a_setting_fixes_what_standbys_do(setting: Standbys, host: str, status: int) -> None:
    async with pair(setting) as (_, standby, _), session(f"{host}:{standby}") as client:
        url = f"http://{STANDBY}:{standby}/"
        async with client.get(url, allow_redirects=False) as answer:
            assert answer.status == status


async def test_two_standbys_that_take_each_other_for_the_leader_do_not_loop() -> None:
    async with pair() as (_, standby, _), session(f"{OUTSIDE}:{standby}") as client:
        headers = {"X-Mesaform-Passed-On": "1"}
        url = f"http://{STANDBY}:{standby}/"
        async with client.get(url, headers=headers, allow_redirects=False) as answer:
            assert answer.status == 307


async def test_a_leader_that_does_not_answer_is_a_503_of_the_autoscalers_page() -> None:
    silent = f"{LEADER}:{free_port(LEADER)}"
    port = free_port(STANDBY)
    page = Page(Telemetry(), lambda: silent, [LEADER], f"{STANDBY}:{port}")
    server = HttpServer(page.application(), autoscaler_port(port), HOSTS)
    await server.listen(STANDBY, port)
    try:
        url = f"http://{STANDBY}:{port}/view"
        async with session(f"{OUTSIDE}:{port}") as client, client.get(url) as answer:
            assert answer.status == 503
            assert silent in await answer.text()
    finally:
        await server.stop()
