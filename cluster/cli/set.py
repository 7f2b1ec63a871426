"""`mesaform set --pool default min 5 --for 2h`: another bound of a pool for a while."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from mesaform.aws.overrides import Override
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
from mesaform.config.schema import ClusterSpec, Pool

MOST = 1000


def register(app: typer.Typer) -> None:
    app.command(
        "set",
        help="Set another min or max of a pool for a time:"
        " mesaform set --pool default min 5 --for 2h.",
    )(with_options(SetOptions, set_))


@dataclass(frozen=True, slots=True, kw_only=True)
class SetOptions:
    """Command line of `mesaform set`."""

    bound: Annotated[Literal["min", "max"], typer.Argument(help="Which bound.")]
    count: Annotated[
        int,
        typer.Argument(min=0, max=MOST, help="How many machines, Terraform's included."),
    ]
    file: FileOption = DEFAULT_FILE
    pool: Annotated[str, typer.Option("--pool", "-p", help="The pool.")] = "default"
    for_: ForOption = DEFAULT_DURATION
    reason: ReasonOption = ""
    as_json: JsonOption = False


def set_(options: SetOptions) -> None:
    """Set a bound; the same bound set before is replaced."""
    context = open_context(options.file)
    override = new_override(
        "bound",
        options.for_,
        options.reason,
        pool=options.pool,
        bound=options.bound,
        count=options.count,
    )
    client = open_client(context)
    check(context.spec, override, client.control.overrides())

    def is_same_bound(other: Override) -> bool:
        return (other.kind, other.pool, other.bound) == ("bound", options.pool, options.bound)

    print_override(client.give(override, is_same_bound), options.as_json)


def check(spec: ClusterSpec, override: Override, overrides: tuple[Override, ...]) -> None:
    """Check a new bound against the cluster file and the overrides in force.

    Raises:
        BadInput: no such pool, below what Terraform keeps, or min above max.

    """
    from mesaform.autoscaler.planner.overrides import with_bounds

    pool = _pool(override.pool, with_bounds(spec, overrides, override.at).agents)
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


def _pool(name: str, pools: Sequence[Pool]) -> Pool:
    """Return the pool of that name.

    Raises:
        BadInput: there is none; the error proposes the closest name.

    """
    import difflib

    by_name = {pool.name: pool for pool in pools}
    if name in by_name:
        return by_name[name]
    similar = difflib.get_close_matches(name, by_name, 1)
    raise BadInput(
        f"there is no pool {name}",
        fix=f"did you mean {similar[0]}?" if similar else f"pools: {', '.join(by_name)}",
    )
