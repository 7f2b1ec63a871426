"""A verb's turn: every lock before any change, by waiting for another process or by ending it.

Depends on `lock` and `holders`. Whoever calls decides what to do about another process; nothing is
printed here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Literal

from mesaform.common.errors import NotOwned
from mesaform.common.progress import Report, Stage, stage
from mesaform.provision.disk_space import require_space
from mesaform.provision.holders import Holder, end_verb, end_workers
from mesaform.provision.lock import HeldLock, Occupied, hold_cluster

Choice = Literal["wait", "end", "stop"]
Choose = Callable[[Occupied], Choice]
Reporter = Callable[[], AbstractContextManager[Report]]
WAIT_TIMEOUT_S = 600.0
"""Terraform of an earlier run continues after a kill -9. The AWS provider waits less than this."""
POLL_S = 0.5


@contextmanager
def take_turn(folder: Path, verb: str, choose: Choose, reporter: Reporter) -> Iterator[HeldLock]:
    """Hold every lock of the cluster for the block; yields Terraform's lock.

    Args:
        folder: the cluster's state folder.
        verb: the verb as others see it, such as "mesaform up".
        choose: decides about another process that is at work; called once for each.
        reporter: opens progress; it is not open while `choose` runs, which may ask a person.

    Raises:
        Occupied: another process is at work, and the choice was to stop, or it did not end within
            `WAIT_TIMEOUT_S`.
        NotOwned: the process that should be ended belongs to another user.
        DiskFull: the disk has no room for what a verb writes.

    """
    with ExitStack() as locks:
        handled: Holder | None = None
        while True:
            try:
                held = locks.enter_context(hold_cluster(folder, verb))
                break
            except Occupied as occupied:
                choice = "stop" if occupied.holder == handled else choose(occupied)
                if choice == "stop":
                    raise
                handled = occupied.holder
                with reporter() as report:
                    _make_way(folder, occupied, choice, report)
        require_space(folder)
        yield held


def _make_way(folder: Path, occupied: Occupied, choice: Choice, report: Report) -> None:
    kind = "another run" if occupied.is_verb else "Terraform of an earlier run"
    if choice == "end":
        with stage(report, f"End {kind}", occupied.holder.what) as under_way:
            _end(folder, occupied, under_way)
        return
    with stage(report, f"Wait for {kind}", occupied.holder.what) as under_way:
        _wait(folder, occupied.holder, under_way)


def _end(folder: Path, occupied: Occupied, under_way: Stage) -> None:
    holder = occupied.holder
    try:
        if occupied.is_verb:
            end_verb(holder, under_way.advance)
        end_workers(folder, under_way.advance)
    except PermissionError:
        raise NotOwned(
            f"{holder.what} (pid {holder.pid}) belongs to another user",
            where=str(folder),
            fix="nothing was changed; ask that user, or wait until it ends",
        ) from None
    under_way.outcome = f"{holder.what} (pid {holder.pid}) ended"


def _wait(folder: Path, holder: Holder, under_way: Stage) -> None:
    """Wait until nobody holds a lock.

    Raises:
        Occupied: somebody still does after `WAIT_TIMEOUT_S`.

    """
    began = time.monotonic()
    while True:
        try:
            with hold_cluster(folder, "mesaform, about to start"):
                under_way.outcome = f"{holder.what} (pid {holder.pid}) ended"
                return
        except Occupied as occupied:
            if time.monotonic() - began > WAIT_TIMEOUT_S:
                raise
            under_way.advance(
                f"waiting for {occupied.holder.describe(time.time())};"
                " to end it: Ctrl-C, then the same command with --end-other"
            )
        time.sleep(POLL_S)
