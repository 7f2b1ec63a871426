"""Successive masters over the real cores of agents: the model of `test_succession`.

Nothing of a master survives except what it stored. Agents are `AgentCore`s with simulated
containers; frameworks are models that record the statuses they receive.
"""

from __future__ import annotations

from collections.abc import Callable

from mesaform.engine import link
from mesaform.engine.agent import events as ag
from mesaform.engine.agent.core import AgentCore
from mesaform.engine.allocator import Allocator
from mesaform.engine.documents import Document
from mesaform.engine.master import events as ev
from mesaform.engine.master.core import Master
from mesaform.engine.master.state import Ids
from mesaform.mesos.messages import TERMINAL_STATES, AgentInfo, to_wire
from tests.unit.engine_master.world import SIZE, JsonDict, Scheduler, World

DEAD = TERMINAL_STATES | {"TASK_UNKNOWN", "TASK_UNREACHABLE"}
SIGTERM, OK, BROKEN = 15, 0, 256


class SuccessionWorld(World):
    """A world in which a master may crash, with any number of its registry writes done."""

    def __init__(self) -> None:
        super().__init__()
        self.masters = 1

    def succeed(self, written: int) -> None:
        """The leader crashes after `written` of its queued registry writes.

        Each of its streams and links breaks.
        """
        registry = self.master.state.registry.apply(
            *(store.change for store in self.held[:written])
        )
        self.held = []
        self.masters += 1
        name = f"m{self.masters}"
        info: Document = {"id": name, "hostname": "h", "address": {"ip": "127.0.0.1", "port": 5050}}
        self.cut.update(self.links)
        self.closed.update(self.streams)
        self.master = Master(
            info, Ids(name), registry, Allocator(), self.master.state.config, now=self.now
        )


class RealAgent:
    """An agent's own core, its containers, and its connection."""

    def __init__(self, world: SuccessionWorld, host: str) -> None:
        self.world, self.host = world, host
        self.core = AgentCore(host, lambda: world.number().to_bytes(16, "big"))
        self.alive: set[str] = set()  # containers
        self.given_up: set[str] = set()  # containers that were killed before their start
        self.pending_changes: list[
            Callable[[], ag.Event]
        ] = []  # changes of containers that happen later
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
        """Open a new link to the leader."""
        self.drop()
        self.link_id, self.read = f"link{self.world.number()}", 0
        info = AgentInfo(hostname=self.host, resources=to_wire(SIZE))
        register = link.Register(
            info, self.core.meta.agent_id, f"{self.host}:5051", "1.12.0", self.core.known_tasks()
        )
        self.world.feed(ev.AgentRegistering(self.link_id, register))

    def drop(self, *, reported: bool = True) -> None:
        """Break the link. `reported`: the leader sees it."""
        if self.link_id is not None:
            if reported:
                self.world.feed(ev.LinkClosed(self.link_id))
            self.link_id = None
            self.handle(ag.Disconnected())

    def receive(self) -> bool:
        """Handle new messages of the link; return whether there were any."""
        if self.link_id is None:
            return False
        inbox = self.world.links[self.link_id]
        fresh, self.read = inbox[self.read :], len(inbox)
        for message in fresh:
            self._handle_message(message)
        if self.link_id in self.world.cut:
            self.drop(reported=False)
        return bool(fresh)

    def _handle_message(self, message: link.FromMaster) -> None:
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

        self.pending_changes.append(starts)
        self.pending_changes.append(lambda: ag.Ran(container_id))

    def _die(self, container_id: str, wait_status: int) -> None:
        def exits() -> ag.Event:
            self.alive.discard(container_id)
            return ag.Exited(container_id, wait_status)

        if container_id in self.alive:
            self.pending_changes.append(exits)
        else:
            self.given_up.add(container_id)

    def end(self, container_id: str, wait_status: int) -> None:
        """A container's command ends by itself."""
        self._die(container_id, wait_status)

    def run_next(self) -> bool:
        """Let the next change of a container happen; return whether there was one."""
        if not self.pending_changes:
            return False
        self.handle(self.pending_changes.pop(0)())
        return True

    def tick(self) -> None:
        due = self.core.wake_at()
        if due is not None and due <= self.world.now:
            self.handle(ag.Tick())


class Client:
    """A framework that records every task, and acknowledges on request."""

    def __init__(self, world: SuccessionWorld, name: str, *, aware: bool) -> None:
        self.world, self.name, self.aware = world, name, aware
        self.scheduler: Scheduler = self._subscribe(None)
        self.id = self.scheduler.id
        self.read = 0
        self.states: dict[str, str] = {}  # task -> the latest state that it received
        self.agents: dict[str, str] = {}  # task -> agent
        self.unacknowledged: list[tuple[str, str, bytes]] = []  # (task, agent, uuid) to acknowledge

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

    def reconnect(self) -> None:
        self.scheduler, self.read = self._subscribe(self.id), 0
        self.unacknowledged.clear()  # of the broken stream; the updates come again

    def receive(self) -> list[JsonDict]:
        """Record and return the new statuses."""
        events = self.world.streams[self.scheduler.stream_id]
        fresh, self.read = events[self.read :], len(events)
        assert not [event for event in fresh if event["type"] == "ERROR"], (
            "the framework was refused"
        )
        statuses = [event["update"]["status"] for event in fresh if event["type"] == "UPDATE"]
        for status in statuses:
            task_id = status["task_id"]["value"]
            self.states[task_id] = status["state"]
            if "uuid" in status:
                self.unacknowledged.append((task_id, status["agent_id"]["value"], status["uuid"]))
        return statuses

    def acknowledge_next(self) -> None:
        task_id, agent_id, uuid = self.unacknowledged.pop(0)
        body = {"agent_id": {"value": agent_id}, "task_id": {"value": task_id}, "uuid": uuid}
        self.scheduler.call("ACKNOWLEDGE", acknowledge=body)

    def launch(self, task_id: str) -> str:
        """Launch a task on the first offer; return the agent\'s id."""
        offer = self.scheduler.offers[0]
        self.states[task_id], self.agents[task_id] = "TASK_STAGING", offer.agent_id
        self.scheduler.launch(offer, self.scheduler.task(offer, task_id))
        return str(offer.agent_id)

    def reconcile(self) -> None:
        """Reconcile every task whose end was not received."""
        ended = TERMINAL_STATES - {"TASK_LOST"}  # an unreachable agent looks the same
        open_ = [
            (task, agent) for task, agent in self.agents.items() if self.states[task] not in ended
        ]
        if open_:
            self.scheduler.reconcile(*open_)
