"""`mesaform set --pool default min 5 --for 2h`: another bound of a pool for a while."""

from __future__ import annotations

from typing import Literal

import typer

from mesaform.aws.overrides import Override
from mesaform.cli.context import FILE_OPTION, JSON_OPTION, open_context
from mesaform.cli.override_client import (
    FOR_OPTION,
    REASON_OPTION,
    new_override,
    open_client,
    print_override,
)
from mesaform.common.errors import BadInput
from mesaform.config.schema import ClusterSpec

MOST = 1000


def register(app: typer.Typer) -> None:
    app.command(
        "set",
        help="Set another min or max of a pool for a time:"
        " mesaform set --pool default min 5 --for 2h.",
    )(set_)


def set_(
    bound: Literal["min", "max"] = typer.Argument(help="Which bound."),
    count: int = typer.Argument(min=0, max=MOST, help="How many machines, Terraform's included."),
    file: str = FILE_OPTION,
    pool: str = typer.Option("default", "--pool", "-p", help="The pool."),
    for_: str = FOR_OPTION,
    reason: str = REASON_OPTION,
    json_: bool = JSON_OPTION,
) -> None:
    """Set a bound; the same bound set before is replaced."""
    context = open_context(file)
    override = new_override("bound", for_, reason, pool=pool, bound=bound, count=count)
    place = open_client(context)
    check(context.spec, override, place.control.overrides())

    def same(other: Override) -> bool:
        return (other.kind, other.pool, other.bound) == ("bound", pool, bound)

    print_override(place.give(override, same), json_)


def check(spec: ClusterSpec, override: Override, overrides: tuple[Override, ...]) -> None:
    """Refuse what could not come true.

    Raises:
        BadInput: no such pool, below what Terraform keeps, or min above max.

    """
    import difflib

    from mesaform.autoscaler.planner.overrides import with_bounds

    pools = {pool.name: pool for pool in with_bounds(spec, overrides, override.at).agents}
    if override.pool not in pools:
        near = difflib.get_close_matches(override.pool, pools, 1)
        raise BadInput(
            f"there is no pool {override.pool}",
            fix=f"did you mean {near[0]}?" if near else f"pools: {', '.join(pools)}",
        )
    pool = pools[override.pool]
    if override.count < pool.count:
        raise BadInput(
            f"Terraform keeps {pool.count} machines in pool {pool.name}",
            fix=f"{override.bound} must be at least that",
        )
    if override.bound == "min" and override.count > pool.max:
        raise BadInput(f"min {override.count} would be above max, {pool.max}", fix="set max first")
    if override.bound == "max" and override.count < pool.floor:
        raise BadInput(
            f"max {override.count} would be below min, {pool.floor}", fix="set min first"
        )
