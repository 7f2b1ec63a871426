"""Full disks: of an agent's work folder, of a master's ZooKeeper, and of the operator.

A file system without room is mounted over a folder; files that a process holds open go on. Needs
root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.faults.scenario import Outcome, Scenario
from benchmarks.faults.site import Site, last_for
from harness.cluster_harness import until
from mesaform.common import proc

FULL_S = 20.0
KILLED, LAUNCHED = "killed", "launched"
"""Apps: one that is killed on the full disk, and one that is launched there."""
NO_SPACE = "No space left"
NOTE_CHARS = 150
SPARE_KIB = 64


@contextmanager
def full_disk(folder: Path) -> Iterator[None]:
    """Mount a full file system with the same content over a folder for the block."""
    with tempfile.TemporaryDirectory() as aside:
        copy = Path(aside) / "copy"
        shutil.copytree(folder, copy, symlinks=True)
        size = sum(path.stat().st_size for path in copy.rglob("*") if path.is_file())
        kib = 2 * (size // 1024) + 4096 + SPARE_KIB
        mount = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(folder)]
        subprocess.run(mount, check=True)
        try:
            shutil.copytree(copy, folder, symlinks=True, dirs_exist_ok=True)
            _fill(folder / "filler")
            yield
        finally:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _fill(path: Path) -> None:
    stats = os.statvfs(path.parent)
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, stats.f_bavail * stats.f_frsize)


def full_operator(site: Site) -> Outcome:
    """`up` refuses at once on a full disk, and works again with space."""
    folder = site.road.folder / ".mesaform" / "clusters" / site.road.name
    with full_disk(folder):
        site.road.mesaform("up", "--yes", expect=1, timeout_s=60)
    began = time.monotonic()
    site.road.mesaform("up", "--yes", timeout_s=400)
    return Outcome(time.monotonic() - began, lost=site.lost())


def full_agent(site: Site) -> Outcome:
    """On a full disk a launch fails with its reason, and a task ends when it is killed.

    The time is that of the kill.
    """
    address = site.agents()[0]
    process = site.engine(address, "agent")
    host = _value(process, "MESOS_HOSTNAME")
    site.post(KILLED, 1, 0.1, host)
    until("the task to kill runs", lambda: site.running(KILLED), 60)
    with full_disk(Path(_value(process, "MESOS_WORK_DIR"))):
        site.post(LAUNCHED, 1, 0.1, host)
        reason = until("the launch fails", lambda: site.failure(LAUNCHED), 60)
        site.delete(KILLED)
        kill_s = site.recovery("the task is killed", lambda: not site.running(KILLED))
        last_for(FULL_S)
    until("the app runs with space", lambda: site.running(LAUNCHED), 120)
    site.delete(LAUNCHED)
    site.recovery("the cluster serves", site.is_serving)
    note = "" if NO_SPACE in reason else "! the launch failed for another reason: "
    return Outcome(kill_s, lost=site.lost(), note=f"{note}{reason}"[:NOTE_CHARS])


def full_zookeeper(site: Site) -> Outcome:
    """One ZooKeeper that cannot write does not matter to the cluster."""
    address = site.random.choice(site.road.masters())
    words = proc.command_of(site.zookeeper(address))
    configuration = Path(words[-1]).read_text(encoding="utf-8")
    line = next(line for line in configuration.splitlines() if line.startswith("dataDir="))
    with full_disk(Path(line.partition("=")[2])):
        last_for(FULL_S)
        until("the cluster serves meanwhile", site.is_serving, 60)
    return Outcome(site.recovery("the cluster serves", site.is_serving), lost=site.lost())


def _value(pid: int, name: str) -> str:
    prefix = f"{name}=".encode()
    entries = proc.environment_of(pid)
    return next(entry for entry in entries if entry.startswith(prefix)).decode().partition("=")[2]


SCENARIOS = (
    Scenario("disk", "full disk of an agent, 20 s", 5, full_agent),
    Scenario("disk", "full disk of a ZooKeeper, 20 s", 5, full_zookeeper),
    Scenario("disk", "full disk of the operator, then up", 75, full_operator),
)
