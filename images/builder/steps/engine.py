"""Checks Apache Mesos, if the recipe names a source of it.

On a whole machine the role mesos has installed it; on the local cloud the programs are those of the
surrounding machine.
"""

from __future__ import annotations

from pathlib import Path

from mesaform_images.builder.host import Host, StepFailed
from mesaform_images.builder.recipe import Engine, Recipe
from mesaform_images.builder.steps import Step


def has_source(wanted: Engine) -> bool:
    """Whether the recipe names a source of Apache Mesos."""
    return bool(wanted["packages"] or wanted["debs"] or wanted["prefix"])


def steps(host: Host, recipe: Recipe, _digest: str, versions: dict[str, str]) -> list[Step]:
    """Check the programs; no steps without a source."""
    wanted = recipe["engine"]
    if not has_source(wanted):
        return []
    return [("check the engine", lambda: _check(host, wanted, versions))]


def _check(host: Host, wanted: Engine, versions: dict[str, str]) -> None:
    """Start each program once: one without a library that it needs fails here and not at boot."""
    for name in wanted["programs"]:
        program = f"{wanted['prefix']}/sbin/{name}" if wanted["prefix"] else host.program(name)
        if not program or not Path(program).is_file():
            raise StepFailed(f"no program {program or name}: check [engine] in images/recipe.toml")
        versions[name] = host.run(program, "--version").strip().removeprefix("mesos ")
