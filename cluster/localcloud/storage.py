"""Folders of images and machines: made from instances, removed when nothing needs them. Blocking; run in a thread."""

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
    """Copy what an instance has of its own, over its image's content, into the new image's folder. Whether it worked."""
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
    """A hard link where the file system can; files of an image are never written again."""
    try:
        Path(target).unlink(missing_ok=True)
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in {errno.EXDEV, errno.EPERM, errno.EMLINK}:
            raise
        shutil.copy2(source, target, follow_symlinks=False)


def garbage(layout: Layout, world: World, running: set[str]) -> list[Path]:
    """Folders of deregistered images that no instance was booted from, and of machines that EC2 no longer lists."""
    booted_from = {machine.image_id for machine in world.machines}
    images = [
        layout.image(image_id) for image_id in world.deregistered if image_id not in booted_from
    ]
    kept = {*world.known, *running}
    machines = (
        [path for path in layout.machines.iterdir() if path.name not in kept]
        if layout.machines.is_dir()
        else []
    )
    return [path for path in (*images, *machines) if path.exists()]


def remove(folders: list[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
        log.info("removed", folder=str(folder))
