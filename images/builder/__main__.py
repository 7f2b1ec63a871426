"""Apply every role's steps in order, report after each, upload the log, and end with 0 if the image is good."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
import tomllib
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mesaform_images.builder import report
from mesaform_images.builder.host import Host, StepFailed
from mesaform_images.builder.roles import common, engine, mesaform, zookeeper

ROLES = (common, zookeeper, engine, mesaform)
FAILSAFE_MINUTES = 60
"""A builder that nobody terminates powers itself off, which terminates it."""


def main(job_file: Path) -> int:
    """Bake as `job_file` says: `digest`, `report` and `log` (presigned URLs to put to)."""
    job = json.loads(job_file.read_text())
    bundle = job_file.resolve().parent
    recipe = tomllib.loads((bundle / "recipe.toml").read_text())
    root = Path(os.environ.get("MESAFORM_ROOT") or "/").resolve()
    host = Host(root=root, bundle=bundle, log=bundle / "bake.log")
    progress = report.Progress()

    def tell() -> None:
        report.put(job["report"], report.encode(progress))

    if host.is_whole_machine:
        host.run("shutdown", "-P", f"+{FAILSAFE_MINUTES}")
    try:
        run_steps(host, recipe, job["digest"], progress, tell)
        progress.state, progress.step = "done", ""
    except Exception as error:
        progress.state = "failed"
        progress.error = (
            str(error) if isinstance(error, StepFailed) else traceback.format_exc(limit=-3)
        )
        host.note(progress.error)
    report.put(job["log"], host.log.read_bytes() if host.log.exists() else b"")
    if progress.state == "done":
        shutil.rmtree(bundle)
    tell()  # last of all: the image is taken as soon as this is read
    return 0 if progress.state == "done" else 1


def run_steps(
    host: Host,
    recipe: dict[str, Any],
    digest: str,
    progress: report.Progress,
    tell: Callable[[], None],
) -> None:
    """Run every role's steps, keeping `progress` up to date.

    Raises:
        StepFailed: a step cannot be done; `progress.step` names it.

    """
    for role in ROLES:
        for name, action in role.steps(host, recipe, digest, progress.versions):
            progress.step = name
            tell()
            host.note(f"== {name}")
            began = time.monotonic()
            action()
            progress.steps.append(report.Done(name, round(time.monotonic() - began, 2)))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
