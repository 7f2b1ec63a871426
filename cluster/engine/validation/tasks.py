"""Rules for tasks, their executors and task groups, in the order in which Mesos applies them.

What depends on the master's state (duplicate ids, what is left of the offers) is in
`engine.master.launch`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from mesaform.engine.validation.checks import (
    invalid_check,
    invalid_command,
    invalid_health_check,
)
from mesaform.engine.validation.containers import invalid_container
from mesaform.engine.validation.names import invalid_id
from mesaform.engine.validation.resources import (
    invalid_for_use,
    invalid_resources,
    mixed_revocable,
    resource_text,
    several_roles,
    thousandths,
)
from mesaform.engine.validation.rules import first_of, first_true, prefixed
from mesaform.mesos.containers import ContainerInfo
from mesaform.mesos.messages import ExecutorInfo, Resource, TaskInfo


def invalid_launch(tasks: Iterable[TaskInfo], executor: ExecutorInfo | None = None) -> str | None:
    """Why all tasks of an operation are refused: one of them has a malformed resource."""
    for info in tasks:
        problem = invalid_resources(info.resources)
        if problem is None and info.executor is not None:
            problem = invalid_resources(info.executor.resources)
        if problem is not None:
            return problem
    return None if executor is None else invalid_resources(executor.resources)


def invalid_task(info: TaskInfo) -> str | None:
    """Why a task whose ids are valid cannot be launched. Its resources are well-formed."""
    return first_of(rule(info) for rule in _TASK_RULES)


def _invalid_kill_policy(info: TaskInfo) -> str | None:
    period = info.kill_policy.grace_period if info.kill_policy is not None else None
    if period is not None and period.nanoseconds < 0:
        return "Task's 'kill_policy.grace_period' must be non-negative"
    return None


def _invalid_max_completion_time(info: TaskInfo) -> str | None:
    if info.max_completion_time is not None and info.max_completion_time.nanoseconds < 0:
        return "Task's `max_completion_time` must be non-negative"
    return None


def _invalid_check(info: TaskInfo) -> str | None:
    problem = invalid_check(info.check) if info.check is not None else None
    return prefixed("Task uses invalid check", problem)


def _invalid_health_check(info: TaskInfo) -> str | None:
    problem = invalid_health_check(info.health_check) if info.health_check is not None else None
    return prefixed("Task uses invalid health check", problem)


def _invalid_resources(info: TaskInfo) -> str | None:
    if not info.resources:
        return "Task uses no resources"
    problem = invalid_for_use(info.resources)
    if problem is not None:
        return f"Task uses invalid resources: {problem}"
    problem = repeated_volume(info.resources)
    if problem is not None:
        return f"Task uses duplicate persistence ID: {problem}"
    problem = several_roles(info.resources)
    if problem is not None:
        return f"Invalid task resources: {problem}"
    problem = mixed_revocable(info.resources)
    return prefixed("Task mixes revocable and non-revocable resources", problem)


def repeated_volume(resources: Iterable[Resource]) -> str | None:
    """Whether a persistent volume occurs twice."""
    seen: set[tuple[str | None, str]] = set()
    for resource in resources:
        if resource.disk is not None and resource.disk.persistence is not None:
            key = (resource.role, resource.disk.persistence.id)
            if key in seen:
                return f"Persistence ID '{key[1]}' is not unique"
            seen.add(key)
    return None


def _invalid_command(info: TaskInfo) -> str | None:
    problem = invalid_command(info.command) if info.command is not None else None
    return prefixed("Task's `CommandInfo` is invalid", problem)


def _invalid_container(info: TaskInfo) -> str | None:
    problem = invalid_container(info.container) if info.container is not None else None
    return prefixed("Task's `ContainerInfo` is invalid", problem)


def _invalid_limits(info: TaskInfo) -> str | None:
    if set(info.limits) - {"cpus", "mem"}:
        return "Only cpus and mem may be included in a task's resource limits"
    return _invalid_limit(info, "cpus", "CPU", "cpu") or _invalid_limit(
        info, "mem", "memory", "memory"
    )


def _invalid_limit(info: TaskInfo, name: str, noun: str, shown: str) -> str | None:
    limit = info.limits.get(name)
    if limit is None:
        return None
    request = sum(
        thousandths(resource.scalar.value)
        for resource in info.resources
        if resource.name == name and resource.scalar is not None
    )
    return first_true(
        (
            not request,
            f"When a {noun} limit is specified, a {noun} request must also be specified",
        ),
        (
            limit.value * 1000 < request,
            f"The {shown} limit must be greater than or equal to the {shown} request",
        ),
    )


_TASK_RULES: tuple[Callable[[TaskInfo], str | None], ...] = (
    _invalid_kill_policy,
    _invalid_max_completion_time,
    _invalid_check,
    _invalid_health_check,
    _invalid_resources,
    _invalid_command,
    _invalid_container,
    _invalid_limits,
)


def invalid_executor(info: TaskInfo, framework_id: str) -> str | None:
    """Why the executor of a launched task is wrong, or why a task has none or two."""
    if (info.command is None) == (info.executor is None):
        return "Task should have at least one (but not both) of CommandInfo or ExecutorInfo present"
    executor = info.executor
    if executor is None:
        return None
    problem = invalid_executor_info(executor, framework_id)
    if problem is not None:
        return problem
    if executor.type not in {None, "CUSTOM"}:
        return "'ExecutorInfo.type' must be 'CUSTOM'"
    if executor.command is None:
        return "'ExecutorInfo.command' must be set"
    if any(resource.shared is not None for resource in executor.resources):
        shown = "; ".join(map(resource_text, executor.resources))
        return f"Executor resources {shown} should not contain any shared resources"
    return _shared_cgroups_of_executor(executor)


def invalid_executor_info(
    executor: ExecutorInfo, framework_id: str, *, is_framework_required: bool = False
) -> str | None:
    """The rules for any executor. The executor of a LAUNCH may lack its framework's id."""
    is_missing = executor.framework_id is None and is_framework_required
    return (
        _invalid_executor_type(executor)
        or invalid_id(executor.executor_id.value)
        or _invalid_executor_parts(executor)
        or ("'ExecutorInfo.framework_id' must be set" if is_missing else None)
        or _invalid_executor_framework(executor, framework_id)
        or _invalid_executor_resources(executor)
    )


def _invalid_executor_type(executor: ExecutorInfo) -> str | None:
    if executor.type == "CUSTOM" and executor.command is None:
        return "'ExecutorInfo.command' must be set for 'CUSTOM' executor"
    if executor.type != "DEFAULT":
        return None
    if executor.command is not None:
        return "'ExecutorInfo.command' must not be set for 'DEFAULT' executor"
    return _invalid_default_container(executor.container)


def _invalid_default_container(container: ContainerInfo | None) -> str | None:
    if container is not None and container.type != "MESOS":
        return "'ExecutorInfo.container.type' must be 'MESOS' for 'DEFAULT' executor"
    mesos = container.mesos if container is not None else None
    if mesos is not None and mesos.image is not None:
        return "'ExecutorInfo.container.mesos.image' must not be set for 'DEFAULT' executor"
    return None


def _invalid_executor_parts(executor: ExecutorInfo) -> str | None:
    period = executor.shutdown_grace_period
    if period is not None and period.nanoseconds < 0:
        return "ExecutorInfo's 'shutdown_grace_period' must be non-negative"
    problem = invalid_command(executor.command) if executor.command is not None else None
    if problem is not None:
        return f"Executor's `CommandInfo` is invalid: {problem}"
    problem = invalid_container(executor.container) if executor.container is not None else None
    return prefixed("Executor's `ContainerInfo` is invalid", problem)


def _invalid_executor_framework(executor: ExecutorInfo, framework_id: str) -> str | None:
    named = executor.framework_id
    if named is None or named.value == framework_id:
        return None
    return (
        "ExecutorInfo has an invalid FrameworkID"
        f" (Actual: {named.value} vs Expected: {framework_id})"
    )


def _invalid_executor_resources(executor: ExecutorInfo) -> str | None:
    problem = invalid_for_use(executor.resources)
    if problem is not None:
        return f"Executor uses invalid resources: {problem}"
    problem = repeated_volume(executor.resources)
    if problem is not None:
        return f"Executor uses duplicate persistence ID: {problem}"
    problem = several_roles(executor.resources) if executor.resources else None
    if problem is not None:
        return f"Invalid executor resources: {problem}"
    problem = mixed_revocable(executor.resources)
    return prefixed("Executor mixes revocable and non-revocable resources", problem)


def _shares_cgroups(container: ContainerInfo | None) -> bool | None:
    linux = container.linux_info if container is not None else None
    return None if linux is None else linux.share_cgroups


def _shared_cgroups_of_executor(executor: ExecutorInfo) -> str | None:
    if _shares_cgroups(executor.container) is True:
        return "The 'share_cgroups' field cannot be set to 'true' on executor containers"
    return None


def own_cgroups(info: TaskInfo) -> str | None:
    """Whether a task outside of a group asks for cgroups of its own."""
    if _shares_cgroups(info.container) is False:
        return "Only tasks in a task group may have 'share_cgroups' set to 'false'"
    return None


# --- task groups

MIN_EXECUTOR_CPUS = 0.01
MIN_EXECUTOR_MEM_MIB = 32
"""The least that the executor of a group must have (master/constants.hpp)."""


def invalid_in_group(info: TaskInfo) -> str | None:
    """Why a valid task cannot be in a group."""
    container, check = info.container, info.health_check
    has_network = container is not None and bool(container.network_infos)
    return first_true(
        (
            has_network and check is not None and check.type in {"HTTP", "TCP"},
            _NETWORK_CHECK,
        ),
        (
            container is not None and container.type == "DOCKER",
            "Docker ContainerInfo is not supported on the task",
        ),
        (bool(info.limits) and _shares_cgroups(container) is not False, _LIMITS_OF_GROUP),
    )


_NETWORK_CHECK = (
    "HTTP and TCP health checks are not supported for nested containers"
    " not joining parent's network"
)
_LIMITS_OF_GROUP = (
    "Resource limits may only be set for tasks within a task group when the"
    " 'share_cgroups' field is set to 'false'."
)


def invalid_group_executor(
    executor: ExecutorInfo, tasks: Iterable[TaskInfo], framework_id: str
) -> str | None:
    """Why an executor cannot run a task group."""
    return (
        invalid_executor_info(executor, framework_id, is_framework_required=True)
        or first_true(
            (executor.type is None, "'ExecutorInfo.type' must be set"),
            (executor.type == "UNKNOWN", "Unknown executor type"),
            (
                executor.container is not None and executor.container.type == "DOCKER",
                "Docker ContainerInfo is not supported on the executor",
            ),
        )
        or first_of(_other_executor(info, executor) for info in tasks)
        or _too_small_executor(executor)
    )


def _other_executor(info: TaskInfo, executor: ExecutorInfo) -> str | None:
    if info.executor is None or info.executor == executor:
        return None
    return (
        f"The `ExecutorInfo` of task '{info.task_id.value}' is different from "
        f"executor '{executor.executor_id.value}'"
    )


def _too_small_executor(executor: ExecutorInfo) -> str | None:
    amounts = {
        resource.name: resource.scalar.value
        for resource in executor.resources
        if resource.scalar is not None and resource.scalar.value
    }
    name, least = f"Executor '{executor.executor_id.value}'", "than the minimum required"
    cpus, mem = amounts.get("cpus", 0), amounts.get("mem", 0)
    return first_true(
        (
            cpus < MIN_EXECUTOR_CPUS,
            f"{name} uses less CPUs ({_amount(amounts, 'cpus')}) {least} (0.01)",
        ),
        (
            mem < MIN_EXECUTOR_MEM_MIB,
            f"{name} uses less memory ({_amount(amounts, 'mem', 'MB')}) {least} (32MB)",
        ),
        ("disk" not in amounts, f"{name} uses no disk"),
    )


def _amount(amounts: dict[str, float], name: str, unit: str = "") -> str:
    return f"{amounts[name]:g}{unit}" if name in amounts else "None"
