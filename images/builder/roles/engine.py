"""Apache Mesos, if the recipe names a source of its packages.

The node starts it, so the units of the packages are disabled.
"""

from __future__ import annotations

import urllib.request
from pathlib import Path

from mesaform_images.builder.host import Host, StepFailed
from mesaform_images.builder.recipe import Engine, Recipe
from mesaform_images.builder.roles import Step

KEYRING = Path("/usr/share/keyrings/mesaform-engine.asc")
SOURCE_LIST = Path("/etc/apt/sources.list.d/mesaform-engine.list")


def steps(host: Host, recipe: Recipe, _digest: str, _versions: dict[str, str]) -> list[Step]:
    """Add the source, install and check; no steps without packages or on no whole machine."""
    wanted = recipe["engine"]
    if not wanted["packages"] or not host.is_whole_machine:
        return []
    return [
        ("add the engine's package source", lambda: _add_source(host, wanted)),
        ("install the engine", lambda: host.install(wanted["packages"])),
        ("leave the engine to the node", lambda: _disable_units(host, wanted)),
    ]


def _add_source(host: Host, wanted: Engine) -> None:
    if wanted["apt_key_url"]:
        if not wanted["apt_key_url"].startswith("https://"):
            raise StepFailed(f"[engine] apt_key_url must be https, it is {wanted['apt_key_url']}")
        with urllib.request.urlopen(wanted["apt_key_url"], timeout=60) as answer:
            KEYRING.write_bytes(answer.read())
    if wanted["apt_source"]:
        SOURCE_LIST.write_text(wanted["apt_source"] + "\n")
        host.run("apt-get", "-q", "-o", "DPkg::Lock::Timeout=300", "update")


def _disable_units(host: Host, wanted: Engine) -> None:
    missing = [name for name in wanted["programs"] if host.program(name) is None]
    if missing:
        raise StepFailed(
            f"{', '.join(missing)} not found after installing {', '.join(wanted['packages'])}: "
            "check [engine] in images/recipe.toml"
        )
    for unit in ("mesos-master.service", "mesos-slave.service", "mesos-agent.service"):
        if Path("/lib/systemd/system", unit).exists():
            host.run("systemctl", "disable", "--now", unit)
