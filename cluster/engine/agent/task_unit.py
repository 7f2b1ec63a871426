"""The control groups that systemd delegates to the unit of tasks.

On machines that systemd runs, the image has the unit `mesaform-tasks.service` with `Delegate=yes`.
Its main process writes the unit's groups into a file (`images/builder/task_unit.py`). Runners and
tasks enter those groups, so that they are not in the unit of the node: its restart ends no task.
Elsewhere there is no such unit, and processes stay in the groups of the agent.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)

NAME = "mesaform-tasks.service"
UNIFIED = ""
"""The name of the hierarchy of version 2 in /proc/<pid>/cgroup (cgroups(7))."""
TRACKED = (UNIFIED, "name=systemd")
"""The hierarchies by which systemd knows the processes of a unit."""
RUNNERS = "runners"
"""The group of the runners, below the unit's."""
TASKS = "tasks"
"""The group above those of containers, below the unit's."""


@dataclass(frozen=True, slots=True)
class TaskUnit:
    """The groups of the unit, by hierarchy: a controller, `name=systemd`, or `UNIFIED`.

    Without groups there is no such unit.
    """

    groups: Mapping[str, str] = field(default_factory=dict)
    root: Path = Path("/sys/fs/cgroup")

    def folder(self, hierarchy: str) -> Path | None:
        """The unit's group in a hierarchy; None where it has none that this process may change."""
        if hierarchy not in self.groups:
            return None
        mounted = self._mounted(hierarchy) / self.groups[hierarchy].lstrip("/")
        return mounted if os.access(mounted / "cgroup.procs", os.W_OK) else None

    def runner_groups(self) -> list[str]:
        """The `cgroup.procs` files that a runner enters; empty without the unit.

        Raises:
            OSError: the group of runners cannot be created.

        """
        unit_folders = [folder for name in TRACKED if (folder := self.folder(name)) is not None]
        folders = [folder / RUNNERS for folder in unit_folders]
        for folder in folders:
            folder.mkdir(exist_ok=True)
        return [str(folder / "cgroup.procs") for folder in folders]

    def _is_unified(self) -> bool:
        return (self.root / "cgroup.controllers").exists()

    def _mounted(self, hierarchy: str) -> Path:
        """Where a hierarchy is mounted: version 2 alone, or beside those of version 1."""
        if hierarchy == UNIFIED:
            return self.root if self._is_unified() else self.root / "unified"
        return self.root / hierarchy.removeprefix("name=")


def read_task_unit(file: str, root: Path = Path("/sys/fs/cgroup")) -> TaskUnit:
    """The unit by the file of its groups; without groups if `file` is empty or unreadable."""
    if not file:
        return TaskUnit(root=root)
    try:
        text = Path(file).read_text(encoding="ascii")
    except (OSError, ValueError) as error:
        log.warning("task_unit_unreadable", file=file, error=str(error))
        return TaskUnit(root=root)
    groups: dict[str, str] = {}
    for line in text.splitlines():
        _, hierarchies, path = line.split(":", 2)
        if NAME in path.split("/"):
            # Controllers of one hierarchy are joined by commas; each has a link to its folder.
            groups |= dict.fromkeys(hierarchies.split(","), path)
    return TaskUnit(groups, root)
