"""What can be learned from the machine itself: its size, its programs, the image it was booted from."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from mesaform.node.model import Hardware, Programs

ZOOKEEPER_JAR = Path("/usr/share/java/zookeeper.jar")
"""Debian's; its manifest names every other jar that it needs, and slf4j's binding is found beside it."""

_LOG_BINDINGS = ("slf4j-reload4j.jar", "slf4j-log4j12.jar", "reload4j.jar", "log4j-1.2.jar")


class _Stated(msgspec.Struct, frozen=True):
    vcpus: int
    mem_mib: int


class Recipe(msgspec.Struct, frozen=True):
    """What the image says of itself in `recipe.json`."""

    digest: str
    baked_at: str = ""
    versions: dict[str, str] = {}


def hardware(environ: Mapping[str, str], meminfo: Path = Path("/proc/meminfo")) -> Hardware:
    """The machine's size: what `MESAFORM_HARDWARE` states, or else what the kernel says.

    Raises:
        ValueError: what is stated is not `{"vcpus":…,"mem_mib":…}`.

    """
    if text := environ.get("MESAFORM_HARDWARE"):
        stated = msgspec.json.decode(text, type=_Stated)
        return Hardware(stated.vcpus, stated.mem_mib)
    kib = next(
        int(line.split()[1])
        for line in meminfo.read_text().splitlines()
        if line.startswith("MemTotal:")
    )
    return Hardware(len(os.sched_getaffinity(0)), kib // 1024)


def programs(jar: Path = ZOOKEEPER_JAR) -> Programs:
    """Where the services' programs are. What is absent is left empty: only who needs it minds."""
    bindings = [jar.with_name(name) for name in _LOG_BINDINGS]
    classpath = (
        tuple(str(path) for path in (jar, *bindings) if path.exists()) if jar.exists() else ()
    )
    return Programs(
        python=sys.executable,
        java=shutil.which("java") or "java",
        zookeeper_classpath=classpath,
        mesos_master=shutil.which("mesos-master") or "",
        mesos_agent=shutil.which("mesos-agent") or "",
    )


def recipe_file() -> Path:
    """Where the image that this program runs from says what it is: beside the environment's folder."""
    return Path(sys.prefix).parent / "recipe.json"


def baked_recipe(path: Path) -> str:
    """The digest of the image's recipe; empty where there is none."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Recipe).digest
    except (OSError, msgspec.DecodeError):
        return ""
