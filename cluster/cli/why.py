"""`mesaform why`: the autoscaler's last decisions from the ledger, with reasons and dollars."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from mesaform.aws.ports.ledger import Row
from mesaform.cli.context import Context, open_context
from mesaform.cli.options import DEFAULT_FILE, FileOption, JsonOption, with_options
from mesaform.cli.override_client import seconds

if TYPE_CHECKING:
    from mesaform.autoscaler.reporting.decision_log import Selection

KINDS = ("decision", "override")
"""Kinds of ledger rows to show: the autoscaler's decisions and operators' overrides."""

READ_PER_LINE = 12
"""Rows read for each line: several decisions make one line."""

READ_FOR_SUBJECT = 5000
"""How many of the newest rows are searched for a subject, a kind or a reason."""

STYLES = {
    "buy": "green",
    "reactivate": "green",
    "deactivate": "cyan",
    "pause": "magenta",
    "bound": "magenta",
    "hint": "magenta",
    "drain_timed_out": "yellow",
    "terminate": "cyan",
    "give_up": "yellow",
    "notice": "yellow",
    "instance_terminated": "yellow",
    "unschedulable": "yellow",
    "anomaly": "yellow",
    "no_capacity": "yellow",
    "launch_failed": "red",
    "pool_stopped": "red",
    "purchases_stopped": "red",
}


def register(app: typer.Typer) -> None:
    app.command(
        "why",
        help="The autoscaler's last decisions with reasons; "
        "`why <app|framework|task|agent|instance|pool>` for one of them.",
    )(with_options(WhyOptions, why))


@dataclass(frozen=True, slots=True, kw_only=True)
class WhyOptions:
    """Command line of `mesaform why`."""

    subject: Annotated[
        str,
        typer.Argument(
            help="Only what concerns this app, framework, task, agent, instance or pool, by its id."
        ),
    ] = ""
    file: FileOption = DEFAULT_FILE
    last: Annotated[int, typer.Option("--last", "-n", min=1, help="How many lines.")] = 20
    since: Annotated[
        str, typer.Option("--since", "-s", help="How far back: 30m, 24h, 7d. Without it, all.")
    ] = ""
    kind: Annotated[
        str, typer.Option("--kind", help="Only decisions of this kind, such as buy.")
    ] = ""
    reason: Annotated[
        str, typer.Option("--reason", help="Only decisions with this reason code, such as idle.")
    ] = ""
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Every decision by itself, with all ids.")
    ] = False
    as_json: JsonOption = False


def why(options: WhyOptions) -> None:
    """Print the last decisions, oldest first; decisions taken together are one line."""
    from mesaform.autoscaler.reporting.decision_log import Selection

    context = open_context(options.file)
    context.enter_cloud()
    selection = Selection(options.subject, options.kind, options.reason)
    since_s = seconds(options.since) if options.since else 0.0
    is_each = options.verbose or options.as_json
    rows = decisions(context, options.last, since_s, selection, each=is_each)
    if options.as_json:
        _print_json(rows)
    elif rows:
        _print(rows, options.last, verbose=options.verbose)
    elif selection.is_empty:
        typer.echo(
            f"The ledger of {context.spec.name} has no decisions yet: "
            "there was nothing to buy, to remove or to refuse."
        )
    else:
        typer.echo(f"The ledger of {context.spec.name} has no decision that matches.")


def _print_json(rows: list[Row]) -> None:
    import msgspec

    from mesaform.autoscaler.reporting.decision_text import decision_view, render_row

    views = [
        decision_view(row) if row["kind"] == "decision" else {**row, "what": render_row(row)}
        for row in rows
    ]
    typer.echo(msgspec.json.format(msgspec.json.encode({"decisions": views}), indent=2).decode())


def decisions(
    context: Context, last: int, since_s: float, selection: Selection, *, each: bool = True
) -> list[Row]:
    """The rows of the newest `last` decisions that are selected, oldest first.

    Unless `each`, `last` counts lines, so that more rows are read. No ledger has no rows.
    """
    import time

    from mesaform.autoscaler.model import old_vocabulary
    from mesaform.autoscaler.reporting.decision_log import select
    from mesaform.cli.wiring import Wiring
    from mesaform.common.errors import NotFound

    ledger = Wiring(context).ledger
    after = time.time() - since_s if since_s else 0.0
    wanted = last if each else last * READ_PER_LINE
    if not selection.is_empty:
        wanted = READ_FOR_SUBJECT
    try:
        read = ledger.read(after, wanted, old_vocabulary.with_old_kinds(KINDS))
    except NotFound:
        return []
    rows = old_vocabulary.translate_rows(read)
    if not selection.is_empty:
        rows = [dict(row) for row in select(rows, selection)]
    return rows[-last:] if each else rows


def _print(rows: list[Row], last: int, *, verbose: bool) -> None:
    from mesaform.autoscaler.reporting.decision_log import lines_of, single_lines
    from mesaform.cli.tables import console, sheet

    lines = single_lines(rows) if verbose else lines_of(rows)
    table = sheet("time", "what", "why", "$/h", right=["$/h"], wraps=["what", "why"])
    for line in lines[-last:]:
        style = STYLES.get(line.kind, "")
        what = f"[{style}]{_escaped(line.what)}[/]" if style else _escaped(line.what)
        ids = (
            f"\n[dim]{', '.join((*line.machines, *line.agents))}[/]"
            if verbose and line.machines
            else ""
        )
        table.add_row(
            _clock(line.at), what + ids, _escaped("\n".join(line.reasons)), _usd(line.usd_per_hour)
        )
    out = console()
    out.print(table)
    after = _after(rows)
    if after is not None:
        out.print(
            f"The cluster's machines cost [bold]${after:.4f}[/] an hour after the last of these."
        )


def _after(rows: list[Row]) -> float | None:
    """The cluster's price (USD an hour) after the last pass in the rows; None if no row has it."""
    last = next((row for row in reversed(rows) if row.get("after_usd")), None)
    if last is None:
        return None
    if "before_usd" not in last:
        return float(last["after_usd"])
    return float(last["before_usd"]) + sum(
        float(row.get("usd_per_hour", 0.0)) for row in rows if row["at"] == last["at"]
    )


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at).astimezone().strftime("%m-%d %H:%M:%S")


def _usd(change: float) -> str:
    return f"{change:+.4f}" if change else ""
