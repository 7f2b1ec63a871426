"""`mesaform bake`: the image that this checkout's machines boot from."""

from __future__ import annotations

import json
import signal
from dataclasses import asdict

import typer

from mesaform.cli.context import Context, open_context
from mesaform.cli.options import DEFAULT_FILE, FileOption, JsonOption

FORCE_OPTION = typer.Option(
    False, "--force", help="Bake even if the region has an image of this recipe."
)
SUBNET_OPTION = typer.Option(
    "",
    "--subnet",
    help="Where to build; the default VPC's first subnet if not given. It needs a way out.",
)


def register(app: typer.Typer) -> None:
    app.command(
        help="Bake the image that the machines boot from; at once if the region has it already."
    )(bake)


def remove_killed_bakes(context: Context) -> None:
    """Remove builders of killed bakes at once where no other bake can run. Blocks.

    A local cloud belongs to one folder, whose lock of bakes the caller holds. In an account of AWS
    somebody else may bake, so builders are removed there after an hour only.
    """
    import time

    from mesaform.aws.client import client
    from mesaform_images.leftovers import remove_leftovers

    if context.spec.target == "local":
        remove_leftovers(client("ec2", context.spec.region), time.time(), stale_after_s=0.0)


def bake(
    file: FileOption = DEFAULT_FILE,
    force: bool = FORCE_OPTION,
    subnet: str = SUBNET_OPTION,
    as_json: JsonOption = False,
) -> None:
    """Bake, with progress on standard error and the image on standard output."""
    from mesaform.cli.progress import reporter
    from mesaform.provision.lock import BAKE_LOCK, hold
    from mesaform_images.bake import bake as bake_image

    context = open_context(file)
    context.enter_cloud()
    # A builder costs money: a polite kill must end in its removal just as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with hold(context.state_dir / BAKE_LOCK, "mesaform bake"), reporter(as_json=as_json) as report:
        remove_killed_bakes(context)
        baked = bake_image(
            context.spec.region,
            report,
            force=force,
            subnet_id=subnet,
            log_dir=context.state_dir / "log",
        )
    if as_json:
        typer.echo(
            json.dumps(
                {**asdict(baked), "region": context.spec.region, "seconds": round(baked.seconds, 1)}
            )
        )
        return
    how = "there already" if baked.reused else f"baked in {baked.seconds:.1f} s"
    typer.echo(f"{baked.image_id}  recipe {baked.recipe}  {how}")
