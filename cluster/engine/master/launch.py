"""ACCEPT and DECLINE: use offers, validate and launch tasks, return what is left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import msgspec

from mesaform.common.resources import Resources
from mesaform.engine import link
from mesaform.engine.master.render import task_json
from mesaform.engine.master.state import Agent, Framework, Offer, State, Task, total
from mesaform.engine.master.status import Cause, refuse_task
from mesaform.engine.validation.names import invalid_id
from mesaform.engine.validation.resources import is_never_offered, resource_text
from mesaform.engine.validation.support import refusal, unsupported_task
from mesaform.engine.validation.tasks import (
    invalid_executor,
    invalid_group_executor,
    invalid_in_group,
    invalid_launch,
    invalid_task,
    own_cgroups,
)
from mesaform.mesos.messages import (
    AllocationInfo,
    ExecutorInfo,
    Filters,
    Resource,
    TaskInfo,
    from_wire,
)
from mesaform.mesos.scheduler_api import Accept, Decline, LaunchGroupOperation, Operation

Reason = Literal["REASON_TASK_INVALID", "REASON_TASK_GROUP_INVALID"]
MAX_REFUSE_S = 365 * 86400.0
"""Seconds of a filter: Mesos' own limit of one year."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where the tasks of one ACCEPT go: the framework, and the agent and role of its offers."""

    framework: Framework
    agent: Agent
    role: str


def accept(state: State, framework: Framework, call: Accept) -> None:
    """Launch each valid task. Each invalid task gets a status with the reason."""
    offers, problem = _offers_of(framework, call)
    state.counters["messages_launch_tasks"] += 1
    for operation in call.operations:
        framework.counters["operations"] += 1
        framework.counters[f"operations/{(operation.type or 'UNKNOWN').lower()}"] += 1
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
        refuse_s=refuse_seconds(call.filters),
    )


def refuse_seconds(filters: Filters) -> float:
    """How long resources are refused. Mesos takes its default for a time that is no duration."""
    seconds = filters.refuse_seconds
    if not 0 <= seconds <= 2**63 / 1e9:
        return Filters().refuse_seconds
    return min(seconds, MAX_REFUSE_S)


def _refuse_all(state: State, framework: Framework, call: Accept, problem: str) -> None:
    message = f"Task launched with invalid offers: {problem}"
    cause = Cause("TASK_DROPPED", "REASON_INVALID_OFFERS", message).as_seen_by(framework)
    for operation in call.operations:
        _refuse(state, framework, operation.task_infos, cause)


def _refuse(state: State, framework: Framework, tasks: Iterable[TaskInfo], cause: Cause) -> None:
    for info in tasks:
        refuse_task(state, framework, info.task_id.value, info.agent_id.value, cause)


def _offers_of(framework: Framework, call: Accept) -> tuple[list[Offer], str | None]:
    """The offers of the call that are still valid, and what is wrong with the list as a whole."""
    ids = [entry.value for entry in call.offer_ids]
    if not ids:
        return [], "No offers specified"
    offers = _known_offers(framework, ids)
    most_frequent, count = Counter(ids).most_common(1)[0]
    if count > 1:
        return offers, f"Duplicate offer {most_frequent} in offer list"
    if len(offers) < len(ids):
        invalid = next(id_ for id_ in ids if id_ not in framework.offers)
        return offers, f"Offer {invalid} is no longer valid"
    return offers, _problem_of_offers(offers)


def _known_offers(framework: Framework, ids: list[str]) -> list[Offer]:
    return [framework.offers[id_] for id_ in dict.fromkeys(ids) if id_ in framework.offers]


def _problem_of_offers(offers: list[Offer]) -> str | None:
    """Why these offers cannot be accepted together, in Mesos' words (master/validation.cpp)."""
    first = offers[0]
    for offer in offers:
        if offer.role != first.role:
            return (
                f"Aggregated offers must be allocated to the same role. Offer {offer.id} uses role "
                f"'{offer.role} but another is using role '{first.role}"
            )
    for offer in offers:
        if offer.agent_id != first.agent_id:
            return (
                "Aggregated offers must belong to one single agent. "
                f"Offer {offer.id} uses agent {offer.agent_id} and agent {first.agent_id}"
            )
    return None


def _carry_out(state: State, target: Target, operation: Operation, free: Resources) -> Resources:
    """What is left of the offers after one operation.

    `support.unsupported_accept` has refused the operations on reservations, volumes and disks.
    """
    if operation.type == "LAUNCH_GROUP" and operation.launch_group is not None:
        _refuse_group(state, target, operation, operation.launch_group)
        return free
    problem = invalid_launch(operation.task_infos)
    if problem is None and operation.id is not None:
        problem = "The `id` field cannot be set on LAUNCH operations"
    if problem is not None:
        cause = Cause("TASK_ERROR", "REASON_TASK_INVALID", problem)
        _refuse(state, target.framework, operation.task_infos, cause)
        return free
    for info in operation.task_infos:
        free = _launch(state, target, info, free)
    return free


def _launch(state: State, target: Target, info: TaskInfo, free: Resources) -> Resources:
    """Launch one task, or refuse it. Returns what is left of the offers."""
    framework, agent = target.framework, target.agent
    info = _with_allocation(info, target.role)
    if (problem := _unauthorized(state, framework, info)) is not None:
        cause = Cause("TASK_ERROR", "REASON_TASK_UNAUTHORIZED", problem)
        refuse_task(state, framework, info.task_id.value, info.agent_id.value, cause)
        return free
    problem = invalid_on(target, info, free)
    if problem is not None:
        cause = Cause("TASK_ERROR", "REASON_TASK_INVALID", problem)
        refuse_task(state, framework, info.task_id.value, info.agent_id.value, cause)
        return free
    task = Task(info, framework.id, agent.id, target.role, from_wire(info.resources))
    state.add_task(framework, agent, task)
    state.send_to_agent(agent, link.Launch(framework.info, task.info))
    state.publish("TASK_ADDED", {"task": task_json(task)})
    return free - task.resources


def _unauthorized(state: State, framework: Framework, info: TaskInfo) -> str | None:
    """Why a task may not run as its user, in Mesos' words; None when it may.

    The agent replaces root by its default if only the framework names it
    (`engine.agent.identity.UserPolicy`).
    """
    own = info.command.user if info.command is not None else None
    user = own or framework.info.user
    principal = framework.info.principal
    if not user or state.config.acls().may_run(principal, user, is_default=own is None):
        return None
    return (
        f"Principal '{principal or ''}' no authorized to launch task "
        f"{info.task_id.value} of framework {framework.id} under user '{user}'"
    )


def _with_allocation(info: TaskInfo, role: str) -> TaskInfo:
    """The task with the offers' role in each of its resources that has none."""
    replace = msgspec.structs.replace
    executor = info.executor
    if executor is not None:
        executor = replace(executor, resources=_allocated(executor.resources, role))
    return replace(info, resources=_allocated(info.resources, role), executor=executor)


def _allocated(resources: list[Resource], role: str) -> list[Resource]:
    allocation = AllocationInfo(role=role)
    return [
        resource
        if resource.allocation_info is not None
        else msgspec.structs.replace(resource, allocation_info=allocation)
        for resource in resources
    ]


def invalid_on(target: Target, info: TaskInfo, free: Resources) -> str | None:
    """Why a task cannot be launched on `free` resources, in Mesos' words; None when it can."""
    return (
        _invalid_ids(target, info)
        or invalid_task(info)
        or invalid_executor(info, target.framework.id)
        or _too_large(target, info, free)
        or own_cgroups(info)
        or unsupported_task(info)
    )


def _invalid_ids(target: Target, info: TaskInfo) -> str | None:
    task_id, named_agent = info.task_id.value, info.agent_id.value
    problem = invalid_id(task_id)
    if problem is not None:
        return problem
    if task_id in target.framework.tasks:
        return f"Task has duplicate ID: {task_id}"
    if task_id in target.framework.unreachable:
        return f"Task reuses the ID of an unreachable task: {task_id}"
    if named_agent != target.agent.id:
        return f"Task uses invalid agent {named_agent} while agent {target.agent.id} is expected"
    return None


def _too_large(target: Target, info: TaskInfo, free: Resources) -> str | None:
    wanted = [*info.resources, *(info.executor.resources if info.executor is not None else ())]
    is_offered = not any(is_never_offered(resource, target.role) for resource in wanted)
    if is_offered and free.contains(from_wire(wanted)):
        return None
    shown = "; ".join(map(resource_text, wanted))
    return (
        f"Total resources {shown} required by task and its executor is more than available {free}"
    )


def _refuse_group(
    state: State, target: Target, operation: Operation, group: LaunchGroupOperation
) -> None:
    """Refuse a task group: this engine has none. Mesos' own rules come first."""
    tasks = group.task_group.tasks
    problem = invalid_launch(tasks, group.executor)
    if problem is None and operation.id is not None:
        problem = "The `id` field cannot be set on LAUNCH_GROUP operations"
    if problem is None:
        problem = _invalid_group(target, tasks, group.executor) or refusal("task groups")
    cause = Cause("TASK_ERROR", "REASON_TASK_GROUP_INVALID", problem)
    _refuse(state, target.framework, tasks, cause)


def _invalid_group(target: Target, tasks: list[TaskInfo], executor: ExecutorInfo) -> str | None:
    for info in tasks:
        allocated = _with_allocation(info, target.role)
        problem = (
            _invalid_ids(target, allocated) or invalid_task(allocated) or invalid_in_group(info)
        )
        if problem is not None:
            return f"Task '{info.task_id.value}' is invalid: {problem}"
    resources = _allocated(executor.resources, target.role)
    allocated_executor = msgspec.structs.replace(executor, resources=resources)
    return invalid_group_executor(allocated_executor, tasks, target.framework.id)


def decline(state: State, framework: Framework, call: Decline) -> None:
    """Return offers with a filter. Unknown offers were rescinded or used, and are ignored."""
    state.counters["messages_decline_offers"] += 1
    for offer_id in call.offer_ids:
        offer = state.offers.get(offer_id.value)
        if offer is not None and offer.framework_id == framework.id:
            framework.counters["offers/declined"] += 1
            state.remove_offer(offer, refuse_s=refuse_seconds(call.filters))
