"""What a machine is started with: command, environment, record of its process.

Reads the image's folder and writes only the machine's.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from mesaform.common import proc
from mesaform.common.record_files import read_record as read_record_file
from mesaform.common.record_files import write_record as write_record_file
from mesaform.common.records import Codec
from mesaform.common.set_aside import SetAsideLog
from mesaform.localcloud.layout import METADATA_PORT, Layout
from mesaform.localcloud.protocol import Machine

PASSED_PREFIXES = ("PIP_", "UV_", "SSL_")
"""Variables of the operator's that installers need on some hosts. No other reaches a machine."""
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
"""Likewise, by their whole names."""
NODE_PYTHON = Path("opt/mesaform/venv/bin/python")


class CannotBootError(Exception):
    """The machine cannot be started; the message says why."""


class Record(msgspec.Struct, frozen=True):
    """The process that runs for an instance, for a hypervisor that starts later.

    `started` is in clock ticks since the host booted (`common.proc.Process.start_ticks`).
    """

    pid: int
    started: int
    boots: int
    boot_id: str


MACHINE = Codec("local.machine", Record)
MACHINE_KIND = "machines"


def root(layout: Layout, instance_id: str) -> Path:
    """The folder with the /opt/mesaform and /var/lib/mesaform of a machine of a base image."""
    return layout.machine(instance_id) / "root"


def command(layout: Layout, machine: Machine) -> list[str]:
    """The command of the first process: the baked node, or on a base image `cloudinit`.

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
            f"image {machine.image_id} is incomplete: it has opt/mesaform but no {NODE_PYTHON}"
        )
    return [sys.executable, "-m", "mesaform.localcloud", "cloudinit"]


def environment(
    layout: Layout, machine: Machine, url: str, inherited: Mapping[str, str]
) -> dict[str, str]:
    """A machine's whole environment; `url` is the endpoint's."""
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
        "MESAFORM_VOLUMES": str(layout.attached_volumes(machine.instance_id).resolve()),
        "MESAFORM_IDENTITY_CERTIFICATE": str(layout.identity_certificate.resolve()),
        "PYTHONDONTWRITEBYTECODE": "1",  # images are read-only
    }


def cloudinit_environment(
    layout: Layout, machine: Machine, inherited: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """What a machine of a base image has besides: its root, this package, the host's installer.

    Without the installer and its cache every bake would download the installer and all packages.
    """
    package = Path(__file__).absolute().parents[2]
    programs = (inherited.get("PATH", os.defpath), str(Path(sys.executable).parent))
    caches = Path(inherited.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return {
        "MESAFORM_ROOT": str(root(layout, machine.instance_id).resolve()),
        "PYTHONPATH": str(package),
        "PATH": os.pathsep.join(programs),
        "UV_CACHE_DIR": inherited.get("UV_CACHE_DIR") or str(caches / "uv"),
    }


def _record_path(layout: Layout, instance_id: str) -> Path:
    return layout.machine(instance_id) / "machine.json"


def write_record(layout: Layout, instance_id: str, pid: int, boots: int) -> Record:
    """Record that a process runs for an instance."""
    process = proc.read_process(pid)
    record = Record(pid, process.start_ticks if process else 0, boots, proc.boot_id())
    write_record_file(_record_path(layout, instance_id), MACHINE, record, mode=0o644)
    return record


def read_record(layout: Layout, instance_id: str) -> Record | None:
    """The recorded process; None if there is none, or if the host was booted since.

    A record that cannot be read is set aside beside it.
    """
    path = _record_path(layout, instance_id)
    try:
        record = read_record_file(path, MACHINE, MACHINE_KIND, SetAsideLog())
    except OSError:
        return None
    if not isinstance(record, Record):
        return None
    return record if record.boot_id == proc.boot_id() else None


def drop_record(layout: Layout, instance_id: str) -> None:
    """Remove the record. Idempotent."""
    _record_path(layout, instance_id).unlink(missing_ok=True)
