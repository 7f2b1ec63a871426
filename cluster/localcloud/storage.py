"""Folders of images and machines: creation of an image from an instance, removal of unused ones.

Every function blocks and is called in a thread.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import structlog

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


def garbage(layout: Layout, world: World, running: set[str]) -> list[Path]:
    """Folders of deregistered images without instances, and of machines that EC2 does not list."""
    booted_from = {machine.image_id for machine in world.machines}
    images = [layout.image(name) for name in world.deregistered if name not in booted_from]
    candidates = [*images, *_unlisted_machines(layout, {*world.known, *running})]
    return [path for path in candidates if path.exists()]


def _unlisted_machines(layout: Layout, listed: set[str]) -> list[Path]:
    if not layout.machines.is_dir():
        return []
    return [path for path in layout.machines.iterdir() if path.name not in listed]


def remove(folders: list[Path]) -> None:
    """Remove folders; what cannot be removed stays for the next pass."""
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
        log.info("removed", folder=str(folder))
