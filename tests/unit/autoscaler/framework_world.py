"""A simulated world with frameworks: the engine's real allocator, the real planner and executor.

Frameworks answer offers as the schedulers do that they are named after. The allocator makes a
round each second, the autoscaler a pass every two. What the autoscaler sees of a framework is what
the master's metrics and GET_FRAMEWORKS show.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

from harness.autoscaler_builders import NOW
from mesaform.autoscaler.demand import frameworks
from mesaform.autoscaler.model.cluster_view import ClusterView, Framework
from mesaform.autoscaler.model.planner_state import Finding
from mesaform.autoscaler.model.shape import Shape, contains, make, shape_of, text, times
from mesaform.autoscaler.model.snapshot import Snapshot
from mesaform.common.resources import Resources
from mesaform.config.schema import ClusterSpec
from mesaform.engine.allocator import Allocation, Allocator
from tests.unit.autoscaler.world import Running, Task, World

TWO_CPUS = make(2, 896)
AT_MAXIMUM_S = 120.0
"""Spark's refusal of offers once it has `spark.cores.max`."""


def resources(shape: Shape) -> Resources:
    return Resources.of(cpus=shape[0] / 1000, mem_mib=shape[1] / 1000, disk_mib=shape[2] / 1000)


@dataclass
class Answer:
    """What a framework does with an offer: tasks to launch, and the refusal of the rest (s)."""

    launches: int = 0
    refuse_s: float = 5.0
    keeps: bool = False


@dataclass
class Scheduler:
    """A framework that wants `wanted` tasks of a shape and declines with the default filter."""

    name: str
    task: Shape = TWO_CPUS
    wanted: int = 0
    role: str = "*"
    minimal: Shape | None = None
    suppressed: bool = False
    joins_at: float = 0.0
    counters: Counter[str] = field(default_factory=Counter)
    held: list[Allocation] = field(default_factory=list)
    running: int = 0

    @property
    def framework_id(self) -> str:
        return f"F-{self.name}"

    @property
    def lacks(self) -> int:
        return max(0, self.wanted - self.running)

    def answer(self, offer: Shape) -> Answer:
        """Take as many tasks as fit and are wanted."""
        fits = 0
        while fits < self.lacks and contains(offer, times(self.task, fits + 1)):
            fits += 1
        return Answer(fits)

    def act(self, world: FrameworkWorld) -> None:
        """What it does each second besides answering offers."""

    def scale(self, world: FrameworkWorld, wanted: int) -> None:
        """Change what it wants; surplus tasks end."""
        self.wanted = wanted
        world.end_tasks(self, self.running - wanted)


class SparkStatic(Scheduler):
    """Spark with `spark.cores.max`: declines for 120 s once it has them, and for 5 s before."""

    def answer(self, offer: Shape) -> Answer:
        taken = super().answer(offer)
        is_full = self.running + taken.launches >= self.wanted
        return replace(taken, refuse_s=AT_MAXIMUM_S if is_full and not taken.launches else 5.0)


class SparkDynamic(Scheduler):
    """Spark with dynamic allocation: declines with the default filter at its limit as well."""


@dataclass
class SparkGrowing(SparkDynamic):
    """Dynamic allocation of a job that has work for `most` executors.

    It wants one executor, then one, two, four more and so on, each second.
    """

    most: int = 0
    step: int = 1

    def act(self, world: FrameworkWorld) -> None:
        self.wanted, self.step = min(self.most, self.wanted + self.step), self.step * 2


class MesosExecute(Scheduler):
    """Declines offers that do not hold its task, then suppresses; suppresses after the launch."""

    def answer(self, offer: Shape) -> Answer:
        taken = super().answer(offer)
        self.suppressed = True
        return taken


class Hoarder(Scheduler):
    """Keeps every offer."""

    def answer(self, offer: Shape) -> Answer:
        return Answer(keeps=True)


class Flapper(Scheduler):
    """Suppresses and revives in turn, every `every_s` seconds, and takes nothing."""

    every_s: float = 7.0

    def act(self, world: FrameworkWorld) -> None:
        if (world.now - NOW) % self.every_s >= 1:
            return
        if self.suppressed:
            world.revive(self)
        else:
            self.suppressed = True
            world.allocator.suppress(self.framework_id)
            self.counters["suppress"] += 1


class FrameworkWorld(World):
    """A world whose work belongs to frameworks."""

    def __init__(self, spec: ClusterSpec, *schedulers: Scheduler, boot_s: float = 30.0) -> None:
        self.allocator = Allocator()
        self.schedulers = list(schedulers)
        self.ended = 0
        self.first_purchase_s: float | None = None
        self._known: set[str] = set()
        super().__init__(spec, boot_s=boot_s)

    # the run

    def run(self, seconds: float, step_s: float = 1.0) -> None:
        for _ in range(round(seconds / step_s)):
            self.now += step_s
            self._boot()
            self._schedule()
            if round(self.now - NOW) % 2 == 0:
                self._pass()
                if self.first_purchase_s is None and self.fleet.launches:
                    self.first_purchase_s = self.now - NOW
            self._drain()
            self.usd += self.usd_per_hour * step_s / 3600
            self._account(step_s)
            self.check()

    @property
    def bought(self) -> int:
        """Machines that were ordered."""
        return sum(request.count for request in self.fleet.launches)

    @property
    def types(self) -> Counter[str]:
        """The machines that were ordered, by the type named first."""
        counts: Counter[str] = Counter()
        for request in self.fleet.launches:
            counts[request.offerings[0].instance_type] += request.count
        return counts

    # what frameworks do

    def revive(self, scheduler: Scheduler) -> None:
        scheduler.suppressed = False
        scheduler.counters["revive"] += 1
        self.allocator.revive(scheduler.framework_id)

    def end_tasks(self, scheduler: Scheduler, count: int) -> None:
        """End tasks of a framework, the youngest first."""
        for running in reversed(self.agents.values()):
            mine = [task for task in running.tasks if task.framework == scheduler.framework_id]
            while mine and count > 0:
                self._end(scheduler, running, mine.pop())
                count -= 1

    def _end(self, scheduler: Scheduler, running: Running, task: Task) -> None:
        running.tasks.remove(task)
        scheduler.running -= 1
        self.ended += 1
        agent_id = running.agent.agent_id
        given = resources(task.shape)
        self.allocator.recover(
            scheduler.framework_id, scheduler.role, agent_id, given, now=self.now
        )

    def _schedule(self) -> None:
        self._register_agents()
        by_id = {scheduler.framework_id: scheduler for scheduler in self.schedulers}
        for scheduler in self.schedulers:
            if self.now - NOW >= scheduler.joins_at:
                self._join(scheduler)
                scheduler.act(self)
        for offer in self.allocator.allocate(self.now):
            self._offer(by_id[offer.framework_id], offer)

    def _join(self, scheduler: Scheduler) -> None:
        if not self.allocator.has_framework(scheduler.framework_id):
            least = {scheduler.role: (resources(scheduler.minimal),)} if scheduler.minimal else None
            self.allocator.add_framework(
                scheduler.framework_id, [scheduler.role], min_allocatable=least
            )

    def _register_agents(self) -> None:
        agents = {running.agent.agent_id: running for running in self.agents.values()}
        for agent_id in self._known - agents.keys():
            self.allocator.remove_agent(agent_id)
        for agent_id in agents.keys() - self._known:
            self.allocator.add_agent(agent_id, resources(agents[agent_id].agent.total))
        for agent_id, running in agents.items():
            self.allocator.set_agent_active(agent_id, active=not running.agent.deactivated)
        self._known = set(agents)

    def _offer(self, scheduler: Scheduler, offer: Allocation) -> None:
        scheduler.counters["sent"] += 1
        answer = scheduler.answer(shape_of(offer.resources))
        if answer.keeps:
            scheduler.held.append(offer)
            return
        used = Resources.of()
        for _ in range(answer.launches):
            used = used + resources(scheduler.task)
            self._launch(scheduler, offer.agent_id)
        scheduler.counters["accepted" if answer.launches else "declined"] += 1
        self.allocator.recover(
            scheduler.framework_id,
            scheduler.role,
            offer.agent_id,
            offer.resources - used,
            now=self.now,
            refuse_s=answer.refuse_s,
        )
        if scheduler.suppressed:
            self.allocator.suppress(scheduler.framework_id)

    def _launch(self, scheduler: Scheduler, agent_id: str) -> None:
        running = next(one for one in self.agents.values() if one.agent.agent_id == agent_id)
        self.numbers += 1
        scheduler.running += 1
        running.tasks.append(
            Task(
                scheduler.name,
                scheduler.task,
                self.now,
                self.numbers,
                framework=scheduler.framework_id,
            )
        )
        self.worked.add(running.agent.instance_id)

    # what the autoscaler sees

    def snapshot(self) -> Snapshot:
        base = super().snapshot()
        if base.cluster is None:
            return base
        agents = tuple(
            replace(
                agent,
                apps={},
                app_since={},
                frameworks=Counter(task.framework for task in self.agents[name].tasks),
            )
            for name, agent in zip(self.agents, base.cluster.agents, strict=True)
        )
        filters = self.allocator.active_filters()
        connected = tuple(
            self._framework(scheduler, filters)
            for scheduler in self.schedulers
            if self.now - NOW >= scheduler.joins_at
        )
        view = ClusterView(agents, connected, tasks_ended=self.ended)
        seen = replace(base, cluster=view, queue=())
        self.journal.memory = replace(seen.state, findings=self._findings(seen))
        return replace(seen, state=self.journal.memory)

    def _findings(self, seen: Snapshot) -> dict[str, Finding]:
        """What the probe framework is offered of the shapes that frameworks seem to lack."""
        free = [shape_of(self.allocator.free(agent_id)) for agent_id in self._known]
        return {
            text(shape): Finding(self.now, any(contains(have, shape) for have in free))
            for shape in frameworks.suspects(seen, self.now)
        }

    def _framework(self, scheduler: Scheduler, filters: Counter[str]) -> Framework:
        counters = scheduler.counters
        return Framework(
            framework_id=scheduler.framework_id,
            name=scheduler.name,
            suppressed=scheduler.suppressed,
            roles=(scheduler.role,),
            minimal=scheduler.minimal,
            task_shape=scheduler.task if scheduler.running else None,
            sent=counters["sent"],
            accepted=counters["accepted"],
            declined=counters["declined"],
            asked=counters["revive"],
            refusals=filters[scheduler.role],
            tasks=scheduler.running,
            held=len(scheduler.held),
        )
