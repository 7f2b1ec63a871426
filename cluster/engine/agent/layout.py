"""Where an agent keeps its files, below its work folder, and what it checkpointed there.

meta/lock                        held while an agent runs
meta/agent.msgpack               the agent's id and draining
meta/tasks/<container>.msgpack   one record a task
meta/containers/<container>/<n>/ the runner's mark and the exit status of the n-th attempt to launch
sandboxes/<framework>/<task>/<container>/
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from pathlib import Path

import msgspec

from mesaform.common.errors import Busy
from mesaform.engine.agent.tasks import AgentMeta, SavedTask

log = logging.getLogger(__name__)

_encode = msgspec.msgpack.Encoder().encode
_decode_task = msgspec.msgpack.Decoder(SavedTask).decode
_decode_meta = msgspec.msgpack.Decoder(AgentMeta).decode


class Layout:
    """One work folder; the constructor makes what is missing."""

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
        """Keep other agents out until this process ends; Busy when one is in."""
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
        return self.sandboxes / framework_id / task_id / container_id

    def container(self, container_id: str) -> Path:
        return self._containers / container_id

    def new_attempt(self, container_id: str) -> Path:
        """A fresh folder for a runner."""
        attempt = self.container(container_id) / str(len(self._attempts(container_id)) + 1)
        attempt.mkdir(parents=True)
        return attempt

    def runner_mark(self, container_id: str) -> tuple[int, int, str] | None:
        """Pid, start time and boot of the latest attempt's runner.

        None when the task was never started, and after this call that attempt never will be.
        """
        attempts = self._attempts(container_id)
        if not attempts:
            return None
        mark = attempts[-1] / "runner"
        try:
            os.close(os.open(mark, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            words = mark.read_text(encoding="ascii").split()
            return (int(words[0]), int(words[1]), words[2]) if len(words) == 3 else None
        return None

    def exit_status(self, container_id: str) -> int | None:
        """What wait(2) told the latest attempt's runner; None when it did not live to write it."""
        attempts = self._attempts(container_id)
        try:
            return int((attempts[-1] / "exit").read_text(encoding="ascii"))
        except (OSError, IndexError, ValueError):
            return None

    def save_task(self, saved: SavedTask) -> None:
        """Durable when it returns."""
        _replace(self._task_file(saved.record.container_id), _encode(saved))

    def remove_task(self, container_id: str) -> None:
        self._task_file(container_id).unlink(missing_ok=True)

    def load_tasks(self) -> list[SavedTask]:
        """Every task that was saved; a file that cannot be read is put aside."""
        loaded = []
        for path in sorted(self._tasks.glob("*.msgpack")):
            try:
                loaded.append(_decode_task(path.read_bytes()))
            except (OSError, msgspec.MsgspecError) as error:
                log.error("%s cannot be read (%s); put aside", path, error)  # noqa: TRY400 the error is the file's
                with contextlib.suppress(OSError):
                    path.rename(path.with_suffix(".unreadable"))
        return loaded

    def save_meta(self, meta: AgentMeta) -> None:
        """Durable when it returns."""
        _replace(self._meta / "agent.msgpack", _encode(meta))

    def load_meta(self) -> AgentMeta:
        try:
            return _decode_meta((self._meta / "agent.msgpack").read_bytes())
        except FileNotFoundError:
            return AgentMeta()

    def containers(self) -> list[str]:
        """The containers that have runners' records."""
        return [path.name for path in self._containers.iterdir()]

    def _attempts(self, container_id: str) -> list[Path]:
        folder = self.container(container_id)
        return sorted(folder.iterdir(), key=lambda path: int(path.name)) if folder.exists() else []

    def _task_file(self, container_id: str) -> Path:
        return self._tasks / f"{container_id}.msgpack"


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_suffix(".new")
    with temporary.open("wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
