"""Change of Terraform's agents: emptied through the operator API first, one batch at a time.

An agent is changed only after the engine lists no task of it. What was emptied is recorded, so that
the next run, after a kill at any step, continues, and gives agents that stay their work back. The
caller holds the lock of Terraform; the stacks are synthesized.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Protocol

import msgspec

from mesaform.common.errors import MesaformError
from mesaform.common.json_types import Json, as_list, as_object
from mesaform.common.progress import Stage, stage
from mesaform.common.record_files import read_record, write_record
from mesaform.common.records import Codec
from mesaform.common.set_aside import SetAsideLog
from mesaform.provision.machine_changes import MachineChange
from mesaform.provision.rolling import ChangeRun

RECORD_FILE = "drained-agents.json"
DRAIN_MARGIN_S = 30.0
"""Seconds beyond the tasks' grace until a drain is given up."""
POLL_S = 0.5


class DrainedAgents(msgspec.Struct, frozen=True):
    """Record of the machines whose agents a run emptied, until the run ends well."""

    instance_ids: tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=64)], ...] = ()


CODEC = Codec("provision.drained-agents", DrainedAgents)


class Operator(Protocol):
    """Calls of the operator API; `OperatorClient` provides them. All may be repeated."""

    async def get_agents(self) -> Mapping[str, Json]: ...

    async def get_tasks(self) -> Mapping[str, Json]: ...

    async def deactivate(self, agent_id: str) -> None: ...

    async def reactivate(self, agent_id: str) -> None: ...

    async def drain(
        self, agent_id: str, grace_s: float | None = None, *, mark_gone: bool = False
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class RegisteredAgent:
    """An agent as the leading master lists it. `is_active`: it is offered to frameworks."""

    agent_id: str
    is_active: bool
    is_deactivated: bool


@dataclass(frozen=True, slots=True)
class AgentDrains:
    """Drains of agents by their machines.

    Args:
        operator: the leading master.
        folder: the cluster's state folder, which has the record.
        grace_s: the most that a task gets to stop.
        boot_timeout_s: how long a new machine may take to register its agent.

    """

    operator: Operator
    folder: Path
    grace_s: float
    boot_timeout_s: float
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def empty(self, machines: Sequence[MachineChange], under_way: Stage) -> None:
        """Drain the agents of these machines, and wait until the engine lists no task of them.

        Machines without a registered agent count as empty.

        Raises:
            MesaformError: no master answers, or tasks are left after their grace.

        """
        self.record({*self.recorded(), *(machine.instance_id for machine in machines)})
        agents = await self._start_drains(machines)
        began, bound_s = self.clock(), self.grace_s + DRAIN_MARGIN_S
        while tasks := await self._tasks_on(agents):
            if self.clock() - began >= bound_s:
                raise _still_busy({agents[agent_id]: n for agent_id, n in tasks.items()}, bound_s)
            under_way.advance(f"{sum(tasks.values())} tasks on {len(tasks)} agents")
            await self.sleep(POLL_S)
        is_one = len(agents) == 1
        under_way.outcome = "it runs no task" if is_one else f"{len(agents)} agents run no task"

    async def _start_drains(self, machines: Sequence[MachineChange]) -> dict[str, str]:
        """Start to drain the agents of the machines; their names by agent id."""
        registered = await self.registered()
        agents = {
            registered[machine.instance_id].agent_id: machine.name
            for machine in machines
            if machine.instance_id in registered
        }
        for agent_id in agents:  # all first: no task may move from one to another of them
            await self.operator.deactivate(agent_id)
        for agent_id in agents:
            await self.operator.drain(agent_id, self.grace_s)
        return agents

    async def _tasks_on(self, agent_ids: Collection[str]) -> dict[str, int]:
        """Numbers of tasks by agent, for agents that have some."""
        running = as_list((await self.operator.get_tasks()).get("tasks"))
        owners = (str(as_object(as_object(task).get("agent_id")).get("value")) for task in running)
        return dict(Counter(owner for owner in owners if owner in agent_ids))

    async def until_active(self, instance_ids: Collection[str], under_way: Stage) -> None:
        """Wait until these machines have active agents; gives drained ones their work back.

        Raises:
            MesaformError: no master answers, or an agent does not register in time.

        """
        began = self.clock()
        while waiting := await self._reactivate(instance_ids):
            if self.clock() - began >= self.boot_timeout_s:
                raise MesaformError(
                    f"no active agent on {', '.join(sorted(waiting))} after"
                    f" {self.boot_timeout_s:.0f} s",
                    where="agents",
                    fix="no other agent was changed; see `mesaform status`, then run the same"
                    " command again: it carries on",
                )
            under_way.advance(f"{len(waiting)} of {len(instance_ids)} have not registered yet")
            await self.sleep(POLL_S)

    async def _reactivate(self, instance_ids: Collection[str]) -> set[str]:
        """Reactivate what is deactivated; returns the machines without an active agent."""
        registered = await self.registered()
        for instance_id in instance_ids:
            agent = registered.get(instance_id)
            if agent is not None and agent.is_deactivated:
                await self.operator.reactivate(agent.agent_id)
        return {
            instance_id
            for instance_id in instance_ids
            if instance_id not in registered or not registered[instance_id].is_active
        }

    async def registered(self) -> dict[str, RegisteredAgent]:
        """The agents that the engine lists, by EC2 instance id."""
        return read_registered(await self.operator.get_agents())

    async def give_back(self, staying: Collection[str]) -> None:
        """Reactivate recorded agents that stay after all, and empty the record.

        Args:
            staying: ids of machines that run and that the deployment does not change.

        """
        recorded = self.recorded()
        if not recorded:
            return
        registered = await self.registered()
        for instance_id in recorded & set(staying):
            agent = registered.get(instance_id)
            if agent is not None and agent.is_deactivated:
                await self.operator.reactivate(agent.agent_id)
        (self.folder / RECORD_FILE).unlink(missing_ok=True)

    def recorded(self) -> set[str]:
        """Machines whose agents an unfinished run emptied.

        A record that cannot be read is set aside and names none.
        """
        record = read_record(self.folder / RECORD_FILE, CODEC, "drained-agents", SetAsideLog())
        return set(record.instance_ids) if isinstance(record, DrainedAgents) else set()

    def record(self, instance_ids: Collection[str]) -> None:
        """Write the record durably."""
        drained = DrainedAgents(tuple(sorted(instance_ids)))
        write_record(self.folder / RECORD_FILE, CODEC, drained, durable=True)


def read_registered(agents: Mapping[str, Json]) -> dict[str, RegisteredAgent]:
    """The agents in an answer to GET_AGENTS, by EC2 instance id."""
    return dict(filter(None, map(_registered_agent, as_list(agents.get("agents")))))


def _registered_agent(listed: object) -> tuple[str, RegisteredAgent] | None:
    agent = as_object(listed)
    info = as_object(agent.get("agent_info"))
    for attribute in map(as_object, as_list(info.get("attributes"))):
        if attribute.get("name") == "instance_id":
            instance_id = str(as_object(attribute.get("text")).get("value"))
            is_deactivated = bool(agent.get("deactivated"))
            agent_id = str(as_object(info.get("id")).get("value"))
            is_active = bool(agent.get("active")) and not is_deactivated
            return instance_id, RegisteredAgent(agent_id, is_active, is_deactivated)
    return None


def _still_busy(tasks: Mapping[str, int], bound_s: float) -> MesaformError:
    return MesaformError(
        f"tasks are left after {bound_s:.0f} s: "
        + ", ".join(f"{count} on {name}" for name, count in sorted(tasks.items())),
        where="agents",
        fix="these agents were not changed; end the tasks, or raise autoscaler.drain_grace_s, then"
        " run the same command again: it carries on",
    )


@dataclass(frozen=True, slots=True)
class AgentBatches:
    """The order in which agents change.

    `ids_at` returns the ids that Terraform's state has at addresses of the agents' stack.
    """

    size: int
    ids_at: Callable[[Sequence[str]], Sequence[str]]

    def of(self, agents: Sequence[MachineChange]) -> Iterator[tuple[MachineChange, ...]]:
        """Agents that go for good at once, so that no task moves twice; then the others."""
        going = tuple(agent for agent in agents if agent.action == "destroy")
        if going:
            yield going
        others = [agent for agent in agents if agent.action not in {"add", "destroy"}]
        for start in range(0, len(others), self.size):
            yield tuple(others[start : start + self.size])


async def change_agents(
    run: ChangeRun, drains: AgentDrains, batches: AgentBatches, agents: Sequence[MachineChange]
) -> None:
    """Empty and change the agents that Terraform would take out of service, batch by batch.

    Raises:
        MesaformError: an agent is not empty in time, or a new one does not register.
        CloudError: Terraform failed, or its plan would take another machine along.

    """
    done, total = 0, sum(agent.is_disruptive for agent in agents)
    for batch in batches.of(agents):
        done += len(batch)
        names = ", ".join(agent.name for agent in batch)
        with stage(run.report, f"Drain {names} ({done} of {total})") as under_way:
            run.mark()
            await drains.empty(batch, under_way)
        with stage(run.report, f"{batch[0].action.capitalize()} {names}") as under_way:
            await run.apply("agents", batch)
            staying = [agent.address for agent in batch if agent.action != "destroy"]
            await drains.until_active(batches.ids_at(staying), under_way)
