"""Masters that succeed one another over the real cores of agents: the world of `test_succession`.

Nothing of a master survives but what it stored. Agents are `AgentCore`s whose containers live and die here; frameworks are
models that remember what they were told and what is true.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mesaform.engine import link
from mesaform.engine.agent import events as ag
from mesaform.engine.agent.core import AgentCore
from mesaform.engine.allocator import Allocator
from mesaform.engine.master import events as ev
from mesaform.engine.master.core import Master
from mesaform.engine.master.state import Ids
from mesaform.mesos.messages import TERMINAL_STATES, AgentInfo, to_wire
from tests.unit.engine_master.world import SIZE, Scheduler, World

DEAD = TERMINAL_STATES | {"TASK_UNKNOWN", "TASK_UNREACHABLE"}
SIGTERM, OK, BROKEN = 15, 0, 256


class Reign(World):
    """A world in which a master may die at any moment, with any number of its registry writes done but not heard of."""

    def __init__(self) -> None:
        super().__init__()
        self.masters = 1

    def succeed(self, written: int) -> None:
        """The leader dies; `written` of its waiting registry writes were made. Every stream and link of it is broken."""
        registry = self.master.state.registry.apply(*(one.change for one in self.held[:written]))
        self.held = []
        self.masters += 1
        name = f"m{self.masters}"
        info = {"id": name, "hostname": "h", "address": {"ip": "127.0.0.1", "port": 5050}}
        self.cut.update(self.links)
        self.closed.update(self.streams)
        self.master = Master(
            info, Ids(name), registry, Allocator(), self.master.state.config, now=self.now
        )


class RealAgent:
    """An agent's own core, its containers, and its connection."""

    def __init__(self, world: Reign, host: str) -> None:
        self.world, self.host = world, host
        self.core = AgentCore(host, lambda: world.number().to_bytes(16, "big"))
        self.alive: set[str] = set()  # containers
        self.given_up: set[str] = set()  # containers that were killed before they began
        self.under_way: list[Callable[[], ag.Event]] = []  # what the kernel has yet to do
        self.link_id: str | None = None
        self.read = 0
        self.refused = False

    @property
    def id(self) -> str:
        return self.core.meta.agent_id or ""

    def runs(self, framework_id: str, task_id: str) -> bool:
        record = self.core.tasks.get((framework_id, task_id))
        return record is not None and record.container_id in self.alive

    def connect(self) -> None:
        """A new link to whoever leads; the message may be its last if that master dies."""
        self.drop()
        self.link_id, self.read = f"link{self.world.number()}", 0
        info = AgentInfo(hostname=self.host, resources=to_wire(SIZE))
        register = link.Register(
            info, self.core.meta.agent_id, f"{self.host}:5051", "1.12.0", self.core.known_tasks()
        )
        self.world.feed(ev.AgentRegistering(self.link_id, register))

    def drop(self, *, heard: bool = True) -> None:
        """The link breaks; `heard`: a leader is there to notice."""
        if self.link_id is not None:
            if heard:
                self.world.feed(ev.LinkClosed(self.link_id))
            self.link_id = None
            self.handle(ag.Disconnected())

    def listen(self) -> bool:
        """Obey what came over the link; whether anything did."""
        if self.link_id is None:
            return False
        inbox = self.world.links[self.link_id]
        fresh, self.read = inbox[self.read :], len(inbox)
        for message in fresh:
            self._obey(message)
        if self.link_id in self.world.cut:
            self.drop(heard=False)
        return bool(fresh)

    def _obey(self, message: link.FromMaster) -> None:
        match message:
            case link.Registered():
                self.handle(ag.Connected(message.agent_id))
            case link.Refused():
                self.refused = True
                self.handle(ag.KillAll(is_refused=True))
            case link.Ping():
                self.world.feed(ev.AgentPong(self.link_id or ""))
            case _:
                self.handle(message)

    def handle(self, event: ag.Event) -> None:
        for effect in self.core.handle(event, self.world.now):
            match effect:
                case ag.Send() if self.link_id is not None:
                    self.world.feed(ev.AgentUpdate(self.link_id, effect.update))
                case ag.StartContainer():
                    self._start(effect.record.container_id)
                case ag.KillContainer():
                    self._die(effect.container_id, SIGTERM)

    def _start(self, container_id: str) -> None:
        def starts() -> ag.Event:
            if container_id in self.given_up:
                return ag.LaunchFailed(container_id, "killed before it began")
            self.alive.add(container_id)
            return ag.Started(container_id, self.world.number())

        self.under_way.append(starts)
        self.under_way.append(lambda: ag.Ran(container_id))

    def _die(self, container_id: str, wait_status: int) -> None:
        def exits() -> ag.Event:
            self.alive.discard(container_id)
            return ag.Exited(container_id, wait_status)

        if container_id in self.alive:
            self.under_way.append(exits)
        else:
            self.given_up.add(container_id)

    def end(self, container_id: str, wait_status: int) -> None:
        """A container's command ends by itself."""
        self._die(container_id, wait_status)

    def go_on(self) -> bool:
        """What the kernel has to do next; whether there was anything."""
        if not self.under_way:
            return False
        self.handle(self.under_way.pop(0)())
        return True

    def tick(self) -> None:
        due = self.core.wake_at()
        if due is not None and due <= self.world.now:
            self.handle(ag.Tick())


class Client:
    """A framework that keeps its word: it remembers every task, and acknowledges when it is let."""

    def __init__(self, world: Reign, name: str, *, aware: bool) -> None:
        self.world, self.name, self.aware = world, name, aware
        self.scheduler: Scheduler = self._subscribe(None)
        self.id = self.scheduler.id
        self.read = 0
        self.told: dict[str, str] = {}  # task -> the latest state that it was told
        self.agents: dict[str, str] = {}  # task -> agent
        self.owed: list[tuple[str, str, bytes]] = []  # (task, agent, uuid) to acknowledge

    def _subscribe(self, id_: str | None) -> Scheduler:
        return Scheduler(
            self.world,
            self.name,
            id_,
            aware=self.aware,
            failover_s=1e6,
            capabilities=("TASK_KILLING_STATE",),
        )

    @property
    def connected(self) -> bool:
        record = self.world.state.frameworks.get(self.id)
        return record is not None and record.stream_id == self.scheduler.stream_id

    def come_back(self) -> None:
        self.scheduler, self.read = self._subscribe(self.id), 0
        self.owed.clear()  # of the broken stream; the updates come again

    def listen(self) -> list[dict[str, Any]]:
        """The statuses that are new, noted."""
        events = self.world.streams[self.scheduler.stream_id]
        fresh, self.read = events[self.read :], len(events)
        assert not [one for one in fresh if one["type"] == "ERROR"], "the framework was refused"
        statuses = [one["update"]["status"] for one in fresh if one["type"] == "UPDATE"]
        for status in statuses:
            task_id = status["task_id"]["value"]
            self.told[task_id] = status["state"]
            if "uuid" in status:
                self.owed.append((task_id, status["agent_id"]["value"], status["uuid"]))
        return statuses

    def acknowledge_next(self) -> None:
        task_id, agent_id, uuid = self.owed.pop(0)
        body = {"agent_id": {"value": agent_id}, "task_id": {"value": task_id}, "uuid": uuid}
        self.scheduler.call("ACKNOWLEDGE", acknowledge=body)

    def launch(self, task_id: str) -> str:
        """A task on the first offer; the agent's id."""
        offer = self.scheduler.offers[0]
        self.told[task_id], self.agents[task_id] = "TASK_STAGING", offer.agent_id
        self.scheduler.launch(offer, self.scheduler.task(offer, task_id))
        return str(offer.agent_id)

    def reconcile(self) -> None:
        """Ask after every task whose end was not told."""
        ended = TERMINAL_STATES - {
            "TASK_LOST"
        }  # which is also what an agent that is away looks like
        open_ = [
            (task, agent) for task, agent in self.agents.items() if self.told[task] not in ended
        ]
        if open_:
            self.scheduler.reconcile(*open_)
