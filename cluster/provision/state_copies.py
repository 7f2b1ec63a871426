"""Copies of Terraform's states, one for each version, in `state-copies` of the cluster's folder.

Terraform keeps one backup, which its next write replaces. These copies are taken before and after
each run, so that a state which is lost later can be restored. Depends on the local disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from mesaform.common.files import write_atomically
from mesaform.provision.disk_space import run_with_reserve
from mesaform.provision.state_folders import STACKS
from mesaform.provision.terraform_state import read_state

T = TypeVar("T")
KEPT = 10
"""Versions of each stack's state that are kept."""


def copies_folder(folder: Path) -> Path:
    """Where the copies are."""
    return folder / "state-copies"


def keep_copies(folder: Path) -> None:
    """Copy each state that lists resources and whose version has no copy; remove the oldest.

    Raises:
        OSError: the disk is full or cannot be written.

    """
    for stack in STACKS:
        state = read_state(folder, stack)
        if not state.resources:
            continue
        copies_folder(folder).mkdir(mode=0o700, exist_ok=True)
        path = copies_folder(folder) / f"{stack}-{state.serial:08d}.tfstate"
        if not path.exists():
            write_atomically(path, state.path.read_bytes(), mode=0o600, durable=True)
        for old in _copies(folder, stack)[:-KEPT]:
            old.unlink()


async def run_protected(
    folder: Path, work: Coroutine[Any, Any, T], refresh: Callable[[], None]
) -> T:
    """Run work that writes states: with a reserve on the disk, between copies of the states.

    `refresh` renews the folder's states after the work; it blocks.

    Raises:
        DiskFull: the disk filled up; the work was stopped in order.
        OSError: the states cannot be copied.

    """
    try:
        keep_copies(folder)
    except BaseException:
        work.close()
        raise
    try:
        return await run_with_reserve(folder, work)
    finally:
        await asyncio.shield(asyncio.to_thread(refresh))
        keep_copies(folder)


def newest_copy(folder: Path, stack: str) -> Path | None:
    """The newest copy of a stack's state; None when there is none."""
    copies = _copies(folder, stack)
    return copies[-1] if copies else None


def _copies(folder: Path, stack: str) -> list[Path]:
    return sorted(copies_folder(folder).glob(f"{stack}-*.tfstate"))
