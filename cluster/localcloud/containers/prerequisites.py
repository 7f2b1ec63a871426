"""What a host needs for machines as containers: rights, programs, features of its kernel, space."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mesaform.localcloud.containers import base_image

PROGRAMS = {
    "systemd-nspawn": "systemd-container",
    "nft": "nftables",
    "ip": "iproute2",
    "script": "bsdutils",
    "unshare": "util-linux",
}
"""The programs that machines need, and the Debian packages that have them."""
FREE_BYTES = 4 << 30
"""For the base image, one baked image, and what a few machines write."""


@dataclass(frozen=True, slots=True)
class Lack:
    """One missing thing: `what` is wrong, `fix` is what to do."""

    what: str
    fix: str


def find_lacks() -> Iterator[Lack]:
    """Everything that is missing, in the order in which a person would install it."""
    if os.geteuid() != 0:
        yield Lack(
            "local.machines: containers needs root", "run mesaform as root, or choose processes"
        )
    yield from _programs()
    yield from _kernel()
    yield from _space()
    if base_image.find() is None:
        yield from _base_image()


def _programs() -> Iterator[Lack]:
    for program, package in PROGRAMS.items():
        if shutil.which(program) is None:
            yield Lack(f"{program} is missing", f"apt-get install {package}")


def _space() -> Iterator[Lack]:
    cache = next(path for path in base_image.folder().parents if path.is_dir())
    if shutil.disk_usage(cache).free < FREE_BYTES:
        yield Lack(f"less than {FREE_BYTES >> 30} GiB are free in {cache}", "free some space")


def _kernel() -> Iterator[Lack]:
    known = Path("/proc/filesystems").read_text().split()
    if "overlay" not in known:
        yield Lack("the kernel has no overlay file system", "modprobe overlay")
    if not {"cgroup", "cgroup2"} & set(known):
        yield Lack("the kernel has no control groups", "boot a kernel with them")


def _base_image() -> Iterator[Lack]:
    if shutil.which("debootstrap") is None:
        yield Lack("debootstrap is missing", "apt-get install debootstrap")
    yield Lack("there is no base image", "mesaform local base-image (a few minutes)")
