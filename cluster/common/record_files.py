"""Records in files: read, write, and set aside below the name `<file>.set-aside`.

Depends on `records`, `set_aside` and `files`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from mesaform.common.errors import Busy, NotFound
from mesaform.common.files import write_atomically
from mesaform.common.records import Codec, Problem, Unreadable, Value
from mesaform.common.set_aside import SetAside, SetAsideLog

SUFFIX = ".set-aside"


def write_record(
    path: Path, codec: Codec[Value], value: Value, *, mode: int = 0o600, durable: bool = False
) -> None:
    """Replace the record. See `files.write_atomically`.

    Raises:
        RecordRefused: the value breaks a constraint of its type, or is too large.
        OSError: the file cannot be written; the old record is still there.

    """
    write_atomically(path, codec.encode(value), mode=mode, durable=durable)


def read_record(
    path: Path, codec: Codec[Value], kind: str, log: SetAsideLog
) -> Value | Unreadable | None:
    """The stored value; None without a file. An unreadable record is set aside and returned.

    Raises:
        OSError: the file system fails; the record stays where it is.

    """
    data = peek_bytes(path, codec.limit_bytes)
    if data is None:
        return None
    value = codec.decode(data)
    if isinstance(value, Unreadable):
        set_aside_file(path)
        log.report(kind, str(path), value)
    return value


def peek_record(path: Path, codec: Codec[Value]) -> Value | Unreadable | None:
    """As `read_record`, but the file stays: for programs that do not own it."""
    data = peek_bytes(path, codec.limit_bytes)
    return None if data is None else codec.decode(data)


def peek_bytes(path: Path, limit_bytes: int) -> bytes | None:
    """The first bytes of a file, one more than the limit at most; None without a file."""
    try:
        with path.open("rb") as file:
            return file.read(limit_bytes + 1)
    except FileNotFoundError:
        return None


def set_aside_file(path: Path) -> Path:
    """Rename a file to its first free name with the suffix, and return it."""
    target, number = path.with_name(path.name + SUFFIX), 1
    while target.exists():
        number += 1
        target = path.with_name(f"{path.name}{SUFFIX}-{number}")
    path.rename(target)
    return target


def files_set_aside(folder: Path, kind: str) -> Iterator[SetAside]:
    """The records in a folder, not below it, that were set aside."""
    for path in sorted(folder.glob(f"*{SUFFIX}*")) if folder.is_dir() else ():
        with contextlib.suppress(OSError):
            stat = path.stat()
            yield SetAside(
                kind=kind,
                name=path.name,
                place=str(original_of(path)),
                problem=Problem.UNREADABLE,
                detail=f"kept as {path}",
                size_bytes=stat.st_size,
                at=stat.st_ctime,
            )


def original_of(path: Path) -> Path:
    """Where a file was before it was set aside."""
    return path.with_name(path.name.rpartition(SUFFIX)[0])


def restore_file(path: Path) -> Path:
    """Put a file back that was set aside, and return its name.

    Raises:
        NotFound: there is no such file.
        Busy: a new record has its name; remove that one first.

    """
    original = original_of(path)
    if not path.exists():
        raise NotFound("no such record was set aside", where=str(path))
    if original.exists():
        raise Busy("a new record has this name", where=str(original), fix="remove it first")
    path.rename(original)
    return original
