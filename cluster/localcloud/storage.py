"""Folders of images and machines: an image from an instance, removal of what is not used.

Every function blocks and is called in a thread.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from mesaform.common.files import (
    PRIVATE_FILE_MODE,
    PRIVATE_FOLDER_MODE,
    rotate_log,
    write_atomically,
)
from mesaform.localcloud.layout import Layout
from mesaform.localcloud.protocol import PendingImage, World

log = structlog.get_logger(__name__)


def make_image(layout: Layout, image: PendingImage) -> bool:
    """Fill a new image's folder from its instance: the source image, then the instance's own files.

    Returns whether it succeeded; the folder appears only then.
    """
    target = layout.image(image.image_id)
    scratch = target.with_name(f".{image.image_id}.making")
    try:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        for source in (
            layout.image(image.source_image_id),
            layout.machine(image.instance_id) / "root",
        ):
            if source.is_dir():
                shutil.copytree(
                    source, scratch, symlinks=True, copy_function=_link, dirs_exist_ok=True
                )
        scratch.replace(target)
    except (OSError, shutil.Error) as error:
        log.warning("image.failed", image=image.image_id, error=repr(error))
        return False
    return True


def _link(source: str, target: str) -> None:
    """Link a file, or copy it where the file system cannot: files of images are never written."""
    try:
        Path(target).unlink(missing_ok=True)
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in {errno.EXDEV, errno.EPERM, errno.EMLINK}:
            raise
        shutil.copy2(source, target, follow_symlinks=False)


def unused_images(layout: Layout, world: World) -> list[Path]:
    """Folders of deregistered images from which no instance was booted."""
    booted_from = {machine.image_id for machine in world.machines}
    folders = [layout.image(name) for name in world.deregistered if name not in booted_from]
    return [path for path in folders if path.exists()]


@dataclass(frozen=True, slots=True)
class Retention:
    """How long the folders of ended machines stay, for a look at what happened there.

    Attributes:
        max_s: seconds after the end; then only the console stays.
        max_bytes: of all these folders together; the oldest go first.
        max_consoles: consoles of machines that EC2 no longer lists.

    """

    max_s: float = 600.0
    max_bytes: int = 256 * 1024 * 1024
    max_consoles: int = 100


class MachineFiles:
    """Removes the folders of ended machines, keeps the end of each console, and limits logs."""

    def __init__(self, layout: Layout, retention: Retention | None = None) -> None:
        self._layout = layout
        self._retention = retention or Retention()
        self._sizes: dict[str, int] = {}

    def folders(self, world: World, running: set[str]) -> dict[str, Path]:
        """The folders of ended machines. Call it in one step with the taking of `world`."""
        kept = {machine.instance_id for machine in world.machines} | running
        return {path.name: path for path in _folders(self._layout) if path.name not in kept}

    def clean(self, ended: Mapping[str, Path], listed: Collection[str], now: float) -> None:
        """Remove what the retention does not keep. Blocks.

        Args:
            ended: from `folders`.
            listed: the instances that EC2 lists.
            now: in seconds since the epoch.

        """
        self._sizes = {name: size for name, size in self._sizes.items() if name in ended}
        expired = self._expired(ended, now)
        for name, path in ended.items():
            if name not in listed:
                self._forget(name, path)
            elif name in expired:
                self._strip(path)
        self._limit_consoles()

    def rotate(self, running: Collection[str]) -> None:
        """Limit the logs of the local cloud and the consoles of machines that run. Blocks."""
        consoles = [self._layout.console(name) for name in running]
        for path in (*self._layout.log.glob("*.log"), *consoles):
            try:
                rotate_log(path)
            except OSError as error:
                log.warning("log.not_rotated", file=str(path), reason=error.strerror or str(error))

    def _expired(self, ended: Mapping[str, Path], now: float) -> set[str]:
        """The machines whose folders are too old, or too large together."""
        by_age = sorted(ended, key=lambda name: _changed_at(ended[name]), reverse=True)
        total, expired = 0, set()
        for name in by_age:
            total += self._size_of(ended[name])
            is_old = now - _changed_at(ended[name]) > self._retention.max_s
            if is_old or total > self._retention.max_bytes:
                expired.add(name)
        return expired

    def _size_of(self, folder: Path) -> int:
        """The bytes in a folder, measured once: nothing writes there any more."""
        if folder.name not in self._sizes:
            self._sizes[folder.name] = sum(
                _bytes_of(Path(parent) / name)
                for parent, _, names in os.walk(folder)
                for name in names
            )
        return self._sizes[folder.name]

    def _strip(self, folder: Path) -> None:
        """Remove everything except the console."""
        others = [path for path in folder.iterdir() if path.name != CONSOLE]
        for path in others:
            _remove(path)
        if others:
            self._sizes.pop(folder.name, None)
            log.info("machine.folder_removed", instance=folder.name)

    def _forget(self, instance_id: str, folder: Path) -> None:
        """Remove the folder of a machine that EC2 no longer lists; keep the end of its console."""
        console = folder / CONSOLE
        try:
            if console.exists():
                self._layout.consoles.mkdir(mode=PRIVATE_FOLDER_MODE, exist_ok=True)
                with console.open("rb") as source:
                    source.seek(max(0, console.stat().st_size - CONSOLE_BYTES))
                    kept = self._layout.consoles / f"{instance_id}.log"
                    write_atomically(kept, source.read(), mode=PRIVATE_FILE_MODE)
        except OSError as error:  # a full disk: the folder goes, which makes space
            log.warning("console.not_kept", instance=instance_id, error=str(error))
        _remove(folder)

    def _limit_consoles(self) -> None:
        if not self._layout.consoles.is_dir():
            return
        newest_first = sorted(self._layout.consoles.iterdir(), key=_changed_at, reverse=True)
        for path in newest_first[self._retention.max_consoles :]:
            _remove(path)


CONSOLE = "console.log"
CONSOLE_BYTES = 64 * 1024
"""How much of the end of a console is kept; EC2 returns as much."""


def _folders(layout: Layout) -> list[Path]:
    return list(layout.machines.iterdir()) if layout.machines.is_dir() else []


def _changed_at(path: Path) -> float:
    """When an entry of a folder was added or removed last: at a machine's end its record is."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _bytes_of(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0


def _remove(path: Path) -> None:
    """Remove a file or folder; what cannot be removed stays for the next pass."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def remove(folders: list[Path]) -> None:
    """Remove folders; what cannot be removed stays for the next pass."""
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
        log.info("removed", folder=str(folder))
