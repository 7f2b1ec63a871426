"""Fields of status updates as Mesos fills them: states, messages, reasons and sources."""

from __future__ import annotations

import signal

from mesaform.engine.agent.task_fsm import DROPPED, KILLED, KILLING
from mesaform.mesos.containers import ContainerStatus, IpAddress, NetworkInfo
from mesaform.mesos.messages import FrameworkInfo
from mesaform.mesos.values import ContainerId

BY_EXECUTOR = "SOURCE_EXECUTOR"
BY_AGENT = "SOURCE_AGENT"

CHECK_FAILED = "REASON_COMMAND_EXECUTOR_FAILED"
DRAINING = "REASON_AGENT_DRAINING"
HEALTH_CHECKED = "REASON_TASK_HEALTH_CHECK_STATUS_UPDATED"
KILLED_DURING_LAUNCH = "REASON_TASK_KILLED_DURING_LAUNCH"
LAUNCH_FAILED = "REASON_CONTAINER_LAUNCH_FAILED"
OUT_OF_DISK = "REASON_CONTAINER_LIMITATION_DISK"
OUT_OF_MEMORY = "REASON_CONTAINER_LIMITATION_MEMORY"
RUNNER_LOST = "REASON_EXECUTOR_TERMINATED"
TASK_INVALID = "REASON_TASK_INVALID"
TASK_UNKNOWN = "REASON_TASK_UNKNOWN"


def has_capability(framework: FrameworkInfo, name: str) -> bool:
    """Whether the framework lists the capability."""
    return any(capability.type == name for capability in framework.capabilities)


def is_partition_aware(framework: FrameworkInfo) -> bool:
    """Whether the framework knows the task states beyond TASK_LOST."""
    return has_capability(framework, "PARTITION_AWARE")


def state_to_report(framework: FrameworkInfo, state: str, *, mark_gone: bool) -> str | None:
    """The state that the framework gets; None when it gets no update.

    `mark_gone`: the agent drains in order to be marked gone.
    """
    if state == KILLING and not has_capability(framework, "TASK_KILLING_STATE"):
        return None
    if state == DROPPED and not is_partition_aware(framework):
        return "TASK_LOST"
    if state == KILLED and mark_gone and is_partition_aware(framework):
        return "TASK_GONE_BY_OPERATOR"
    return state


def describe_exit(wait_status: int) -> str:
    """The message for a status of wait(2).

    Such as `Command exited with status 7` or `Command terminated with signal Killed`: the texts of
    Mesos' command executor (WSTRINGIFY).
    """
    number = wait_status & 0x7F
    if number == 0:
        return f"Command exited with status {wait_status >> 8}"
    dumped = " (core dumped)" if wait_status & 0x80 else ""
    return f"Command terminated with signal {signal.strsignal(number) or number}{dumped}"


def container_status(container_id: str, address: str, executor_pid: int | None) -> ContainerStatus:
    """The v1 ContainerStatus of a task on the agent's own network."""
    network = NetworkInfo(ip_addresses=[IpAddress(protocol="IPv4", ip_address=address)])
    return ContainerStatus(
        container_id=ContainerId(value=container_id),
        network_infos=[network],
        executor_pid=executor_pid,
    )
