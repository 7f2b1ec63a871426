"""How a teardown's plan and receipt look to a person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mesaform.aws.resources.registry import count_by_kind
from mesaform.cli.tables import dollars, sheet
from mesaform.common.durations import format_duration
from mesaform.teardown.plan import Plan
from mesaform.teardown.receipt import Receipt

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

SHOWN = 12  # lines of machines kept or left that are named one by one


def plan_parts(plan: Plan, *, empty: bool) -> list[RenderableType]:
    """The steps with what each one stops paying."""
    if empty:
        return [
            (
                f"Nothing of [bold]{plan.cluster}[/bold] is left;"
                " making sure, and writing the receipt."
            ),
            *_kept(plan),
        ]
    table = sheet("", "step", "$/h", "why", right=["$/h"], wraps=["why"])
    for number, step in enumerate(plan.steps, 1):
        table.add_row(
            str(number),
            step.what,
            dollars(step.usd_per_hour) if step.removes else "",
            f"[dim]{step.why}[/dim]",
        )
    parts: list[RenderableType] = [
        (
            f"The plan to take [bold]{plan.cluster}[/bold] down,"
            f" {dollars(plan.usd_per_hour)} per hour:"
        ),
        table,
    ]
    if plan.unpriced:
        parts.append(f"No price is known for {', '.join(plan.unpriced)}.")
    return parts + _kept(plan)


def _kept(plan: Plan) -> list[RenderableType]:
    if not plan.kept:
        return []
    kept = ", ".join(f"{count} {kind}" for kind, count in count_by_kind(plan.kept).items())
    return [f"Kept: {kept} ({dollars(plan.kept_usd_per_hour)} per hour)."]


def receipt_parts(receipt: Receipt, troubles: Sequence[str]) -> list[RenderableType]:
    """The receipt, top to bottom."""
    parts: list[RenderableType] = []
    if receipt.lines:
        parts.append(_ran(receipt))
    swept = ", ".join(f"{count} {kind}" for kind, count in receipt.swept.items())
    if swept:
        parts.append(f"Swept by tag: {swept}.")
    parts += [f"[yellow]{trouble}[/yellow]" for trouble in troubles]
    parts += _proof(receipt)
    parts.append(
        f"Stopped paying [bold]{dollars(receipt.stopped_usd_per_hour)} per hour[/bold]"
        f" ({_monthly(receipt.stopped_usd_per_hour)})."
    )
    parts += _still(receipt)
    if receipt.target == "local":
        parts.append("[dim]List prices of AWS; the local cloud costs nothing.[/dim]")
    return parts


def _ran(receipt: Receipt) -> Table:
    table = sheet(
        "what ran",
        "type",
        "by",
        "machines",
        "hours",
        "$",
        "$ idle",
        right=["machines", "hours", "$", "$ idle"],
    )
    table.title = f"Receipt: {receipt.cluster}, {format_duration(receipt.at - receipt.since)}"
    for line in receipt.lines:
        what = f"{line.role or 'other'}{f' ({line.pool})' if line.pool else ''}"
        kind = f"{line.instance_type}{' spot' if line.capacity == 'spot' else ''}"
        idle = (
            "-"
            if line.role == "master"
            else "unknown"
            if line.idle_usd is None
            else dollars(line.idle_usd)
        )
        table.add_row(
            what,
            kind,
            line.managed_by,
            str(line.machines),
            f"{line.hours:.2f}",
            dollars(line.usd),
            idle,
        )
    table.add_section()
    idle = "unknown" if receipt.idle_usd is None else dollars(receipt.idle_usd)
    table.add_row(
        "[bold]total[/bold]",
        "",
        "",
        str(len(receipt.machines)),
        f"{receipt.hours:.2f}",
        f"[bold]{dollars(receipt.usd)}[/bold]",
        idle,
    )
    return table


def _proof(receipt: Receipt) -> list[RenderableType]:
    if receipt.left:
        shown = [f"  [red]{text}[/red]" for text in receipt.left[:SHOWN]]
        return [
            f"[red]{len(receipt.left)} resources would not go[/red]; run the same command again:",
            *shown,
        ]
    present = {kind: count for kind, count in receipt.listed.items() if count}
    if present:
        return [
            "The cloud lists, as planned: "
            + ", ".join(f"{count} {kind}" for kind, count in present.items())
            + "."
        ]
    kinds = ", no ".join(receipt.listed)
    return [f"[green]Nothing is left[/green]: of {receipt.cluster} the cloud lists no {kinds}."]


def _still(receipt: Receipt) -> list[RenderableType]:
    parts: list[RenderableType] = []
    for kept in receipt.kept[:SHOWN]:
        name = f" ({kept['name']})" if kept["name"] != kept["id"] else ""
        parts.append(f"Kept: {kept['kind']} {kept['id']}{name}, {_monthly(kept['usd_per_hour'])}")
    if len(receipt.kept) > SHOWN:
        parts.append(f"Kept: {len(receipt.kept) - SHOWN} more, all in the receipt's file")
    if receipt.unaccounted:
        parts.append(
            f"Not in the sums: {', '.join(receipt.unaccounted[:SHOWN])},"
            " which ended earlier at a time that is not known"
        )
    if receipt.unpriced:
        parts.append(f"Not in the sums: the price of {', '.join(receipt.unpriced)} is not known")
    return parts


def _monthly(usd_per_hour: float | None) -> str:
    return "price unknown" if usd_per_hour is None else f"{dollars(usd_per_hour * 730, 2)} a month"
