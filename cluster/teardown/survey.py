"""Survey before a teardown: EC2, tagged resources, Terraform's state, the engine, the heartbeat.

Depends on the ports of AWS and on the operator API of the leading master.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Protocol

from mesaform.aws.ports import Control, Fleet, Ledger, Machine
from mesaform.aws.pricing.cluster_cost import MachineCost
from mesaform.aws.pricing.price_book import usd_per_hour
from mesaform.aws.resources.owned import OwnedResource, is_standing
from mesaform.aws.resources.sweep import LIST_TRIES, Sweep
from mesaform.common.errors import MesaformError, Retryable
from mesaform.common.json_types import Json, as_list, as_object
from mesaform.teardown.plan import Inventory, SurveyedMachine
from mesaform.teardown.receipt import MachineUsage
from mesaform.topology.names import Tag

HEARTBEAT_OLD_S = 30.0
"""Age in seconds beyond which the autoscaler counts as dead and is not waited for."""
ENGINE_S = 10.0
"""Seconds that the engine may take to answer."""


class Operator(Protocol):
    """Calls of the operator API that a teardown makes; `OperatorClient` provides them."""

    async def get_agents(self) -> Mapping[str, Json]: ...

    async def get_tasks(self) -> Mapping[str, Json]: ...

    async def deactivate(self, agent_id: str) -> None: ...

    async def drain(
        self, agent_id: str, grace_s: float | None = None, *, mark_gone: bool = False
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class TeardownPorts:
    """Everything that a teardown talks to.

    `control` and `ledger` are None if there is no bucket, `operator` if no master runs.

    `stacks` reads the ids in each stack's Terraform state; `destroy` destroys stacks in the order
    given; `forget` sets the state of stacks aside that are proven gone. `deployment_id` is this
    folder's, empty where it is older than ids: resources with another id are kept. `costs` prices
    machines with all their parts; `standing_usd_per_hour` is what the cluster costs besides them.
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
    costs: Callable[[Sequence[Machine]], Sequence[MachineCost]] | None = None
    standing_usd_per_hour: float = 0.0
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


@dataclass(frozen=True, slots=True)
class Survey:
    """State before a teardown, for the plan and for the receipt.

    `usage` are the machines that are not terminated, `ended` ids and launch times of those that EC2
    lists as terminated. `engine_text` is the engine's state for people.
    """

    inventory: Inventory
    usage: tuple[MachineUsage, ...]
    ended: tuple[tuple[str, float], ...]
    engine_text: str


async def survey(ports: TeardownPorts) -> Survey:
    """Look once at everything.

    Raises:
        CloudError: the cloud did not answer; nothing may be concluded.

    """
    machines = await _machines(ports)
    listed = await ports.sweep.list_patiently()
    states = await asyncio.to_thread(ports.stacks)
    engine = await read_engine(ports.operator)
    heartbeat = as_object(await _heartbeat(ports))
    now = ports.clock()
    idle = idle_by_machine(heartbeat)
    present = [machine for machine in machines if machine.state != "terminated"]
    costs = _costs(ports, present)
    standing = ports.standing_usd_per_hour if present else 0.0
    inventory = Inventory(
        cluster=ports.cluster,
        machines=tuple(
            _surveyed(machine, engine, cost) for machine, cost in zip(present, costs, strict=True)
        ),
        resources=_without_standing_prices(listed, standing),
        stacks=dict(filter(itemgetter(1), states.items())),
        has_leader=engine.agents is not None,
        autoscaler_alive=_is_recent(heartbeat, now),
        deployment_id=ports.deployment_id,
        standing_usd_per_hour=standing,
    )
    usage = tuple(
        _usage(machine, now, idle, cost) for machine, cost in zip(present, costs, strict=True)
    )
    return Survey(inventory, usage, _ended(machines), engine.text)


def _without_standing_prices(
    listed: Iterable[OwnedResource], standing_usd_per_hour: float
) -> tuple[OwnedResource, ...]:
    """What is listed besides machines, without the prices that the standing cost contains."""
    return tuple(
        replace(resource, usd_per_hour=0.0)
        if standing_usd_per_hour and is_standing(resource)
        else resource
        for resource in listed
        if resource.kind != "instance"
    )


async def _machines(ports: TeardownPorts) -> list[Machine]:
    """List the cluster's machines; again while EC2 throttles the call."""
    for _ in range(LIST_TRIES - 1):
        try:
            return await asyncio.to_thread(ports.fleet.machines, ports.cluster)
        except Retryable as error:
            await ports.sleep(error.after_s)
    return await asyncio.to_thread(ports.fleet.machines, ports.cluster)


def _costs(ports: TeardownPorts, machines: Sequence[Machine]) -> Sequence[MachineCost]:
    """What the machines cost; the price of the instance alone without `TeardownPorts.costs`."""
    if ports.costs is not None:
        return ports.costs(machines)
    prices = (usd_per_hour(machine.instance_type, machine.capacity) for machine in machines)
    return [MachineCost(price, 0.0, 0.0, 0.0, 0.0) for price in prices]


def _is_recent(heartbeat: Mapping[str, Json], now: float) -> bool:
    return bool(heartbeat) and now - _number(heartbeat, "at") < HEARTBEAT_OLD_S


def _ended(machines: Iterable[Machine]) -> tuple[tuple[str, float], ...]:
    return tuple(
        (machine.instance_id, machine.launched_at)
        for machine in machines
        if machine.state == "terminated"
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
    return EngineLoad(
        agents=dict(filter(None, map(_agent_by_instance, as_list(listed.get("agents"))))),
        tasks=dict(Counter(map(agent_of_task, as_list(running.get("tasks"))))),
        text="answers",
    )


def agent_of_task(task: object) -> str:
    """The id of the agent of a task as the operator API lists it."""
    return str(as_object(as_object(task).get("agent_id")).get("value", ""))


def _agent_by_instance(agent: object) -> tuple[str, str] | None:
    """Instance id and agent id; None for an agent without the attribute `instance_id`."""
    info = as_object(as_object(agent).get("agent_info"))
    for attribute in map(as_object, as_list(info.get("attributes"))):
        if attribute.get("name") == "instance_id":
            instance_id = as_object(attribute.get("text")).get("value")
            return str(instance_id), str(as_object(info.get("id")).get("value"))
    return None


async def _heartbeat(ports: TeardownPorts) -> object:
    if ports.control is None:
        return None
    try:
        return await asyncio.to_thread(ports.control.last_heartbeat)
    except MesaformError:
        return None


def idle_by_machine(heartbeat: Mapping[str, Json] | None) -> dict[str, float]:
    """Seconds that each machine was idle until the last heartbeat, as the autoscaler recorded it.

    Holds only agents' machines that the autoscaler knows.
    """
    heartbeat = heartbeat or {}
    state = as_object(heartbeat.get("planner_state"))
    idle_s, idle_since = as_object(state.get("idle_s")), as_object(state.get("idle_since"))
    at = _number(heartbeat, "at")
    return {
        instance_id: _number(idle_s, instance_id)
        + (max(0.0, at - _number(idle_since, instance_id)) if instance_id in idle_since else 0.0)
        for instance_id, machine in as_object(state.get("rented")).items()
        if as_object(machine).get("role") != "master"
    }


def _number(values: Mapping[str, Json], key: str) -> float:
    value = values.get(key)
    return float(value) if isinstance(value, (int, float)) else 0.0


def _surveyed(machine: Machine, engine: EngineLoad, cost: MachineCost) -> SurveyedMachine:
    """The machine; its disks are resources of their own with their own price."""
    agent_id = (engine.agents or {}).get(machine.instance_id, "")
    return SurveyedMachine(
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
        usd_per_hour=cost.without_volumes,
        agent_id=agent_id,
        tasks=engine.tasks.get(agent_id, 0) if agent_id else 0,
    )


def _usage(
    machine: Machine, now: float, idle: Mapping[str, float], cost: MachineCost
) -> MachineUsage:
    return MachineUsage(
        instance_id=machine.instance_id,
        instance_type=machine.instance_type,
        capacity=machine.capacity,
        role=machine.tags.get(Tag.ROLE, ""),
        pool=machine.tags.get(Tag.POOL, ""),
        managed_by=machine.tags.get(Tag.MANAGED_BY, ""),
        started_at=machine.launched_at,
        stopped_at=now,
        usd_per_hour=cost.usd_per_hour,
        idle_s=idle.get(machine.instance_id),
    )
