"""Opens files below a folder while other processes change what is in it.

Tasks own their sandboxes, and the agent may be root. A path that was checked may lead elsewhere by
the time that it is opened. Therefore each component is opened relative to the one before it, never
through a link, and the rights and the kind are those of the open file. Links are followed by hand,
as far as they stay below the folder. Linux only (`O_PATH`, `/proc/self/fd`).
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

MAX_LINKS = 40
"""Links in one path, as in the kernel."""

_OPEN = os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK


@dataclass(frozen=True, slots=True)
class OpenedFile:
    """A file below the folder. `path` has no links; `descriptor` is of the kind `O_PATH`."""

    path: Path
    descriptor: int

    @property
    def mode(self) -> int:
        """The kind and the rights of the file."""
        return os.fstat(self.descriptor).st_mode

    @property
    def source(self) -> Path:
        """A name of this very file, whatever becomes of its path; valid while it is open."""
        return Path(f"/proc/self/fd/{self.descriptor}")

    def open(self) -> int:
        """A descriptor to read the file or the folder; the caller closes it.

        Raises:
            OSError: it cannot be read, or is neither a file nor a folder (`EINVAL`).

        """
        if not (stat.S_ISREG(self.mode) or stat.S_ISDIR(self.mode)):
            raise OSError(errno.EINVAL, "no regular file", str(self.path))
        return os.open(self.source, os.O_RDONLY | _OPEN)


@contextmanager
def opened_below(root: Path, query: str) -> Iterator[OpenedFile]:
    """Open what a path names, for as long as the context lasts.

    Args:
        root: the folder. Its own path may have links, which are followed.
        query: a path relative to the folder, or an absolute one that begins with the folder's.

    Raises:
        FileNotFoundError: there is no such file, or it is not below the folder.
        OSError: it cannot be opened.

    """
    walk = _Walk(root)
    try:
        walk.to(query)
        yield OpenedFile(walk.path, walk.opened[-1])
    finally:
        walk.close()


class _Walk:
    """A walk from the root down a path. `opened` are the folders on the way, and the file."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self._names_of_root = [path.parts[1:] for path in (self._root, root.absolute())]
        self._names: list[str] = []
        self.opened = [os.open(self._root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)]

    @property
    def path(self) -> Path:
        return self._root.joinpath(*self._names)

    def close(self) -> None:
        while self.opened:
            os.close(self.opened.pop())

    def to(self, query: str) -> None:
        left, links = deque(self._parts(query)), 0
        while left:
            name = left.popleft()
            if name == "..":
                self._up()
                continue
            target = self._down(name)
            if target is None:
                continue
            links += 1
            if links > MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), query)
            left.extendleft(reversed(self._parts(target)))

    def _down(self, name: str) -> str | None:
        """Open a name in the present folder. A link is not entered: its target is returned."""
        flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(name, flags, dir_fd=self.opened[-1])
        self.opened.append(descriptor)
        if not stat.S_ISLNK(os.fstat(descriptor).st_mode):
            self._names.append(name)
            return None
        try:
            return os.readlink("", dir_fd=descriptor)
        finally:
            os.close(self.opened.pop())

    def _up(self) -> None:
        if not self._names:
            raise FileNotFoundError(errno.ENOENT, "not below the folder", "..")
        self._names.pop()
        os.close(self.opened.pop())

    def _parts(self, path: str) -> list[str]:
        """The components of a path. For an absolute path the walk begins again at the root."""
        parts = [part for part in path.split("/") if part not in {"", "."}]
        if not path.startswith("/"):
            return parts
        while self._names:
            self._up()
        for names in self._names_of_root:
            if tuple(parts[: len(names)]) == names:
                return parts[len(names) :]
        raise FileNotFoundError(errno.ENOENT, "not below the folder", path)
