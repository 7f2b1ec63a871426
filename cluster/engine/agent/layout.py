"""The agent's files below its work folder, and its checkpoints.

meta/lock                        locked while an agent runs
meta/agent.json                  the agent's id and draining
meta/tasks/<container>.json      one record per task
meta/containers/<container>/<n>/ the runner's files of the n-th attempt to launch
sandboxes/<framework>/<task>/<container>/
"""

from __future__ import annotations

import fcntl
import os
import py_compile
from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog

from mesaform.common.errors import Busy
from mesaform.common.record_files import (
    files_set_aside,
    peek_bytes,
    read_record,
    set_aside_file,
    write_record,
)
from mesaform.common.records import DOCUMENT_LIMIT_BYTES, Codec, Problem, Unreadable, Value
from mesaform.common.set_aside import SetAside, SetAsideLog
from mesaform.engine.agent.tasks import AgentMeta, SavedTask

log = structlog.get_logger(__name__)

SUFFIX = ".json"
V0_SUFFIX = ".msgpack"
"""Suffix of records of releases before schemas. They are read, and replaced when they change."""
TASK_KIND = "task-checkpoints"
META_KIND = "agent"

TASK = Codec("engine.task", SavedTask, limit_bytes=DOCUMENT_LIMIT_BYTES)
META = Codec("engine.agent-meta", AgentMeta)
_decode_v0: dict[str, Callable[[bytes], object]] = {
    TASK.schema: msgspec.msgpack.Decoder(SavedTask).decode,
    META.schema: msgspec.msgpack.Decoder(AgentMeta).decode,
}


class Layout:
    """One work folder. The constructor creates what is missing."""

    def __init__(self, work_dir: Path) -> None:
        self.work_dir = work_dir.resolve()
        self.sandboxes = self.work_dir / "sandboxes"
        self._meta = self.work_dir / "meta"
        self._tasks = self._meta / "tasks"
        self._containers = self._meta / "containers"
        for folder in (self.sandboxes, self._tasks, self._containers):
            folder.mkdir(parents=True, exist_ok=True)
        self._meta.chmod(0o700)
        self._lock = -1
        #: Counts the records that this run set aside.
        self.records = SetAsideLog()

    def compiled(self, source: Path) -> Path:
        """A compiled copy of a module, which starts faster; the module itself on a full disk."""
        target = self._meta / f"{source.stem}.pyc"
        try:
            py_compile.compile(str(source), cfile=str(target), doraise=True)
        except (OSError, py_compile.PyCompileError) as error:
            log.warning("runner_not_compiled", error=str(error))
            return source
        return target

    def lock(self) -> None:
        """Lock the folder until this process ends.

        Raises:
            Busy: another agent has locked it.

        """
        self._lock = os.open(self._meta / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(
                "another agent uses this work folder",
                where=str(self.work_dir),
                fix="give each its own MESOS_WORK_DIR",
            ) from None

    def task_of(self, container_id: str) -> tuple[str, str] | None:
        """The framework and task ids of a container, as its sandbox names them."""
        for sandbox in self.sandboxes.glob(f"*/*/{container_id}"):
            return sandbox.parent.parent.name, sandbox.parent.name
        return None

    def sandbox(self, framework_id: str, task_id: str, container_id: str) -> Path:
        """The folder of a task's files."""
        return self.sandboxes / framework_id / task_id / container_id

    def container(self, container_id: str) -> Path:
        """The folder of a container's attempts."""
        return self._containers / container_id

    def new_attempt(self, container_id: str) -> Path:
        """Create a folder for the next runner of the container."""
        attempt = self.container(container_id) / str(len(self._attempts(container_id)) + 1)
        attempt.mkdir(parents=True)
        return attempt

    def runner_mark(self, container_id: str) -> tuple[int, int, str] | None:
        """Pid, start time and boot id of the latest attempt's runner.

        None when it has not started. This call then prevents it from starting.
        """
        attempts = self._attempts(container_id)
        if not attempts:
            return None
        mark = attempts[-1] / "runner"
        try:
            os.close(os.open(mark, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            return _mark_of(mark.read_bytes())
        return None

    def exit_status(self, container_id: str) -> int | None:
        """The status of wait(2) that the latest runner recorded; None when it did not."""
        attempts = self._attempts(container_id)
        try:
            return int((attempts[-1] / "exit").read_text(encoding="ascii"))
        except (OSError, IndexError, ValueError):
            return None

    def save_task(self, saved: SavedTask) -> None:
        """Save a record. It is durable when this returns.

        Raises:
            OSError: the disk is full, or fails. The record of before is still there.
            RecordRefused: the record could not be read again.

        """
        path = self._task_file(saved.record.container_id)
        write_record(path, TASK, saved, durable=True)
        path.with_suffix(V0_SUFFIX).unlink(missing_ok=True)

    def remove_task(self, container_id: str) -> None:
        """Remove a task's record. Idempotent."""
        path = self._task_file(container_id)
        path.unlink(missing_ok=True)
        path.with_suffix(V0_SUFFIX).unlink(missing_ok=True)

    def load_tasks(self) -> tuple[list[SavedTask], dict[str, str]]:
        """Every saved task, and by container why each of the others cannot be read.

        An unreadable file is set aside.
        """
        loaded: list[SavedTask] = []
        unreadable: dict[str, str] = {}
        _remove_replaced(self._tasks)
        for path in sorted(self._tasks.iterdir()):
            if path.suffix not in {SUFFIX, V0_SUFFIX}:
                continue
            value = self._read(path, TASK, TASK_KIND)
            if isinstance(value, SavedTask):
                loaded.append(value)
            elif value is not None:
                unreadable[path.stem] = value.detail
        return loaded, unreadable

    def set_task_aside(self, container_id: str, why: str) -> None:
        """Set a record aside that can be decoded and not be handled."""
        path = self._task_file(container_id)
        for file in (path, path.with_suffix(V0_SUFFIX)):
            if file.exists():
                set_aside_file(file)
                problem = Unreadable(TASK.schema, Problem.UNREADABLE, why)
                self.records.report(TASK_KIND, str(file), problem)

    def save_meta(self, meta: AgentMeta) -> None:
        """Save a record. It is durable when this returns.

        Raises:
            OSError: the disk is full, or fails. The record of before is still there.

        """
        path = self._meta / f"agent{SUFFIX}"
        write_record(path, META, meta, durable=True)
        path.with_suffix(V0_SUFFIX).unlink(missing_ok=True)

    def load_meta(self) -> AgentMeta:
        """The agent's own record; an empty one on the first run.

        An unreadable record is set aside, and the agent registers as a new one: the master reports
        the tasks of the old one as gone.
        """
        _remove_replaced(self._meta)
        for suffix in (SUFFIX, V0_SUFFIX):
            value = self._read(self._meta / f"agent{suffix}", META, META_KIND)
            if isinstance(value, AgentMeta):
                return value
        return AgentMeta()

    def set_aside(self) -> list[SetAside]:
        """The records that were set aside, until an operator removes them."""
        return [*files_set_aside(self._tasks, TASK_KIND), *files_set_aside(self._meta, META_KIND)]

    def _read(self, path: Path, codec: Codec[Value], kind: str) -> Value | Unreadable | None:
        """The record of a file, which is set aside when it cannot be read; None without a file."""
        try:
            if path.suffix == SUFFIX:
                return read_record(path, codec, kind, self.records)
            return self._read_v0(path, codec, kind)
        except OSError as error:
            log.error("record_unreadable", path=str(path), error=str(error))  # noqa: TRY400 - the file's fault
            return Unreadable(codec.schema, Problem.UNREADABLE, str(error))

    def _read_v0(self, path: Path, codec: Codec[Value], kind: str) -> Value | Unreadable | None:
        """A record in msgpack, as releases before schemas wrote it."""
        data = peek_bytes(path, codec.limit_bytes)
        if data is None:
            return None
        try:
            return codec.decode(msgspec.json.encode(_decode_v0[codec.schema](data)))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            unreadable = Unreadable(codec.schema, Problem.UNREADABLE, str(error))
            set_aside_file(path)
            self.records.report(kind, str(path), unreadable)
            return unreadable

    def containers(self) -> list[str]:
        """The containers that have attempts."""
        return [path.name for path in self._containers.iterdir()]

    def _attempts(self, container_id: str) -> list[Path]:
        folder = self.container(container_id)
        if not folder.exists():
            return []
        attempts = [path for path in folder.iterdir() if path.name.isdigit()]
        return sorted(attempts, key=lambda path: int(path.name))

    def _task_file(self, container_id: str) -> Path:
        return self._tasks / f"{container_id}{SUFFIX}"


def _mark_of(data: bytes) -> tuple[int, int, str] | None:
    """Pid, start time and boot id of a `runner` file; None when it has something else."""
    fields = data.decode("ascii", "replace").split()
    if len(fields) != 3 or not (fields[0].isdigit() and fields[1].isdigit()):
        return None
    return int(fields[0]), int(fields[1]), fields[2]


def _remove_replaced(folder: Path) -> None:
    """Remove files of the old format whose records were written anew before a crash.

    Such a file must not be read in place of its record when that one cannot be read.
    """
    for path in list(folder.glob(f"*{V0_SUFFIX}")):
        if path.with_suffix(SUFFIX).exists():
            path.unlink(missing_ok=True)
