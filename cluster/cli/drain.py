"""`mesaform drain <agent|instance>`: empty an agent; the autoscaler removes its own machines."""

from __future__ import annotations

import typer

from mesaform.aws.overrides import Override
from mesaform.aws.ports import Machine
from mesaform.cli.context import open_context
from mesaform.cli.options import DEFAULT_FILE, FileOption, JsonOption, ReasonOption
from mesaform.cli.override_client import new_override, open_client, print_override
from mesaform.common.errors import BadInput, NotOwned


def register(app: typer.Typer) -> None:
    app.command(
        "drain",
        help="Empty an agent: no more work, its tasks move, it goes if the autoscaler bought it.",
    )(drain)


def drain(
    target: str = typer.Argument(
        help="An agent's or an instance's id, as `mesaform status` prints it."
    ),
    file: FileOption = DEFAULT_FILE,
    undo: bool = typer.Option(
        False, "--undo", help="Withdraw the override: an agent that still runs is reactivated."
    ),
    for_: str = typer.Option(
        "1d",
        "--for",
        help="How long the override lasts: an agent of Terraform's stays empty for that long.",
    ),
    reason: ReasonOption = "",
    json_: JsonOption = False,
) -> None:
    """Set the override, or withdraw it."""
    context = open_context(file)
    place = open_client(context)

    def same(other: Override) -> bool:
        return other.kind == "drain" and other.target == target

    if undo:
        gone = place.withdraw(same)
        typer.echo(
            f"{target} is no longer to be drained."
            if gone
            else f"No override to drain {target} is in force."
        )
        return
    if target.startswith("i-"):
        from mesaform.cli.wiring import Wiring

        check(target, Wiring(context).fleet.machines(context.spec.name))
    print_override(place.give(new_override("drain", for_, reason, target=target), same), json_)


def check(target: str, machines: list[Machine]) -> None:
    """Refuse what is not an agent's machine of this cluster.

    Raises:
        BadInput: no such machine.
        NotOwned: it is a master.

    """
    from mesaform.topology.names import Tag

    machine_of_target = next(
        (
            machine
            for machine in machines
            if machine.instance_id == target and machine.state != "terminated"
        ),
        None,
    )
    if machine_of_target is None:
        raise BadInput(f"this cluster has no machine {target}", fix="see `mesaform status`")
    if machine_of_target.tags.get(Tag.ROLE) != "agent":
        raise NotOwned(
            f"{target} is a {machine_of_target.tags.get(Tag.ROLE, 'stranger')}, not an agent",
            fix="only agents are drained",
        )
