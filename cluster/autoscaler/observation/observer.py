"""Observation of a cluster: reads the leading master, the services' queue and EC2 for a pass.

Contains the client of the services API and the observer that builds a `Snapshot`. The daemon and
`mesaform plan` use the same code. Depends on the ports of `aws`, the operator API client and the
parsers of this package.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

import aiohttp
import msgspec
from yarl import URL

from mesaform.autoscaler.model.cluster_tasks import Tasks
from mesaform.autoscaler.model.cluster_view import ClusterView, QueueEntry
from mesaform.autoscaler.model.framework_demand import FrameworkDemand
from mesaform.autoscaler.model.planner_state import PlannerState
from mesaform.autoscaler.model.reason import Reason
from mesaform.autoscaler.model.snapshot import Intent, Snapshot
from mesaform.autoscaler.observation import mesos_parsers
from mesaform.autoscaler.observation.adapters.readings import FrameworkReadings, fresh
from mesaform.autoscaler.observation.agent_tasks import AgentTasks
from mesaform.autoscaler.observation.complete_prices import Costs, costs_of
from mesaform.autoscaler.observation.machine_reader import MachineReader
from mesaform.autoscaler.observation.mesos_agent_parser import AgentReader, Agents
from mesaform.autoscaler.observation.mesos_parsers import AppPlacements
from mesaform.autoscaler.observation.mesos_task_parser import TaskReader
from mesaform.autoscaler.observation.task_events import TaskEvents
from mesaform.aws.overrides import Override
from mesaform.aws.ports import Fleet, Machine, Offering, Template
from mesaform.aws.pricing.pool_offerings import complete, with_offered_cpus
from mesaform.aws.pricing.prices import Prices
from mesaform.common.architecture import architecture_of
from mesaform.common.errors import ClusterUnreachable, MesaformError, NotFound, Permanent
from mesaform.common.faults import Fault, contained
from mesaform.config.schema import ClusterSpec, Pool
from mesaform.mesos.operator import OperatorClient
from mesaform.topology.names import template_key
from mesaform.topology.ports import Port

TIMEOUT = aiohttp.ClientTimeout(total=5, sock_connect=2)
INFO_KEPT_S = 30.0


class ServicesClient:
    """Client of the services API.

    `bases` are the URLs of the replicas, such as `http://10.0.0.10:8080`. The client follows a
    standby's redirect only after no base answered.
    """

    def __init__(self, bases: Sequence[str], session: aiohttp.ClientSession) -> None:
        self._bases = list(bases)
        self._session = session
        self._last: str | None = None
        self._info: tuple[float, str] = (-INFO_KEPT_S, "")
        self.faults: list[Fault] = []

    async def queue(self) -> tuple[QueueEntry, ...]:
        """Return the queued instances.

        Raises:
            ClusterUnreachable: no replica answers.

        """
        return mesos_parsers.queue_entries(await self._get("/v2/queue"), self.faults)

    async def app_placements(self) -> AppPlacements:
        """Return the constraints and the configuration of every app.

        Raises:
            ClusterUnreachable: no replica answers.

        """
        return mesos_parsers.app_placements(await self._get("/v2/apps"))

    async def framework_id(self) -> str:
        """Return the services' own framework id; empty while it is not known."""
        if time.monotonic() - self._info[0] >= INFO_KEPT_S:
            answer = await self._get("/v2/info")
            self._info = (time.monotonic(), str(answer.get("frameworkId") or ""))
        return self._info[1]

    async def _get(self, path: str) -> dict[str, Any]:
        failures: list[str] = []
        elsewhere: list[str] = []
        for base in sorted(self._bases, key=lambda base: base != self._last):
            answer = await self._try(base, path, failures, elsewhere)
            if answer is not None:
                self._last = base
                return answer
        for base in dict.fromkeys(elsewhere):
            answer = await self._try(base, path, failures, [])
            if answer is not None:
                return answer
        raise ClusterUnreachable(
            f"no services answer ({'; '.join(failures)})", where=path, fix="see `mesaform status`"
        )

    async def _try(
        self, base: str, path: str, failures: list[str], elsewhere: list[str]
    ) -> dict[str, Any] | None:
        try:
            async with self._session.get(
                base + path, allow_redirects=False, timeout=TIMEOUT
            ) as response:
                if response.status == 200:
                    answer = await response.json(content_type=None)
                    return answer if isinstance(answer, dict) else {}
                if location := response.headers.get("Location"):
                    target = URL(base).join(URL(location, encoded=True))
                    elsewhere.append(f"{target.scheme}://{target.host}:{target.port}")
                failures.append(f"{base} answered {response.status}")
        except (aiohttp.ClientError, TimeoutError, ValueError, OSError) as error:
            failures.append(f"{base}: {error or type(error).__name__}")
        return None


def services_urls(masters: Sequence[str]) -> list[str]:
    """The services' base URLs on the same machines as the masters'."""
    return [str(URL(master).origin().with_port(Port.SERVICES)) for master in masters]


class _FrameworkDemand(TypedDict):
    """Fields of a snapshot: what adapters read, and why others gave no answer."""

    framework_demand: Mapping[str, FrameworkDemand]
    adapter_failures: Mapping[str, Reason]


@dataclass(slots=True)
class Observer:
    """Observer of a cluster.

    `failed` receives the name of each API that does not answer. `raw` holds the tasks and the
    answer of GET_FRAMEWORKS of the last snapshot. `faults` are the entries of answers that
    cannot be read. `prices` returns the region's prices; without it machines cost what the fleet
    says of their offerings. `readings` are of frameworks' own APIs; without them the last ones of
    the planner state count. `events` follow the master's stream; without them every snapshot reads
    all tasks. `has_machine_events` says whether EC2's events about ends of machines arrive.
    """

    operator: OperatorClient
    services: ServicesClient
    fleet: Fleet
    failed: Callable[[str], None] = lambda _: None
    reader: TaskReader = field(default_factory=TaskReader)
    agent_reader: AgentReader = field(default_factory=AgentReader)
    agent_tasks: AgentTasks = field(default_factory=AgentTasks)
    raw: tuple[Tasks, Mapping[str, Any]] | None = None
    faults: list[Fault] = field(default_factory=list)
    prices: Callable[[], Prices] | None = None
    readings: FrameworkReadings | None = None
    events: TaskEvents | None = None
    has_machine_events: Callable[[], bool] = lambda: False
    machines: MachineReader = field(init=False)

    def __post_init__(self) -> None:
        self.machines = MachineReader(self.fleet, time.monotonic, self.has_machine_events)

    def machines_changed(self) -> None:
        """Read the machines at the next snapshot: some were launched or terminated."""
        self.machines.forget()

    def take_faults(self) -> list[Fault]:
        """The entries of answers that could not be read since the last call."""
        of_adapters = self.readings.take_faults() if self.readings else []
        faults = [*self.faults, *self.services.faults, *of_adapters]
        self.faults, self.services.faults = [], []
        return faults

    async def snapshot(
        self,
        spec: ClusterSpec,
        memory: PlannerState,
        intents: Sequence[Intent],
        freeze_reason: str | None,
        orders: Sequence[Override] = (),
        *,
        noticed: bool = False,
    ) -> Snapshot:
        """Read the current state.

        APIs that do not answer are in `read_errors`. Tasks are listed for policies and notices.

        Raises:
            CloudError: EC2 does not answer.

        """
        trouble: list[str] = []
        has_notice = noticed or bool(memory.notices)
        detailed = has_notice or _is_task_list_needed(spec)
        before = await self._queue(trouble)
        view, machines, offerings, apps, templates = await asyncio.gather(
            self._view(trouble, detailed=detailed),
            self._machines(spec, must_be_fresh=has_notice or bool(intents)),
            self._offerings(spec, trouble),
            self._apps(trouble, detailed=detailed),
            self._templates(spec, trouble),
        )
        queue = await self._queue_after(before, trouble)
        costs = costs_of(spec, machines, self.prices()) if self.prices else Costs()
        return Snapshot(
            spec=spec,
            cluster=view,
            queue=queue,
            machines=machines,
            offerings=offerings,
            intents=tuple(intents),
            state=memory,
            freeze_reason=freeze_reason,
            read_errors=tuple(dict.fromkeys(trouble)),
            overrides=tuple(orders),
            app_constraints=apps.constraints,
            app_configs=apps.configs,
            templates=templates or {},
            templates_read=templates is not None,
            usd_per_hour=costs.machines,
            standing_usd_per_hour=costs.standing,
            **self._framework_demand(view, spec, memory),
        )

    def _framework_demand(
        self, view: ClusterView | None, spec: ClusterSpec, memory: PlannerState
    ) -> _FrameworkDemand:
        """What adapters read of frameworks. It waits for nothing."""
        if self.readings is None:
            answers = fresh(memory.reported, time.time())
            return _FrameworkDemand(framework_demand=answers, adapter_failures={})
        if view is not None:
            self.readings.see(view.frameworks, spec)
        return _FrameworkDemand(
            framework_demand=self.readings.answers(), adapter_failures=self.readings.failures()
        )

    async def waiting(self) -> int:
        """Count the instances that wait for an offer; 0 when no replica answers.

        The daemon calls it between passes.
        """
        try:
            return sum(entry.count for entry in await self.services.queue() if entry.overdue)
        except ClusterUnreachable:
            return 0

    async def _queue_after(
        self, before: tuple[QueueEntry, ...] | None, trouble: list[str]
    ) -> tuple[QueueEntry, ...] | None:
        """What is queued before and after the other answers; None if one of them is missing."""
        after = await self._queue(trouble) if before else before
        if before is None or after is None:
            return None
        return mesos_parsers.both_times(before, after)

    async def _machines(self, spec: ClusterSpec, *, must_be_fresh: bool) -> tuple[Machine, ...]:
        return await asyncio.to_thread(self.machines.read, spec.name, must_be_fresh=must_be_fresh)

    async def _queue(self, trouble: list[str]) -> tuple[QueueEntry, ...] | None:
        try:
            return await self.services.queue()
        except ClusterUnreachable as error:
            self.failed("services")
            trouble.append(str(error))
            return None

    async def _apps(self, trouble: list[str], *, detailed: bool) -> AppPlacements:
        if not detailed:
            return AppPlacements()
        try:
            return await self.services.app_placements()
        except ClusterUnreachable as error:
            self.failed("services")
            trouble.append(str(error))
            return AppPlacements()

    async def _view(self, trouble: list[str], *, detailed: bool = False) -> ClusterView | None:
        try:
            (agents, tasks), frameworks, metrics, quota, master = await asyncio.gather(
                self._agents_and_tasks(),
                self.operator.get_frameworks(),
                self.operator.get_metrics(),
                self._optional("GET_QUOTA"),
                self._optional("GET_MASTER"),
            )
        except MesaformError as error:
            self.failed("engine")
            trouble.append(str(error))
            self.raw = None
            return None
        self.raw = (tasks, frameworks)
        self.faults += [*self.agent_reader.faults, *self.reader.faults]
        own = await self._own_framework()
        if own is None:
            # Inferred demand of the services framework would count its queue twice.
            frameworks = {}
        self.machines.saw_agents(frozenset(agent.instance_id for agent in agents.agents))
        return mesos_parsers.cluster_view(
            mesos_parsers.MasterAnswers(
                agents,
                tasks.running,
                frameworks,
                metrics,
                over=tasks.over,
                quota=quota,
                elected_at=_seconds(master.get("elected_time")),
                unreadable_tasks=tasks.unreadable,
            ),
            own or (),
            detailed=detailed,
            faults=self.faults,
            agent_tasks=self.agent_tasks,
        )

    async def _agents_and_tasks(self) -> tuple[Agents, Tasks]:
        """Read all agents, then the tasks.

        A task whose resources an agent has allocated is then among the tasks. Otherwise what a
        framework wants would not be lessened by a task that has taken its place already, and a
        machine too many would be bought for it.
        """
        agents = await self._agents()
        return agents, await self._tasks()

    async def _agents(self) -> Agents:
        """Read all agents.

        Raises:
            ClusterUnreachable: no master leads, or its answer is invalid.

        """
        body = bytearray()

        def begin() -> Callable[[bytes], None]:
            body.clear()
            return body.extend

        await self.operator.stream("GET_AGENTS", begin)
        try:
            return self.agent_reader.read(body)
        except msgspec.DecodeError as error:
            raise _unreadable("GET_AGENTS", error) from None

    async def _tasks(self) -> Tasks:
        """The tasks by the event stream, else read while the answer arrives.

        Raises:
            ClusterUnreachable: no master leads, or its answer is invalid.

        """
        if self.events is None:
            return await self._all_tasks()
        tasks = self.events.tasks(self.reader)
        if tasks is None:
            stream = self.events.begin_reading()
            tasks = await self._all_tasks()
            self.events.finish_reading(stream, tasks)
        return tasks

    async def _all_tasks(self) -> Tasks:
        reading = self.reader.begin()

        def begin() -> Callable[[bytes], None]:
            nonlocal reading
            reading = self.reader.begin()
            return reading.feed

        try:
            await self.operator.stream("GET_TASKS", begin)
            return reading.end()
        except msgspec.DecodeError as error:
            raise _unreadable("GET_TASKS", error) from None

    async def _optional(self, type_: str) -> dict[str, Any]:
        """Make a call that some versions of Mesos lack; return an empty answer then."""
        try:
            answer = (await self.operator.call(type_)).get(type_.lower())
        except (Permanent, NotFound):
            return {}
        return answer if isinstance(answer, dict) else {}

    async def _own_framework(self) -> list[str] | None:
        """Return the ids of frameworks whose queues are read; None when unknown."""
        try:
            framework_id = await self.services.framework_id()
        except ClusterUnreachable:
            return None
        return [framework_id] if framework_id else []

    async def _templates(
        self, spec: ClusterSpec, trouble: list[str]
    ) -> Mapping[str, Template] | None:
        """Read the launch templates; None if they cannot be read. Then no machine has drifted."""
        needed = {
            template_key(pool.name, architecture_of(name))
            for pool in spec.agents
            for name in pool.types
        }
        try:
            return await asyncio.to_thread(self.fleet.templates, spec.name, needed)
        except MesaformError as error:
            trouble.append(str(error))
            return None

    async def _offerings(
        self, spec: ClusterSpec, trouble: list[str]
    ) -> dict[str, tuple[Offering, ...]]:
        """Read the offerings by pool. A pool with an unknown type has none."""
        by_pool: dict[str, tuple[Offering, ...]] = {}
        for pool in spec.agents:
            by_pool[pool.name] = ()
            with contained("pool", pool.name, self.faults):
                by_pool[pool.name] = await self._offerings_of(pool, spec, trouble)
        return by_pool

    async def _offerings_of(
        self, pool: Pool, spec: ClusterSpec, trouble: list[str]
    ) -> tuple[Offering, ...]:
        try:
            offered = await asyncio.to_thread(
                self.fleet.offerings, pool.types, spec.zones, pool.disk_gib
            )
            offered = with_offered_cpus(offered, pool)
            if self.prices:
                offered = complete(offered, pool, spec, self.prices())
            return tuple(offered)
        except MesaformError as error:
            self.failed("ec2")
            trouble.append(f"pool {pool.name}: {error}")
            return ()


def _seconds(value: object) -> float:
    """A time of an answer; 0 if it is no number."""
    return float(value) if isinstance(value, int | float) else 0.0


def _unreadable(call: str, error: Exception) -> ClusterUnreachable:
    return ClusterUnreachable(
        f"the master's answer to {call} cannot be read: {error}",
        where=call,
        fix="see `mesaform status`",
    )


def _is_task_list_needed(spec: ClusterSpec) -> bool:
    """Whether a policy may move tasks, so that it needs every task and not only their number."""
    settings = spec.autoscaler
    return (
        settings.consolidation.enabled
        or settings.drift.replace
        or settings.drift.max_age_hours is not None
        or any(pool.max_age_hours is not None for pool in spec.agents)
    )
