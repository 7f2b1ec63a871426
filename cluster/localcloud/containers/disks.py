"""Root disks of machines: overlays of an image's layers and a folder of the machine's own.

An image is the list of its layers, the newest first, and mostly one folder of its own. All machines
of an image share its blocks. Every function blocks.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import structlog

from mesaform.localcloud.boot import CannotBootError
from mesaform.localcloud.containers import base_image
from mesaform.localcloud.containers.commands import run
from mesaform.localcloud.layout import Layout
from mesaform.localcloud.protocol import Machine, PendingImage

log = structlog.get_logger(__name__)
LAYERS = "layers.json"
OWN_LAYER = "layer"
COPY_TIMEOUT_S = 600.0


class Disk(msgspec.Struct, frozen=True):
    """What is mounted as the root of a machine: `layers` below, the newest first; `own` above."""

    layers: tuple[Path, ...]
    own: Path
    work: Path
    mount_point: Path

    @property
    def options(self) -> str:
        """The options of the overlay (mount(8))."""
        lower = ":".join(str(path) for path in self.layers)
        return f"lowerdir={lower},upperdir={self.own},workdir={self.work}"


def layers(layout: Layout, image_id: str) -> tuple[Path, ...]:
    """The layers of an image, the newest first. A registered base image has that of the cache.

    Raises:
        CannotBootError: the image has no folder, or this host has no base image.

    """
    folder = layout.image(image_id)
    if not folder.is_dir():
        raise CannotBootError(f"image {image_id} has no folder {folder}")
    record = folder / LAYERS
    if record.exists():
        below = map(Path, msgspec.json.decode(record.read_bytes(), type=tuple[str, ...]))
        return (folder.resolve() / OWN_LAYER, *below)
    base = base_image.find()
    if base is None:
        raise CannotBootError(
            f"this host has no base image for {image_id}: mesaform local base-image builds it"
        )
    return (base.resolve(),)


def prepare(layout: Layout, machine: Machine) -> Disk:
    """Make the folders of a machine's disk. What an earlier boot wrote stays.

    Raises:
        CannotBootError: its image cannot be used.

    """
    folder = layout.machine(machine.instance_id).resolve()
    disk = Disk(
        layers(layout, machine.image_id),
        own=folder / "disk/own",
        work=folder / "disk/work",
        mount_point=folder / "root",
    )
    if missing := [str(path) for path in disk.layers if not path.is_dir()]:
        raise CannotBootError(f"layers of image {machine.image_id} are gone: {', '.join(missing)}")
    for path in (disk.own, disk.work, disk.mount_point):
        path.mkdir(parents=True, exist_ok=True)
    return disk


def make_image(layout: Layout, image: PendingImage) -> bool:
    """Copy what a stopped machine wrote as a layer above those of its image.

    Returns whether it succeeded; the folder appears only then.
    """
    target = layout.image(image.image_id)
    scratch = target.with_name(f".{image.image_id}.making")
    own = layout.machine(image.instance_id) / "disk/own"
    try:
        below = layers(layout, image.source_image_id)
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        # cp keeps what Python's copytree does not: the marks of removed files, which are devices.
        source, copy = str(own), str(scratch / OWN_LAYER)
        run("cp", "-a", "--reflink=auto", source, copy, timeout_s=COPY_TIMEOUT_S)
        (scratch / LAYERS).write_bytes(msgspec.json.encode([str(path) for path in below]))
        scratch.replace(target)
    except (OSError, CannotBootError) as error:
        log.warning("image.failed", image=image.image_id, error=repr(error))
        return False
    return True
