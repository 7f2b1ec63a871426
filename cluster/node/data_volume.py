"""Whose volume a master's data volume is, and where its data are. Pure.

A file on the volume states its owner: the deployment and the number of the master in the ZooKeeper
ensemble. A master serves only from its own volume (docs/adr/0032).
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated

import msgspec

from mesaform.common.records import Codec
from mesaform.topology.user_data import NodeDocument

DEVICE = "/dev/sdf"
"""The name under which the volume is attached. Nitro machines show it as an NVMe device."""

MARK_NAME = "volume.json"
FILE_SYSTEM = "ext4"
NOT_DATA = frozenset({"lost+found", MARK_NAME})
"""Entries of a volume without data."""


class VolumeRefused(ValueError):
    """A master must not serve from this volume; a restart would end the same way."""


class VolumeMark(msgspec.Struct, frozen=True):
    """The owner of a volume. `member` is the master's number in the ZooKeeper ensemble."""

    cluster: str
    deployment: str
    member: Annotated[int, msgspec.Meta(ge=1)]


MARK = Codec("node.volume-mark", VolumeMark)


def data_folder(document: NodeDocument, machine_dir: PurePosixPath) -> PurePosixPath:
    """Where a master's data are: where its volume is mounted, or on the machine's own disk."""
    return machine_dir / "data" if document.data_volume else machine_dir


def require_owner(mark: VolumeMark, own: VolumeMark, volume_id: str) -> None:
    """Check that a volume is this master's.

    Raises:
        VolumeRefused: it is another deployment's or another master's.

    """
    if (mark.cluster, mark.deployment) != (own.cluster, own.deployment):
        raise VolumeRefused(
            f"the volume {volume_id} holds the data of the cluster {mark.cluster}, deployment"
            f" {mark.deployment}; this machine is of {own.cluster}, deployment {own.deployment}"
        )
    if mark.member != own.member:
        raise VolumeRefused(
            f"the volume {volume_id} holds the data of master {mark.member};"
            f" this machine is master {own.member}"
        )


def file_system_in(answer: str) -> str:
    """The type of the file system in the answer of `blkid -o export`; empty without one."""
    fields = dict(line.split("=", 1) for line in answer.splitlines() if "=" in line)
    return fields.get("TYPE", "")
