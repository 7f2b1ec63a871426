"""A full disk of the operator: every verb says so, changes nothing, and carries on with space."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesaform.provision.disk_space import (
    LEAST_BYTES,
    NEEDED_BYTES,
    RESERVE_BYTES,
    DiskFull,
    free_bytes,
    run_with_reserve,
)
from tests.integration.provision.stub_files import cluster_text

MIB = 1024 * 1024

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a file system is mounted by root")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 48 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path, leave: int = 0) -> Path:
    """Fill a disk up to some free bytes; returns the file that fills it."""
    path = disk / "filler"
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free_bytes(disk) - leave)
    return path


def mesaform(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "MESAFORM_"))
    }
    return subprocess.run(
        [sys.executable, "-m", "mesaform.cli.main", *arguments],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("left_bytes", [0, NEEDED_BYTES // 2])
@pytest.mark.parametrize("verb", [("up", "--yes"), ("adopt", "--yes"), ("down", "--yes")])
def test_a_verb_on_a_full_disk_names_the_disk_and_changes_nothing(small_disk, verb, left_bytes):
    (small_disk / "cluster.yaml").write_text(cluster_text("full"))
    account = small_disk / ".mesaform" / "local" / "account"
    account.mkdir(parents=True)
    (account / "account.json").touch()  # so that `down` has something to look at
    fill(small_disk, left_bytes)
    before = contents(small_disk)

    ended = mesaform(small_disk, *verb)

    assert ended.returncode == 1, ended.stderr
    assert str(small_disk) in ended.stderr
    assert "then run the same command again" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert contents(small_disk) - before <= {"lock", "terraform.lock", "full", "clusters"}


def contents(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*")}


@pytest.mark.slow
def test_init_on_a_full_disk_leaves_no_partial_file(small_disk):
    fill(small_disk)
    ended = mesaform(small_disk, "init")
    assert ended.returncode == 2
    assert "No space left on device" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert contents(small_disk) <= {"filler", ".gitignore"}


async def test_work_is_stopped_with_the_reserve_at_hand_when_the_disk_fills_up(small_disk):
    begun, state = asyncio.Event(), small_disk / "state"

    async def terraform() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:  # an interrupted Terraform writes its state
            state.write_bytes(b"x" * RESERVE_BYTES)

    async def fill_later() -> None:
        await begun.wait()
        fill(small_disk, LEAST_BYTES // 2)

    with pytest.raises(DiskFull, match="the disk is full") as caught:
        await asyncio.gather(run_with_reserve(small_disk, terraform()), fill_later())
    assert "stopped in order" in caught.value.fix
    assert state.stat().st_size == RESERVE_BYTES


async def test_work_that_ends_leaves_no_reserve(small_disk):
    async def work() -> int:
        return 7

    assert await run_with_reserve(small_disk, work()) == 7
    assert contents(small_disk) == set()
