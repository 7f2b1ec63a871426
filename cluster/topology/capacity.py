"""Resources that the engine advertises of a machine."""

from __future__ import annotations

from mesaform.common.resources import Resources

TASK_PORTS = (31000, 32000)
"""First and last port that tasks may get."""

SYSTEM_DISK_GIB = 5
MIN_SYSTEM_MEM_MIB = 512
SYSTEM_MEM_PART = 20
"""The system keeps one twentieth of the memory, at least `MIN_SYSTEM_MEM_MIB`."""


def agent_resources(vcpus: float, mem_mib: int, disk_gib: int, gpus: int = 0) -> Resources:
    """Return what the engine advertises of a machine.

    All cpus, gpus and task ports; the memory and the disk without what the system keeps. `vcpus`
    are those that a T type offers (`burstable.offered_vcpus`).
    """
    system_mem_mib = max(MIN_SYSTEM_MEM_MIB, mem_mib // SYSTEM_MEM_PART)
    return Resources.of(
        cpus=vcpus,
        mem_mib=max(0, mem_mib - system_mem_mib),
        disk_mib=max(0, disk_gib - SYSTEM_DISK_GIB) * 1024,
        gpus=gpus,
        ports=[TASK_PORTS],
    )
