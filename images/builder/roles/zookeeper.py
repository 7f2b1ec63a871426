"""ZooKeeper and Java, from Debian. Every image has them, so that any machine can be a master."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mesaform_images.builder.host import Host, StepFailed
from mesaform_images.builder.roles import Step


def steps(host: Host, recipe: dict[str, Any], _digest: str, versions: dict[str, str]) -> list[Step]:
    """Install where the system is ours; check in any case."""
    wanted = recipe["zookeeper"]
    found: list[Step] = []
    if host.is_whole_machine:
        found.append(("install ZooKeeper", lambda: host.install(wanted["packages"])))
    return [*found, ("check ZooKeeper", lambda: _check(host, wanted, versions))]


def _check(host: Host, wanted: dict[str, Any], versions: dict[str, str]) -> None:
    missing = [
        name
        for name, present in (
            ("java", host.program("java")),
            (wanted["jar"], Path(wanted["jar"]).exists()),
        )
        if not present
    ]
    if missing:
        raise StepFailed(
            f"{' and '.join(missing)} not found on this machine: apt-get install {' '.join(wanted['packages'])}"
        )
    beside = sorted(Path(wanted["jar"]).parent.glob("zookeeper-[0-9]*.jar"))
    versions["zookeeper"] = beside[-1].stem.removeprefix("zookeeper-") if beside else "unknown"
