"""A small Mesos master for tests of schedulers: the v1 scheduler API over real HTTP, under control.

It is written in plain JSON, without the product's message structs, so that it does not share their
mistakes. Offers are sent every `offer_interval_s`. A launched task is RUNNING at once unless
`hold_tasks` is set. The test causes everything else.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self, TypeAlias

from aiohttp import web

from mesaform.common.resources import EMPTY, Resources

TERMINAL = {
    "TASK_FINISHED",
    "TASK_FAILED",
    "TASK_KILLED",
    "TASK_ERROR",
    "TASK_LOST",
    "TASK_DROPPED",
    "TASK_GONE",
    "TASK_GONE_BY_OPERATOR",
}
CLOSE = object()
Json: TypeAlias = dict[str, Any]
"""A decoded JSON object; tests index into it."""


@dataclass
class Agent:
    id: str
    hostname: str
    total: Resources
    attributes: dict[str, str]
    active: bool = True


@dataclass
class Task:
    info: Json
    framework: str
    agent: str
    resources: Resources
    state: str = "TASK_STAGING"
    unacknowledged: list[str] = field(default_factory=list)

    @property
    def has_ended(self) -> bool:
        return self.state in TERMINAL


@dataclass
class Framework:
    id: str
    info: Json
    stream_id: str = ""
    events: asyncio.Queue[object] | None = None
    suppressed: bool = False
    refusals: list[tuple[str, Resources, float]] = field(default_factory=list)


def resources_of(items: list[Json]) -> Resources:
    scalars = {item["name"]: item["scalar"]["value"] for item in items if "scalar" in item}
    ports = [
        (part["begin"], part["end"])
        for item in items
        if item["name"] == "ports"
        for part in item["ranges"]["range"]
    ]
    return Resources.from_scalars(scalars, ports)


def wire(resources: Resources, role: str) -> list[Json]:
    extra = {"role": "*", "allocation_info": {"role": role}}
    items: list[Json] = [
        {"name": name, "type": "SCALAR", "scalar": {"value": value}, **extra}
        for name, value in resources.scalars().items()
    ]
    if resources.ports:
        ranges = [{"begin": low, "end": high} for low, high in resources.ports]
        items.append({"name": "ports", "type": "RANGES", "ranges": {"range": ranges}, **extra})
    return items


class ScriptedEngine:
    """Start it with `async with`; `url` is its base URL."""

    def __init__(
        self, host: str = "127.61.0.1", *, offer_interval_s: float = 0.02, heartbeat_s: float = 15.0
    ) -> None:
        self.host, self.offer_interval_s, self.heartbeat_s = host, offer_interval_s, heartbeat_s
        self.agents: dict[str, Agent] = {}
        self.tasks: dict[str, Task] = {}
        self.frameworks: dict[str, Framework] = {}
        self.removed: set[str] = set()
        self.calls: list[Json] = []
        self.subscribes = 0
        self.hold_tasks = False
        self.silent = False  # keeps streams open and sends nothing, not even heartbeats
        self.tells_removal = True  # a removed framework gets an ERROR before its stream ends
        self.redirect: str | None = None
        self.faults: list[str] = []  # violations of the protocol by the scheduler under test
        self.files: dict[str, bytes] = {}
        self._offers: dict[str, tuple[str, str, Resources]] = {}
        self._counter = 0

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/api/v1/scheduler", self._scheduler)
        app.router.add_post("/api/v1", self._operator)
        app.router.add_get("/slaves", self._slaves)
        app.router.add_get("/state", self._agent_state)
        app.router.add_get("/files/read", self._files_read)
        app.router.add_get("/agents/{agent_id}/state", self._agent_state)
        app.router.add_get("/agents/{agent_id}/files/read", self._files_read)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.host, 0)
        await site.start()
        self.port = self._runner.addresses[0][1]
        self.url = f"http://{self.host}:{self.port}"
        self._work = [
            asyncio.create_task(self._offer_loop()),
            asyncio.create_task(self._heartbeat_loop()),
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._work:
            task.cancel()
        self.break_streams()
        await self._runner.cleanup()

    # ---- actions

    async def leader(self) -> str:
        return self.url

    def add_agent(
        self, hostname: str = "", *, attributes: dict[str, str] | None = None, **amounts: float
    ) -> str:
        self._counter += 1
        amounts = amounts or {"cpus": 4, "mem_mib": 4096, "disk_mib": 8192}
        ports = [] if amounts.pop("no_ports", 0) else [(31000, 32000)]
        agent_id = f"engine-S{self._counter}"
        self.agents[agent_id] = Agent(
            agent_id,
            hostname or f"host-{self._counter}",
            Resources.of(**amounts, ports=ports),
            attributes or {},
        )
        return agent_id

    def lose_agent(self, agent_id: str, state: str = "TASK_UNREACHABLE") -> None:
        """The agent is partitioned away (TASK_UNREACHABLE, its tasks may come back) or gone."""
        self.agents[agent_id].active = False
        for offer, (framework, agent, _) in list(self._offers.items()):
            if agent == agent_id:
                del self._offers[offer]
                self._send(
                    framework, {"type": "RESCIND", "rescind": {"offer_id": {"value": offer}}}
                )
        for task_id, task in self.tasks.items():
            if task.agent == agent_id and not task.has_ended:
                self._status(task_id, state, reason="REASON_SLAVE_REMOVED", needs_ack=False)
        for framework in self.frameworks:
            self._send(framework, {"type": "FAILURE", "failure": {"agent_id": {"value": agent_id}}})

    def finish(
        self,
        task_id: str,
        state: str = "TASK_FINISHED",
        message: str = "Command exited with status 0",
    ) -> None:
        self._status(task_id, state, message=message)

    def update(self, task_id: str, state: str) -> None:
        self._status(task_id, state)

    def break_streams(self) -> None:
        for framework in self.frameworks.values():
            if framework.events is not None:
                framework.events.put_nowait(CLOSE)

    def remove_framework(self, framework_id: str) -> None:
        self.removed.add(framework_id)
        for task in self.tasks.values():
            if task.framework == framework_id and not task.has_ended:
                task.state = "TASK_KILLED"
        framework = self.frameworks.pop(framework_id)
        if framework.events is not None:
            message = {"message": "Framework has been removed"}
            if self.tells_removal:
                framework.events.put_nowait({"type": "ERROR", "error": message})
            framework.events.put_nowait(CLOSE)

    # ---- queries

    def live(self, name: str | None = None) -> list[str]:
        return [
            task_id
            for task_id, task in self.tasks.items()
            if not task.has_ended and name in (None, task.info["name"])
        ]

    def of_type(self, kind: str) -> list[Json]:
        return [call for call in self.calls if call["type"] == kind]

    async def until(self, condition: Callable[[], object], timeout_s: float = 60.0) -> None:
        async with asyncio.timeout(timeout_s):
            while not condition():
                await asyncio.sleep(0.005)

    # ---- the master

    def _send(self, framework_id: str, event: Json) -> None:
        framework = self.frameworks.get(framework_id)
        if framework is not None and framework.events is not None:
            framework.events.put_nowait(event)

    def _status(
        self,
        task_id: str,
        state: str,
        *,
        needs_ack: bool = True,
        message: str | None = None,
        reason: str | None = None,
    ) -> None:
        task = self.tasks[task_id]
        task.state = state
        status: Json = {
            "task_id": {"value": task_id},
            "state": state,
            "agent_id": {"value": task.agent},
            "timestamp": time.time(),
        }
        status.update(
            {key: value for key, value in (("message", message), ("reason", reason)) if value}
        )
        if needs_ack:
            status["uuid"] = base64.b64encode(uuid.uuid4().bytes).decode()
            task.unacknowledged.append(status["uuid"])
        self._send(task.framework, {"type": "UPDATE", "update": {"status": status}})

    def _free(self, agent: Agent) -> Resources:
        free = agent.total
        for task in self.tasks.values():
            if task.agent == agent.id and not task.has_ended:
                free = free - task.resources
        for _, agent_id, offered in self._offers.values():
            if agent_id == agent.id:
                free = free - offered
        return free

    def _refused(self, framework: Framework, agent_id: str, offered: Resources) -> bool:
        now = time.monotonic()
        framework.refusals = [item for item in framework.refusals if item[2] > now]
        return any(
            agent == agent_id and refused.contains(offered)
            for agent, refused, _ in framework.refusals
        )

    async def _offer_loop(self) -> None:
        while True:
            await asyncio.sleep(self.offer_interval_s)
            if self.silent:
                continue
            for framework in self.frameworks.values():
                offers = (
                    []
                    if framework.suppressed or framework.events is None
                    else self._offers_for(framework)
                )
                if offers:
                    self._send(framework.id, {"type": "OFFERS", "offers": {"offers": offers}})

    def _offers_for(self, framework: Framework) -> list[Json]:
        offers = []
        role = framework.info.get("roles", ["*"])[0]
        for agent in self.agents.values():
            free = self._free(agent)
            if (
                not agent.active
                or (free.cpus < 0.01 and free.mem_mib < 32)
                or self._refused(framework, agent.id, free)
            ):
                continue
            self._counter += 1
            offer_id = f"engine-O{self._counter}"
            self._offers[offer_id] = (framework.id, agent.id, free)
            attributes = [
                {"name": key, "type": "TEXT", "text": {"value": value}}
                for key, value in agent.attributes.items()
            ]
            offers.append(
                {
                    "id": {"value": offer_id},
                    "framework_id": {"value": framework.id},
                    "agent_id": {"value": agent.id},
                    "hostname": agent.hostname,
                    "resources": wire(free, role),
                    "attributes": attributes,
                    "allocation_info": {"role": role},
                }
            )
        return offers

    async def _heartbeat_loop(self) -> None:
        while True:
            await asyncio.sleep(self.heartbeat_s)
            for framework in [] if self.silent else list(self.frameworks):
                self._send(framework, {"type": "HEARTBEAT"})

    async def _scheduler(self, request: web.Request) -> web.StreamResponse:
        if self.redirect:
            return web.Response(
                status=307, headers={"Location": self.redirect + "/api/v1/scheduler"}
            )
        call = json.loads(await request.read())
        self.calls.append(call)
        if call["type"] == "SUBSCRIBE":
            return await self._subscribe(request, call)
        framework = self.frameworks.get(call.get("framework_id", {}).get("value", ""))
        if framework is None:
            return web.Response(status=400, text="Framework cannot be found")
        if framework.events is None:
            return web.Response(status=403, text="Framework is not subscribed")
        if request.headers.get("Mesos-Stream-Id") != framework.stream_id:
            return web.Response(
                status=400, text="The stream ID included in this request didn't match the stream ID"
            )
        getattr(self, "_on_" + call["type"].lower())(framework, call)
        return web.Response(status=202)

    async def _subscribe(self, request: web.Request, call: Json) -> web.StreamResponse:
        self.subscribes += 1
        info = call["subscribe"]["framework_info"]
        wanted = info.get("id", {}).get("value")
        named = (call.get("framework_id") or {}).get("value")
        if named != wanted or "Mesos-Stream-Id" in request.headers:
            return web.Response(status=400, text="bad SUBSCRIBE")
        self._counter += 1
        framework = self.frameworks.get(wanted) or Framework(
            wanted or f"engine-{self._counter:04d}", info
        )
        if framework.events is not None:
            error = {"type": "ERROR", "error": {"message": "Framework failed over"}}
            framework.events.put_nowait(error)
            framework.events.put_nowait(CLOSE)
        queue: asyncio.Queue[object] = asyncio.Queue()
        stream_id = str(uuid.uuid4())
        if wanted in self.removed:
            queue.put_nowait({"type": "ERROR", "error": {"message": "Framework has been removed"}})
            queue.put_nowait(CLOSE)
        else:
            framework.info, framework.stream_id = info, stream_id
            self._connect(framework, queue)
        return await self._pump(request, framework, queue, stream_id)

    def _connect(self, framework: Framework, queue: asyncio.Queue[object]) -> None:
        framework.events, framework.refusals = queue, []
        self.frameworks[framework.id] = framework
        self._drop_offers(framework.id)
        body = {
            "framework_id": {"value": framework.id},
            "heartbeat_interval_seconds": self.heartbeat_s,
        }
        queue.put_nowait({"type": "SUBSCRIBED", "subscribed": body})
        queue.put_nowait({"type": "HEARTBEAT"})

    async def _pump(
        self,
        request: web.Request,
        framework: Framework,
        queue: asyncio.Queue[object],
        stream_id: str,
    ) -> web.StreamResponse:
        """Write the queued events until CLOSE or the end of the connection."""
        headers = {"Content-Type": "application/json", "Mesos-Stream-Id": stream_id}
        response = web.StreamResponse(headers=headers)
        response.enable_chunked_encoding()
        await response.prepare(request)
        try:
            while (event := await queue.get()) is not CLOSE:
                record = json.dumps(event).encode()
                await response.write(b"%d\n" % len(record) + record)
        except ConnectionError:
            pass
        finally:
            if framework.events is queue:
                framework.events = None
                self._drop_offers(framework.id)
        return response

    def _drop_offers(self, framework_id: str) -> None:
        self._offers = {
            key: offer for key, offer in self._offers.items() if offer[0] != framework_id
        }

    def _take_back(
        self, framework: Framework, ids: list[dict[str, str]], filters: Json
    ) -> tuple[Resources, str | None]:
        total, agent = EMPTY, None
        for item in ids:
            offer = self._offers.pop(item["value"], None)
            if offer is not None and offer[0] == framework.id:
                total, agent = total + offer[2], offer[1]
                refuse_s = float(filters.get("refuse_seconds", 5.0))
                framework.refusals.append((agent, offer[2], time.monotonic() + refuse_s))
        return total, agent

    def _on_accept(self, framework: Framework, call: Json) -> None:
        accept = call["accept"]
        left, agent = self._take_back(framework, accept.get("offer_ids", []), {"refuse_seconds": 0})
        for operation in accept.get("operations", []):
            for info in operation["launch"]["task_infos"]:
                left = self._launch(framework, info, left, agent)
        if agent is not None:
            framework.refusals.append(
                (
                    agent,
                    left,
                    time.monotonic() + float(accept.get("filters", {}).get("refuse_seconds", 5.0)),
                )
            )

    def _launch(
        self, framework: Framework, info: Json, left: Resources, agent: str | None
    ) -> Resources:
        task_id, wanted = info["task_id"]["value"], resources_of(info["resources"])
        if task_id in self.tasks:
            self.faults.append(f"{task_id} was launched twice")
            return left
        self.tasks[task_id] = Task(info, framework.id, info["agent_id"]["value"], wanted)
        if agent is None:
            self._status(
                task_id,
                "TASK_DROPPED",
                needs_ack=False,
                reason="REASON_INVALID_OFFERS",
                message="Task launched with invalid offers",
            )
            return left
        if not left.contains(wanted) or info["agent_id"]["value"] != agent:
            self.faults.append(f"{task_id} wants {wanted} of {left} on {agent}")
            self._status(
                task_id,
                "TASK_ERROR",
                needs_ack=False,
                message="Task uses more resources than available",
            )
            return left
        if not self.hold_tasks:
            self._status(task_id, "TASK_STARTING")
            self._status(task_id, "TASK_RUNNING")
        return left - wanted

    def _on_decline(self, framework: Framework, call: Json) -> None:
        self._take_back(
            framework, call["decline"].get("offer_ids", []), call["decline"].get("filters", {})
        )

    def _on_revive(self, framework: Framework, _call: Json) -> None:
        framework.suppressed, framework.refusals = False, []

    def _on_suppress(self, framework: Framework, _call: Json) -> None:
        framework.suppressed = True

    def _on_kill(self, framework: Framework, call: Json) -> None:
        task_id = call["kill"]["task_id"]["value"]
        task = self.tasks.get(task_id)
        if task is None or task.has_ended:
            self._unknown(framework, task_id)
        elif task.state != "TASK_UNREACHABLE":
            self._status(
                task_id, "TASK_KILLED", message="Command terminated with signal Terminated"
            )

    def _on_acknowledge(self, _framework: Framework, call: Json) -> None:
        body = call["acknowledge"]
        task = self.tasks.get(body["task_id"]["value"])
        if task is None or body["uuid"] not in task.unacknowledged:
            self.faults.append(f"acknowledged what was not sent: {body}")
        else:
            task.unacknowledged.remove(body["uuid"])

    def _on_reconcile(self, framework: Framework, call: Json) -> None:
        wanted = [item["task_id"]["value"] for item in call["reconcile"].get("tasks", [])]
        for task_id in wanted or self.live():
            task = self.tasks.get(task_id)
            if task is None or task.has_ended:
                self._unknown(framework, task_id)
            else:
                self._status(task_id, task.state, needs_ack=False, reason="REASON_RECONCILIATION")

    def _unknown(self, framework: Framework, task_id: str) -> None:
        status = {
            "task_id": {"value": task_id},
            "state": "TASK_UNKNOWN",
            "reason": "REASON_RECONCILIATION",
        }
        self._send(framework.id, {"type": "UPDATE", "update": {"status": status}})

    def _on_teardown(self, framework: Framework, _call: Json) -> None:
        self.remove_framework(framework.id)

    # ---- endpoints of operators and agents

    async def _operator(self, request: web.Request) -> web.Response:
        call = json.loads(await request.read())
        answer = {
            "type": call["type"],
            "get_health": {"healthy": True},
            "get_tasks": {"tasks": self._task_list()},
            "get_frameworks": {
                "frameworks": [
                    {"framework_info": {**framework.info, "id": {"value": framework.id}}}
                    for framework in self.frameworks.values()
                ]
            },
        }
        return web.json_response(answer)

    def _task_list(self) -> list[Json]:
        return [
            {"task_id": {"value": task_id}, "framework_id": {"value": task.framework}}
            for task_id, task in self.tasks.items()
            if not task.has_ended
        ]

    async def _slaves(self, _request: web.Request) -> web.Response:
        slaves = [
            {"id": agent.id, "hostname": agent.hostname, "pid": f"slave(1)@{self.host}:{self.port}"}
            for agent in self.agents.values()
        ]
        return web.json_response({"slaves": slaves, "recovered_slaves": []})

    async def _agent_state(self, _request: web.Request) -> web.Response:
        owners = {task.framework for task in self.tasks.values()}
        frameworks = [
            {
                "id": owner,
                "executors": self._executors(owner, has_ended=False),
                "completed_executors": self._executors(owner, has_ended=True),
            }
            for owner in owners
        ]
        return web.json_response({"frameworks": frameworks, "completed_frameworks": []})

    def _executors(self, framework_id: str, *, has_ended: bool) -> list[Json]:
        return [
            {"id": task_id, "directory": f"/sandbox/{task_id}"}
            for task_id, task in self.tasks.items()
            if task.framework == framework_id and task.has_ended == has_ended
        ]

    async def _files_read(self, request: web.Request) -> web.Response:
        data = self.files.get(request.query["path"])
        if data is None:
            return web.Response(status=404, text="No such file")
        offset, length = (
            int(request.query.get("offset", "0")),
            int(request.query.get("length", "65536")),
        )
        if offset < 0:
            return web.json_response({"data": "", "offset": len(data)})
        page = data[offset : offset + length]
        while page and offset + len(page) < len(data) and data[offset + len(page)] & 0xC0 == 0x80:
            page = page[:-1]  # agents end a page at a whole character
        return web.json_response({"data": page.decode("utf-8", "replace"), "offset": offset})
