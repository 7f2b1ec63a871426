"""ACCEPT and DECLINE: use offers, validate and launch tasks, return what is left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from mesaform.common.resources import Resources
from mesaform.engine import link
from mesaform.engine.master.render import task_json
from mesaform.engine.master.state import Agent, Framework, Offer, State, Task, total
from mesaform.engine.master.status import Cause, refuse_task
from mesaform.mesos.messages import AllocationInfo, Resource, TaskInfo, from_wire
from mesaform.mesos.scheduler_api import Accept, Decline, Operation

MAX_ID_LENGTH = 255  # the longest name of a folder; ids name sandboxes
NOT_SUPPORTED = (
    "The embedded engine runs command tasks (LAUNCH with TaskInfo.command) only: "
    "{} are not supported yet"
)


@dataclass(frozen=True, slots=True)
class Target:
    """Where the tasks of one ACCEPT go: the framework, and the agent and role of its offers."""

    framework: Framework
    agent: Agent
    role: str


def accept(state: State, framework: Framework, call: Accept) -> None:
    """Launch each valid task. Each invalid task gets a status with the reason."""
    offers, problem = _offers_of(state, framework, call)
    state.counters["messages_launch_tasks"] += 1
    for operation in call.operations:
        framework.counters["operations"] += 1
        framework.counters[f"operations/{operation.type.lower()}"] += 1
    if problem is not None:
        _refuse_all(state, framework, call, problem)
        for offer in offers:
            state.remove_offer(offer)
        return
    framework.counters["offers/accepted"] += len(offers)
    _launch_all(state, framework, call, offers)


def _launch_all(state: State, framework: Framework, call: Accept, offers: list[Offer]) -> None:
    target = Target(framework, state.agents[offers[0].agent_id], offers[0].role)
    free = total(offer.resources for offer in offers)
    for offer in offers:
        state.remove_offer(offer, returned=Resources())
    for operation in call.operations:
        free = _carry_out(state, target, operation, free)
    state.allocator.recover(
        framework.id,
        target.role,
        target.agent.id,
        free,
        now=state.now,
        refuse_s=call.filters.refuse_seconds,
    )


def _refuse_all(state: State, framework: Framework, call: Accept, problem: str) -> None:
    message = f"Task launched with invalid offers: {problem}"
    cause = Cause("TASK_DROPPED", "REASON_INVALID_OFFERS", message).as_seen_by(framework)
    for operation in call.operations:
        for info in operation.task_infos:
            refuse_task(state, framework, info.task_id.value, info.agent_id.value, cause)


def _offers_of(state: State, framework: Framework, call: Accept) -> tuple[list[Offer], str | None]:
    """The offers of the call that are still valid, and what is wrong with the list as a whole."""
    offers: list[Offer] = []
    invalid_id: str | None = None
    for offer_id in dict.fromkeys(entry.value for entry in call.offer_ids):
        offer = state.offers.get(offer_id)
        if offer is not None and offer.framework_id == framework.id:
            offers.append(offer)
        elif invalid_id is None:
            invalid_id = offer_id
    if invalid_id is not None:
        return offers, f"Offer {invalid_id} is no longer valid"
    if not offers:
        return offers, "No offers specified"
    return offers, _problem_of_offers(offers, len(call.offer_ids))


def _problem_of_offers(offers: list[Offer], wanted: int) -> str | None:
    """Why these offers cannot be accepted together, in Mesos' words (master/validation.cpp)."""
    if len(offers) < wanted:
        return "Duplicate offer in offer list"
    if len({offer.agent_id for offer in offers}) > 1:
        second = offers[1]
        return (
            "Aggregated offers must belong to one single agent. "
            f"Offer {second.id} uses agent {second.agent_id}"
        )
    if len({offer.role for offer in offers}) > 1:
        return "Aggregated offers must be allocated to the same role"
    return None


def _carry_out(state: State, target: Target, operation: Operation, free: Resources) -> Resources:
    """What is left of the offers after one operation.

    Operations on reservations and volumes change nothing, because this engine has neither.
    """
    framework, agent = target.framework, target.agent
    for info in operation.task_infos:
        task = _make_task(target, info)
        if (problem := _unauthorized(state, framework, info)) is not None:
            cause = Cause("TASK_ERROR", "REASON_TASK_UNAUTHORIZED", problem)
            refuse_task(state, framework, task.id, agent.id, cause)
            continue
        problem = (
            NOT_SUPPORTED.format("task groups")
            if operation.launch_group
            else invalid_task(target, task, free)
        )
        if problem is not None:
            cause = Cause("TASK_ERROR", "REASON_TASK_INVALID", problem)
            refuse_task(state, framework, task.id, agent.id, cause)
            continue
        free = free - task.resources
        state.add_task(framework, agent, task)
        state.send_to_agent(agent, link.Launch(framework.info, task.info))
        state.publish("TASK_ADDED", {"task": task_json(task)})
    return free


def _unauthorized(state: State, framework: Framework, info: TaskInfo) -> str | None:
    """Why a task may not run as its user, in Mesos' words; None when it may.

    A user that only the framework names is no reason: the agent replaces it by its default
    (`engine.agent.identity.UserPolicy`).
    """
    user = info.command.user if info.command is not None else None
    if user is None or user not in state.config.denied_users:
        return None
    return (
        f"Not authorized to launch task {info.task_id.value} of framework {framework.id} "
        f"under user '{user}'"
    )


def _make_task(target: Target, info: TaskInfo) -> Task:
    role = target.role
    resources = [
        resource
        if resource.allocation_info is not None
        else msgspec.structs.replace(resource, allocation_info=AllocationInfo(role=role))
        for resource in info.resources
    ]
    return Task(
        msgspec.structs.replace(info, resources=resources),
        target.framework.id,
        target.agent.id,
        role,
        from_wire(resources),
    )


def invalid_task(target: Target, task: Task, free: Resources) -> str | None:
    """Why a task cannot be launched on `free` resources, in Mesos' words; None when it can."""
    problem = (
        _invalid_id(target, task)
        or _invalid_command(task.info)
        or _invalid_resources(task.info.resources, target.role)
    )
    if problem is None and not free.contains(task.resources):
        return f"Task uses more resources {task.resources} than available {free}"
    return problem


def _invalid_id(target: Target, task: Task) -> str | None:
    if not _is_folder_name(task.id):
        return (
            f"TaskID '{task.id[:40]}' must have 1 to {MAX_ID_LENGTH} characters "
            "and be no folder's name"
        )
    if any(not character.isprintable() or character in "/\\" for character in task.id):
        return f"TaskID '{task.id}' contains invalid characters"
    if task.id in target.framework.tasks or task.id in target.framework.unreachable:
        return f"Task has duplicate ID: {task.id}"
    named_agent = task.info.agent_id.value
    if named_agent != target.agent.id:
        return f"Task uses invalid agent {named_agent} while agent {target.agent.id} is expected"
    return None


def _is_folder_name(task_id: str) -> bool:
    return 0 < len(task_id) <= MAX_ID_LENGTH and task_id not in {".", ".."}


def _invalid_command(info: TaskInfo) -> str | None:
    if (info.command is None) == (info.executor is None):
        return "Task should have at least one (but not both) of CommandInfo or ExecutorInfo present"
    if info.executor is not None:
        return NOT_SUPPORTED.format("custom executors")
    grace = info.kill_policy.grace_period if info.kill_policy is not None else None
    if grace is not None and grace.nanoseconds < 0:
        return "Task's 'kill_policy.grace_period' must be non-negative"
    return None


def _invalid_resources(resources: list[Resource], role: str) -> str | None:
    if not resources:
        return "Task uses no resources"
    for resource in resources:
        for check in _RESOURCE_CHECKS:
            problem = check(resource, role)
            if problem is not None:
                return f"Task uses invalid resources: {problem}"
    return None


def _invalid_scalar(resource: Resource, _role: str) -> str | None:
    if resource.scalar is not None and not 0 <= resource.scalar.value < float("inf"):
        return f"Invalid scalar resource: {resource.name}:{resource.scalar.value:g} < 0"
    return None


def _invalid_ranges(resource: Resource, _role: str) -> str | None:
    if resource.ranges is None:
        if resource.scalar is None:
            return f"{resource.name} has no value of type SCALAR or RANGES"
        return None
    if any(part.begin > part.end for part in resource.ranges.range):
        return f"Invalid ranges resource {resource.name}: upper bound below lower bound"
    return None


def _invalid_role(resource: Resource, role: str) -> str | None:
    if resource.role not in {None, "*"}:
        return f"{resource.name} is reserved to role '{resource.role}' and no reservation exists"
    allocation = resource.allocation_info
    if allocation is not None and allocation.role != role:
        return f"{resource.name} is allocated to role '{allocation.role}', the offers to '{role}'"
    return None


_RESOURCE_CHECKS: tuple[Callable[[Resource, str], str | None], ...] = (
    _invalid_scalar,
    _invalid_ranges,
    _invalid_role,
)


def decline(state: State, framework: Framework, call: Decline) -> None:
    """Return offers with a filter. Unknown offers were rescinded or used, and are ignored."""
    state.counters["messages_decline_offers"] += 1
    for offer_id in call.offer_ids:
        offer = state.offers.get(offer_id.value)
        if offer is not None and offer.framework_id == framework.id:
            framework.counters["offers/declined"] += 1
            state.remove_offer(offer, refuse_s=call.filters.refuse_seconds)
