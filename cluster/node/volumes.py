"""The data volume of a master: attached, formatted if it is blank, mounted, and its owner checked.

On EC2 the volume is a block device with a file system (`BlockDevices`), on the local cloud a folder
(`FolderVolumes`). Calls block; the node makes them once, before it starts its services. A volume
with a file system or with data is never formatted.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mesaform.common.files import write_atomically
from mesaform.common.records import Unreadable
from mesaform.node.data_volume import (
    FILE_SYSTEM,
    MARK,
    MARK_NAME,
    NOT_DATA,
    VolumeMark,
    VolumeRefused,
    file_system_in,
    require_owner,
)
from mesaform.node.model import EXIT_REFUSED

VOLUMES_VARIABLE = "MESAFORM_VOLUMES"
"""The folder with a folder for each attached volume; only the local cloud sets it."""

DEVICE_TIMEOUT_S = 120.0
"""How long the kernel may take to show an attached volume."""

POLL_S = 0.1
COMMAND_TIMEOUT_S = 600.0
PROBED_BYTES = 65536
LABEL = "mesaform-data"
SYSTEM_PATH = "/usr/sbin:/sbin:/usr/bin:/bin"
BLKID_NOTHING = 2
"""Exit status of blkid that finds nothing, and of one that cannot read the device."""
E2FSCK_UNCORRECTED = 4


class VolumeUnavailable(Exception):
    """The volume is not there yet; a restart of the node tries again."""


class VolumeHost(Protocol):
    """How volumes appear on a machine."""

    def find(self, volume_id: str) -> Path | None:
        """The device or folder of an attached volume; None while it is not attached."""
        ...

    def mount(self, volume: Path, folder: Path) -> None:
        """Make the volume's files appear in a folder. Idempotent.

        Raises:
            VolumeRefused: it holds something else than such files, or cannot be mounted.

        """
        ...


class FolderVolumes:
    """Volumes of the local cloud: folders that it shows in `base` while they are attached."""

    def __init__(self, base: Path) -> None:
        self._base = base

    def find(self, volume_id: str) -> Path | None:
        path = self._base / volume_id
        return path.resolve() if path.is_dir() else None

    def mount(self, volume: Path, folder: Path) -> None:
        if folder.is_symlink():
            folder.unlink()
        elif folder.exists():
            raise VolumeRefused(f"{folder} exists and is no volume")
        folder.symlink_to(volume)


class BlockDevices:
    """Volumes as block devices, with ext4.

    udev links an NVMe device by its volume's id (EC2 user guide, "Map Amazon EBS volumes to NVMe
    device names"). Older machine types (Xen) name it after the device of the attachment.
    """

    def __init__(self, dev: Path = Path("/dev")) -> None:
        self._dev = dev

    def find(self, volume_id: str) -> Path | None:
        name = f"nvme-Amazon_Elastic_Block_Store_{volume_id.replace('-', '')}"
        candidates = (self._dev / "disk" / "by-id" / name, self._dev / "xvdf")
        return next((path for path in candidates if path.exists()), None)

    def mount(self, volume: Path, folder: Path) -> None:
        if folder.is_mount():
            if folder.stat().st_dev != volume.stat().st_rdev:
                raise VolumeRefused(f"another device than {volume} is mounted at {folder}")
            return
        if self._file_system(volume) == "":
            self._format(volume)
        checked = _run("e2fsck", "-p", str(volume))
        if checked.returncode >= E2FSCK_UNCORRECTED:
            raise VolumeRefused(
                f"the file system of {volume} is damaged: {_text(checked)};"
                f" repair it by hand: e2fsck {volume}"
            )
        folder.mkdir(parents=True, exist_ok=True)
        options = "noatime,nodev,nosuid,noexec"
        _require("mount", "-t", FILE_SYSTEM, "-o", options, str(volume), str(folder))
        _require("resize2fs", str(volume))  # the volume may have grown

    def _file_system(self, volume: Path) -> str:
        """The type of the volume's file system; empty if it is blank.

        Raises:
            VolumeRefused: the volume cannot be read, or holds something else.

        """
        probed = _run("blkid", "-p", "-o", "export", str(volume))
        if probed.returncode == BLKID_NOTHING:
            try:  # blkid has the same status for a device that it cannot read
                with volume.open("rb") as source:
                    source.read(PROBED_BYTES)
            except OSError as error:
                raise VolumeRefused(f"{volume} cannot be read: {error.strerror}") from None
            return ""
        kind = file_system_in(probed.stdout)
        if probed.returncode != 0 or kind != FILE_SYSTEM:
            raise VolumeRefused(
                f"{volume} holds no {FILE_SYSTEM} file system but"
                f" {kind or 'something else'}; it is not formatted: {_text(probed)}"
            )
        return kind

    def _format(self, volume: Path) -> None:
        _require(f"mkfs.{FILE_SYSTEM}", "-q", "-L", LABEL, str(volume))


@dataclass(frozen=True, slots=True)
class DataVolume:
    """The volume of a master's data, and the owner that it must have."""

    volume_id: str
    owner: VolumeMark
    instance_id: str
    region: str


def open_data_volume(
    volume: DataVolume,
    folder: Path,
    host: VolumeHost,
    environ: Mapping[str, str],
    log: Callable[[str], None],
) -> None:
    """Attach the volume, mount it at `folder`, and check or write its owner's mark. Idempotent.

    Raises:
        VolumeRefused: it is not this master's volume, or cannot be used.
        VolumeUnavailable: it cannot be attached now.

    """
    if host.find(volume.volume_id) is None:
        _attach(volume, environ)
    device = _wait_for_device(host, volume.volume_id)
    host.mount(device, folder)
    log(f"the data volume {volume.volume_id} is {device}, mounted at {folder}")
    _settle_owner(folder, volume)


def volume_host(environ: Mapping[str, str]) -> VolumeHost:
    """How volumes appear on this machine."""
    base = environ.get(VOLUMES_VARIABLE)
    return FolderVolumes(Path(base)) if base else BlockDevices()


def _attach(volume: DataVolume, environ: Mapping[str, str]) -> None:
    """Run the program that calls EC2: the node itself stays free of botocore."""
    argv = [sys.executable, "-m", "mesaform.node.attach_volume"]
    argv += [volume.volume_id, volume.instance_id, volume.region]
    sys.stdout.flush()
    code = subprocess.run(argv, env=dict(environ), check=False).returncode
    if code == EXIT_REFUSED:
        raise VolumeRefused(f"the data volume {volume.volume_id} cannot be attached, see above")
    if code != 0:
        raise VolumeUnavailable(f"the data volume {volume.volume_id} is not attached (see above)")


def _wait_for_device(host: VolumeHost, volume_id: str) -> Path:
    give_up_at = time.monotonic() + DEVICE_TIMEOUT_S
    while (device := host.find(volume_id)) is None:
        if time.monotonic() > give_up_at:
            raise VolumeUnavailable(
                f"the volume {volume_id} is attached, and no device of it appeared"
                f" within {DEVICE_TIMEOUT_S:.0f} s"
            )
        time.sleep(POLL_S)
    return device


def _settle_owner(folder: Path, volume: DataVolume) -> None:
    """Check the mark; write it to a volume that is empty.

    Raises:
        VolumeRefused: the volume has another owner, or data and no mark.

    """
    path = folder / MARK_NAME
    try:
        mark = MARK.decode(path.read_bytes())
    except FileNotFoundError:
        data = sorted(entry.name for entry in folder.iterdir() if entry.name not in NOT_DATA)
        if data:
            raise VolumeRefused(
                f"the volume {volume.volume_id} holds data of an unknown owner"
                f" ({', '.join(data[:5])}) and no {MARK_NAME}"
            ) from None
        write_atomically(path, MARK.encode(volume.owner), durable=True)
        return
    if isinstance(mark, Unreadable):
        raise VolumeRefused(f"the owner of the volume {volume.volume_id} cannot be read: {mark}")
    require_owner(mark, volume.owner, volume.volume_id)


def _run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program of the system.

    Raises:
        VolumeRefused: the image lacks it, or it does not end.

    """
    path = f"{os.environ.get('PATH', os.defpath)}:{SYSTEM_PATH}"
    try:
        return subprocess.run(
            [program, *arguments],
            env={**os.environ, "PATH": path, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise VolumeRefused(f"{program} cannot be run: {error}") from None


def _require(program: str, *arguments: str) -> None:
    result = _run(program, *arguments)
    if result.returncode != 0:
        raise VolumeRefused(f"{program} {' '.join(arguments)} failed: {_text(result)}")


def _text(result: subprocess.CompletedProcess[str]) -> str:
    return " ".join((result.stderr or result.stdout).split())[:300] or f"exit {result.returncode}"
