"""Checks ZooKeeper and Java. Every image has them, so that any machine can be a master."""

from __future__ import annotations

from pathlib import Path

from mesaform_images.builder.host import Host, StepFailed
from mesaform_images.builder.recipe import Recipe, ZooKeeper
from mesaform_images.builder.steps import Step


def steps(host: Host, recipe: Recipe, _digest: str, versions: dict[str, str]) -> list[Step]:
    """Check what the role zookeeper has installed, or the surrounding machine has."""
    return [("check ZooKeeper", lambda: _check(host, recipe["zookeeper"], versions))]


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
