"""Atomic replacement of files. Standard library only."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import BinaryIO

PRIVATE_FOLDER_MODE = 0o700
PRIVATE_FILE_MODE = 0o600
SHARED_FILE_MODE = 0o640
"""State and logs are readable by the owner and his group."""


def open_log(path: Path, mode: int = SHARED_FILE_MODE) -> BinaryIO:
    """The file, opened for appending without a buffer; an older file gets the mode, too."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, mode)
    os.fchmod(descriptor, mode)
    return os.fdopen(descriptor, "ab", buffering=0)


LOG_CAP_BYTES = 8 * 1024 * 1024
"""Size at which a log is rotated. One older part remains: a program's logs take twice this."""


def rotate_log(log: Path, cap_bytes: int = LOG_CAP_BYTES) -> bool:
    """Move the content of a log above the cap to `<log>.1`; true if it did.

    The file is copied and truncated, not renamed: the program has it open for appending and goes on
    at the new end. A pipe through its parent would make it depend on the parent.

    Raises:
        OSError: the copy cannot be written; the log is as it was.

    """
    try:
        if log.stat().st_size <= cap_bytes:
            return False
    except FileNotFoundError:
        return False
    older = log.with_name(log.name + ".1")
    with open_log(older):
        shutil.copyfile(log, older)
    os.truncate(log, 0)
    return True


def write_atomically(
    path: Path, data: bytes, *, mode: int = SHARED_FILE_MODE, durable: bool = False
) -> None:
    """Replace `path` with `data` in one step: a reader or a crash sees the old or the new content.

    `durable` forces content and directory entry to disk before the call returns, so that a power
    failure afterwards loses nothing. `mode` is the file's permission bits.

    Raises:
        OSError: the file cannot be written; `path` is unchanged and no partial file is left.

    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(data)
            file.flush()
            if durable:
                os.fsync(descriptor)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    if durable:
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
