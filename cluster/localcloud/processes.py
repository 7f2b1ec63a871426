"""Which processes belong to which machine.

A machine is a process tree, but its tasks start sessions of their own and outlive their parents. A
process belongs to a machine if its environment names the instance, if its parent or session leader
belongs to it, or if it is an orphan that works or writes in the machine's folder. Once assigned it
stays assigned, whatever it executes later. Reads /proc through `common.proc`.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from mesaform.common import proc
from mesaform.common.proc import Process

_MACHINE_FOLDER = re.compile(r"/machines/(i-[0-9a-f]{17})(?:/|$)")
INSTANCE_VARIABLE = b"MESAFORM_INSTANCE_ID="
INIT_PID = 1

_Identity = tuple[int, int]
"""A process's pid and start: a pid alone is reused."""
_Stranger = tuple[int, int, int]
"""A process of no machine: its pid, start and parent. It may belong to one as an orphan."""
_LOOKS_AT_STRANGER = 4
_LOOK_AGAIN = 10
"""After so many counts a stranger is read and looked at in every tenth: its parent, environment and
files may change. Most processes of a host are strangers. Another process cannot have got its pid
meanwhile: the kernel gives pids in turn."""


def _instance_of(process: Process) -> str | None:
    """The instance named in the environment, or for an orphan that of the folder it works in.

    Only orphans: an operator's shell in such a folder is not part of the machine.
    """
    for entry in proc.environment_of(process.pid):
        if entry.startswith(INSTANCE_VARIABLE):
            return entry.removeprefix(INSTANCE_VARIABLE).decode(errors="replace")
    for link in ("cwd", "fd/1", "fd/2"):
        try:
            path = os.readlink(f"/proc/{process.pid}/{link}")  # noqa: PTH115 - on a hot path
        except OSError:
            continue
        folder = _MACHINE_FOLDER.search(path)
        if folder and _is_reaper(process.parent):
            return folder.group(1)
    return None


def _is_reaper(pid: int) -> bool:
    """Whether orphans of machines become its children: init, or the local cloud's own programs."""
    if pid == INIT_PID:
        return True
    try:
        return b"mesaform.localcloud" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


@dataclass(slots=True)
class Census:
    """Assigns processes to machines; remembers the assignments between counts."""

    _owners: dict[_Identity, str | None] = field(default_factory=dict)
    _strangers: dict[_Stranger, int] = field(default_factory=dict)
    _settled: dict[int, Process] = field(default_factory=dict)
    """Strangers that the next count takes as they were, by pid."""

    def take(self) -> dict[str, set[int]]:
        """The running processes of every machine, by instance id.

        The first count reads all of /proc, which takes a few milliseconds.
        """
        processes = self._list()
        owners: dict[_Identity, str | None] = {}
        for process in processes.values():
            self._assign(process, processes, owners)
        self._owners = owners
        self._count_strangers(processes.values())
        members: dict[str, set[int]] = {}
        for process in processes.values():
            owner = owners[process.pid, process.start_ticks]
            if owner is not None and not process.has_ended:
                members.setdefault(owner, set()).add(process.pid)
        return members

    def _list(self) -> dict[int, Process]:
        listed = (self._settled.get(pid) or proc.read_process(pid) for pid in proc.pids())
        return {process.pid: process for process in listed if process is not None}

    def _assign(
        self,
        process: Process,
        processes: dict[int, Process],
        owners: dict[_Identity, str | None],
    ) -> str | None:
        key = (process.pid, process.start_ticks)
        if key in owners:
            return owners[key]
        owner = self._owners.get(key) or self._look_at(process)
        owners[key] = owner  # before the relatives: a process may be its own session leader
        if owner is None:
            for pid in (process.parent, process.session):
                is_relative = pid not in {process.pid, 0, INIT_PID} and pid in processes
                if is_relative and owner is None:
                    owner = self._assign(processes[pid], processes, owners)
            owners[key] = owner
        return owner

    def _count_strangers(self, processes: Iterable[Process]) -> None:
        strangers = {
            _stranger(process): process
            for process in processes
            if self._owners[process.pid, process.start_ticks] is None
        }
        self._strangers = {key: self._strangers.get(key, 0) + 1 for key in strangers}
        self._settled = {
            process.pid: process
            for key, process in strangers.items()
            if self._strangers[key] > _LOOKS_AT_STRANGER
            and (self._strangers[key] + process.pid) % _LOOK_AGAIN
        }

    def _look_at(self, process: Process) -> str | None:
        return None if process.pid in self._settled else _instance_of(process)


def _stranger(process: Process) -> _Stranger:
    return (process.pid, process.start_ticks, process.parent)


def send(pid: int, number: int) -> None:
    """Send a signal; a process that does not exist is no error."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
