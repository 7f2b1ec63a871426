"""Program of the builder: run the steps of an image, report each, and upload the log.

Its exit code is 0 if the image is complete. Standard library only.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from mesaform_images.builder import report
from mesaform_images.builder.host import Host, StepFailed
from mesaform_images.builder.recipe import Recipe, read
from mesaform_images.builder.steps import (
    engine,
    mesaform,
    roles,
    seal,
    session_manager,
    zookeeper,
)

IMAGE = (
    roles.system_steps,
    zookeeper.steps,
    engine.steps,
    session_manager.steps,
    mesaform.steps,
    roles.product_steps,
    seal.steps,
)
FAILSAFE_MINUTES = 60
"""After this time a builder powers itself off, which terminates it."""


def main(job_file: Path) -> int:
    """Bake by a job file and return an exit code.

    The file has `digest`, `base_image`, and the presigned URLs `report`, `log` and `materials`.
    """
    job = json.loads(job_file.read_text())
    bundle = job_file.resolve().parent
    recipe = read(bundle)
    root = Path(os.environ.get("MESAFORM_ROOT") or "/").resolve()
    host = Host(root, bundle, bundle / "bake.log", job.get("base_image", ""))
    progress = report.Progress()

    def send_report() -> None:
        report.put(job["report"], report.encode(progress))

    if host.is_whole_machine:
        host.run("shutdown", "-P", f"+{FAILSAFE_MINUTES}")
    try:
        run_steps(host, recipe, job["digest"], progress, send_report)
        progress.state, progress.step = "done", ""
    except Exception as error:
        progress.state = "failed"
        progress.error = (
            str(error) if isinstance(error, StepFailed) else traceback.format_exc(limit=-3)
        )
        host.note(progress.error)
    report.put(job["log"], host.log.read_bytes() if host.log.exists() else b"")
    if progress.state == "done":
        report.put(job["materials"], (host.home / mesaform.MATERIALS).read_bytes())
        shutil.rmtree(bundle)
    send_report()  # last: the bake takes the image as soon as it reads this
    return 0 if progress.state == "done" else 1


def run_steps(
    host: Host,
    recipe: Recipe,
    digest: str,
    progress: report.Progress,
    report_progress: Callable[[], None],
) -> None:
    """Run every step of an image and keep `progress` up to date.

    Raises:
        StepFailed: a step failed; `progress.step` names it.

    """
    for steps in IMAGE:
        for name, action in steps(host, recipe, digest, progress.versions):
            progress.step = name
            report_progress()
            host.note(f"== {name}")
            started = time.monotonic()
            action()
            progress.steps.append(report.Done(name, round(time.monotonic() - started, 2)))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
