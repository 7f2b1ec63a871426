"""A master's copies of token and CA, and its certificate, on a disk without space."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Self, cast

import pytest

from mesaform.autoscaler.daemon.access import AccessCopy, MesosFiles
from mesaform.aws.secure_parameter import SecureParameter
from mesaform.common.access import AccessDocument
from mesaform.common.certificates import AuthorityDocument
from mesaform.common.files import write_atomically
from mesaform.common.tls import TlsFiles
from mesaform.http import AccessFile
from mesaform.node.certificates import Machine, OwnAuthority, Renewal
from mesaform.node.copy_authority import copy
from tests.integration.engine_agent.conftest import small_disk
from tests.support.tls import DAY_S, Cluster

__all__ = ["small_disk"]
OLD, NEW = AccessDocument(("1" * 64,)), AccessDocument(("2" * 64,))


class Full:
    """A file that takes all space of a file system."""

    def __init__(self, disk: Path) -> None:
        self._path = disk / "filler"

    def __enter__(self) -> Self:
        facts = os.statvfs(self._path.parent)
        with self._path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, facts.f_bavail * facts.f_frsize)
        return self

    def __exit__(self, *_: object) -> None:
        self._path.unlink()


def content(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "filler"
    }


class Parameter:
    """The stored document; each reading of it is an event."""

    def __init__(self) -> None:
        self.document = OLD
        self.was_read = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def read(self) -> AccessDocument:
        self._loop.call_soon_threadsafe(self.was_read.set)
        return self.document


def copy_of(parameter: Parameter | None, file: Path, mesos: MesosFiles | None = None) -> AccessCopy:
    stored = cast("SecureParameter[AccessDocument]", parameter)
    return AccessCopy(stored, file, mesos, every_s=0.01, first_s=0.01)


async def until_equal(file: Path, document: AccessDocument) -> None:
    async with asyncio.timeout(60):
        while AccessFile(file).document() != document:
            await asyncio.sleep(0.01)


async def test_on_a_full_disk_the_present_token_stays_and_the_next_one_follows(
    small_disk: Path,
) -> None:
    parameter, file = Parameter(), small_disk / "secrets" / "access.json"
    following = asyncio.create_task(copy_of(parameter, file).follow())
    try:
        await until_equal(file, OLD)
        with Full(small_disk):
            before = content(small_disk)
            parameter.document = NEW
            for _ in range(3):
                parameter.was_read.clear()
                await asyncio.wait_for(parameter.was_read.wait(), 60)
            assert AccessFile(file).document() == OLD
        assert content(small_disk).keys() == before.keys(), "no part of a file stays"
        await until_equal(file, NEW)
        assert file.stat().st_mode & 0o777 == 0o600
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def test_a_copy_that_is_no_text_is_replaced_and_a_broken_file_of_mesos_ends_nothing(
    tmp_path: Path,
) -> None:
    file, own = tmp_path / "access.json", tmp_path / "own.json"
    file.write_bytes(b"\xff\xfe garbage")
    own.write_bytes(b"{")
    mesos = MesosFiles(own, tmp_path / "credentials.json", tmp_path / "acls.json")
    following = asyncio.create_task(copy_of(Parameter(), file, mesos).follow())
    try:
        parameter = Parameter()
        other = asyncio.create_task(copy_of(parameter, file).follow())
        await until_equal(file, OLD)
        other.cancel()
        own.write_text('{"credentials":[]}')
        async with asyncio.timeout(60):
            while not mesos.credentials.exists():
                await asyncio.sleep(0.01)
        assert not following.done()
    finally:
        following.cancel()
        await asyncio.gather(following, other, return_exceptions=True)


def test_on_a_full_disk_the_copy_of_the_ca_and_the_certificate_stay_and_are_renewed_later(
    small_disk: Path,
) -> None:
    cluster, successor = Cluster(small_disk / "c"), Cluster(small_disk / "s")
    ca, files, times = small_disk / "ca.json", TlsFiles(small_disk / "tls"), [time.time()]
    source = OwnAuthority(Machine("i-0", "10.0.0.10"), ca, lambda: True, lambda: times[0])
    renewal = Renewal(files, source, lambda _line: None, lambda: times[0])
    copy(cluster.document, ca)
    assert renewal.renew()
    both = AuthorityDocument((successor.authority, cluster.authority))
    before = content(small_disk)
    with Full(small_disk):
        with pytest.raises(OSError, match="No space left"):
            copy(both, ca)
        times[0] += 2 * DAY_S
        with pytest.raises(OSError, match="No space left"):
            renewal.renew()
        with pytest.raises(OSError, match="No space left"):
            write_atomically(small_disk / "config.json", b"{}")
    assert content(small_disk) == before
    copy(both, ca)
    assert renewal.renew()
    assert files.learned_authorities.read_text() == both.certificates
