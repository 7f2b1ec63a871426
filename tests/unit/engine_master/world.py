"""A world around the master's core: verbs for tests, and a registry that stores at once.

Invariants are checked after every event.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import msgspec

from harness.engine_invariants import check_state
from mesaform.common.resources import Resources
from mesaform.engine import link
from mesaform.engine.allocator import Allocator
from mesaform.engine.documents import Document
from mesaform.engine.master import events as ev
from mesaform.engine.master.core import EventFailed, Master
from mesaform.engine.master.parse import parse
from mesaform.engine.master.state import Config, Framework, Ids, Offer, State
from mesaform.engine.registry import Registry
from mesaform.mesos.messages import (
    AgentInfo,
    Capability,
    FrameworkInfo,
    TaskInfo,
    TaskStatus,
    ident,
    to_wire,
)
from mesaform.mesos.scheduler_api import Call

SIZE = Resources.of(cpus=4, mem_mib=4096, disk_mib=8192, ports=[(31000, 32000)])
SMALL = Resources.of(cpus=0.1, mem_mib=32)
START = 1_000_000.0
JsonDict: TypeAlias = dict[str, Any]
"""A decoded JSON object that a test indexes into."""
M = TypeVar("M", bound=link.LinkMessage)


class World:
    """One leading master, whose registry writes succeed at once unless `hold_stores` is set."""

    def __init__(
        self, registry: Registry | None = None, *, allocator: Allocator | None = None
    ) -> None:
        self.now = START
        info: Document = {"id": "m", "hostname": "h", "address": {"ip": "127.0.0.1", "port": 5050}}
        self.master = Master(
            info,
            Ids("m"),
            registry or Registry(),
            allocator or Allocator(),
            Config(),
            now=self.now,
        )
        self.streams: dict[str, list[JsonDict]] = defaultdict(list)
        self.closed: set[str] = set()
        self.links: dict[str, list[link.FromMaster]] = defaultdict(list)
        self.cut: set[str] = set()
        self.reasons: dict[str, str] = {}
        # Whether `feed` goes on after a fault, as the shell does; the faults are in `faults`.
        self.contain_faults = False
        self.faults: list[tuple[str, Exception]] = []
        self.replies: dict[int, tuple[int, str]] = {}
        self.published: list[JsonDict] = []
        self.held: list[ev.Store] = []
        self.hold_stores = False
        self._numbers = itertools.count(1)

    @property
    def state(self) -> State:
        return self.master.state

    # --- driving

    def feed(self, event: ev.Event) -> None:
        known = len(self.faults)
        self._carry_out(self._handle(event))
        self.check()
        if len(self.faults) > known and isinstance(event, ev.Subscribe):
            self.feed(ev.StreamClosed(event.stream_id))  # as the HTTP port does
        if len(self.faults) > known and isinstance(event, ev.AgentRegistering):
            self.feed(ev.LinkClosed(event.link_id))  # as the link's server does

    def _handle(self, event: ev.Event) -> list[ev.Effect]:
        try:
            return self.master.handle(event, self.now)
        except EventFailed as failure:
            if not self.contain_faults:
                raise
            self.faults += failure.faults
            return failure.effects

    def perform(self, effects: list[ev.Effect]) -> None:
        """Carry out the effects of an event that failed."""
        self._carry_out(effects)

    def _carry_out(self, effects: list[ev.Effect]) -> None:
        for effect in effects:
            self._perform(effect)
        if not self.hold_stores:
            self.store()

    def _perform(self, effect: ev.Effect) -> None:
        match effect:
            case ev.SendEvent():
                document = msgspec.json.decode(msgspec.json.encode(effect.event))
                self.streams[effect.stream_id].append(document)
            case ev.CloseStream():
                self.closed.add(effect.stream_id)
            case ev.SendAgent():
                self.links[effect.link_id].append(effect.message)
            case ev.CloseLink():
                self.cut.add(effect.link_id)
                self.reasons[effect.link_id] = effect.why
            case ev.Reply():
                self.replies[effect.token] = (effect.status, effect.text)
            case ev.Publish():
                self.published.append(msgspec.json.decode(msgspec.json.encode(effect.event)))
            case ev.Store():
                self.held.append(effect)

    def store(self) -> None:
        """Let the queued registry writes succeed."""
        waiting, self.held = self.held, []
        for write in waiting:
            stored = ev.Stored(write.change, write.origin)
            self._carry_out(self._handle(stored))
            self.check()

    def tick(self, seconds: float = 1.0) -> None:
        self.now += seconds
        self.feed(ev.Tick())

    def check(self) -> None:
        """Check the invariants of the state."""
        check_state(self.state)

    # --- frameworks

    def framework(self, name: str = "f", *, id_: str | None = None, **kw: Any) -> Scheduler:
        return Scheduler(self, name, id_, **kw)

    # --- agents

    def agent(
        self,
        *,
        size: Resources = SIZE,
        agent_id: str | None = None,
        tasks: Iterable[link.KnownTask] = (),
        host: str | None = None,
    ) -> FakeAgent:
        return FakeAgent(self, size, agent_id, list(tasks), host or f"host{next(self._numbers)}")

    def operate(
        self, type_: str, id_: str, max_grace_s: float | None = None, *, mark_gone: bool = False
    ) -> tuple[int, str] | None:
        token = next(self._numbers)
        self.feed(ev.Operator(token, type_, id_, max_grace_s, mark_gone))
        return self.replies.get(token)

    def number(self) -> int:
        return next(self._numbers)


class FakeAgent:
    def __init__(
        self,
        world: World,
        size: Resources,
        agent_id: str | None,
        tasks: list[link.KnownTask],
        host: str,
    ) -> None:
        self.world, self.size, self.host = world, size, host
        self.id = agent_id or ""
        self.connect(tasks)

    def connect(
        self, tasks: list[link.KnownTask] | tuple[()] = (), records_set_aside: int = 0
    ) -> None:
        self.link_id = f"link{self.world.number()}"
        info = AgentInfo(hostname=self.host, resources=to_wire(self.size))
        register = link.Register(
            info,
            self.id or None,
            address=f"{self.host}:5051",
            version="1.12.0",
            tasks=list(tasks),
            records_set_aside=records_set_aside,
        )
        self.world.feed(ev.AgentRegistering(self.link_id, register))
        self.id = next(
            (message.agent_id for message in self.inbox if isinstance(message, link.Registered)),
            self.id,
        )

    @property
    def inbox(self) -> list[link.FromMaster]:
        return self.world.links[self.link_id]

    def got(self, kind: type[M]) -> list[M]:
        return [message for message in self.inbox if isinstance(message, kind)]

    @property
    def refused(self) -> bool:
        return bool(self.got(link.Refused)) and self.link_id in self.world.cut

    def disconnect(self) -> None:
        self.world.feed(ev.LinkClosed(self.link_id))

    def leave(self) -> None:
        self.world.feed(ev.AgentLeaving(self.link_id))

    def pong(self) -> None:
        self.world.feed(ev.AgentPong(self.link_id))

    def update(
        self,
        framework: Scheduler,
        task_id: str,
        state: str,
        latest: str | None = None,
        uuid: bytes | None = None,
    ) -> bytes:
        uuid = uuid or self.world.number().to_bytes(16, "big")
        status = TaskStatus(
            task_id=ident(task_id),
            state=state,
            source="SOURCE_EXECUTOR",
            agent_id=ident(self.id or ""),
            uuid=uuid,
            timestamp=self.world.now,
        )
        self.world.feed(
            ev.AgentUpdate(self.link_id, link.Update(framework.id, status, latest or state))
        )
        return uuid


class Scheduler:
    def __init__(
        self,
        world: World,
        name: str,
        id_: str | None = None,
        *,
        roles: tuple[str, ...] = ("*",),
        aware: bool = True,
        failover_s: float = 0.0,
        user: str = "root",
        suppressed: tuple[str, ...] = (),
        capabilities: tuple[str, ...] = (),
        **info: Any,
    ) -> None:
        names = ("MULTI_ROLE", *(("PARTITION_AWARE",) if aware else ()), *capabilities)
        self.world = world
        self.info = FrameworkInfo(
            user=user,
            name=name,
            roles=list(roles),
            failover_timeout=failover_s,
            capabilities=[Capability(type=name) for name in names],
            id=ident(id_) if id_ else None,
            **info,
        )
        self.stream_id = f"stream{world.number()}"
        world.feed(ev.Subscribe(self.stream_id, self.info, id_, suppressed))
        subscribed = self.events("SUBSCRIBED")
        self.id: str = subscribed[0]["framework_id"]["value"] if subscribed else ""

    def events(self, kind: str | None = None) -> list[Any]:
        seen = self.world.streams[self.stream_id]
        return (
            [event.get(kind.lower(), {}) for event in seen if event["type"] == kind]
            if kind
            else seen
        )

    @property
    def record(self) -> Framework:
        return self.world.state.frameworks[self.id]

    @property
    def offers(self) -> list[Offer]:
        """The offers that are outstanding now."""
        return list(self.record.offers.values()) if self.id in self.world.state.frameworks else []

    @property
    def statuses(self) -> list[JsonDict]:
        return [event["status"] for event in self.events("UPDATE")]

    def call(self, type_: str, **body: object) -> None:
        self.world.feed(
            ev.SchedulerCall(
                self.id, parse({"type": type_, "framework_id": {"value": self.id}, **body}, Call)
            )
        )

    def drop(self) -> None:
        self.world.feed(ev.StreamClosed(self.stream_id))

    def task(self, offer: Offer, task_id: str, size: Resources = SMALL, **kw: Any) -> JsonDict:
        resources = msgspec.to_builtins(to_wire(size, allocated_to=offer.role))
        document: JsonDict = {
            "name": task_id,
            "task_id": {"value": task_id},
            "agent_id": {"value": offer.agent_id},
        }
        return {**document, "resources": resources, "command": {"value": "true"}, **kw}

    def launch(
        self,
        offer: Offer,
        *tasks: JsonDict,
        refuse_s: float = 0.0,
        offer_ids: list[str] | None = None,
    ) -> None:
        operation = {"type": "LAUNCH", "launch": {"task_infos": list(tasks)}}
        ids = [{"value": offer_id} for offer_id in offer_ids or [offer.id]]
        self.call(
            "ACCEPT",
            accept={
                "offer_ids": ids,
                "operations": [operation],
                "filters": {"refuse_seconds": refuse_s},
            },
        )

    def run(self, task_id: str, size: Resources = SMALL, agent: FakeAgent | None = None) -> Offer:
        """Launch one task on an outstanding offer."""
        offer = next(offer for offer in self.offers if agent is None or offer.agent_id == agent.id)
        self.launch(offer, self.task(offer, task_id, size))
        return offer

    def decline(self, *offers: Offer, refuse_s: float | None = None) -> None:
        filters = {} if refuse_s is None else {"filters": {"refuse_seconds": refuse_s}}
        self.call(
            "DECLINE", decline={"offer_ids": [{"value": offer.id} for offer in offers], **filters}
        )

    def acknowledge(self, agent: FakeAgent, task_id: str, uuid: bytes) -> None:
        body = {
            "agent_id": {"value": agent.id},
            "task_id": {"value": task_id},
            "uuid": msgspec.to_builtins(uuid),
        }
        self.call("ACKNOWLEDGE", acknowledge=body)

    def kill(self, task_id: str, **kw: object) -> None:
        self.call("KILL", kill={"task_id": {"value": task_id}, **kw})

    def reconcile(self, *tasks: tuple[str, str | None]) -> list[JsonDict]:
        """The statuses that come back at once."""
        before = len(self.statuses)
        wanted = [
            {"task_id": {"value": task}, **({"agent_id": {"value": agent}} if agent else {})}
            for task, agent in tasks
        ]
        self.call("RECONCILE", reconcile={"tasks": wanted})
        return self.statuses[before:]


@dataclass(frozen=True)
class FrameworkIdentity:
    """A framework of another leader."""

    info: FrameworkInfo
    id: str


def known(
    framework: Scheduler | FrameworkIdentity,
    task_id: str,
    agent_id: str,
    state: str = "TASK_RUNNING",
    size: Resources = SMALL,
) -> link.KnownTask:
    """A task as a returning agent reports it."""
    info = msgspec.structs.replace(framework.info, id=ident(framework.id))
    task = TaskInfo(
        name=task_id,
        task_id=ident(task_id),
        agent_id=ident(agent_id),
        resources=to_wire(size, allocated_to="*"),
    )
    status = TaskStatus(
        task_id=ident(task_id), state=state, uuid=b"u" * 16, agent_id=ident(agent_id)
    )
    return link.KnownTask(info, task, state, [status])
