"""Synthesis with CDKTF: from the cluster file to Terraform's JSON for each stack.

Runs the program that `cdktf.json` names as `cdktf synth` runs it, with the same result. The command
line of cdktf itself would add 3 s of processor time to each run (ADR 0057).
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Collection
from pathlib import Path

from mesaform.common.errors import CloudError
from mesaform.common.progress import Report, stage
from mesaform.provision import environment
from mesaform.provision.child_process import Command, LoggedChild, start_logged
from mesaform.provision.cluster_context import ClusterContext
from mesaform.provision.holders import STACKS_PROGRAM, SYNTHESIS
from mesaform.provision.image import UPGRADED_ROLES, BootImages
from mesaform.provision.lock import HeldLock
from mesaform.provision.state_folders import synth_dir
from mesaform.provision.synthesis_inputs import digest_inputs, forget, is_current, remember

STAGE = "Describe the stacks"
OUTPUT_FOLDER = "CDKTF_OUTDIR"
"""How `cdktf synth` tells the program where to write."""
OWN_ERROR = "mesaform: "
"""Start of the line by which the stacks' program reports its error (`mesaform_stacks.__main__`)."""


async def synthesize(
    place: ClusterContext,
    image: BootImages,
    report: Report,
    held: HeldLock,
    upgraded_roles: Collection[str] = (),
) -> None:
    """Write the stacks as Terraform's JSON into the cluster's folder. Idempotent.

    Does nothing if the last synthesis had the same inputs and its files are as it left them.

    Args:
        place: the cluster.
        image: what the machines boot from.
        report: receives progress.
        held: the lock of Terraform; the program inherits it.
        upgraded_roles: roles whose running machines take the image and new user data.

    Raises:
        MissingPrerequisite: terraform is missing.
        CloudError: the program failed: its first error, and the log's path.

    """
    settled = await asyncio.to_thread(environment.prepare_environment, place, image)
    settled[UPGRADED_ROLES] = ",".join(sorted(upgraded_roles))
    folder = place.cluster_dir
    inputs = await asyncio.to_thread(digest_inputs, place, settled)
    if await asyncio.to_thread(is_current, folder, inputs):
        with stage(report, STAGE) as under_way:
            under_way.outcome = "as the last time"
        return
    forget(folder)
    settled[OUTPUT_FOLDER] = str(synth_dir(place.cluster_dir))
    command = Command(
        (sys.executable, "-P", "-m", STACKS_PROGRAM), place.cluster_dir, settled, work=SYNTHESIS
    )
    log = place.cluster_dir / "log" / f"synth-{time.strftime('%Y%m%d-%H%M%S')}.log"
    with stage(report, STAGE, "the stacks as Terraform's JSON"):
        child = await start_logged(command, log, held)
        output_lines = await _lines_until_exit(child)
        if child.exit_code:
            raise _failure(output_lines, child.exit_code, log)
    remember(folder, inputs)


async def _lines_until_exit(child: LoggedChild) -> list[str]:
    try:
        return [line for lines in [batch async for batch in child.lines()] for line in lines]
    except BaseException:
        await asyncio.shield(child.stop())
        raise


def _failure(lines: list[str], code: int, log: Path) -> CloudError:
    own = (line.strip().removeprefix(OWN_ERROR) for line in lines if OWN_ERROR in line)
    return CloudError(
        next(own, f"{STACKS_PROGRAM} ended with {code}"),
        where=SYNTHESIS,
        fix=f"all of its output: {log}\n  then run the same command again: it carries on",
    )
