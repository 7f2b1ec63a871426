"""`mesaform sbom`: the bill of materials of the images that the cluster's machines boot from."""

from __future__ import annotations

import sys

import typer

from mesaform.cli.context import open_context
from mesaform.cli.options import DEFAULT_FILE, FileOption
from mesaform.common.architecture import Architecture
from mesaform.common.errors import BadInput

ARCHITECTURE_OPTION = typer.Option(
    None, "--architecture", help="x86_64 or arm64, where the cluster has types of both."
)


def register(app: typer.Typer) -> None:
    app.command(
        help="Print the bill of materials of the machines' image: versions, licenses (CycloneDX)."
    )(sbom)


def sbom(
    file: FileOption = DEFAULT_FILE, architecture: Architecture | None = ARCHITECTURE_OPTION
) -> None:
    """Print the bill that the bake has stored."""
    from mesaform_images.bill import read_materials
    from mesaform_images.bundle import installed_layout, read_sources

    context = open_context(file)
    known = context.spec.architectures
    if architecture is None and len(known) > 1:
        raise BadInput(
            f"there is one image for each of {', '.join(known)}", fix="name one: --architecture"
        )
    context.enter_cloud()
    recipe = read_sources(installed_layout()).digest()
    bill = read_materials(context.spec.region, recipe, architecture or known[0])
    sys.stdout.write(bill.decode())
