"""Apache Mesos, if the recipe names a source of it.

The node starts it, so the units of its packages are disabled. On the local cloud nothing is
installed: the programs of the surrounding machine are checked.
"""

from __future__ import annotations

import hashlib
import urllib.request
from pathlib import Path

from mesaform_images.builder.host import Host, StepFailed
from mesaform_images.builder.recipe import Deb, Engine, Recipe
from mesaform_images.builder.roles import Step

KEYRING = Path("/usr/share/keyrings/mesaform-engine.asc")
SOURCE_LIST = Path("/etc/apt/sources.list.d/mesaform-engine.list")
UNITS = ("mesos-master.service", "mesos-slave.service", "mesos-agent.service")
DOWNLOAD_TIMEOUT_S = 300


def has_source(wanted: Engine) -> bool:
    """Whether the recipe names a source of Apache Mesos."""
    return bool(wanted["packages"] or wanted["debs"] or wanted["prefix"])


def steps(host: Host, recipe: Recipe, _digest: str, versions: dict[str, str]) -> list[Step]:
    """Install from the source and check the programs; no steps without a source."""
    wanted = recipe["engine"]
    if not has_source(wanted):
        return []
    check = ("check the engine", lambda: _check(host, wanted, versions))
    if wanted["prefix"] or not host.is_whole_machine:
        return [check]
    if wanted["debs"]:
        install = [("install the engine", lambda: _install_debs(host, wanted["debs"]))]
    else:
        install = [
            ("add the engine's package source", lambda: _add_source(host, wanted)),
            ("install the engine", lambda: host.install(wanted["packages"])),
        ]
    return [*install, check, ("leave the engine to the node", lambda: _disable_units(host))]


def _add_source(host: Host, wanted: Engine) -> None:
    if wanted["apt_key_url"]:
        KEYRING.write_bytes(_download(wanted["apt_key_url"]))
    if wanted["apt_source"]:
        SOURCE_LIST.write_text(wanted["apt_source"] + "\n")
        host.run("apt-get", "-q", "-o", "DPkg::Lock::Timeout=300", "update")


def _install_debs(host: Host, debs: list[Deb]) -> None:
    """Install the files, and from the distribution what they depend on."""
    paths = []
    for number, deb in enumerate(debs):
        path = host.bundle / f"engine-{number}.deb"
        path.write_bytes(checked(_download(deb["url"]), deb))
        paths.append(str(path))
    host.install(paths)


def checked(content: bytes, deb: Deb) -> bytes:
    """The content of a downloaded file.

    Raises:
        StepFailed: it is not the file of the recipe's checksum.

    """
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != deb["sha256"].lower():
        raise StepFailed(
            f"{deb['url']} has the SHA-256 {sha256}, the recipe wants {deb['sha256']}: "
            "compare with what its publisher states, then correct [engine] debs"
        )
    return content


def _download(url: str) -> bytes:
    if not url.startswith("https://"):
        raise StepFailed(f"[engine] {url} must be an https URL")
    with urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT_S) as answer:
        return bytes(answer.read())


def _check(host: Host, wanted: Engine, versions: dict[str, str]) -> None:
    """Start each program once: one without a library that it needs fails here and not at boot."""
    for name in wanted["programs"]:
        program = f"{wanted['prefix']}/sbin/{name}" if wanted["prefix"] else host.program(name)
        if not program or not Path(program).is_file():
            raise StepFailed(f"no program {program or name}: check [engine] in images/recipe.toml")
        versions[name] = host.run(program, "--version").strip().removeprefix("mesos ")


def _disable_units(host: Host) -> None:
    for unit in UNITS:
        if Path("/lib/systemd/system", unit).exists():
            host.run("systemctl", "disable", "--now", unit)
