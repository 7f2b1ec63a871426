"""A framework that sends any document to one engine, and records what the engine answers.

A call that may cause events is followed by RECONCILE of a task that nobody knows. Its answer bounds
the events of the call, because an engine sends events in order; so nothing waits for a time-out.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import aiohttp

Document: TypeAlias = Any
INFO: Document = {
    "user": "root",
    "name": "differential",
    "roles": ["*"],
    "failover_timeout": 0,
    "capabilities": [
        {"type": name} for name in ("MULTI_ROLE", "PARTITION_AWARE", "TASK_KILLING_STATE")
    ],
}
WAIT_S = 20.0
LIVE_STATES = frozenset({"TASK_STAGING", "TASK_STARTING", "TASK_RUNNING", "TASK_KILLING"})
Event = dict[str, Any]


@dataclass(slots=True)
class Outcome:
    """What an engine answered: the status and text of HTTP, and the events that the call caused."""

    status: int
    text: str = ""
    events: list[Event] = field(default_factory=list)


class Gone(Exception):
    """The engine ended the event stream."""


class Scheduler:
    """A subscribed framework of one engine. `offers` are outstanding, oldest first."""

    _numbers = itertools.count(1)

    def __init__(self, base: str, session: aiohttp.ClientSession) -> None:
        self.base, self._session = base, session
        self.id = self.stream_id = self.agent_id = ""
        self.offers: list[Event] = []
        self._agent_base = ""
        self._response: aiohttp.ClientResponse | None = None

    async def subscribe(self) -> None:
        """Subscribe as a new framework, and wait for the offer of the whole agent."""
        body = {"type": "SUBSCRIBE", "subscribe": {"framework_info": INFO}}
        response = await self._session.post(f"{self.base}/api/v1/scheduler", json=body)
        assert response.status == 200, await response.text()
        self._response = response
        self.stream_id = response.headers["Mesos-Stream-Id"]
        self.offers.clear()
        first = await self.next_event()
        self.id = first["subscribed"]["framework_id"]["value"]
        await self.offer()

    async def close(self) -> None:
        """End the framework and its tasks."""
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            await self.send({"type": "TEARDOWN", "framework_id": {"value": self.id}})
        if self._response is not None:
            self._response.close()

    def forget(self) -> None:
        """Close the stream of an engine that is gone."""
        if self._response is not None:
            self._response.close()

    async def next_event(self, timeout_s: float = WAIT_S) -> Event:
        """The next event other than HEARTBEAT; offers are also kept.

        Raises:
            Gone: the stream ended.

        """
        assert self._response is not None
        content = self._response.content
        async with asyncio.timeout(timeout_s):
            while True:
                try:
                    length = int(await content.readuntil(b"\n"))
                    event: Event = json.loads(await content.readexactly(length))
                except (asyncio.IncompleteReadError, aiohttp.ClientError) as error:
                    raise Gone from error
                self._keep_offers(event)
                if event["type"] != "HEARTBEAT":
                    return event

    def _keep_offers(self, event: Event) -> None:
        if event["type"] == "OFFERS":
            self.offers.extend(event["offers"]["offers"])
        if event["type"] == "RESCIND":
            gone = event["rescind"]["offer_id"]
            self.offers = [offer for offer in self.offers if offer["id"] != gone]

    async def offer(self) -> Event:
        """The offer of nearly the whole agent. Parts of it are declined until they are one."""
        while not self.offers or not _is_large(self.offers[0]):
            while self.offers:
                part = self.offers.pop(0)
                decline = {"offer_ids": [part["id"]], "filters": {"refuse_seconds": 0}}
                await self.send(
                    {"type": "DECLINE", "framework_id": {"value": self.id}, "decline": decline}
                )
            await self.next_event()
        self.agent_id = self.offers[0]["agent_id"]["value"]
        return self.offers[0]

    async def send(self, document: Document, headers: dict[str, str] | None = None) -> Outcome:
        """POST a document as it is."""
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        wanted = {"Content-Type": "application/json", "Mesos-Stream-Id": self.stream_id}
        async with self._session.post(
            f"{self.base}/api/v1/scheduler", data=data, headers=wanted | (headers or {})
        ) as response:
            return Outcome(response.status, await response.text(errors="replace"))

    async def exchange(self, document: Document) -> Outcome:
        """Send a call and collect the events that it causes."""
        outcome = await self.send(document)
        outcome.events = await self._events_until_now()
        return outcome

    async def _events_until_now(self) -> list[Event]:
        marker = f"marker-{next(self._numbers)}"
        query = {
            "type": "RECONCILE",
            "framework_id": {"value": self.id},
            "reconcile": {"tasks": [{"task_id": {"value": marker}}]},
        }
        answer = await self.send(query)
        events: list[Event] = []
        if answer.status != 202:
            with contextlib.suppress(Gone):
                while True:
                    events.append(await self.next_event())
            return events
        with contextlib.suppress(Gone):
            while True:
                event = await self.next_event()
                if _task_of(event) == marker:
                    break
                events.append(event)
        return events

    async def first_status(self, task_id: str) -> Event:
        """The first status of a task that was launched, from its agent."""
        while True:
            event = await self.next_event()
            if _task_of(event) == task_id:
                return event

    async def end_task(self, task_id: str, status: Event) -> None:
        """Kill a task, and acknowledge its updates to the last."""
        await self._acknowledge(status)
        kill = {"task_id": {"value": task_id}}
        if status["state"] in LIVE_STATES:
            await self.send({"type": "KILL", "framework_id": {"value": self.id}, "kill": kill})
        while status["state"] in LIVE_STATES:
            event = await self.next_event()
            if _task_of(event) == task_id:
                status = event["update"]["status"]
                await self._acknowledge(status)

    async def _acknowledge(self, status: Event) -> None:
        if "uuid" not in status:
            return
        body = {name: status[name] for name in ("agent_id", "task_id", "uuid")}
        await self.send(
            {"type": "ACKNOWLEDGE", "framework_id": {"value": self.id}, "acknowledge": body}
        )

    async def read(self, type_: str) -> Document:
        """The body of a read of the operator API."""
        async with self._session.post(f"{self.base}/api/v1", json={"type": type_}) as response:
            body = await response.json(content_type=None)
            return body[type_.lower()]

    async def operate(self, document: bytes) -> Outcome:
        """POST a document to the operator API."""
        return await self._post(f"{self.base}/api/v1", document)

    async def execute(self, document: bytes) -> Outcome:
        """POST a document to the executor API of the agent."""
        if not self._agent_base:
            body = await self.read("GET_AGENTS")
            self._agent_base = "http://" + body["agents"][0]["pid"].partition("@")[2]
        return await self._post(f"{self._agent_base}/slave(1)/api/v1/executor", document)

    async def _post(self, url: str, document: bytes) -> Outcome:
        headers = {"Content-Type": "application/json"}
        async with self._session.post(url, data=document, headers=headers) as response:
            return Outcome(response.status, await response.text(errors="replace"))

    async def subscribe_as(self, document: Document) -> Outcome:
        """The answer to a SUBSCRIBE, and the first event of its stream."""
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        async with self._session.post(
            f"{self.base}/api/v1/scheduler",
            data=data,
            headers={"Content-Type": "application/json"},
        ) as response:
            if response.status != 200:
                return Outcome(response.status, await response.text(errors="replace"))
            async with asyncio.timeout(WAIT_S):
                length = int(await response.content.readuntil(b"\n"))
                event = json.loads(await response.content.readexactly(length))
            if event["type"] == "SUBSCRIBED":
                id_ = event["subscribed"]["framework_id"]
                event["info"] = await self._info_of(id_)
                headers = {"Mesos-Stream-Id": response.headers["Mesos-Stream-Id"]}
                await self.send({"type": "TEARDOWN", "framework_id": id_}, headers)
            return Outcome(200, "", [event])

    async def _info_of(self, framework_id: Document) -> Document:
        body = await self.read("GET_FRAMEWORKS")
        return next(
            entry["framework_info"]
            for entry in body.get("frameworks", [])
            if entry["framework_info"]["id"] == framework_id
        )


def _is_large(offer: Event) -> bool:
    """Whether an offer has what a case may use. The executor of the last task may hold some."""
    amounts = {
        resource["name"]: resource["scalar"]["value"]
        for resource in offer["resources"]
        if "scalar" in resource
    }
    ports = [
        part["end"] - part["begin"]
        for resource in offer["resources"]
        if resource["name"] == "ports"
        for part in resource["ranges"]["range"]
    ]
    return bool(amounts.get("cpus", 0) > 3 and amounts.get("mem", 0) > 3000 and ports == [1000])


def _task_of(event: Event) -> str:
    if event["type"] != "UPDATE":
        return ""
    return str(event["update"]["status"]["task_id"]["value"])
