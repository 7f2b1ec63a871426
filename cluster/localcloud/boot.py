"""What a machine is started with: command, environment, record. Reads the image folder, writes only the machine's."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from mesaform.localcloud import processes
from mesaform.localcloud.layout import METADATA_PORT, Layout, write_atomically
from mesaform.localcloud.protocol import Machine

# What lets installs work where the host needs it; nothing else of the operator's environment reaches a machine.
PASSED_PREFIXES = ("PIP_", "UV_", "SSL_")
PASSED_NAMES = frozenset(
    {
        "PATH",
        "LANG",
        "LC_ALL",
        "TZ",
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "http_proxy",
        "https_proxy",
        "no_proxy",
    }
)
NODE_PYTHON = Path("opt/mesaform/venv/bin/python")


class CannotBootError(Exception):
    """The machine cannot be started; the text says why in a sentence."""


class Record(msgspec.Struct, frozen=True):
    """What runs for an instance, so that a hypervisor that starts anew finds it again."""

    pid: int
    started: int
    boots: int
    boot_id: str


def root(layout: Layout, instance_id: str) -> Path:
    """Where a base image's machine keeps its own /opt/mesaform and /var/lib/mesaform."""
    return layout.machine(instance_id) / "root"


def command(layout: Layout, machine: Machine) -> list[str]:
    """The machine's first process: the baked node, or on a base image the small cloud-init.

    Raises:
        CannotBootError: the image has no folder.

    """
    image = layout.image(machine.image_id).resolve()
    if not image.is_dir():
        raise CannotBootError(f"image {machine.image_id} has no folder {image}")
    python = image / NODE_PYTHON
    if python.exists():
        return [str(python), "-m", "mesaform.node"]
    if (image / "opt/mesaform").exists():
        raise CannotBootError(
            f"image {machine.image_id} is broken: it has opt/mesaform but no {NODE_PYTHON}"
        )
    return [sys.executable, "-m", "mesaform.localcloud", "cloudinit"]


def environment(
    layout: Layout, machine: Machine, url: str, inherited: Mapping[str, str]
) -> dict[str, str]:
    """A machine's whole environment."""
    passed = {
        name: value
        for name, value in inherited.items()
        if name in PASSED_NAMES or name.startswith(PASSED_PREFIXES)
    }
    folder = layout.machine(machine.instance_id).resolve()
    return {
        "PATH": os.defpath,
        "LANG": "C.UTF-8",
        **passed,
        "HOME": str(folder),
        "AWS_ENDPOINT_URL": url,
        "AWS_EC2_METADATA_SERVICE_ENDPOINT": f"http://{machine.address}:{METADATA_PORT}",
        "MESAFORM_MACHINE_DIR": str(folder),
        "MESAFORM_HARDWARE": msgspec.json.encode(
            {"vcpus": machine.vcpus, "mem_mib": machine.mem_mib}
        ).decode(),
        "MESAFORM_INSTANCE_ID": machine.instance_id,
        "PYTHONDONTWRITEBYTECODE": "1",  # images are read-only
    }


def cloudinit_environment(
    layout: Layout, machine: Machine, inherited: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """What a base image's machine has besides: its root, where this program's own code is, and the host's installer with its cache.

    Without the last two every bake would fetch the installer and all packages anew.
    """
    package = Path(__file__).absolute().parents[2]
    return {
        "MESAFORM_ROOT": str(root(layout, machine.instance_id).resolve()),
        "PYTHONPATH": str(package),
        "PATH": os.pathsep.join(
            (inherited.get("PATH", os.defpath), str(Path(sys.executable).parent))
        ),
        "UV_CACHE_DIR": inherited.get("UV_CACHE_DIR")
        or str(Path(inherited.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "uv"),
    }


def write_record(layout: Layout, instance_id: str, pid: int, boots: int) -> Record:
    found = processes.stat(pid)
    record = Record(pid, found.started if found else 0, boots, processes.boot_id())
    write_atomically(layout.machine(instance_id) / "machine.json", msgspec.json.encode(record))
    return record


def read_record(layout: Layout, instance_id: str) -> Record | None:
    """What was running at the last look; None if nothing, or if the host was booted since."""
    try:
        record = msgspec.json.decode(
            (layout.machine(instance_id) / "machine.json").read_bytes(), type=Record
        )
    except (OSError, msgspec.DecodeError):
        return None
    return record if record.boot_id == processes.boot_id() else None


def drop_record(layout: Layout, instance_id: str) -> None:
    (layout.machine(instance_id) / "machine.json").unlink(missing_ok=True)
