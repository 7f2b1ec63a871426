"""Facts of this machine: its size, its installed programs, the recipe of its image.

Reads /proc, PATH and the image's `recipe.json`; depends on msgspec and `mesaform.node.model`.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from mesaform.node.model import Hardware, MachineFeatures, Programs

ZOOKEEPER_JAR = Path("/usr/share/java/zookeeper.jar")
"""Of Debian's package `libzookeeper-java`. Its manifest names the jars that it needs; the
binding of slf4j lies beside it."""

TASK_UNIT = Path("/run/mesaform-tasks/groups")
"""Written by the main process of the unit of tasks (`images/builder/task_unit.py`)."""

_LOG_BINDINGS = ("slf4j-reload4j.jar", "slf4j-log4j12.jar", "reload4j.jar", "log4j-1.2.jar")


class _Stated(msgspec.Struct, frozen=True):
    vcpus: int
    mem_mib: int


class Recipe(msgspec.Struct, frozen=True):
    """`recipe.json` of the image."""

    digest: str
    baked_at: str = ""
    engine_prefix: str = ""
    versions: dict[str, str] = {}


def hardware(environ: Mapping[str, str], meminfo: Path = Path("/proc/meminfo")) -> Hardware:
    """The machine's size: the value of `MESAFORM_HARDWARE`, or else what the kernel reports.

    Raises:
        ValueError: the value of `MESAFORM_HARDWARE` is not `{"vcpus":…,"mem_mib":…}`.

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


def features(environ: Mapping[str, str], cgroups: Path = Path("/sys/fs/cgroup")) -> MachineFeatures:
    """What this machine offers to Apache Mesos.

    Hierarchies of version 1 have one folder a controller, version 2 has a file with their names.
    """
    unified = cgroups / "cgroup.controllers"
    has_cgroups = (
        {"cpu", "memory"} <= set(unified.read_text().split())
        if unified.exists()
        else all((cgroups / name / "tasks").exists() for name in ("cpu", "memory"))
    )
    return MachineFeatures(
        is_root=os.geteuid() == 0,
        is_shared="MESAFORM_MACHINE_DIR" in environ,
        has_cgroups=has_cgroups,
        has_systemd=Path("/run/systemd/system").is_dir(),
        has_docker=shutil.which("dockerd") is not None,
    )


def programs(
    engine_prefix: str = "",
    environ: Mapping[str, str] = os.environ,
    jar: Path = ZOOKEEPER_JAR,
) -> Programs:
    """Paths of the installed programs; the path of a missing program is empty.

    Apache Mesos is below `engine_prefix`, or on PATH.
    """
    folders = f"{engine_prefix}/sbin" if engine_prefix else None
    return Programs(
        python=sys.executable,
        java=shutil.which("java") or "java",
        zookeeper_classpath=_classpath(jar),
        mesos_master=shutil.which("mesos-master", path=folders) or "",
        mesos_agent=shutil.which("mesos-agent", path=folders) or "",
        features=features(environ),
        task_unit=str(TASK_UNIT) if TASK_UNIT.exists() else "",
    )


def _classpath(jar: Path) -> tuple[str, ...]:
    if not jar.exists():
        return ()
    bindings = (jar.with_name(name) for name in _LOG_BINDINGS)
    return tuple(str(path) for path in (jar, *bindings) if path.exists())


def recipe_file() -> Path:
    """The path of the image's recipe: beside the folder of this program's environment."""
    return Path(sys.prefix).parent / "recipe.json"


def baked_recipe(path: Path) -> Recipe:
    """The image's recipe; its digest is empty without a readable one."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Recipe)
    except (OSError, msgspec.DecodeError):
        return Recipe("")
