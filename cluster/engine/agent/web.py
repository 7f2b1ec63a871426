"""The agent's HTTP server: health, state, statistics, the files API and the v1 operator calls."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Protocol

import msgspec
from aiohttp import web

from mesaform.engine.agent import views
from mesaform.engine.agent.config import DEFAULT_PORT, Config
from mesaform.engine.agent.containerizer import Containerizer, Usage
from mesaform.engine.agent.layout import Layout
from mesaform.engine.agent.sandbox_files import SandboxFiles
from mesaform.engine.agent.tasks import TaskRecord
from mesaform.engine.agent.uplink import Uplink
from mesaform.engine.documents import Document
from mesaform.engine.master.parse import BadMessage, parse_body
from mesaform.engine.validation.executor_calls import invalid_executor_call
from mesaform.http import (
    UNHANDLED,
    BadRequest,
    HttpPort,
    HttpServer,
    Limits,
    decode_json,
    json_or_script,
    read_json,
)
from mesaform.mesos.executor_api import ExecutorCall

LIMITS = Limits(body_bytes=64 * 1024, json_elements=1000)
"""Operators' calls name what they want to read, and no more."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Served(Protocol):
    """What the server needs of the agent."""

    config: Config
    layout: Layout
    containerizer: Containerizer
    uplink: Uplink
    counters: Counter[str]

    def snapshot(self) -> views.Snapshot:
        """The agent at this moment."""
        ...

    def own_metrics(self) -> dict[str, float]:
        """Metrics that Apache Mesos does not have."""
        ...


@contextlib.asynccontextmanager
async def serve(agent: Served) -> AsyncIterator[int]:
    """Listen while the context is open. Its value is the port, chosen by the system if 0 is set.

    Raises:
        Busy: the port is taken, or the machine does not have the address.

    """
    config = agent.config
    port = HttpPort(
        str(config.port or DEFAULT_PORT),
        LIMITS,
        allows_jsonp=config.http.allows_jsonp,
        tls=config.http.tls,
    )
    server = HttpServer(_application(Endpoints(agent)), port, config.http.hosts)
    fix = "stop what listens there, or set MESOS_IP and MESOS_PORT"
    try:
        yield await server.listen(config.ip, config.port, fix=fix)
    finally:
        await server.stop()


def _application(endpoints: Endpoints) -> web.Application:
    files = SandboxFiles(endpoints.agent.layout.sandboxes)
    routes: dict[str, Handler] = {
        "/health": endpoints.health,
        "/state": endpoints.state,
        "/version": endpoints.version,
        "/flags": endpoints.flags,
        "/containers": endpoints.containers,
        "/monitor/statistics": endpoints.statistics,
        "/metrics/snapshot": endpoints.metrics,
        "/files/browse": files.browse,
        "/files/read": files.read,
        "/files/download": files.download,
    }
    application = web.Application()
    for path, handler in routes.items():
        for prefix in ("", "/slave(1)"):
            application.router.add_get(f"{prefix}{path}", handler)
    for path in ("/api/v1", "/slave(1)/api/v1"):
        application.router.add_post(path, endpoints.call)
        application.router.add_post(f"{path}/executor", endpoints.executor_call)
    return application


class Endpoints:
    """The endpoints of the agent, one method each."""

    def __init__(self, agent: Served) -> None:
        self.agent = agent
        snapshot = agent.snapshot
        self._v1_calls: dict[str, Callable[[], object]] = {
            "GET_HEALTH": lambda: {"healthy": True},
            "GET_VERSION": lambda: {"version_info": views.VERSION_INFO},
            "GET_FLAGS": self._v1_flags,
            "GET_STATE": lambda: views.v1_state(snapshot()),
            "GET_TASKS": lambda: views.v1_tasks(snapshot()),
            "GET_FRAMEWORKS": lambda: views.v1_frameworks(snapshot()),
            "GET_AGENT": lambda: {"agent_info": views.v1_agent_info(snapshot())},
            "GET_METRICS": lambda: {"metrics": _entries(self._metrics())},
            "GET_CONTAINERS": self._v1_containers,
        }

    async def health(self, _request: web.Request) -> web.Response:
        """GET /health."""
        return web.Response()

    async def state(self, request: web.Request) -> web.Response:
        """GET /state."""
        return _json(request, views.state_json(self.agent.snapshot()))

    async def version(self, request: web.Request) -> web.Response:
        """GET /version."""
        return _json(request, views.VERSION_INFO)

    async def flags(self, request: web.Request) -> web.Response:
        """GET /flags."""
        return _json(request, {"flags": dict(self.agent.config.flags)})

    async def containers(self, request: web.Request) -> web.Response:
        """GET /containers."""
        return _json(
            request,
            [views.container_json(record, usage, time.time()) for record, usage in self._usage()],
        )

    async def statistics(self, request: web.Request) -> web.Response:
        """GET /monitor/statistics."""
        return _json(
            request,
            [views.statistics_json(record, usage, time.time()) for record, usage in self._usage()],
        )

    async def metrics(self, request: web.Request) -> web.Response:
        """GET /metrics/snapshot."""
        return _json(request, self._metrics())

    async def call(self, request: web.Request) -> web.Response:
        """POST /api/v1."""
        if not request.headers.get("Content-Type"):
            raise BadRequest("Expecting 'Content-Type' to be present")
        if request.content_type != "application/json":
            raise BadRequest("Expecting 'Content-Type' of application/json", 415)
        body = await decode_json(request)
        kind = body.get("type") if isinstance(body, dict) else None
        if not isinstance(kind, str):
            raise BadRequest("Failed to validate agent::Call: Expecting 'type' to be present")
        render = self._v1_calls.get(kind)
        if render is None:
            raise web.HTTPNotImplemented(
                text=f"The embedded engine's agents do not support {kind[:64]}"
            )
        return _json(request, {"type": kind, kind.lower(): render()})

    async def executor_call(self, request: web.Request) -> web.Response:
        """POST /api/v1/executor. No executor of this engine speaks it, so no call has an effect."""
        if not request.headers.get("Content-Type"):
            raise BadRequest("Expecting 'Content-Type' to be present")
        if request.content_type != "application/json":
            raise BadRequest("Expecting 'Content-Type' of application/json", 415)
        try:
            call = parse_body(await read_json(request, large_integers=True), ExecutorCall)
        except BadMessage as error:
            raise BadRequest(str(error)) from None
        problem = invalid_executor_call(call)
        if problem is not None:
            raise BadRequest(f"Failed to validate Executor::Call: {problem}")
        if call.type == "HEARTBEAT":
            return web.Response(status=202)
        raise self._unknown_executor(call)

    def _unknown_executor(self, call: ExecutorCall) -> BadRequest:
        """The refusal of a call: its executor is unknown, or it is a task of this engine."""
        tasks = [
            record
            for record in self.agent.snapshot().tasks
            if record.framework_id == call.framework_id.value
        ]
        if not tasks:
            return BadRequest("Framework cannot be found")
        if all(record.task_id != call.executor_id.value for record in tasks):
            return BadRequest("Executor cannot be found")
        return BadRequest("Executor is not subscribed", 403)

    def _v1_flags(self) -> Document:
        return {"flags": _entries(self.agent.config.flags)}

    def _v1_containers(self) -> Document:
        now = time.time()
        return {
            "containers": [
                views.v1_container(record, usage, now) for record, usage in self._usage()
            ]
        }

    def _metrics(self) -> dict[str, float]:
        agent = self.agent
        metrics = views.metrics_json(
            agent.snapshot(), agent.counters, registered=agent.uplink.is_registered, now=time.time()
        )
        return metrics | UNHANDLED.snapshot() | agent.own_metrics()

    def _usage(self) -> list[tuple[TaskRecord, Usage]]:
        usage = self.agent.containerizer.usage()
        return [
            (record, usage[record.container_id])
            for record in self.agent.snapshot().tasks
            if record.container_id in usage
        ]


def _entries(values: Mapping[str, object]) -> list[Document]:
    return [{"name": name, "value": value} for name, value in values.items()]


def _json(request: web.Request, value: object) -> web.Response:
    return json_or_script(request, msgspec.json.encode(value))
