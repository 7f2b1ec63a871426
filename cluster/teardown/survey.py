"""Looking at what there is before anything goes: EC2, everything tagged, Terraform's state, the engine, the autoscaler's heartbeat."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from mesaform.aws.ports import Control, Fleet, Ledger, Machine
from mesaform.aws.pricing.price_book import usd_per_hour
from mesaform.aws.resources.sweep import Sweep
from mesaform.common.errors import MesaformError
from mesaform.teardown.plan import Held, Inventory
from mesaform.teardown.receipt import Ran
from mesaform.topology.names import Tag

HEARTBEAT_OLD_S = 30.0  # older than this, the autoscaler is dead and need not be waited for
ENGINE_S = 10.0  # how long the engine may take to answer


class Operator(Protocol):
    """What teardown asks of the engine; `OperatorClient` is one."""

    async def get_agents(self) -> dict[str, Any]: ...

    async def get_tasks(self) -> dict[str, Any]: ...

    async def deactivate(self, agent_id: str) -> None: ...

    async def drain(
        self, agent_id: str, grace_s: float | None = None, *, mark_gone: bool = False
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class World:
    """Everything that teardown talks to. None is "there is none": no bucket, so no ledger and no freeze; no master, so no engine.

    `stacks` reads the ids in each stack's Terraform state; `destroy` destroys stacks in the order
    given; `forget` sets the state of stacks aside that are proven gone. `deployment_id` is this
    folder's, empty where it has none: resources with another id are kept.
    """

    cluster: str
    fleet: Fleet
    sweep: Sweep
    control: Control | None
    ledger: Ledger | None
    operator: Operator | None
    stacks: Callable[[], Mapping[str, frozenset[str]]]
    destroy: Callable[[tuple[str, ...]], Awaitable[None]]
    forget: Callable[[], None]
    deployment_id: str = ""
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], Any] = asyncio.sleep


@dataclass(frozen=True, slots=True)
class Survey:
    """What was found: for the plan, and for the receipt. `ended` are the ids of machines that EC2 lists as terminated."""

    inventory: Inventory
    ran: tuple[Ran, ...]
    ended: tuple[tuple[str, float], ...]
    engine_says: str


async def survey(world: World) -> Survey:
    """One look.

    Raises:
        CloudError: the cloud did not answer; nothing may be concluded.

    """
    machines = await asyncio.to_thread(world.fleet.machines, world.cluster)
    resources = [one for one in await world.sweep.inventory() if one.kind != "instance"]
    stacks = await asyncio.to_thread(world.stacks)
    engine = await read_engine(world.operator)
    heartbeat = await _heartbeat(world)
    alive = [machine for machine in machines if machine.state != "terminated"]
    now = world.clock()
    idle = idle_by_machine(heartbeat)
    return Survey(
        inventory=Inventory(
            cluster=world.cluster,
            machines=tuple(_held(machine, engine.agents, engine.tasks) for machine in alive),
            resources=tuple(resources),
            stacks={stack: ids for stack, ids in stacks.items() if ids},
            has_leader=engine.agents is not None,
            autoscaler_alive=heartbeat is not None
            and world.clock() - float(heartbeat.get("at", 0.0)) < HEARTBEAT_OLD_S,
            deployment_id=world.deployment_id,
        ),
        ran=tuple(_ran(machine, now, idle) for machine in alive),
        ended=tuple(
            (machine.instance_id, machine.launched_at)
            for machine in machines
            if machine.state == "terminated"
        ),
        engine_says=engine.text,
    )


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """Agents and tasks as the leading master lists them.

    `agents` maps EC2 instance ids to agent ids and is None if no leader answers. `tasks` maps agent
    ids to numbers of running tasks. `text` is for people.
    """

    agents: dict[str, str] | None
    tasks: dict[str, int]
    text: str


async def read_engine(operator: Operator | None) -> EngineLoad:
    """Ask the leading master; waits `ENGINE_S` at most. None stands for "no master runs"."""
    if operator is None:
        return EngineLoad(None, {}, "no master runs")
    try:
        async with asyncio.timeout(ENGINE_S):
            listed = await operator.get_agents()
            running = await operator.get_tasks()
    except (MesaformError, TimeoutError) as error:
        reason = str(error).partition("\n")[0] or f"no answer in {ENGINE_S:.0f} s"
        return EngineLoad(None, {}, reason)
    agents: dict[str, str] = {}
    for agent in listed.get("agents") or ():
        info = agent["agent_info"]
        named = {
            item["name"]: item["text"]["value"]
            for item in info.get("attributes") or ()
            if "text" in item
        }
        if instance_id := named.get("instance_id"):
            agents[str(instance_id)] = str(info["id"]["value"])
    tasks: dict[str, int] = {}
    for task in running.get("tasks") or ():
        agent_id = str(task.get("agent_id", {}).get("value", ""))
        tasks[agent_id] = tasks.get(agent_id, 0) + 1
    return EngineLoad(agents, tasks, "answers")


async def _heartbeat(world: World) -> Mapping[str, Any] | None:
    control = world.control
    if control is None:
        return None
    try:
        return await asyncio.to_thread(control.last_heartbeat)
    except MesaformError:
        return None


def idle_by_machine(heartbeat: Mapping[str, Any] | None) -> dict[str, float]:
    """Seconds that each machine was idle in its life until the last heartbeat, as the autoscaler remembers; only machines it knows."""
    memory = (heartbeat or {}).get("planner_state") or {}
    ended, since = memory.get("idle_s") or {}, memory.get("idle_since") or {}
    at = float((heartbeat or {}).get("at", 0.0))
    rented = [
        name
        for name, machine in (memory.get("rented") or {}).items()
        if machine.get("role") != "master"
    ]
    return {
        name: float(ended.get(name, 0.0))
        + (max(0.0, at - float(since[name])) if name in since else 0.0)
        for name in rented
    }


def _held(machine: Machine, agents: Mapping[str, str] | None, tasks: Mapping[str, int]) -> Held:
    agent_id = (agents or {}).get(machine.instance_id, "")
    return Held(
        instance_id=machine.instance_id,
        tags=machine.tags,
        instance_type=machine.instance_type,
        zone=machine.zone,
        capacity=machine.capacity,
        role=machine.tags.get(Tag.ROLE, ""),
        pool=machine.tags.get(Tag.POOL, ""),
        managed_by=machine.tags.get(Tag.MANAGED_BY, ""),
        state=machine.state,
        launched_at=machine.launched_at,
        usd_per_hour=usd_per_hour(machine.instance_type, machine.capacity),
        agent_id=agent_id,
        tasks=tasks.get(agent_id, 0) if agent_id else 0,
    )


def _ran(machine: Machine, now: float, idle: Mapping[str, float]) -> Ran:
    return Ran(
        instance_id=machine.instance_id,
        instance_type=machine.instance_type,
        capacity=machine.capacity,
        role=machine.tags.get(Tag.ROLE, ""),
        pool=machine.tags.get(Tag.POOL, ""),
        managed_by=machine.tags.get(Tag.MANAGED_BY, ""),
        started_at=machine.launched_at,
        stopped_at=now,
        usd_per_hour=usd_per_hour(machine.instance_type, machine.capacity),
        idle_s=idle.get(machine.instance_id),
    )
