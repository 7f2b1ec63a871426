"""What Linux knows about processes: who lives, since when, and which machine each belongs to.

A machine is a process tree, but its tasks start sessions of their own and outlive their parents. So a process belongs to a
machine if its environment names the instance, or its parent or session leader belongs to it, or if it is an orphan that works
or writes in the machine's folder; and once found it stays found, whatever it executes later.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
from dataclasses import dataclass, field
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)

_MACHINE_FOLDER = re.compile(r"/machines/(i-[0-9a-f]{17})(?:/|$)")
INSTANCE_VARIABLE = b"MESAFORM_INSTANCE_ID="


def become_subreaper() -> None:
    """Orphans below this process become its children, instead of init's."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent() -> None:
    """For a child, between fork and exec: end at once if the parent is killed."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Stat:
    """A line of /proc/<pid>/stat. `started` is in clock ticks since the machine's own boot: with the pid it names a process for good."""

    pid: int
    parent: int
    session: int
    state: str
    started: int


def stat(pid: int) -> Stat | None:
    """The process's line, or None if there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text[text.rindex(")") + 2 :].split()
    return Stat(pid, int(fields[1]), int(fields[3]), fields[0], int(fields[19]))


def alive(pid: int, started: int) -> bool:
    """Whether this very process still runs; a zombie does not."""
    found = stat(pid)
    return found is not None and found.started == started and found.state != "Z"


def boot_id() -> str:
    """Changes whenever the host boots: process ids of another boot mean nothing."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _named_instance(found: Stat) -> str | None:
    """The instance in the process's environment; failing that, for orphans, the one in whose folder it works or writes.

    Only orphans: a person's shell that happens to be in that folder has nothing to fear.
    """
    pid = found.pid
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return None
    for item in environment.split(b"\0"):
        if item.startswith(INSTANCE_VARIABLE):
            return item.removeprefix(INSTANCE_VARIABLE).decode(errors="replace")
    for link in ("cwd", "fd/1", "fd/2"):
        try:
            folder = _MACHINE_FOLDER.search(os.readlink(f"/proc/{pid}/{link}"))  # noqa: PTH115
        except OSError:
            continue
        if folder and _is_reaper(found.parent):
            return folder.group(1)
    return None


def _is_reaper(pid: int) -> bool:
    """Whether orphans of machines become children of this process: init, or the local cloud's own programs."""
    if pid == 1:
        return True
    try:
        return b"mesaform.localcloud" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


@dataclass(slots=True)
class Census:
    """Who belongs to which machine; remembers between counts."""

    _owners: dict[tuple[int, int], str | None] = field(default_factory=dict)

    def take(self) -> dict[str, set[int]]:
        """The living processes of every machine, by instance id. Reads all of /proc: a few milliseconds."""
        names = os.listdir("/proc")  # noqa: PTH208  # twice a second: Path objects would cost more than the reading
        stats = {
            found.pid: found for name in names if name.isdigit() and (found := stat(int(name)))
        }
        owners: dict[tuple[int, int], str | None] = {}
        for found in stats.values():
            self._own(found, stats, owners)
        self._owners = owners
        members: dict[str, set[int]] = {}
        for found in stats.values():
            owner = owners[found.pid, found.started]
            if owner is not None and found.state != "Z":
                members.setdefault(owner, set()).add(found.pid)
        return members

    def _own(
        self, found: Stat, stats: dict[int, Stat], owners: dict[tuple[int, int], str | None]
    ) -> str | None:
        key = (found.pid, found.started)
        if key in owners:
            return owners[key]
        owner = self._owners.get(key) or _named_instance(found)
        owners[key] = owner
        if owner is None:
            for relative in (found.parent, found.session):
                if relative != found.pid and relative > 1 and relative in stats:
                    owner = owner or self._own(stats[relative], stats, owners)
            owners[key] = owner
        return owner


def send(pid: int, number: int) -> None:
    """Signal a process that may already be gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
