"""ACCEPT and DECLINE: offers are used up, tasks validated and launched, what is left returns."""

from __future__ import annotations

import msgspec

from mesaform.common.resources import Resources
from mesaform.engine import link
from mesaform.engine.master.render import task_json
from mesaform.engine.master.state import Agent, Framework, Offer, State, Task, total
from mesaform.engine.master.status import refuse_task, state_as_seen_by
from mesaform.mesos.messages import AllocationInfo, Resource, TaskInfo, from_wire
from mesaform.mesos.scheduler_api import Accept, Decline, Operation

MAX_ID_LENGTH = 255
NOT_YET = "The embedded engine runs command tasks (LAUNCH with TaskInfo.command) only: {} are not supported yet"


def accept(state: State, framework: Framework, call: Accept) -> None:
    """Launch what can be launched. Each task that cannot gets a status that says why."""
    offers, problem = _take_offers(state, framework, call)
    tasks = [info for operation in call.operations for info in operation.task_infos]
    state.counters["messages_launch_tasks"] += 1
    for operation in call.operations:
        framework.counters["operations"] += 1
        framework.counters[f"operations/{operation.type.lower()}"] += 1
    if problem is not None or not offers:
        task_state, reason, message = (
            "TASK_DROPPED",
            "REASON_INVALID_OFFERS",
            f"Task launched with invalid offers: {problem or 'No offers specified'}",
        )
        for info in tasks:
            refuse_task(
                state,
                framework,
                info.task_id.value,
                info.agent_id.value,
                state_as_seen_by(framework, task_state),
                reason,
                message,
            )
        for offer in offers:
            state.drop_offer(offer)
        return
    framework.counters["offers/accepted"] += len(offers)
    agent = state.agents[offers[0].agent_id]
    role = offers[0].role
    left = total(offer.resources for offer in offers)
    for offer in offers:
        state.drop_offer(offer, returned=Resources())
    for operation in call.operations:
        left = _operate(state, framework, agent, role, operation, left)
    state.allocator.recover(
        framework.id, role, agent.id, left, now=state.now, refuse_s=call.filters.refuse_seconds
    )


def _take_offers(
    state: State, framework: Framework, call: Accept
) -> tuple[list[Offer], str | None]:
    """The offers that are still this framework's, and what is wrong with the list as a whole."""
    found: list[Offer] = []
    problem: str | None = None
    for offer_id in dict.fromkeys(one.value for one in call.offer_ids):
        offer = state.offers.get(offer_id)
        if offer is None or offer.framework_id != framework.id:
            problem = problem or f"Offer {offer_id} is no longer valid"
        else:
            found.append(offer)
    if problem is None and len(found) < len(call.offer_ids):
        problem = "Duplicate offer in offer list"
    if problem is None and len({offer.agent_id for offer in found}) > 1:
        problem = f"Aggregated offers must belong to one single agent. Offer {found[1].id} uses agent {found[1].agent_id}"
    if problem is None and len({offer.role for offer in found}) > 1:
        problem = "Aggregated offers must be allocated to the same role"
    return found, problem


def _operate(
    state: State,
    framework: Framework,
    agent: Agent,
    role: str,
    operation: Operation,
    left: Resources,
) -> Resources:
    """What is left of the offers after one operation. Reservations and volumes are not kept by this engine: they change nothing."""
    for info in operation.task_infos:
        task = _make_task(framework, agent, role, info)
        problem = (
            NOT_YET.format("task groups")
            if operation.launch_group
            else invalid(framework, agent, role, task, left)
        )
        if problem is not None:
            refuse_task(
                state, framework, task.id, agent.id, "TASK_ERROR", "REASON_TASK_INVALID", problem
            )
            continue
        left = left - task.resources
        state.add_task(framework, agent, task)
        state.tell(agent, link.Launch(framework.info, task.info))
        state.publish("TASK_ADDED", {"task": task_json(task)})
    return left


def _make_task(framework: Framework, agent: Agent, role: str, info: TaskInfo) -> Task:
    resources = [
        one
        if one.allocation_info is not None
        else msgspec.structs.replace(one, allocation_info=AllocationInfo(role=role))
        for one in info.resources
    ]
    return Task(
        msgspec.structs.replace(info, resources=resources),
        framework.id,
        agent.id,
        role,
        from_wire(resources),
    )


def invalid(
    framework: Framework, agent: Agent, role: str, task: Task, left: Resources
) -> str | None:
    """Why a task cannot be launched here, or None."""
    return (
        _bad_identity(framework, agent, task)
        or _bad_program(task.info)
        or _bad_resources(task.info.resources, role)
        or (
            None
            if left.contains(task.resources)
            else f"Task uses more resources {task.resources} than available {left}"
        )
    )


def _bad_identity(framework: Framework, agent: Agent, task: Task) -> str | None:
    if not task.id or len(task.id) > MAX_ID_LENGTH or task.id in {".", ".."}:
        return f"TaskID '{task.id[:40]}' must have 1 to {MAX_ID_LENGTH} characters and be no folder's name"
    if any(not character.isprintable() or character in "/\\" for character in task.id):
        return f"TaskID '{task.id}' contains invalid characters"
    if task.id in framework.tasks or task.id in framework.unreachable:
        return f"Task has duplicate ID: {task.id}"
    if task.info.agent_id.value != agent.id:
        return (
            f"Task uses invalid agent {task.info.agent_id.value} while agent {agent.id} is expected"
        )
    return None


def _bad_program(info: TaskInfo) -> str | None:
    if (info.command is None) == (info.executor is None):
        return "Task should have at least one (but not both) of CommandInfo or ExecutorInfo present"
    if info.executor is not None:
        return NOT_YET.format("custom executors")
    grace = info.kill_policy.grace_period if info.kill_policy is not None else None
    if grace is not None and grace.nanoseconds < 0:
        return "Task's 'kill_policy.grace_period' must be non-negative"
    return None


def _bad_resources(resources: list[Resource], role: str) -> str | None:
    if not resources:
        return "Task uses no resources"
    for one in resources:
        if one.scalar is not None and not 0 <= one.scalar.value < float("inf"):
            return f"Task uses invalid resources: Invalid scalar resource: {one.name}:{one.scalar.value:g} < 0"
        if one.scalar is None and one.ranges is None:
            return f"Task uses invalid resources: {one.name} has no value of type SCALAR or RANGES"
        if one.ranges is not None and any(part.begin > part.end for part in one.ranges.range):
            return f"Task uses invalid resources: Invalid ranges resource {one.name}: upper bound below lower bound"
        if one.role not in {None, "*"}:
            return f"Task uses invalid resources: {one.name} is reserved to role '{one.role}' and no reservation exists"
        if one.allocation_info is not None and one.allocation_info.role != role:
            return f"Task uses invalid resources: {one.name} is allocated to role '{one.allocation_info.role}', the offers to '{role}'"
    return None


def decline(state: State, framework: Framework, call: Decline) -> None:
    """Offers return, with a filter. Unknown ones were rescinded or used: no matter."""
    state.counters["messages_decline_offers"] += 1
    for offer_id in call.offer_ids:
        offer = state.offers.get(offer_id.value)
        if offer is not None and offer.framework_id == framework.id:
            framework.counters["offers/declined"] += 1
            state.drop_offer(offer, refuse_s=call.filters.refuse_seconds)
