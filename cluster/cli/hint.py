"""`mesaform hint`: room for work that is to come, kept until the hint runs out."""

from __future__ import annotations

import typer

from mesaform.cli.context import FILE_OPTION, JSON_OPTION, open_context
from mesaform.cli.override_client import (
    FOR_OPTION,
    REASON_OPTION,
    new_override,
    open_client,
    print_override,
)
from mesaform.common.errors import BadInput


def register(app: typer.Typer) -> None:
    app.command(
        "hint",
        help="Keep room for work to come: mesaform hint --cpus 2 --mem 4096 --count 10 --for 30m.",
    )(hint)


def hint(
    file: str = FILE_OPTION,
    cpus: float = typer.Option(..., "--cpus", min=0.01, help="Cpus of each piece."),
    mem: float = typer.Option(..., "--mem", min=1, help="Memory of each piece in MiB."),
    count: int = typer.Option(1, "--count", "-n", min=1, max=10_000, help="How many pieces."),
    pool: str = typer.Option("", "--pool", "-p", help="In which pool; any by default."),
    for_: str = FOR_OPTION,
    reason: str = REASON_OPTION,
    json_: bool = JSON_OPTION,
) -> None:
    """Give the hint; hints add up."""
    context = open_context(file)
    pools = [one.name for one in context.spec.agents]
    if pool and pool not in pools:
        raise BadInput(f"there is no pool {pool}", fix=f"pools: {', '.join(pools)}")
    override = new_override("hint", for_, reason, cpus=cpus, mem_mib=mem, count=count, pool=pool)
    print_override(open_client(context).give(override), json_)
