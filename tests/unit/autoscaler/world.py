"""A simulated world for the real planner and executor: engine, queue, cloud, journal, faults.

It has no threads and its own clock. Invariants are checked after each pass; errors name the time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from harness.autoscaler_builders import NOW, ZONES, a_machine, a_total, an_agent, offerings
from mesaform.autoscaler.daemon.executor import PlanExecutor
from mesaform.autoscaler.model.cluster_view import Agent, ClusterView, QueueEntry, RunningTask
from mesaform.autoscaler.model.decision import Decision
from mesaform.autoscaler.model.planner_state import PlannerState
from mesaform.autoscaler.model.shape import NOTHING, Shape, contains, minus, plus
from mesaform.autoscaler.model.snapshot import Intent, Snapshot
from mesaform.autoscaler.model.supply import LIVE, price_of
from mesaform.autoscaler.planner.planner import plan
from mesaform.aws.overrides import Override
from mesaform.aws.ports import LaunchRequest, LaunchResult, Machine
from mesaform.common.errors import CloudError, MesaformError, Permanent, Retryable
from mesaform.config.schema import ClusterSpec
from mesaform.placement.constraints import InstanceCounts, room
from mesaform.testing.fake_cloud import FakeFleet
from mesaform.topology.names import Tag
from mesaform.zookeeper.session import ZooKeeperUnavailable

DECIDED_WITHIN_S = 120.0
"""Time from a decision to the machine's removal, at most: a replacement boots first."""

LOOP = (
    asyncio.new_event_loop()
)  # one for all worlds: a new one for each pass takes most of a pass's time


class Crash(BaseException):
    """The daemon is killed at this line."""


class UnluckyFleet(FakeFleet):
    """A cloud whose lists are old, that forgets to terminate, and whose caller dies in the middle.

    Attributes:
        stale_s: `machines` answers as of so long ago.
        deaf: so many terminations of a machine are accepted and not carried out.
        throttled: every call is refused for now.
        crash_before, crash_after: a call (`launch`, `terminate`) that kills the daemon once.
        ended: machines that were terminated because the daemon said so.

    """

    def __init__(self, world: World, lag_s: float) -> None:
        super().__init__(lambda: world.now, lag_s)
        self.stale_s = 0.0
        self.deaf = 0
        self.throttled = False
        self.crash_before = ""
        self.crash_after = ""
        self.ended: set[str] = set()
        self._pictures: list[tuple[float, list[Machine]]] = []

    def machines(self, cluster: str) -> list[Machine]:
        now, actual = self.clock(), super().machines(cluster)
        self._pictures.append((now, actual))
        while len(self._pictures) > 1 and self._pictures[1][0] <= now - self.stale_s:
            self._pictures.pop(0)
        return self._pictures[0][1] if self.stale_s else actual

    def launch(self, request: LaunchRequest) -> LaunchResult:
        self._line("launch", after=False)
        result = super().launch(request)
        self._line("launch", after=True)
        return result

    def terminate(self, cluster: str, instance_ids: Sequence[str]) -> None:
        self._line("terminate", after=False)
        if self.deaf:
            self.deaf = max(0, self.deaf - len(instance_ids))
            return
        super().terminate(cluster, instance_ids)
        self.ended |= set(instance_ids)
        self._line("terminate", after=True)

    def _maybe_fail(self) -> None:
        if self.throttled:
            raise Retryable("RequestLimitExceeded", after_s=5.0)
        super()._maybe_fail()

    def _line(self, name: str, *, after: bool) -> None:
        if (self.crash_after if after else self.crash_before) == name:
            self.crash_before = self.crash_after = ""
            raise Crash(name)


@dataclass
class Journal:
    """The journal in memory. `crash_before` names a call that kills the daemon once.

    While it is `gone` writes fail.
    """

    memory: PlannerState = field(default_factory=PlannerState)
    launches: dict[str, Intent] = field(default_factory=dict)
    crash_before: str = ""
    gone: bool = False

    def _line(self, name: str) -> None:
        if self.gone:
            raise ZooKeeperUnavailable("no ZooKeeper server answers", after_s=1.0)
        if self.crash_before == name:
            self.crash_before = ""
            raise Crash(name)

    async def save(self, memory: PlannerState) -> None:
        self._line("save")
        self.memory = memory

    async def save_if_changed(self, memory: PlannerState) -> None:
        await self.save(memory)

    async def record(self, intent: Intent) -> None:
        self._line("record")
        self.launches[intent.request.token] = intent

    async def bought(self, intent: Intent, instance_ids: tuple[str, ...]) -> Intent:
        self._line("bought")
        known = replace(intent, instance_ids=instance_ids)
        self.launches[intent.request.token] = known
        return known

    async def resolve(self, token: str) -> None:
        self._line("resolve")
        self.launches.pop(token, None)


@dataclass
class Task:
    """A task. A `stubborn` one outlasts every drain that does not take its agent away."""

    app: str
    shape: Shape
    since: float = 0.0
    number: int = 0
    stubborn: bool = False
    framework: str = "marathon"


@dataclass
class Running:
    """An agent of the world."""

    agent: Agent
    tasks: list[Task] = field(default_factory=list)
    protected: frozenset[str] = frozenset()

    @property
    def view(self) -> Agent:
        allocated = NOTHING
        apps: dict[str, int] = {}
        since: dict[str, dict[str, float]] = {}
        for task in self.tasks:
            allocated = plus(allocated, task.shape)
            apps[task.app] = apps.get(task.app, 0) + 1
            oldest = since.setdefault(task.app, {"": task.since})
            oldest[""] = min(oldest[""], task.since)
        work = tuple(
            RunningTask(
                f"t{task.number}",
                task.app,
                task.framework,
                task.shape,
                task.since,
                task.app in self.protected,
            )
            for task in self.tasks
        )
        return replace(
            self.agent,
            allocated=allocated,
            tasks=len(self.tasks),
            apps=apps,
            app_since=since,
            work=work,
        )


class World:
    """Time, machines and work.

    Args:
        spec: the cluster.
        boot_s: how long a machine takes to register.
        lag_s: how long EC2 hides a new machine.

    Attributes:
        refused: apps whose framework refuses every offer of the autoscaler's machines.
        refused_everywhere: apps whose framework refuses every offer.
        registers_as: attributes that new agents register with instead of the expected ones.
        total_of_new: what new agents advertise instead of their type's resources.
        fails_after_s: apps whose tasks fail, with the time that each lives.
        worked: machines that had a task.

    """

    def __init__(self, spec: ClusterSpec, *, boot_s: float = 30.0, lag_s: float = 0.0) -> None:
        self.spec = spec
        self.now = NOW
        self.boot_s = boot_s
        self.fleet = UnluckyFleet(self, lag_s)
        self.journal = Journal()
        self.skew_s = 0.0
        self.struck: set[str] = set()
        self.failures = 0
        self.seen: list[tuple[float, int]] = []
        self.decisions: list[Decision] = []
        self.agents: dict[str, Running] = {}
        self.apps: dict[str, QueueEntry] = {}
        self.never_boot: set[str] = set()
        self.leader = True
        self.crashes = 0
        self.crash_after = ""
        self.killed_tasks = 0
        self.orders: list[Override] = []
        self.protected: set[str] = set()
        self.stubborn: set[str] = set()
        self.foreign: set[str] = set()
        self.moved: list[tuple[float, Task]] = []
        self.numbers = 0
        self.usd = 0.0
        self.refused: set[str] = set()
        self.refused_everywhere: set[str] = set()
        self.registers_as: dict[str, str] = {}
        self.total_of_new: Shape | None = None
        self.fails_after_s: dict[str, float] = {}
        self.retry_at: dict[str, tuple[float, int]] = {}
        self.worked: set[str] = set()
        self.usd_by_machine: dict[str, float] = {}
        self.offerings = offerings(spec)
        for pool in spec.agents:
            for number in range(pool.count):
                machine = a_machine(
                    f"i-t-{pool.name}-{number}",
                    by="terraform",
                    pool=pool.name,
                    zone=ZONES[number % 3],
                    instance_type=pool.types[0],
                )
                self.fleet.add(machine)
        for number in range(3):
            self.fleet.add(
                a_machine(
                    f"i-m-{number}",
                    by="terraform",
                    role="master",
                    pool="",
                    instance_type="t3.medium",
                )
            )
        self._boot()

    # what people do

    def want(self, entry: QueueEntry) -> None:
        """Scale an app to `entry.count` instances."""
        self.apps[entry.app] = entry
        for running in self.agents.values():
            mine = [task for task in running.tasks if task.app == entry.app]
            while mine and self.running(entry.app) > entry.count:
                running.tasks.remove(mine.pop())

    def running(self, app: str) -> int:
        return sum(
            1 for running in self.agents.values() for task in running.tasks if task.app == app
        )

    @property
    def live(self) -> list[Machine]:
        return [machine for machine in self._machines() if machine.state in LIVE]

    @property
    def ours(self) -> list[Machine]:
        return [machine for machine in self.live if machine.tags[Tag.MANAGED_BY] == "autoscaler"]

    @property
    def usd_per_hour(self) -> float:
        sizes = {offering.key: offering for pool in self.offerings.values() for offering in pool}
        return sum(price_of(machine, sizes) for machine in self.live)

    # what the cloud does

    def zone_dies(self, zone: str) -> None:
        """Every machine of a zone ends at once, and nothing can be bought there."""
        for offering in (
            offering
            for pool in self.offerings.values()
            for offering in pool
            if offering.zone == zone
        ):
            self.fleet.stock[offering.key] = 0
        for machine in [
            machine
            for machine in self.live
            if machine.zone == zone and machine.tags[Tag.ROLE] == "agent"
        ]:
            self.interrupt(machine.instance_id)

    def interrupt(self, instance_id: str) -> None:
        """A machine ends without having been asked to; its tasks are lost and wanted again."""
        self.struck.add(instance_id)
        self.agents.pop(instance_id, None)
        self.fleet.set_state(instance_id, "terminated")

    def registers_twice(self, instance_id: str) -> None:
        """An agent gets a new id; the engine lists the old one as unreachable for a while."""
        running = self.agents[instance_id]
        running.tasks.clear()
        running.agent = replace(
            running.agent, agent_id=f"{running.agent.agent_id}-again", registered_at=self.now
        )

    def run(self, seconds: float, step_s: float = 2.0) -> None:
        """Let time pass: cloud, services and autoscaler each take their turn every `step_s`."""
        for _ in range(round(seconds / step_s)):
            self.now += step_s
            self._boot()
            self._schedule()
            self._pass()
            self._drain()
            self.usd += self.usd_per_hour * step_s / 3600
            self._account(step_s)
            self.check()

    def _account(self, step_s: float) -> None:
        """Add what each of the autoscaler's machines costs, and note which had a task."""
        sizes = {offering.key: offering for pool in self.offerings.values() for offering in pool}
        for machine in self.ours:
            name, usd = machine.instance_id, price_of(machine, sizes) * step_s / 3600
            self.usd_by_machine[name] = self.usd_by_machine.get(name, 0.0) + usd

    @property
    def unused_usd(self) -> float:
        """Dollars spent on the autoscaler's machines that never had a task."""
        return sum(usd for name, usd in self.usd_by_machine.items() if name not in self.worked)

    # what must always hold

    def check(self) -> None:
        at = f"{self.now - NOW:g} s"
        machines = {machine.instance_id: machine for machine in self._machines()}
        for pool in self.spec.agents:
            mine = [machine for machine in self.live if machine.tags.get(Tag.POOL) == pool.name]
            assert len(mine) <= pool.max, (
                f"{at}: pool {pool.name} has {len(mine)} machines, max {pool.max}"
            )
        for machine in machines.values():
            if machine.instance_id in self.struck:
                continue
            if machine.tags[Tag.MANAGED_BY] == "terraform":
                assert machine.state == "running", (
                    f"{at}: {machine.instance_id} is Terraform's and was touched"
                )
            else:
                assert machine.tags[Tag.CLUSTER] == "toy"
                assert machine.tags[Tag.LAUNCH] in {
                    request.token for request in self.fleet.launches
                }, f"{at}: nobody ordered it"
        tokens = [request.token for request in self.fleet.launches]
        assert len(tokens) == len(set(tokens)), f"{at}: bought twice"
        most = self.spec.cost.max_usd_per_hour
        assert most is None or self.usd_per_hour <= most + 1e-6, (
            f"{at}: ${self.usd_per_hour} an hour, allowed {most}"
        )
        assert not self.killed_tasks, f"{at}: a task was killed"
        for _, task in self.moved:
            assert task.app not in self.protected | self.foreign, f"{at}: {task.app} was moved"
        for running in self.agents.values():
            if running.agent.attributes.get("mesaform/protect") == "true":
                assert not running.agent.deactivated, f"{at}: a protected agent was touched"
        self.seen = [
            (when, count)
            for when, count in [*self.seen, (self.now, len(self.agents))]
            if self.now - when <= DECIDED_WITHIN_S
        ]
        most_agents = max(
            count for _, count in self.seen
        )  # what goes was decided when there were as many
        allowed = max(
            1, int(most_agents * self.spec.autoscaler.consolidation.max_agents_percent / 100)
        )
        disturbed = [
            name
            for name, removal in self.journal.memory.removals.items()
            if removal.policy in {"underused", "replace"}
        ]
        assert len(disturbed) <= allowed + 1, f"{at}: {disturbed} disturbed at once"
        self._check_no_to_and_fro(at)

    def _check_no_to_and_fro(self, at: str) -> None:
        """Consolidation removes no type within the time in which its purchase pays back."""
        payback_s = self.spec.autoscaler.consolidation.payback_s
        begun = [
            d
            for d in self.decisions
            if d.kind == "deactivate" and d.policy in {"underused", "replace"}
        ]
        for decision in begun:
            kind = decision.offering.partition("/")[0]
            late = [
                machine
                for machine in self._machines()
                if machine.instance_type == kind
                and machine.tags[Tag.MANAGED_BY] == "autoscaler"
                and decision.at - payback_s < machine.launched_at <= decision.at
            ]
            replacing = {machine.instance_id for machine in late} & set(decision.machines)
            assert not replacing, f"{at}: {replacing} bought and removed within {payback_s:g} s"

    # how the world works

    def _machines(self) -> list[Machine]:
        return self.fleet.all_machines()

    def _boot(self) -> None:
        for machine in self._machines():
            name = machine.instance_id
            if machine.state not in LIVE:
                if name in self.agents:
                    self.killed_tasks += len(self.agents.pop(name).tasks)
                continue
            if self.now - machine.launched_at >= self.boot_s / 2 and machine.state == "pending":
                self.fleet.set_state(name, "running")
            if name in self.agents or machine.tags[Tag.ROLE] != "agent" or name in self.never_boot:
                continue
            if self.now - machine.launched_at >= self.boot_s:
                self.agents[name] = Running(self._registered(machine))

    def _registered(self, machine: Machine) -> Agent:
        """The agent of a machine; one that the autoscaler bought may register something else."""
        is_ours = machine.tags[Tag.MANAGED_BY] == "autoscaler"
        total = a_total(machine.instance_type)
        shape = self.total_of_new or total if is_ours else total
        pool = next(p for p in self.spec.agents if p.name == machine.tags[Tag.POOL])
        stated = {**pool.attributes, **(self.registers_as if is_ours else {})}
        return an_agent(machine, total=shape, registered_at=self.now, attributes=stated)

    def _may_launch(self, entry: QueueEntry) -> bool:
        """Whether an app may launch: it is not in back-off after failures."""
        return entry.overdue and self.retry_at.get(entry.app, (0.0, 0))[0] <= self.now

    def _fail(self) -> None:
        """End tasks that fail. Their app backs off, twice as long each time, as in Marathon."""
        for running in self.agents.values():
            for task in list(running.tasks):
                lives_s = self.fails_after_s.get(task.app)
                if lives_s is not None and self.now - task.since >= lives_s:
                    running.tasks.remove(task)
                    _, failures = self.retry_at.get(task.app, (0.0, 0))
                    self.retry_at[task.app] = (self.now + min(300, 2**failures), failures + 1)

    def _schedule(self) -> None:
        if not self.leader:
            return
        self._fail()
        usage = InstanceCounts()
        for running in self.agents.values():
            for task in running.tasks:
                usage.add(task.app, self.apps[task.app].constraints, running.agent, 1)
        for entry in self.apps.values():
            for running in self.agents.values():
                while (
                    self.running(entry.app) < entry.count
                    and self._may_launch(entry)
                    and self._takes(running, entry, usage)
                ):
                    self.numbers += 1
                    framework = "batch" if entry.app in self.foreign else "marathon"
                    task = Task(
                        entry.app,
                        entry.shape,
                        self.now,
                        self.numbers,
                        entry.app in self.stubborn,
                        framework,
                    )
                    running.tasks.append(task)
                    self.worked.add(running.agent.instance_id)
                    running.protected = frozenset(self.protected)
                    usage.add(entry.app, entry.constraints, running.agent, 1)

    def _takes(self, running: Running, entry: QueueEntry, usage: InstanceCounts) -> bool:
        view = running.view
        if not view.active or view.deactivated:
            return False
        if entry.app in self.refused_everywhere:
            return False
        if entry.app in self.refused and self._is_bought(running):
            return False
        return (
            contains(minus(view.total, view.allocated), entry.shape)
            and room(entry.app, entry.constraints, running.agent, usage) > 0
        )

    def _is_bought(self, running: Running) -> bool:
        return running.agent.instance_id in {machine.instance_id for machine in self.ours}

    def _refusals(self, entry: QueueEntry) -> dict[str, int]:
        """The offers that an app refused, as the services' queue counts them."""
        is_waiting = entry.count > self.running(entry.app) and self.agents
        return {"UnfulfilledConstraint": len(self.agents)} if is_waiting else {}

    def _drain(self) -> None:
        """Tasks on draining agents stop and wait again; stubborn ones stay for a random time."""
        for running in self.agents.values():
            if running.agent.drain_state != "DRAINING":
                continue
            self.moved += [(self.now, task) for task in running.tasks if not task.stubborn]
            running.tasks = [task for task in running.tasks if task.stubborn]
            if not running.tasks:
                running.agent = replace(running.agent, drain_state="DRAINED")

    def snapshot(self) -> Snapshot:
        queue = [
            replace(
                entry,
                count=entry.count - self.running(entry.app),
                overdue=self._may_launch(entry),
                rejections=self._refusals(entry),
            )
            for entry in self.apps.values()
        ]
        view = (
            ClusterView(tuple(running.view for running in self.agents.values()))
            if self.leader
            else None
        )
        return Snapshot(
            spec=self.spec,
            cluster=view,
            queue=tuple(entry for entry in queue if entry.count > 0),
            machines=tuple(self.fleet.machines("toy")),
            offerings=self.offerings,
            intents=tuple(self.journal.launches.values()),
            state=self.journal.memory,
            overrides=tuple(self.orders),
            app_constraints={entry.app: entry.constraints for entry in self.apps.values()},
            templates=self.fleet.templates("toy"),
        )

    def _pass(self) -> None:
        """Run a pass as the daemon does. After a crash a new leader has only the journal."""
        actor = PlanExecutor(
            "toy",
            self.fleet,
            Engine(self),
            self.journal,
            self.decisions.append,
            lambda: self.now + self.skew_s,
        )

        async def once() -> None:
            snapshot = self.snapshot()
            memory, intents = await actor.recover(
                self.journal.memory, snapshot.intents, snapshot.machines
            )
            await actor.execute(
                plan(
                    replace(snapshot, state=memory, intents=tuple(intents)), self.now + self.skew_s
                )
            )

        try:
            LOOP.run_until_complete(once())
        except Crash:
            self.crashes += 1
        except MesaformError as error:
            if not isinstance(error, CloudError | ZooKeeperUnavailable):
                raise
            self.failures += 1


class Engine:
    """The operator calls, on the world's agents."""

    def __init__(self, world: World) -> None:
        self._world = world

    def _find(self, agent_id: str) -> tuple[str, Running]:
        return next(
            (name, running)
            for name, running in self._world.agents.items()
            if running.agent.agent_id == agent_id
        )

    def _line(self, name: str) -> None:
        if self._world.crash_after == name:
            self._world.crash_after = ""
            raise Crash(name)

    async def deactivate(self, agent_id: str) -> None:
        _, running = self._find(agent_id)
        running.agent = replace(running.agent, active=False, deactivated=True)
        self._line("deactivate")

    async def reactivate(self, agent_id: str) -> None:
        _, running = self._find(agent_id)
        if running.agent.drain_state == "DRAINING":
            raise Permanent("Agent is still in the DRAINING state")
        running.agent = replace(running.agent, active=True, deactivated=False, drain_state="")
        self._line("reactivate")

    async def drain(
        self, agent_id: str, grace_s: float | None = None, *, mark_gone: bool = False
    ) -> None:
        name, running = self._find(agent_id)
        if not mark_gone:
            running.agent = replace(
                running.agent, active=False, deactivated=True, drain_state="DRAINING"
            )
            self._line("drain")
            return
        self._world.killed_tasks += len(running.tasks)
        self._world.never_boot.add(name)
        del self._world.agents[name]
        self._line("drain")

    async def mark_gone(self, agent_id: str) -> None:
        await self.drain(agent_id, mark_gone=True)
