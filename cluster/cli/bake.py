"""`mesaform bake`: the images that this checkout's machines boot from, one an architecture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from mesaform.cli.context import Context, open_context
from mesaform.cli.options import DEFAULT_FILE, FileOption, JsonOption
from mesaform.common.errors import CloudError

if TYPE_CHECKING:
    from mesaform.common.architecture import Architecture
    from mesaform.common.progress import Report
    from mesaform_images.bake import Baked

FORCE_OPTION = typer.Option(
    False, "--force", help="Bake even if the region has an image of this recipe."
)
SUBNET_OPTION = typer.Option(
    "",
    "--subnet",
    help="Where to build, with a way out; else bake.subnet of the file, a default subnet, or a"
    " temporary VPC.",
)
EXPORT_OPTION = typer.Option(
    None,
    "--export",
    metavar="DIR",
    help="Bake nothing; write Ansible's playbook, roles and bundle for machines of your own.",
)


def register(app: typer.Typer) -> None:
    app.command(
        help="Bake the images that the machines boot from; at once if the region has them already."
    )(bake)


def remove_leftovers_of_bakes(context: Context, *, is_alone: bool = False) -> None:
    """Remove builders, networks, images and snapshots of killed bakes. Blocks.

    Leftovers are an hour old, because somebody else of the account may bake now. A local cloud
    belongs to one folder: a caller that holds its lock of bakes `is_alone`, and removes all.
    A verb does not fail because of them: the next one tries again.
    """
    import time

    from mesaform.aws.client import client
    from mesaform_images.leftovers import STALE_AFTER_S, remove_leftovers

    is_own = is_alone and context.spec.target == "local"
    with suppress(CloudError):
        remove_leftovers(
            client("ec2", context.spec.region), time.time(), 0.0 if is_own else STALE_AFTER_S
        )


def bake_each(
    context: Context,
    report: Report,
    architectures: Sequence[Architecture],
    *,
    force: bool = False,
    subnet_id: str = "",
) -> list[Baked]:
    """Bake the images of architectures one after the other. Blocks."""
    from mesaform_images.bake import BakeOptions
    from mesaform_images.bake import bake as bake_image
    from mesaform_images.build_network import WantedNetwork

    spec = context.spec
    network = WantedNetwork(subnet_id or spec.bake.subnet or "")
    return [
        bake_image(
            spec.region,
            report,
            BakeOptions(architecture, force, network, context.state_dir / "log"),
        )
        for architecture in architectures
    ]


def remove_old_images(context: Context) -> None:
    """Remove images that `bake.keep_images` does not keep and nobody uses. Blocks.

    A verb that succeeded does not fail because of them: the next one tries again.
    """
    import time

    from mesaform.aws.client import client
    from mesaform_images.prune import prune_images

    with suppress(CloudError):
        prune_images(client("ec2", context.spec.region), context.spec.bake.keep_images, time.time())


def bake(
    file: FileOption = DEFAULT_FILE,
    force: bool = FORCE_OPTION,
    subnet: str = SUBNET_OPTION,
    export: Path | None = EXPORT_OPTION,
    as_json: JsonOption = False,
) -> None:
    """Bake, with progress on standard error and the images on standard output."""
    if export is not None:
        _export(export)
        return
    from mesaform.cli import interrupt
    from mesaform.cli.image_contents import require_contents
    from mesaform.cli.progress import reporter
    from mesaform.provision.lock import BAKE_LOCK, hold

    context = open_context(file)
    require_contents(context)
    context.enter_cloud()
    with (
        interrupt.raised(),  # the builder costs money, whatever ends this process
        hold(context.state_dir / BAKE_LOCK, "mesaform bake"),
        reporter(as_json=as_json) as report,
    ):
        remove_leftovers_of_bakes(context, is_alone=True)
        baked = bake_each(
            context, report, context.spec.architectures, force=force, subnet_id=subnet
        )
        remove_old_images(context)
    if as_json:
        typer.echo(json.dumps([_record(image, context.spec.region) for image in baked]))
        return
    for image in baked:
        how = "there already" if image.reused else f"baked in {image.seconds:.1f} s"
        typer.echo(f"{image.image_id}  {image.architecture}  recipe {image.recipe}  {how}")


def _export(folder: Path) -> None:
    from mesaform_images import bundle
    from mesaform_images.export import VARIABLES, write

    write(bundle.read_sources(bundle.installed_layout()), folder)
    typer.echo(f"ansible-playbook --inventory hosts --extra-vars @{VARIABLES} site.yml  # {folder}")


def _record(image: Baked, region: str) -> dict[str, object]:
    return {**asdict(image), "region": region, "seconds": round(image.seconds, 1)}
