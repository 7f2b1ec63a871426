"""`mesaform hint`: sets capacity aside for future work until the hint expires."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from mesaform.cli.context import open_context
from mesaform.cli.options import (
    DEFAULT_DURATION,
    DEFAULT_FILE,
    FileOption,
    ForOption,
    JsonOption,
    ReasonOption,
    with_options,
)
from mesaform.cli.override_client import (
    new_override,
    open_client,
    print_override,
)
from mesaform.common.errors import BadInput


def register(app: typer.Typer) -> None:
    app.command(
        "hint",
        help="Keep room for work to come: mesaform hint --cpus 2 --mem 4096 --count 10 --for 30m.",
    )(with_options(HintOptions, hint))


@dataclass(frozen=True, slots=True, kw_only=True)
class HintOptions:
    """Command line of `mesaform hint`."""

    file: FileOption = DEFAULT_FILE
    cpus: Annotated[float, typer.Option("--cpus", min=0.01, help="Cpus of each piece.")]
    mem: Annotated[float, typer.Option("--mem", min=1, help="Memory of each piece in MiB.")]
    count: Annotated[
        int, typer.Option("--count", "-n", min=1, max=10_000, help="How many pieces.")
    ] = 1
    pool: Annotated[str, typer.Option("--pool", "-p", help="In which pool; any by default.")] = ""
    for_: ForOption = DEFAULT_DURATION
    reason: ReasonOption = ""
    as_json: JsonOption = False


def hint(options: HintOptions) -> None:
    """Set the hint; hints add up.

    Raises:
        BadInput: the cluster has no such pool.

    """
    context = open_context(options.file)
    pools = [pool.name for pool in context.spec.agents]
    if options.pool and options.pool not in pools:
        raise BadInput(f"there is no pool {options.pool}", fix=f"pools: {', '.join(pools)}")
    override = new_override(
        "hint",
        options.for_,
        options.reason,
        cpus=options.cpus,
        mem_mib=options.mem,
        count=options.count,
        pool=options.pool,
    )
    print_override(open_client(context).give(override), options.as_json)
