"""Discrete-event world of the simulator: tasks arrive, wait, run and end; machines boot and end.

Every change is a timed event in a heap; nothing is computed between events. The longest waiting
task is placed first, on the agent that the policy's scheduler prefers (`Behaviour`). A policy reads
and acts through `World` only. `conservation` checks every run.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, Protocol

from mesaform.autoscaler.model.lifetimes import Ended
from mesaform.autoscaler.model.shape import NOTHING, Shape, contains, minus, plus, shape_of
from mesaform.aws.ports import LaunchRequest, LaunchResult, Machine, Offering
from mesaform.common.resources import Range, subtract_ranges
from mesaform.placement.constraints import Constraint, InstanceCounts, room
from mesaform.placement.preference import AgentUse, Strategy, rank
from mesaform.placement.run_times import RunTimes
from mesaform.simulator import conservation
from mesaform.simulator.market import Market
from mesaform.simulator.results import Bill, Entry, Record
from mesaform.simulator.trace import Task, Trace
from mesaform.topology.agent_attributes import AgentMachine, registered_attributes
from mesaform.topology.names import Tag

EPOCH = 1_800_000_000.0
"""Simulated time begins here: planners work with seconds since 1970."""

PATIENCE_S = 86_400.0
"""Work that still waits this long after the last arrival and the last end is never placed."""

TAIL_S = 1_800.0
"""Seconds after the last task for which remaining machines are still charged."""

EventKind = Literal["arrived", "ended", "registered", "noticed", "lost"]
Ending = Literal["policy", "reclaimed"]


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What belongs to a policy besides its decisions about machines.

    `placement` is the strategy of its scheduler; None: the agent that registered first. Machines
    with a notice are drained at once with `drains_on_notice`; otherwise the policy reacts itself.
    """

    placement: Strategy | None = None
    drains_on_notice: bool = True


class Scaler(Protocol):
    """An autoscaler in this world: the real planner, or a baseline."""

    name: str
    behaviour: Behaviour

    def on_event(self, happening: EventKind, now: float, /) -> None:
        """Something changed at this moment."""
        ...

    def reconcile(self, world: World, now: float, /) -> None:
        """Look at the world and act on it."""
        ...

    def next_wakeup(self, world: World, now: float, /) -> float:
        """Return when to run next without other events; infinite for never.

        The world calls it after each run of the policy and after each change.
        """
        ...


@dataclass(slots=True)
class Host:
    """A machine.

    `changed_at` is the time of the last start or end of a task. `cordoned` hosts get no new tasks.
    `up` is true while the agent is registered.
    """

    name: str
    pool: str
    offering: Offering
    bought_at: float
    token: str
    total: Shape
    free: Shape
    up: bool = False
    cordoned: bool = False
    drained: bool = False
    up_at: float = math.inf
    changed_at: float = 0.0
    tasks: dict[int, float] = field(default_factory=dict)  # task number -> when it starts here
    ours: bool = True
    version: int = 0  # grows with each change, so that views of it can be kept
    attributes: Mapping[str, str] = field(default_factory=dict)  # as its agent registers them
    offered_ports: tuple[Range, ...] = ()  # host ports of its agent
    taken_ports: set[int] = field(default_factory=set)  # fixed ones of its tasks
    images: set[str] = field(default_factory=set)  # that it pulled
    ends_at: tuple[int, float] = (-1, math.inf)  # version, and the expected end of its last task

    @property
    def hostname(self) -> str:
        return self.name

    @property
    def ports(self) -> tuple[Range, ...]:
        """Host ports that no task has as a fixed one."""
        taken = [(port, port) for port in sorted(self.taken_ports)]
        return tuple(subtract_ranges(self.offered_ports, taken)) if taken else self.offered_ports

    @property
    def usd_per_hour(self) -> float:
        return self.offering.usd_per_hour

    @property
    def used(self) -> Shape:
        return minus(self.total, self.free)

    @property
    def takes_work(self) -> bool:
        return self.up and not self.cordoned and not self.drained


@dataclass(slots=True)
class SimulatedJob:
    """What became of a task. `waiting_since` is None while it runs and once it ended."""

    task: Task
    left_s: float
    waiting_since: float | None = None
    placed_at: float = 0.0
    core_s: float = 0.0
    host: str = ""
    waited_s: float = 0.0
    ran_s: float = 0.0
    runs: int = 0
    ended_at: float | None = None


@dataclass(frozen=True, slots=True)
class Waiting:
    """Equal tasks that wait, as a queue has them."""

    app: str
    shape: Shape
    count: int
    since: float


class World:
    """One run of one policy over one trace.

    Args:
        trace: the work.
        catalogue: what each pool may buy.
        market: how the cloud behaves.
        attributes: the attributes of each pool, as they are configured.

    """

    def __init__(
        self,
        trace: Trace,
        catalogue: Mapping[str, Sequence[Offering]],
        market: Market,
        attributes: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
    ) -> None:
        self._attributes = attributes
        self.now = EPOCH
        self.catalogue = catalogue
        self.market = market
        self.work = [SimulatedJob(task, task.runs_s) for task in trace.tasks]
        self.hosts: dict[str, Host] = {}  # all that cost money, in the order they were bought
        self.record = Record(EPOCH)
        self.ended: list[Ended] = []  # in the order in which they ended
        self._agents: dict[str, Host] = {}  # registered ones, in the order they registered
        self._queues: dict[str, deque[int]] = {}
        self._shapes = {task.app: task.shape for task in trace.tasks}
        self.apps: dict[str, tuple[Constraint, ...]] = {
            app: trace.constraints.get(app, ()) for app in self._shapes
        }
        self.labels = {task.app: task.labels for task in trace.tasks}
        self._fixed_ports = {app: _fixed_ports(rules) for app, rules in self.apps.items()}
        self._spread: dict[
            str, InstanceCounts
        ] = {}  # where instances of apps with constraints are; forgotten when one comes or goes
        self._events: list[tuple[float, int, str, int, str]] = []
        self._number = 0
        self._bought = 0
        self._running = 0
        self._used = self._total = NOTHING
        self._usd_per_hour = 0.0
        self._arrivals_left = len(self.work)
        self._quiet_since = EPOCH
        self._new_events: list[EventKind] = []
        self._behaviour = Behaviour()
        self._run_times = RunTimes()
        self._meter = conservation.Meter()
        self._metered = (0, 0.0, 0.0)  # machines, USD an hour and used cores since then
        self.notices: dict[str, float] = {}  # announced end of machines by name
        for number, task in enumerate(trace.tasks):
            self._at(EPOCH + task.at, "arrive", number)

    # what a policy sees

    @property
    def waiting(self) -> list[Waiting]:
        """Work without a place, the longest waiting kind first."""
        groups = [
            Waiting(app, self._shapes[app], len(queue), self.work[queue[0]].waiting_since or 0.0)
            for app, queue in self._queues.items()
            if queue
        ]
        return sorted(groups, key=lambda group: group.since)

    @property
    def agents(self) -> list[Host]:
        """Registered hosts in the order in which they are offered work."""
        return list(self._agents.values())

    def shapes_on(self, host: Host) -> list[Shape]:
        return [self.work[number].task.shape for number in host.tasks]

    def apps_on(self, host: Host) -> dict[str, int]:
        counts: dict[str, int] = {}
        for number in host.tasks:
            app = self.work[number].task.app
            counts[app] = counts.get(app, 0) + 1
        return counts

    # what a policy does

    def buy(self, request: LaunchRequest, why: str) -> LaunchResult:
        """Launch each machine on the first offering with capacity, as CreateFleet `instant`."""
        bought: list[Machine] = []
        without: list[str] = []
        for offering in request.offerings:
            if len(bought) == request.count:
                break
            if not self.market.has(offering, self.now):
                without.append(offering.key)
                continue
            bought += [self._launch(request, offering) for _ in range(request.count - len(bought))]
        kind = "buy" if bought else "no capacity"
        name = bought[0].instance_type if bought else request.offerings[0].instance_type
        self.record.entries.append(Entry(self.now, kind, len(bought), name, why))
        self._note()
        return LaunchResult(tuple(bought), tuple(without))

    def cordon(self, name: str) -> None:
        """No more work for this host."""
        self.hosts[name].cordoned = True
        self.hosts[name].version += 1

    def uncordon(self, name: str) -> None:
        """Work for this host again."""
        host = self.hosts[name]
        host.cordoned = False
        host.version += 1
        self._offer(host)
        self._note()

    def drain(self, name: str, why: str) -> int:
        """Remove a host; its tasks wait again. Return their number: each is a disruption."""
        host = self.hosts[name]
        host.drained = True
        self._agents.pop(name, None)
        killed = self._evict(host, "policy", why)
        host.up = False
        host.version += 1
        self._offer_all()
        self._note()
        return killed

    def terminate(self, name: str, why: str) -> None:
        """Give a machine back; what still ran there is disrupted."""
        if name not in self.hosts:
            return
        self.drain(name, why)
        self.record.entries.append(
            Entry(self.now, "give back", 1, self.hosts[name].offering.instance_type, why)
        )
        self._gone(self.hosts[name])

    # how time passes

    def add(self, pool: str, offering: Offering, count: int) -> None:
        """Machines that are there from the start and are not the policy's."""
        for _ in range(count):
            host = self._host(pool, offering, "", ours=False)
            self._register(host)

    def run(self, scaler: Scaler) -> Record:
        """Let the policy work until every task ended, or nothing more will ever happen to it."""
        self._behaviour = scaler.behaviour
        look_at = scaler.next_wakeup(self, self.now)
        while True:
            event_at = self._events[0][0] if self._events else math.inf
            at = min(event_at, look_at)
            if self._over(at):
                break
            self.now = max(self.now, at)
            if event_at <= look_at:
                self._happen()
                for happening in dict.fromkeys(self._new_events):
                    scaler.on_event(happening, self.now)
                self._new_events.clear()
            else:
                self.record.looks += 1
                scaler.reconcile(self, self.now)
                self._new_events.clear()
            look_at = max(scaler.next_wakeup(self, self.now), self.now)
        return self._close()

    def _over(self, at: float) -> bool:
        """Whether the run ends before `at`: nothing is left to happen, or nobody acts any more."""
        if at == math.inf:
            return True
        if self._arrivals_left or self._running:
            return False
        is_waiting = any(self._queues.values())
        if not is_waiting and not self._has_bought_hosts:
            return True
        limit = self._quiet_since + (PATIENCE_S if is_waiting else TAIL_S)
        if at > limit:
            self.now = max(self.now, limit)
        return at > limit

    @property
    def _has_bought_hosts(self) -> bool:
        return any(host.ours for host in self.hosts.values())

    def _happen(self) -> None:
        """All events of this moment."""
        while self._events and self._events[0][0] <= self.now:
            _, _, kind, number, name = heapq.heappop(self._events)
            if kind == "arrive":
                self._arrivals_left -= 1
                self._quiet_since = self.now
                self._wait(number)
                self._new_events.append("arrived")
            elif kind == "end":
                self._end(number, name)
            elif name in self.hosts:
                self._machine_event(kind, self.hosts[name])
        self._note()

    def _machine_event(self, kind: str, host: Host) -> None:
        if kind == "register" and not host.drained:
            self._register(host)
        elif kind == "notice":
            self._announce(host)
        elif kind == "reclaim":
            self._agents.pop(host.name, None)
            self._evict(host, "reclaimed", "the cloud took it back")
            self.record.entries.append(
                Entry(
                    self.now, "reclaimed", 1, host.offering.instance_type, "the cloud took it back"
                )
            )
            self._gone(host)
            self._new_events.append("lost")
            self._offer_all()

    def _announce(self, host: Host) -> None:
        """The cloud says that it takes a machine back."""
        self.notices[host.name] = self.now + self.market.settings.notice_s
        self.record.entries.append(
            Entry(self.now, "notice", 1, host.offering.instance_type, "the cloud takes it back")
        )
        if self._behaviour.drains_on_notice:
            self.drain(host.name, "the cloud takes it back")
            self._new_events.append("lost")
        self._new_events.append("noticed")

    def _register(self, host: Host) -> None:
        host.up, host.up_at, host.changed_at = True, self.now, self.now
        host.version += 1
        self._agents[host.name] = host
        self._new_events.append("registered")
        self._offer(host)

    def _wait(self, number: int) -> None:
        work = self.work[number]
        work.waiting_since = self.now
        work.host = ""
        host = self._best_host(work.task)
        if host is not None:
            self._place(number, host)
        else:
            self._queues.setdefault(work.task.app, deque()).append(number)

    def _best_host(self, task: Task) -> Host | None:
        """The host that the scheduler prefers for a task."""
        fitting = (
            host
            for host in self._agents.values()
            if host.takes_work and contains(host.free, task.shape) and self._allowed(task.app, host)
        )
        strategy = self._behaviour.placement
        if strategy is None:
            return next(fitting, None)
        ends_at = self._run_times.end_of(task.app, self.now, self.now)
        return min(
            fitting,
            key=lambda host: rank(strategy, self._use_of(host, task), ends_at),
            default=None,
        )

    def _use_of(self, host: Host, task: Task) -> AgentUse:
        same_app = 0
        if self._behaviour.placement == "spread":
            same_app = sum(1 for number in host.tasks if self.work[number].task.app == task.app)
        return AgentUse(
            host.free[0] / 1000,
            host.free[1] / 1000,
            len(host.tasks),
            same_app,
            self._last_end_of(host),
            self.notices.get(host.name, math.inf),
        )

    def _last_end_of(self, host: Host) -> float:
        """When the last task of a host is expected to end."""
        if host.ends_at[0] != host.version:
            ends = (
                self._run_times.end_of(self.work[number].task.app, since, self.now)
                for number, since in host.tasks.items()
            )
            host.ends_at = (host.version, max(ends, default=self.now))
        return host.ends_at[1]

    def _offer_all(self) -> None:
        if any(self._queues.values()):
            for host in self._in_order():
                self._offer(host)

    def _in_order(self) -> list[Host]:
        """Registered hosts in the order in which the scheduler fills them."""
        hosts = list(self._agents.values())
        if self._behaviour.placement == "pack":
            hosts.sort(key=lambda host: (not host.tasks, host.free))
        elif self._behaviour.placement == "spread":
            hosts.sort(key=lambda host: (len(host.tasks), host.up_at))
        return hosts

    def _offer(self, host: Host) -> None:
        """Place what waits longest and fits, until nothing fits."""
        while host.takes_work and (app := self._next_app(host)) is not None:
            self._place(self._queues[app].popleft(), host)

    def _next_app(self, host: Host) -> str | None:
        """The app whose first task waits longest among those that fit on the host."""
        heads = [
            (self.work[queue[0]].waiting_since or 0.0, app)
            for app, queue in self._queues.items()
            if queue
        ]
        for _, app in sorted(heads):
            if contains(host.free, self._shapes[app]) and self._allowed(app, host):
                return app
        return None

    def _allowed(self, app: str, host: Host) -> bool:
        """Whether the app's constraints let one more of it onto this host."""
        if not (constraints := self.apps[app]):
            return True
        if app not in self._spread:
            usage = self._spread[app] = InstanceCounts()
            for agent in self._agents.values():
                usage.add(
                    app,
                    constraints,
                    agent,
                    sum(1 for number in agent.tasks if self.work[number].task.app == app),
                )
        return room(app, constraints, host, self._spread[app]) > 0

    def _place(self, number: int, host: Host) -> None:
        work = self.work[number]
        self._spread.pop(work.task.app, None)
        pull_s = self._pull_s(work.task.app, host)
        since = work.waiting_since if work.waiting_since is not None else self.now
        work.waited_s += self.now - since + pull_s
        work.waiting_since = None
        work.placed_at = self.now
        work.host = host.name
        work.runs += 1
        host.tasks[number] = self.now + pull_s
        host.taken_ports.update(self._fixed_ports[work.task.app])
        host.free = minus(host.free, work.task.shape)
        host.changed_at = self.now
        host.version += 1
        self._running += 1
        self._used = plus(self._used, work.task.shape)
        self._at(self.now + pull_s + work.left_s, "end", number, f"{host.name}/{work.runs}")

    def _pull_s(self, app: str, host: Host) -> float:
        """Seconds until the app's image is on a host; the first task of an app pulls it."""
        if app in host.images or not self.market.settings.pull_s:
            return 0.0
        host.images.add(app)
        return self.market.settings.pull_s

    def _leave(self, number: int, host: Host) -> float:
        """Take a task off its host; returns for how long it ran there."""
        work = self.work[number]
        shape = work.task.shape
        self._spread.pop(work.task.app, None)
        ran_s = max(0.0, self.now - host.tasks.pop(number))
        host.taken_ports.difference_update(self._fixed_ports[work.task.app])
        work.core_s += (self.now - work.placed_at) * shape[0] / 1000
        host.free = plus(host.free, shape)
        host.changed_at = self.now
        host.version += 1
        self._running -= 1
        self._quiet_since = self.now
        self._used = minus(self._used, shape)
        work.ran_s += ran_s
        return ran_s

    def _end(self, number: int, run: str) -> None:
        work = self.work[number]
        name, _, runs = run.partition("/")
        if work.ended_at is not None or work.host != name or work.runs != int(runs):
            return  # it was moved since
        host = self.hosts[name]
        self._leave(number, host)
        work.ended_at, work.host = self.now, ""
        self._run_times.learn(work.task.app, work.task.runs_s)
        self.ended.append(
            Ended(work.task.app, work.ran_s if work.task.keeps_work else work.task.runs_s, self.now)
        )
        self._new_events.append("ended")
        if self.apps[work.task.app]:
            self._spread.clear()  # a host port counts for all apps
            self._offer_all()  # what one value may have depends on what the others have
        else:
            self._offer(host)

    def _evict(self, host: Host, by: Ending, why: str) -> int:
        if host.name in self.notices:
            by = "reclaimed"
        numbers = list(host.tasks)
        for number in numbers:
            work = self.work[number]
            ran_s = self._leave(number, host)
            if work.task.keeps_work:
                work.left_s = max(0.0, work.left_s - ran_s)
            else:
                self.record.lost_s += ran_s
            work.host, work.waiting_since = "", self.now
            self._queues.setdefault(work.task.app, deque()).append(number)
        if by == "policy":
            self.record.disruptions += len(numbers)
        else:
            self.record.interruptions += len(numbers)
        if numbers:
            self.record.entries.append(
                Entry(
                    self.now,
                    "disrupt" if by == "policy" else "interrupt",
                    len(numbers),
                    host.name,
                    why,
                )
            )
        return len(numbers)

    def _launch(self, request: LaunchRequest, offering: Offering) -> Machine:
        host = self._host(request.pool, offering, request.token, ours=True)
        self._at(self.now + self.market.boot_s(self._bought), "register", 0, host.name)
        reclaimed_at = self.now + self.market.reclaimed_after_s(self._bought, offering.capacity)
        self._at(reclaimed_at, "reclaim", 0, host.name)
        if self.market.settings.notice_s:
            noticed_at = max(self.now, reclaimed_at - self.market.settings.notice_s)
            self._at(noticed_at, "notice", 0, host.name)
        return machine_of(host)

    def _host(self, pool: str, offering: Offering, token: str, *, ours: bool) -> Host:
        self._bought += 1
        total = shape_of(offering.resources)
        host = Host(
            f"i-{self._bought:06d}",
            pool,
            offering,
            self.now,
            token,
            total,
            total,
            changed_at=self.now,
            ours=ours,
            attributes=self._registered(pool, offering),
            offered_ports=offering.resources.ports,
        )
        self.hosts[host.name] = host
        self._total = plus(self._total, total)
        self._usd_per_hour += host.usd_per_hour
        self._note()
        return host

    def _registered(self, pool: str, offering: Offering) -> dict[str, str]:
        """Attributes of an agent; a zone's name is its region's with a letter."""
        machine = AgentMachine(offering.instance_type, offering.zone, pool, offering.capacity)
        return registered_attributes(self._attributes.get(pool, {}), machine, offering.zone[:-1])

    def _gone(self, host: Host) -> None:
        self._agents.pop(host.name, None)
        self.notices.pop(host.name, None)
        del self.hosts[host.name]
        self._total = minus(self._total, host.total)
        self._usd_per_hour -= host.usd_per_hour
        self.record.bills.append(
            Bill(host.name, host.offering.key, host.usd_per_hour, host.bought_at, self.now)
        )
        self._note()

    def _at(self, when: float, kind: str, number: int, name: str = "") -> None:
        if when < math.inf:
            self._number += 1
            heapq.heappush(self._events, (when, self._number, kind, number, name))

    def _note(self) -> None:
        self._meter.advance(self.now, *self._metered)
        self._metered = (len(self.hosts), self._usd_per_hour, self._used[0] / 1000)
        waiting = sum(len(queue) for queue in self._queues.values())
        self.record.note(
            self.now,
            len(self.hosts),
            round(self._usd_per_hour, 9),
            self._total,
            self._used,
            waiting,
        )

    def _close(self) -> Record:
        for host in list(self.hosts.values()):
            self._evict(host, "policy", "the run is over")
            self._gone(host)
        self.record.finish(self.now, self.work_done())
        conservation.check(self._accounts(), self.record.bills, self._meter)
        return self.record

    def _accounts(self) -> list[conservation.Account]:
        """What became of each task, by the queues and hosts themselves."""
        waiting = {number for queue in self._queues.values() for number in queue}
        running = {number for host in self.hosts.values() for number in host.tasks}
        reported = [waited_s is None for waited_s, _, _ in self.work_done()]
        return [
            conservation.Account(
                work.task.name,
                work.ended_at is not None,
                number in waiting,
                number in running,
                reported[number],
                work.core_s,
            )
            for number, work in enumerate(self.work)
        ]

    def work_done(self) -> list[tuple[float | None, float, float]]:
        """Of each task: seconds it waited (None when it never ended), ran, and was meant to run."""
        return [
            (work.waited_s if work.ended_at is not None else None, work.ran_s, work.task.runs_s)
            for work in self.work
        ]


def machine_of(host: Host) -> Machine:
    """A host as EC2 lists it."""
    tags = {
        Tag.CLUSTER: "simulated",
        Tag.ROLE: "agent",
        Tag.POOL: host.pool,
        Tag.MANAGED_BY: "autoscaler" if host.ours else "terraform",
        Tag.LAUNCH: host.token,
    }
    return Machine(
        instance_id=host.name,
        instance_type=host.offering.instance_type,
        zone=host.offering.zone,
        capacity=host.offering.capacity,
        state="running",
        private_address=host.name,
        public_address="",
        launched_at=host.bought_at,
        tags=tags,
    )


def fits_anything(shape: Shape, catalogue: Mapping[str, Iterable[Offering]]) -> bool:
    """Whether some type of some pool holds it."""
    return any(
        contains(shape_of(offering.resources), shape)
        for pool in catalogue.values()
        for offering in pool
    )


def _fixed_ports(rules: Iterable[Constraint]) -> list[int]:
    """The host ports among the constraints of an app."""
    return [int(rule.value) for rule in rules if rule.is_host_port]
