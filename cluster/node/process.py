"""Processes of a machine: started apart from the node, ended with it, logging to bounded files.

Linux only. Depends on `mesaform.common.proc`. Use it from the main thread: the kernel ties
`PR_SET_PDEATHSIG` to the thread that forked (prctl(2)).
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from subprocess import DEVNULL, Popen

from mesaform.common import proc
from mesaform.common.files import open_log

EXECUTORS_SLICE = "mesos_executors.slice"
"""Systemd's slice of the executors (Mesos' src/linux/systemd.hpp)."""
NODE_UNIT = "mesaform-node.service"
TASKS_UNIT = "mesaform-tasks.service"
"""The unit of the embedded engine's tasks (`images/builder/task_unit.py`)."""
TASKS_UNIT_HOLDER = "holder"
"""The group of that unit's main process."""

_KILL_INTERVAL_S = 0.01


def spawn(
    argv: Sequence[str],
    env: Mapping[str, str],
    log: Path,
    cwd: Path,
    inherited_fds: tuple[int, ...] = (),
) -> int:
    """Start a process in its own session, with output appended to `log`; returns its pid.

    The process is killed when the node ends. It inherits the file descriptors `inherited_fds` only.

    Raises:
        OSError: there is no such program, or not enough memory.

    """
    with open_log(log) as output:
        process = Popen(
            list(argv),
            stdin=DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(env),
            cwd=cwd,
            start_new_session=True,
            pass_fds=inherited_fds,
            preexec_fn=proc.die_with_parent,  # noqa: PLW1509 - one thread forks; one system call
        )
    process.returncode = 0  # `reap` waits for children; Popen must not
    return process.pid


def describe_end(status: int) -> str:
    """A wait status as text: `exit code 1` or `signal SIGKILL`."""
    code = os.waitstatus_to_exitcode(status)
    return f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"


def reap() -> Iterator[tuple[int, str]]:
    """Pid and ending of every child that has ended, adopted orphans included."""
    for pid, status in proc.reap():
        yield pid, describe_end(status)


def terminate(pid: int) -> None:
    """Send SIGTERM to this process; does nothing if it has ended."""
    _signal(pid, signal.SIGTERM)


def kill(pid: int) -> None:
    """Send SIGKILL to this process; does nothing if it has ended."""
    _signal(pid, signal.SIGKILL)


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def name_of(pid: int) -> str:
    """The process's name in the kernel, without spaces; its pid when it has ended."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip().replace(" ", "-") or str(pid)
    except OSError:
        return str(pid)


def outlives_node(cgroup: Path) -> bool:
    """Whether a process, by its `/proc/<pid>/cgroup`, is of a task that systemd keeps.

    Executors of Apache Mesos are in a slice of their own, runners of the embedded engine in a unit
    of their own. The next agent adopts them.
    """
    try:
        lines = cgroup.read_text().splitlines()
    except OSError:
        return False
    return any(_is_of_kept_task(line.split("/")) for line in lines)


def _is_of_kept_task(path: Sequence[str]) -> bool:
    """By the parts of a control group's path. The main process of the unit of tasks is no task."""
    return EXECUTORS_SLICE in path or (
        TASKS_UNIT in path and path[-1] not in (TASKS_UNIT, TASKS_UNIT_HOLDER)
    )


def remaining(service_pids: Collection[int], processes: Path = Path("/proc")) -> list[int]:
    """The processes of tasks: those below the node but services, and those that outlived a node.

    The latter exist only where the node is a unit of systemd. Machines of the local cloud that are
    processes share /proc with other machines.
    """
    own = os.getpid()
    running = proc.running_processes()
    below = {
        pid for pid, entry in running.items() if entry.parent == own and pid not in service_pids
    }
    if _is_unit(processes / "self/cgroup"):
        below |= {pid for pid in running if outlives_node(processes / str(pid) / "cgroup")}
    return sorted(below)


def _is_unit(cgroup: Path) -> bool:
    """Whether the process of this `cgroup` file is in the unit of the node."""
    try:
        return any(NODE_UNIT in line.split("/") for line in cgroup.read_text().splitlines())
    except OSError:
        return False


def _mortal_children() -> list[int]:
    return [
        pid for pid in proc.children(os.getpid()) if not outlives_node(Path(f"/proc/{pid}/cgroup"))
    ]


def kill_descendants(within_s: float = 5.0) -> int:
    """Kill and reap every process below this one but kept tasks; returns how many were killed.

    Orphans of a killed process become children of this process, hence the repetition.
    """
    give_up_at = time.monotonic() + within_s
    killed: set[int] = set()
    while children := _mortal_children():
        for pid in children:
            kill(pid)
        killed.update(children)
        if time.monotonic() > give_up_at:
            break
        time.sleep(_KILL_INTERVAL_S)
        list(proc.reap())
    list(proc.reap())
    return len(killed)
