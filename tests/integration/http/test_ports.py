"""One battery of attacks against the real application of every port."""

from __future__ import annotations

import asyncio
import gzip
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import msgspec
import pytest

from harness.agent_process import AgentProcess
from harness.master_process import running
from mesaform.autoscaler.observation.notice_endpoint import NoticeEndpoint
from mesaform.autoscaler.observation.notice_queue import Inbox
from mesaform.autoscaler.reporting.http_server import Page
from mesaform.autoscaler.reporting.http_server import http_port as autoscaler_port
from mesaform.autoscaler.reporting.telemetry import Telemetry
from mesaform.http import HttpServer
from mesaform.testing.fake_cloud import FakeNotices
from tests.support.port_attacks import Port, attack_connection, attack_slowly
from tests.support.raw_http import Answer, request, send
from tests.support.scripted_engine import ScriptedEngine
from tests.unit.services.support import Server, announce

pytestmark = pytest.mark.slow

JSON = {"Content-Type": "application/json"}
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Target:
    """A port under test.

    Attributes:
        read: a path that answers GET.
        write: a path that takes JSON by POST.
        numbers: paths whose last parameter is a whole number.
        metrics: the path of its metrics.
        is_plain: whether errors are plain text; otherwise an object with `message`.

    """

    address: str
    port: int
    read: str
    write: str
    metrics: str
    numbers: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    is_plain: bool = False

    async def send(self, data: bytes) -> Answer:
        return await send(self.address, self.port, data)

    def has_format(self, answer: Answer) -> bool:
        """Whether an error has the port's format."""
        if answer.headers.get("server") or b"Traceback" in answer.body:
            return False
        if self.is_plain:
            return answer.content_type in {"text/plain", ""}
        return "message" in msgspec.json.decode(answer.body)

    async def unhandled(self) -> str:
        """The count of unhandled errors in the port's metrics."""
        answer = await self.send(request("GET", self.metrics))
        found = re.search(
            rb'mesaform_unhandled_errors_total(?:\{port="\d+"\} |/\d+":)([\d.]+)', answer.body
        )
        assert found is not None, answer
        return found.group(1).decode().removesuffix(".0")


@asynccontextmanager
async def master(zookeeper_url: str, _folder: Path) -> AsyncIterator[Target]:
    async with running(zookeeper_url) as process:
        await process.leading()
        numbers = ("/tasks?limit=", "/master/tasks?offset=")
        yield Target(
            process.address,
            process.port,
            "/state",
            "/api/v1/scheduler",
            "/metrics/snapshot",
            numbers,
            ("/tasks/", "/"),
            is_plain=True,
        )


@asynccontextmanager
async def agent(_zookeeper_url: str, folder: Path) -> AsyncIterator[Target]:
    process = AgentProcess(folder / "work", "127.63.1.1", 9)
    (folder / "work").mkdir()
    process.start()
    target = Target(
        process.host,
        process.port,
        "/state",
        "/api/v1",
        "/metrics/snapshot",
        ("/files/read?path=/&offset=", "/files/read?path=/&length="),
        ("/files/read?path=", "/files/browse?path=", "/files/download?path=", "/"),
        is_plain=True,
    )
    async with asyncio.timeout(60):
        while not await _answers(target):
            await asyncio.sleep(0.02)
    yield target
    assert process.process is not None
    assert process.process.poll() is None
    assert "Traceback" not in (folder / "agent.log").read_text()
    await process.kill()


async def _answers(target: Target) -> bool:
    try:
        return (await target.send(request("GET", "/health"))).status == 200
    except OSError:
        return False


@asynccontextmanager
async def services(zookeeper_url: str, _folder: Path) -> AsyncIterator[Target]:
    async with ScriptedEngine("127.63.2.1") as engine, aiohttp.ClientSession() as http:
        await announce(zookeeper_url, engine)
        async with Server("127.63.2.2", zookeeper_url, http) as server:
            await server.wait_until_leading()
            settings = server.settings
            names = ("/v2/apps/", "/v2/deployments/", "/agents/", "/static/", "/")
            yield Target(
                settings.hostname,
                settings.http_port,
                "/v2/apps",
                "/v2/apps",
                "/metrics",
                names=names,
            )


@asynccontextmanager
async def autoscaler(_zookeeper_url: str, _folder: Path) -> AsyncIterator[Target]:
    telemetry = Telemetry()
    page = Page(telemetry, lambda: "", ["127.63.3.1"], "127.63.3.1:9550")
    notices = NoticeEndpoint()
    notices.inbox = Inbox(FakeNotices(lambda: 0.0), lambda: 0.0)
    server = HttpServer(notices.add_to(page.application()), autoscaler_port(9550))
    number = await server.listen("127.63.3.1", 0)
    yield Target(
        "127.63.3.1",
        number,
        "/health",
        "/notices",
        "/metrics",
        ("/series?hours=",),
        ("/static/", "/"),
    )
    await server.stop()


PORTS = {"5050": master, "5051": agent, "8080": services, "9550": autoscaler}


@pytest.fixture(params=PORTS)
async def target(
    request: pytest.FixtureRequest, zookeeper_url: str, tmp_path: Path
) -> AsyncIterator[Target]:
    async with PORTS[request.param](zookeeper_url, tmp_path) as served:
        yield served
        assert await served.unhandled() == "0"
        assert (await served.send(request_of(served, "GET"))).status == 200


def request_of(target: Target, method: str) -> bytes:
    return request(method, target.read)


# --- attacks: a request, and the statuses that may answer it

Attack = tuple[bytes, set[int]]
CALLER = set(range(400, 500))


def structures(target: Target) -> dict[str, Attack]:
    """JSON and compression."""

    def post(body: bytes, **headers: str) -> bytes:
        return request("POST", target.write, body, JSON | headers)

    labels = b'{"type":"SUBSCRIBE","subscribe":{"framework_info":{"labels":{"labels":['
    return {
        "nesting": (post(b'{"id":' * 900 + b"1" + b"}" * 900), {400}),
        "open nesting": (post(b"[" * 900), {400}),
        "400 digits": (post(b'{"type":' + b"9" * 400 + b"}"), {400}),
        "5,000 digits": (post(b'{"type":' + b"9" * 5000 + b"}"), {400}),
        "1e400": (post(b'{"type":1e400}'), {400}),
        "NaN": (post(b'{"type":NaN}'), {400}),
        "not UTF-8": (post(b'{"type":"\xff\xfe"}'), {400}),
        "nothing": (post(b""), {400}),
        "null": (post(b"null"), CALLER),
        "a list": (post(b"[]"), CALLER),
        "a text": (post(b'"x"'), CALLER),
        "elements": (post(labels + b'{"key":"a"},' * 250_000 + b"{}]}}}}"), {413}),
        "bomb": (post(gzip.compress(b" " * 60_000_000), **{"Content-Encoding": "gzip"}), {413}),
        "half gzip": (post(gzip.compress(b"{}")[:-4], **{"Content-Encoding": "gzip"}), {400}),
        "no gzip": (post(b"{}", **{"Content-Encoding": "gzip"}), {400}),
        "brotli": (post(b"{}", **{"Content-Encoding": "br"}), {415}),
    }


def framings(target: Target) -> dict[str, Attack]:
    """What is hardly HTTP."""
    head = f"POST {target.write} HTTP/1.1\r\nHost: localhost\r\n".encode()
    chunked = head + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    return {
        "a huge chunk": (chunked + b"FFFFFFFFFFFFFFFFFFFF\r\nabc\r\n", {400}),
        "a bad chunk": (chunked + b"-1\r\nabc\r\n", {400}),
        "a huge length": (head + b"Content-Length: 99999999999999999999999\r\n\r\n", CALLER),
        "a negative length": (head + b"Content-Length: -1\r\n\r\n", {400}),
        "two lengths": (head + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", {400}),
        "length and chunks": (
            head + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            {400, 415},
        ),
        "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", {400}),
        "a long line": (request("GET", "/" + "a" * 9000), {400, 414, 431}),
        "a long header": (request("GET", target.read, headers={"X": "a" * 9000}), {400, 431}),
        "many headers": (
            request("GET", target.read, headers={f"X{n}": "a" for n in range(200)}),
            {400, 431},
        ),
        "large headers": (
            request("GET", target.read, headers={f"X{n}": "a" * 8000 for n in range(12)}),
            {400, 431},
        ),
        "two lines in one header": (
            f"GET {target.read} HTTP/1.1\r\nHost: localhost\r\nX: a\rb\r\n\r\n".encode(),
            {400},
        ),
    }


def names(target: Target) -> dict[str, Attack]:
    """Paths and parameters."""
    odd = {
        "300 characters": "a" * 300,
        "5,000 characters": "a" * 5000,
        "a null": "%00",
        "no UTF-8": "%ff%fe",
        "half a surrogate": "%ed%a0%80",
        "up": "../" * 20 + "etc/passwd",
        "encoded up": "%2e%2e%2f" * 20 + "etc/passwd",
        "a line": "a%0d%0aX-Header:%20b",
        "a loop of slashes": "/" * 200,
    }
    numbers = ("9" * 19, "9" * 400, "-" + "9" * 30, "1e3", "0x10", "NaN", "%D9%A3", "-5")
    paths = {
        f"{prefix} {name}": (request("GET", prefix + text), CALLER | {200})
        for prefix in target.names
        for name, text in odd.items()
    }
    return paths | {
        f"{prefix} {number[:20]}": (request("GET", prefix + number), CALLER | {200})
        for prefix in target.numbers
        for number in numbers
    }


def pages(target: Target) -> dict[str, Attack]:
    """What a web page makes a browser send."""
    port = target.port
    own = f"{target.address}:{port}"

    def post(host: str, **headers: str) -> bytes:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        return request("POST", target.write, b'{"cmd":"id"}', JSON | fields, host=host)

    rebound = f"evil.example:{port}"
    return {
        "rebinding": (post(rebound, Origin=f"http://{rebound}"), {403, 421}),
        "a rebound read": (request("GET", target.read, host=rebound), {403, 421}),
        "a rebound read without a port": (
            request("GET", target.read, host="evil.example"),
            {403, 421},
        ),
        "an absolute target": (
            request("GET", f"http://{rebound}{target.read}", host=own),
            {403, 421},
        ),
        "no host": (request("GET", target.read, host=""), {400}),
        "another page": (post(own, Origin="http://evil.example"), {403}),
        "another port": (post(own, Origin=f"http://{target.address}:1"), {403}),
        "no origin": (post(own, Origin="null"), {403}),
        "another site": (post(own, Sec_Fetch_Site="cross-site"), {403}),
        "a form": (
            post(own, Origin="http://evil.example", Content_Type="text/plain"),
            {403},
        ),
        "a question before": (
            request(
                "OPTIONS",
                target.write,
                headers={"Origin": "http://x", "Access-Control-Request-Method": "POST"},
            ),
            {400, 404, 405},
        ),
        "the own name": (request("GET", target.read, host=f"localhost:{port}"), {200}),
        "the own address": (request("GET", target.read, host=own), {200}),
        "HEAD": (request("HEAD", target.read), {200}),
        "an unknown path": (request("GET", "/nothing-here"), {404}),
        "another method": (request("DELETE", target.write), {405}),
    }


BATTERIES: dict[str, Callable[[Target], dict[str, Attack]]] = {
    "structures": structures,
    "framings": framings,
    "names": names,
    "pages": pages,
}


async def test_every_attack_is_answered_as_the_caller_s_fault(target: Target) -> None:
    wrong = []
    for kind, battery in BATTERIES.items():
        for name, (data, statuses) in battery(target).items():
            answer = await target.send(data)
            is_right = answer.status in statuses and (
                answer.status < 400 or not answer.body or target.has_format(answer)
            )
            if not is_right:
                wrong.append((kind, name, answer.status, answer.body[:150]))
    assert wrong == []


def port_of(target: Target) -> Port:
    return Port(target.address, target.port, target.read, target.write)


async def test_every_port_withstands_odd_connections(target: Target) -> None:
    assert await attack_connection(port_of(target)) == []


async def test_requests_that_are_never_finished_end_on_every_port(
    zookeeper_url: str, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        targets = [
            await stack.enter_async_context(serve(zookeeper_url, tmp_path))
            for serve in PORTS.values()
        ]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(attack_slowly(port_of(target))) for target in targets]
        assert [fault for task in tasks for fault in task.result()] == []
        assert [await target.unhandled() for target in targets] == ["0"] * len(targets)


async def test_jsonp_is_not_served_and_floods_keep_nobody_out(target: Target) -> None:
    for path in (target.read, target.metrics):
        answer = await target.send(request("GET", f"{path}?jsonp=steal"))
        assert b"steal(" not in answer.body
    await refuses_45_mb_of_labels(target)
    await answers_beside_half_sent_requests(target)


async def refuses_45_mb_of_labels(target: Target) -> None:
    labels = b'{"type":"SUBSCRIBE","subscribe":{"framework_info":{"labels":{"labels":['
    body = labels + b'{"key":"a"},' * 3_750_000 + b"{}]}}}}"
    answer = await target.send(request("POST", target.write, body, JSON))
    assert answer.status == 413
    assert target.has_format(answer)


async def answers_beside_half_sent_requests(target: Target) -> None:
    held = [await asyncio.open_connection(target.address, target.port) for _ in range(300)]
    for _, writer in held:
        writer.write(f"POST {target.write} HTTP/1.1\r\nHost: local".encode())
    assert (await target.send(request("GET", target.read))).status == 200
    for _, writer in held:
        writer.close()
