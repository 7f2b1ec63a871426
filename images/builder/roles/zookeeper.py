"""ZooKeeper and Java from Debian. Every image has them, so that any machine can be a master."""

from __future__ import annotations

from pathlib import Path

from mesaform_images.builder.host import Host, StepFailed
from mesaform_images.builder.recipe import Recipe, ZooKeeper
from mesaform_images.builder.roles import Step


def steps(host: Host, recipe: Recipe, _digest: str, versions: dict[str, str]) -> list[Step]:
    """Install ZooKeeper on a whole machine; check it in any case."""
    wanted = recipe["zookeeper"]
    install: list[Step] = []
    if host.is_whole_machine:
        install.append(("install ZooKeeper", lambda: host.install(wanted["packages"])))
    return [*install, ("check ZooKeeper", lambda: _check(host, wanted, versions))]


def _check(host: Host, wanted: ZooKeeper, versions: dict[str, str]) -> None:
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
            f"{' and '.join(missing)} not found on this machine: "
            f"apt-get install {' '.join(wanted['packages'])}"
        )
    beside = sorted(Path(wanted["jar"]).parent.glob("zookeeper-[0-9]*.jar"))
    versions["zookeeper"] = beside[-1].stem.removeprefix("zookeeper-") if beside else "unknown"
