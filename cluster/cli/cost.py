"""`mesaform cost`: what the last hours cost, from the ledger: a plot, totals, idle, waiting."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from mesaform.autoscaler.accounting.cost_report import MACHINES, UNKNOWN, USAGE, Bill, add_up, bars
from mesaform.autoscaler.accounting.standing_cost import with_standing
from mesaform.autoscaler.accounting.usage_recorder import STATED_EVERY_S
from mesaform.autoscaler.model import old_vocabulary
from mesaform.aws.ports.ledger import Row
from mesaform.cli.context import open_context
from mesaform.cli.options import DEFAULT_FILE, FileOption, JsonOption
from mesaform.cli.override_client import seconds
from mesaform.common.errors import BadInput

if TYPE_CHECKING:
    from mesaform.aws.ports import Ledger

PLOT_LINES = 8
STARTED_BEFORE_S = 31 * 86400.0
"""How far back machines are searched in ledgers without statements of all machines (s)."""


def register(app: typer.Typer) -> None:
    app.command(
        "cost", help="What the last hours cost, and who used it: plot and totals from the ledger."
    )(cost)


def cost(
    file: FileOption = DEFAULT_FILE,
    since: str = typer.Option("24h", "--since", "-s", help="How far back: 30m, 24h, 7d."),
    by: Literal["pool", "app", "role", "type", "zone", "capacity"] = typer.Option(
        "pool", "--by", help="What the dollars are grouped by."
    ),
    html: str = typer.Option("", help="Write the bill with its plot to this file."),
    json_: JsonOption = False,
) -> None:
    """Read the ledger, add up, print."""
    from mesaform.aws.pricing.cluster_cost import standing_items
    from mesaform.cli.wiring import wire
    from mesaform.common.errors import NotFound

    context = open_context(file)
    length_s = seconds(since)
    wiring = wire(context)
    ledger = wiring.ledger
    spec, now = context.spec, time.time()
    try:
        rows = bill_rows(ledger, now - length_s)
    except NotFound:
        rows = []
    standing = standing_items(spec, wiring.prices.rates)
    usd_per_hour = sum(item.usd_per_hour for item in standing)
    bill = with_standing(add_up(rows, now - length_s, now, by), rows, usd_per_hour)
    if html:
        _write_html(bill, spec.name, html)
    if json_:
        import msgspec

        typer.echo(msgspec.json.format(msgspec.json.encode(bill.as_json()), indent=2).decode())
        return
    if not bill.machines:
        typer.echo(f"The ledger of {spec.name} knows of no machine in the last {since}.")
        return
    _print(bill, spec.name, since)
    if html:
        typer.echo(f"bill: {html}")


def bill_rows(ledger: Ledger, since: float) -> list[Row]:
    """The rows of a bill from `since` (epoch s): from the last statement of machines before."""
    rows = ledger.read(since - STATED_EVERY_S * 1.2, kinds=MACHINES)
    if not any(row["kind"] == "machines" and row["at"] <= since for row in rows):
        rows = ledger.read(since - STARTED_BEFORE_S, kinds=MACHINES)
    rows += ledger.read(since, kinds=old_vocabulary.with_old_kinds(USAGE))
    return old_vocabulary.translate_rows(rows)


def _print(bill: Bill, cluster: str, since: str) -> None:
    from mesaform.cli.tables import console, sheet

    out = console()
    hours = f"{bill.machines} machines, {bill.machine_hours:,.1f} machine-hours"
    out.print(
        f"[bold]{cluster}[/bold], the last {since}: [bold]${bill.usd:,.4f}[/bold] for {hours}\n"
    )
    for line in plot(bill):
        out.print(line, markup=False, no_wrap=True)
    table = sheet(
        bill.by,
        "machines",
        "$",
        "%",
        "idle $",
        right=["machines", "$", "%", "idle $"],
        wraps=[bill.by],
    )
    for share in bill.shares:
        idle = "" if share.idle_usd is None else f"{share.idle_usd:.4f}"
        part = f"{share.usd / bill.usd:.0%}" if bill.usd else ""
        table.add_row(share.name, str(share.machines or ""), f"{share.usd:.4f}", part, idle)
    out.print(table)
    for line in remarks(bill):
        out.print(line, markup=False)


def remarks(bill: Bill) -> list[str]:
    """Facts of the bill that the table does not have."""
    lines = [
        (
            f"estimated when bought ${bill.planned_usd:.4f}, actual ${bill.usd:.4f} "
            "(list prices; requests and traffic are an estimate)"
        )
    ]
    unused = (
        ""
        if bill.unused_usd is None
        else f"; held by no task, on all agents: ${bill.unused_usd:.4f}"
    )
    lines.append(f"idle, on machines without a task: ${bill.idle_usd:.4f}{unused}")
    if bill.waited_task_s:
        waited = (
            f"{bill.waited_task_s / 3600:.2f} task-hours"
            if bill.waited_task_s >= 3600
            else f"{bill.waited_task_s:.0f} task-seconds"
        )
        lines.append(
            f"work waited {waited}: "
            f"the machine time that it did not use meanwhile is worth ${bill.waited_usd:.4f}"
        )
    if bill.interruptions:
        lines.append(f"the cloud took or announced to take machines {bill.interruptions} times")
    if bill.lost_rows:
        lines.append(
            f"{bill.lost_rows} rows were lost while S3 was unreachable: "
            f"their costs are under {UNKNOWN}"
        )
    return lines


def plot(bill: Bill) -> list[str]:
    """USD an hour over time in block characters, with a scale; below, the idle part."""
    top = max(bill.series, default=0.0)
    lines = bars(bill.series, PLOT_LINES)
    scale = {0: f"${top:.3f}/h", len(lines) - 1: "$0"}
    drawn = [f"{scale.get(number, ''):>11} │{line}" for number, line in enumerate(lines)]
    first, last = (
        datetime.fromtimestamp(at).astimezone().strftime("%m-%d %H:%M")
        for at in (bill.since, bill.until)
    )
    gap = max(1, len(bill.series) - len(first) - len(last))
    idle = bars(bill.idle_series, 1, top) if any(bill.idle_series) else []
    drawn += [f"{'':>11} └{'─' * len(bill.series)}", f"{'':>13}{first}{' ' * gap}{last}"]
    return [*drawn, *(f"{'idle, $/h':>11}  {line}" for line in idle), ""]


def _write_html(bill: Bill, cluster: str, path: str) -> None:
    """Write the bill as one HTML page.

    Raises:
        BadInput: the file cannot be written.

    """
    from html import escape

    title = escape(cluster)
    texts = "".join(f"<p>{escape(line)}</p>" for line in remarks(bill))
    body = (
        f"<h1>{title}: ${bill.usd:,.4f}</h1>{_chart(bill)}<table><tr><th>{bill.by}</th>"
        f"<th>machines</th><th>$</th><th>idle $</th></tr>{_table_rows(bill)}</table>{texts}"
    )
    page = _PAGE.replace("{title}", title).replace("{body}", body)
    try:
        Path(path).write_text(page, encoding="utf-8")
    except OSError as error:
        raise BadInput(error.strerror or str(error), where=path) from None


def _chart(bill: Bill) -> str:
    """The legend and the plot of the bill, as SVG."""
    from mesaform.simulator import svg

    step = (bill.until - bill.since) / max(1, len(bill.series))
    points = [(step * index, usd) for index, usd in enumerate(bill.series)]
    idle = [(step * index, usd) for index, usd in enumerate(bill.idle_series)]
    series = [
        svg.Series("all machines", svg.COLOURS[0], points),
        svg.Series("without a task", svg.COLOURS[1], idle),
    ]
    start = datetime.fromtimestamp(bill.since).astimezone()
    form = "%H:%M" if bill.until - bill.since <= 2 * 86400 else "%m-%d"
    x = svg.times(
        bill.until - bill.since,
        lambda at: datetime.fromtimestamp(bill.since + at).astimezone().strftime(form),
        f"since {start:%Y-%m-%d %H:%M %Z}",
    )
    y = svg.linear(max(bill.series, default=1.0), lambda usd: f"${usd:.3g}", "USD an hour")
    chart = svg.lines(series, x, y, steps=True)
    return svg.legend([(line.name, line.colour) for line in series]) + chart


def _table_rows(bill: Bill) -> str:
    """The lines of the bill as table rows."""
    from html import escape

    return "".join(
        f"<tr><th scope=row>{escape(share.name)}</th><td>{share.machines or ''}</td>"
        f"<td>{share.usd:.4f}</td><td>{_usd_cell(share.idle_usd)}</td></tr>"
        for share in bill.shares
    )


def _usd_cell(usd: float | None) -> str:
    return "" if usd is None else f"{usd:.4f}"


_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8">
<title>{title}: cost</title><style>
:root { color-scheme: light dark; --ink: light-dark(#1b2330, #e4e9f0);
  --line: light-dark(#dde2e9, #2d3642); }
body { font: 14px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto;
  padding: 0 1rem; color: var(--ink);
  background: light-dark(#fff, #12161b); }
svg { width: 100%; } .axis line { stroke: var(--line); }
.axis text { fill: var(--ink); font-size: 11px; }
.line { fill: none; stroke-width: 1.6; } table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .25rem .9rem .25rem 0; text-align: right; border-bottom: 1px solid var(--line); }
th:first-child { text-align: left; }
.legend span { margin-right: 1rem; }
.legend i { display: inline-block; width: .8rem; height: .3rem; margin-right: .4rem; }
</style></head><body>{body}</body></html>"""
