"""A lock that outlives a crash of its taker for exactly as long as the work does.

`mesaform` holds the cluster's lock while it runs. This one is handed on to the child that runs Terraform: after a `kill -9`
of `mesaform`, Terraform is still at work, and the next run must wait for it. The kernel lets go when the last holder ends.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mesaform.common.errors import Busy

LONGEST_NOTE = 200


@dataclass(frozen=True, slots=True)
class Held:
    """A lock in hand. Give `descriptor` to a child (`pass_fds`) to let it hold on as well."""

    descriptor: int

    def note(self, text: str) -> None:
        """What others are told who want the lock."""
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, text.encode()[:LONGEST_NOTE], 0)


@contextmanager
def hold(path: Path, what: str) -> Iterator[Held]:
    """Hold the lock for the block.

    Args:
        path: the lock's file; made if missing, never removed.
        what: what others are told, such as "cdktf deploy".

    Raises:
        Busy: somebody else holds it; the message names the pid.

    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = (
                os.pread(descriptor, LONGEST_NOTE, 0).decode(errors="replace").strip()
                or "an unknown process"
            )
            raise Busy(
                f"held by {holder}",
                where=str(path),
                fix="wait until it ends, or end it; then run the same command again",
            ) from None
        held = Held(descriptor)
        held.note(f"pid {os.getpid()}: {what}")
        yield held
    finally:
        os.close(descriptor)
