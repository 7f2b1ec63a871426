"""One `up` or `down` of a cluster at a time: a lock on a file in its folder. The kernel lets go of it when its holder ends in any way."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.errors import Busy


@contextmanager
def only_one(folder: Path, verb: str) -> Iterator[None]:
    """Hold the cluster's lock for the block.

    Raises:
        Busy: another process holds it; the message names its pid and what it does.

    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "lock"
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 200, 0).decode(errors="replace").strip() or "an unknown process"
            raise Busy(f"held by {holder}", where=str(path), fix="wait until it ends, or end it; then run the same command again") from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"pid {os.getpid()}: mesaform {verb}\n".encode(), 0)
        yield
    finally:
        os.close(lock)
