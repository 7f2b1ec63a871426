"""Folders that stand for EBS volumes: linked into the folder of the machine that has them attached.

A folder is made when its volume is attached for the first time, and removed when EC2 no longer
lists the volume. Every function blocks.
"""

from __future__ import annotations

from pathlib import Path

import structlog

from mesaform.common.files import PRIVATE_FOLDER_MODE
from mesaform.localcloud.layout import Layout
from mesaform.localcloud.protocol import Machine, World

log = structlog.get_logger(__name__)


def show_volumes(layout: Layout, machine: Machine) -> None:
    """Make the links in a machine's folder equal to its attachments. Idempotent.

    Nothing happens before the machine has a folder. What fails is tried again by the next pass.
    """
    try:
        _show(layout, machine)
    except OSError as error:
        log.warning("volumes.not_shown", instance=machine.instance_id, reason=str(error))


def _show(layout: Layout, machine: Machine) -> None:
    links = layout.attached_volumes(machine.instance_id)
    if not (machine.volumes or links.is_dir()) or not links.parent.is_dir():
        return
    links.mkdir(mode=PRIVATE_FOLDER_MODE, exist_ok=True)
    present = {path.name for path in links.iterdir()}
    for volume_id in set(machine.volumes) - present:
        folder = layout.volumes / volume_id
        folder.mkdir(mode=PRIVATE_FOLDER_MODE, parents=True, exist_ok=True)
        (links / volume_id).symlink_to(folder.resolve())
    for name in present - set(machine.volumes):
        (links / name).unlink()


def unused_volumes(layout: Layout, world: World) -> list[Path]:
    """Folders of volumes that were deleted."""
    if not layout.volumes.is_dir():
        return []
    return [path for path in layout.volumes.iterdir() if path.name not in world.volumes]
