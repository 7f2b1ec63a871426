"""A master's data volume: attached, formatted only if it is blank, refused if it is another's."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from botocore.exceptions import ClientError, NoCredentialsError

from mesaform.aws.errors import no_credentials
from mesaform.node import attach_volume, volumes
from mesaform.node.data_volume import MARK, MARK_NAME, VolumeMark, VolumeRefused
from mesaform.node.volumes import BlockDevices, DataVolume, FolderVolumes, open_data_volume

VOLUME_ID = "vol-0123456789abcdef0"
OWNER = VolumeMark("demo", "d1", 2)
VOLUME = DataVolume(VOLUME_ID, OWNER, "i-2", "eu-west-1")
has_e2fsprogs = pytest.mark.skipif(
    shutil.which("mkfs.ext4", path=volumes.SYSTEM_PATH) is None, reason="needs e2fsprogs"
)


def tool(name: str) -> str:
    path = shutil.which(name, path=volumes.SYSTEM_PATH)
    assert path, name
    return path


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BlockDevices:
    """A machine whose volume is a file; `mount` and `resize2fs` need a kernel and are replaced."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("mount", "resize2fs"):
        script = programs / name
        script.write_text(f'#!/bin/sh\necho "{name} $*" >> {tmp_path}/calls\n')
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    by_id = tmp_path / "dev" / "disk" / "by-id"
    by_id.mkdir(parents=True)
    device = tmp_path / "dev" / "nvme1n1"
    with device.open("wb") as blank:
        blank.truncate(16 * 1024 * 1024)
    name = "nvme-Amazon_Elastic_Block_Store_vol0123456789abcdef0"
    (by_id / name).symlink_to(device)
    return BlockDevices(tmp_path / "dev")


def device_of(tmp_path: Path) -> Path:
    return tmp_path / "dev" / "nvme1n1"


def file_system_id(device: Path) -> str:
    return subprocess.check_output(
        [tool("blkid"), "-p", "-o", "value", "-s", "UUID", device], text=True
    )


def opened(host: volumes.VolumeHost, folder: Path, volume: DataVolume = VOLUME) -> list[str]:
    lines: list[str] = []
    open_data_volume(volume, folder, host, os.environ, lines.append)
    return lines


@has_e2fsprogs
def test_a_blank_volume_is_formatted_once_and_mounted_at_every_start(host, tmp_path):
    folder = tmp_path / "data"
    opened(host, folder)
    identity = file_system_id(device_of(tmp_path))
    assert MARK.decode((folder / MARK_NAME).read_bytes()) == OWNER
    opened(host, folder)
    assert file_system_id(device_of(tmp_path)) == identity, "the file system is the first one"
    mounts = [
        line for line in (tmp_path / "calls").read_text().splitlines() if line.startswith("mount ")
    ]
    assert len(mounts) == 2
    assert "noatime,nodev,nosuid,noexec" in mounts[0]


@has_e2fsprogs
@pytest.mark.parametrize("content", ["ext2", "swap", "partitions"])
def test_a_volume_that_holds_something_else_is_never_formatted(host, tmp_path, content):
    device = device_of(tmp_path)
    if content == "ext2":
        subprocess.run([tool("mkfs.ext2"), "-q", device], check=True)
    elif content == "swap":
        subprocess.run([tool("mkswap"), device], check=True, capture_output=True)
    else:
        sector = bytearray(512)
        sector[446:462] = bytes([0, 0, 2, 0, 0x83, 0, 0, 0, 8, 0, 0, 0, 0, 16, 0, 0])
        sector[510:] = b"\x55\xaa"
        with device.open("r+b") as raw:
            raw.write(sector)
    before = device.read_bytes()
    with pytest.raises(VolumeRefused, match="not formatted"):
        opened(host, tmp_path / "data")
    assert device.read_bytes() == before


def test_a_volume_that_cannot_be_read_is_not_taken_for_blank(host, tmp_path):
    device_of(tmp_path).unlink()
    device_of(tmp_path).mkdir()
    with pytest.raises(VolumeRefused, match="cannot be read"):
        opened(host, tmp_path / "data")


@has_e2fsprogs
def test_a_damaged_file_system_is_left_to_the_operator(host, tmp_path, monkeypatch):
    broken = tmp_path / "programs" / "e2fsck"
    broken.write_text("#!/bin/sh\necho 'UNEXPECTED INCONSISTENCY' >&2\nexit 4\n")
    broken.chmod(0o755)
    with pytest.raises(VolumeRefused, match="UNEXPECTED INCONSISTENCY"):
        opened(host, tmp_path / "data")
    assert not (tmp_path / "calls").exists(), "nothing was mounted"


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (VolumeMark("demo", "d2", 2), "deployment d2"),
        (VolumeMark("prod", "d1", 2), "cluster prod"),
        (VolumeMark("demo", "d1", 3), "master 3"),
    ],
)
def test_a_volume_of_another_owner_is_refused_and_stays_as_it_is(tmp_path, other, message):
    content = attached(tmp_path)
    (content / MARK_NAME).write_bytes(MARK.encode(other))
    with pytest.raises(VolumeRefused, match=message):
        opened(FolderVolumes(tmp_path / "volumes"), tmp_path / "data")
    assert MARK.decode((content / MARK_NAME).read_bytes()) == other


@pytest.mark.parametrize("mark", [None, b"", b"null", b'{"schema":"node.volume-mark/9"}'])
def test_data_without_a_readable_owner_are_refused(tmp_path, mark):
    content = attached(tmp_path)
    (content / "zookeeper").mkdir()
    if mark is not None:
        (content / MARK_NAME).write_bytes(mark)
    with pytest.raises(VolumeRefused):
        opened(FolderVolumes(tmp_path / "volumes"), tmp_path / "data")
    assert (content / "zookeeper").is_dir()


def test_an_empty_file_system_becomes_this_masters_own(tmp_path):
    content = attached(tmp_path)
    (content / "lost+found").mkdir()
    opened(FolderVolumes(tmp_path / "volumes"), tmp_path / "data")
    assert MARK.decode((content / MARK_NAME).read_bytes()) == OWNER


def test_a_machine_of_an_older_type_has_its_volume_by_the_name_of_the_attachment(tmp_path):
    (tmp_path / "xvdf").touch()
    assert BlockDevices(tmp_path).find(VOLUME_ID) == tmp_path / "xvdf"
    assert BlockDevices(tmp_path / "other").find(VOLUME_ID) is None


def attached(tmp_path: Path) -> Path:
    """The folder of a volume that the local cloud shows as attached."""
    content = tmp_path / "cloud" / VOLUME_ID
    content.mkdir(parents=True)
    (tmp_path / "volumes").mkdir()
    (tmp_path / "volumes" / VOLUME_ID).symlink_to(content)
    return content


class Ec2:
    """EC2 that gives one answer after the other; the last one stays."""

    def __init__(self, answers: Sequence[str | Exception], holders: Sequence[dict] = ()) -> None:
        self.answers = list(answers)
        self.holders = list(holders)
        self.calls: list[dict[str, Any]] = []

    def attach_volume(self, **request: Any) -> dict[str, Any]:
        self.calls.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        if answer:
            raise ClientError({"Error": {"Code": answer, "Message": answer}}, "AttachVolume")
        return {"State": "attaching"}

    def describe_volumes(self, **request: Any) -> dict[str, Any]:
        return {"Volumes": [{"VolumeId": VOLUME_ID, "Attachments": self.holders}]}


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def attach(ec2: Ec2, *opening_errors: Exception) -> list[str]:
    """Attach the volume; the first attempts to open EC2 fail with these errors."""
    lines: list[str] = []
    clock = Clock()
    errors = list(opening_errors)

    def open_ec2() -> Ec2:
        if errors:
            raise errors.pop(0)
        return ec2

    attach_volume.attach(
        open_ec2,  # type: ignore[arg-type]  # it answers the two calls that are made
        VOLUME_ID,
        "i-2",
        lines.append,
        monotonic=clock,
        sleep=clock.sleep,
    )
    return lines


def test_a_replacement_waits_for_the_end_of_the_machine_before_it():
    before = {"InstanceId": "i-1", "State": "detaching"}
    ec2 = Ec2(["VolumeInUse", "VolumeInUse", ""], [before])
    (line,) = attach(ec2)
    assert "in use by i-1 (detaching)" in line
    assert len(ec2.calls) == 3


def test_a_volume_that_is_attached_already_is_left_alone():
    ec2 = Ec2(["VolumeInUse"], [{"InstanceId": "i-2", "State": "attached"}])
    assert attach(ec2) == []
    assert len(ec2.calls) == 1


@pytest.mark.parametrize(
    "early",
    ["InvalidVolume.NotFound", "UnauthorizedOperation", "IncorrectState", "RequestLimitExceeded"],
)
def test_answers_that_become_right_later_are_waited_for(early):
    ec2 = Ec2([early, NoCredentialsError(), early, ""])
    attach(ec2)
    assert len(ec2.calls) == 4


def test_credentials_that_the_metadata_service_gives_late_are_waited_for():
    ec2 = Ec2([""])
    (line,) = attach(ec2, *[no_credentials("client of ec2")] * 3)
    assert "no AWS credentials" in line
    assert len(ec2.calls) == 1


def test_a_volume_in_another_zone_is_refused_at_once():
    ec2 = Ec2(["InvalidVolume.ZoneMismatch"])
    with pytest.raises(VolumeRefused, match="ZoneMismatch"):
        attach(ec2)
    assert len(ec2.calls) == 1


def test_a_volume_that_stays_unknown_is_refused_after_two_minutes():
    with pytest.raises(VolumeRefused, match="NotFound"):
        attach(Ec2(["InvalidVolume.NotFound"]))


def test_a_volume_that_another_machine_keeps_is_never_taken_from_it():
    ec2 = Ec2(["VolumeInUse"], [{"InstanceId": "i-9", "State": "attached"}])
    with pytest.raises(attach_volume.NotAttached, match="i-9"):
        attach(ec2)


def test_marks_of_volumes_are_records_with_a_schema():
    assert msgspec.json.decode(MARK.encode(OWNER))["schema"] == "node.volume-mark/1"
