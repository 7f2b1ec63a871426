"""What a synthesis depends on, so that an equal one is not repeated.

The program of the stacks is a function of the cluster file, records of the cluster's folder, what
it gets in the environment, and its code. `remember` keeps one digest of these and one of what
the program wrote; `is_current` compares both. Whatever cannot be read counts as changed.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from mesaform.common.files import write_atomically
from mesaform.provision import deployment
from mesaform.provision.authority import certificates_file
from mesaform.provision.cluster_context import ClusterContext
from mesaform.provision.state_folders import CONFIGURATION_FILE, synth_dir

RECORD = "inputs.sha256"
CODE = ("mesaform", "mesaform_stacks")
PREFIX = "MESAFORM_"
"""Of the variables that the program reads (`mesaform_stacks.environment`)."""
LIBRARIES = ("cdktf", "constructs", "jsii")
SOURCES = {".py", ".json", ".toml", ".yaml", ".sh"}


def digest_inputs(place: ClusterContext, environment: Mapping[str, str]) -> str:
    """The digest of everything that a synthesis reads, its variables included.

    Raises:
        OSError: a file cannot be read.

    """
    folder = place.cluster_dir
    own = {name: value for name, value in environment.items() if name.startswith(PREFIX)}
    records = (folder / deployment.FILE_NAME, certificates_file(folder))
    parts = [
        str(folder.resolve()).encode(),
        str(Path(place.file).resolve()).encode(),
        Path(place.file).read_bytes(),
        *(path.read_bytes() if path.exists() else b"" for path in records),
        *(f"{name}={own[name]}".encode() for name in sorted(own)),
        *_code_facts(),
    ]
    return _digest(parts)


def is_current(folder: Path, inputs: str) -> bool:
    """Whether the folder has, unchanged, what a synthesis with these inputs wrote."""
    try:
        recorded = (synth_dir(folder) / RECORD).read_text(encoding="ascii")
        return recorded == _record(folder, inputs)
    except (OSError, ValueError):
        return False


def forget(folder: Path) -> None:
    """Before a synthesis: what is there is not whole until `remember`."""
    (synth_dir(folder) / RECORD).unlink(missing_ok=True)


def remember(folder: Path, inputs: str) -> None:
    """After a synthesis with these inputs."""
    record = _record(folder, inputs)
    write_atomically(synth_dir(folder) / RECORD, record.encode(), mode=0o600)


def _record(folder: Path, inputs: str) -> str:
    written = sorted(synth_dir(folder).glob(f"stacks/*/{CONFIGURATION_FILE}"))
    files = (synth_dir(folder) / "manifest.json", *written)
    return f"{inputs} {_digest(path.read_bytes() for path in files)}\n"


def _code_facts() -> Iterable[bytes]:
    """The sources by their sizes and times, and the versions of what they run on."""
    yield sys.version.encode()
    for name in LIBRARIES:
        yield f"{name} {metadata.version(name)}".encode()
    for package in CODE:
        spec = find_spec(package)
        for root in spec.submodule_search_locations or () if spec else ():
            for path in sorted(Path(root).rglob("*")):
                if path.suffix in SOURCES:
                    status = path.stat()
                    yield f"{path} {status.st_size} {status.st_mtime_ns}".encode()


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{len(part)} ".encode())
        digest.update(part)
    return digest.hexdigest()
