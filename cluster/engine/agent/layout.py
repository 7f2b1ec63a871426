"""The agent's files below its work folder, and its checkpoints.

meta/lock                        locked while an agent runs
meta/agent.msgpack               the agent's id and draining
meta/tasks/<container>.msgpack   one record per task
meta/containers/<container>/<n>/ the runner's files of the n-th attempt to launch
sandboxes/<framework>/<task>/<container>/
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

import msgspec
import structlog

from mesaform.common.errors import Busy
from mesaform.common.files import write_atomically
from mesaform.engine.agent.tasks import AgentMeta, SavedTask

log = structlog.get_logger(__name__)

_encode = msgspec.msgpack.Encoder().encode
_decode_task = msgspec.msgpack.Decoder(SavedTask).decode
_decode_meta = msgspec.msgpack.Decoder(AgentMeta).decode


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
            fields = mark.read_text(encoding="ascii").split()
            return (int(fields[0]), int(fields[1]), fields[2]) if len(fields) == 3 else None
        return None

    def exit_status(self, container_id: str) -> int | None:
        """The status of wait(2) that the latest runner recorded; None when it did not."""
        attempts = self._attempts(container_id)
        try:
            return int((attempts[-1] / "exit").read_text(encoding="ascii"))
        except (OSError, IndexError, ValueError):
            return None

    def save_task(self, saved: SavedTask) -> None:
        """Save a record. It is durable when this returns."""
        path = self._task_file(saved.record.container_id)
        write_atomically(path, _encode(saved), durable=True)

    def remove_task(self, container_id: str) -> None:
        """Remove a task's record. Idempotent."""
        self._task_file(container_id).unlink(missing_ok=True)

    def load_tasks(self) -> list[SavedTask]:
        """Every saved task. A file that cannot be read is renamed to `*.unreadable`."""
        loaded = []
        for path in sorted(self._tasks.glob("*.msgpack")):
            try:
                loaded.append(_decode_task(path.read_bytes()))
            except (OSError, msgspec.MsgspecError) as error:
                log.error("task_unreadable", path=str(path), error=str(error))  # noqa: TRY400 - the file's fault
                with contextlib.suppress(OSError):
                    path.rename(path.with_suffix(".unreadable"))
        return loaded

    def save_meta(self, meta: AgentMeta) -> None:
        """Save a record. It is durable when this returns."""
        write_atomically(self._meta / "agent.msgpack", _encode(meta), durable=True)

    def load_meta(self) -> AgentMeta:
        """The agent's own record; an empty one on the first run."""
        try:
            return _decode_meta((self._meta / "agent.msgpack").read_bytes())
        except FileNotFoundError:
            return AgentMeta()

    def containers(self) -> list[str]:
        """The containers that have attempts."""
        return [path.name for path in self._containers.iterdir()]

    def _attempts(self, container_id: str) -> list[Path]:
        folder = self.container(container_id)
        return sorted(folder.iterdir(), key=lambda path: int(path.name)) if folder.exists() else []

    def _task_file(self, container_id: str) -> Path:
        return self._tasks / f"{container_id}.msgpack"
