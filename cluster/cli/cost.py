"""`mesaform cost`: what the last hours cost, from the ledger: a plot, totals, who used it, and what was idle."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Literal

import typer

from cluster.autoscaler.bill import KINDS, Bill, add_up, bars
from cluster.cli.context import FILE_OPTION, JSON_OPTION, open_context
from cluster.cli.orders import seconds

PLOT_LINES = 8
STARTED_BEFORE_S = 31 * 86400.0
"""Machines still running may have started long before the stretch that is asked for: their rows are looked for this far back."""


def register(app: typer.Typer) -> None:
    app.command("cost", help="What the last hours cost, and who used it: plot and totals from the ledger.")(cost)


def cost(
    file: str = FILE_OPTION,
    since: str = typer.Option("24h", "--since", "-s", help="How far back: 30m, 24h, 7d."),
    by: Literal["pool", "app", "role"] = typer.Option("pool", "--by", help="What the dollars are told apart by."),
    json_: bool = JSON_OPTION,
) -> None:
    """Read the ledger, add up, print."""
    from cluster.cloud import aws
    from cluster.cloud.ledger import S3Ledger
    from cluster.errors import NotFound

    context = open_context(file)
    length_s = seconds(since)
    context.enter_cloud()
    spec, now = context.spec, time.time()
    ledger = S3Ledger(aws.account_bucket(spec.region), spec.name, spec.region)
    try:
        rows = ledger.read(now - length_s - STARTED_BEFORE_S, kinds=[kind for kind in KINDS if kind != "usage"])
        rows += ledger.read(now - length_s, kinds=["usage"])
    except NotFound:
        rows = []
    bill = add_up(rows, now - length_s, now, by)
    if json_:
        import msgspec

        typer.echo(msgspec.json.format(msgspec.json.encode(bill.as_json()), indent=2).decode())
        return
    if not bill.machines:
        typer.echo(f"The ledger of {spec.name} knows of no machine in the last {since}.")
        return
    _print(bill, spec.name, since)


def _print(bill: Bill, cluster: str, since: str) -> None:
    from cluster.cli.tables import console, sheet

    out = console()
    out.print(f"[bold]{cluster}[/bold], the last {since}: [bold]${bill.usd:.4f}[/bold] for {bill.machines} machines\n")
    for line in plot(bill):
        out.print(line, markup=False, no_wrap=True)
    table = sheet(bill.by, "machines", "$", "%", "idle $", right=["machines", "$", "%", "idle $"], wraps=[bill.by])
    for share in bill.shares:
        idle = "" if share.idle_usd is None else f"{share.idle_usd:.4f}"
        table.add_row(share.name, str(share.machines or ""), f"{share.usd:.4f}", f"{share.usd / bill.usd:.0%}", idle)
    out.print(table)
    out.print(f"planned ${bill.planned_usd:.4f}, paid ${bill.usd:.4f} (list prices, without disks and traffic)")
    unused = "" if bill.unused_usd is None else f"; not used by any task, on all agents: ${bill.unused_usd:.4f}"
    out.print(f"idle, on machines that have gone: ${bill.idle_usd:.4f}{unused}")


def plot(bill: Bill) -> list[str]:
    """USD an hour over time, in block characters, with its scale."""
    top = max(bill.series, default=0.0)
    lines = bars(bill.series, PLOT_LINES)
    scale = {0: f"${top:.3f}/h", len(lines) - 1: "$0"}
    drawn = [f"{scale.get(number, ''):>11} │{line}" for number, line in enumerate(lines)]
    first, last = (datetime.fromtimestamp(at).astimezone().strftime("%m-%d %H:%M") for at in (bill.since, bill.until))
    gap = max(1, len(bill.series) - len(first) - len(last))
    return [*drawn, f"{'':>11} └{'─' * len(bill.series)}", f"{'':>13}{first}{' ' * gap}{last}", ""]
