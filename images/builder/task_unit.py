"""Holds the control groups of tasks: `python3 -I task_unit.py`, main process of a systemd unit.

Tasks of the embedded engine and their runners are in the groups that systemd delegates to
`mesaform-tasks.service`, not in those of the node's unit: a restart of the node's unit ends no
task, and systemd accounts for tasks and never changes the groups below. The role mesaform has the
unit. This program writes the paths of its groups for the agent, leaves the unit's own group of
version 2 free for groups below it, and becomes `sleep`. Standard library only, like `unserved`.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

NAME = "mesaform-tasks.service"
RUNTIME_DIRECTORY = "mesaform-tasks"
GROUPS_FILE = "groups"
"""Below /run/mesaform-tasks: the lines of /proc/self/cgroup (cgroups(7))."""
HOLDER = "holder"


def main() -> None:
    """Publish the unit's groups, say that it is ready, and wait as `sleep`."""
    groups = Path("/proc/self/cgroup").read_text(encoding="ascii")
    leave_top_group(groups, Path("/sys/fs/cgroup"), os.getpid())
    publish(groups, Path(os.environ.get("RUNTIME_DIRECTORY", f"/run/{RUNTIME_DIRECTORY}")))
    notify(os.environ.get("NOTIFY_SOCKET", ""), "READY=1")
    os.execv("/bin/sleep", ["sleep", "infinity"])  # noqa: S606 - a fixed program


def leave_top_group(groups: str, root: Path, pid: int) -> None:
    """Enter a group below the unit's one.

    Version 2 passes controllers on only from groups that have no processes. Nothing to do for
    version 1, where `root` holds a hierarchy for each controller.
    """
    if not (root / "cgroup.controllers").exists():
        return
    path = next(line[3:] for line in groups.splitlines() if line.startswith("0::"))
    holder = root / path.lstrip("/") / HOLDER
    holder.mkdir(exist_ok=True)
    (holder / "cgroup.procs").write_text(f"{pid}\n", encoding="ascii")


def publish(groups: str, folder: Path) -> None:
    """Write the file of the unit's groups, whole or not at all."""
    incomplete = folder / f".{GROUPS_FILE}"
    incomplete.write_text(groups, encoding="ascii")
    incomplete.replace(folder / GROUPS_FILE)


def notify(address: str, text: str) -> None:
    """Send a line to systemd (sd_notify(3)); nothing where systemd did not start this program."""
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as endpoint:
        endpoint.sendto(text.encode(), address.replace("@", "\0", 1))


if __name__ == "__main__":
    main()
