"""`mesaform why`: the autoscaler's last decisions from the ledger, with reasons and dollars."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import typer

from cluster.cli.context import FILE_OPTION, JSON_OPTION, Context, open_context
from cluster.errors import Exit

READ_PER_DECISION = 4
"""Decisions share the ledger with machines' rows: read this many rows for each decision wanted, then more if needed."""

STYLES = {
    "buy": "green",
    "reactivate": "green",
    "terminate": "cyan",
    "give_up": "yellow",
    "refuse": "yellow",
    "no_capacity": "yellow",
    "launch_failed": "red",
}


def register(app: typer.Typer) -> None:
    app.command("why", help="What the autoscaler decided lately, and why.")(why)


def why(
    file: str = FILE_OPTION,
    last: int = typer.Option(20, "--last", "-n", min=1, help="How many decisions."),
    since: float = typer.Option(0.0, "--since-s", min=0, help="Only those of the last so many seconds; 0 means all."),
    json_: bool = JSON_OPTION,
) -> None:
    """Print the last decisions, oldest first."""
    context = open_context(file)
    context.enter_cloud()
    rows = decisions(context, last, since)
    if json_:
        import msgspec

        typer.echo(msgspec.json.format(msgspec.json.encode({"decisions": rows}), indent=2).decode())
        return
    if not rows:
        typer.echo(f"The ledger of {context.spec.name} has no decisions yet: the autoscaler found nothing to buy, to remove or to refuse.")
        raise typer.Exit(Exit.OK)
    _print(rows)


def decisions(context: Context, last: int, since_s: float) -> list[dict[str, Any]]:
    """The newest `last` decisions, oldest first. A ledger that does not exist yet has none."""
    import time

    from cluster.cloud import aws
    from cluster.cloud.ledger import S3Ledger
    from cluster.errors import NotFound

    spec = context.spec
    ledger = S3Ledger(aws.account_bucket(spec.region), spec.name, spec.region)
    after = time.time() - since_s if since_s else 0.0
    wanted = last * READ_PER_DECISION
    try:
        while True:
            rows = ledger.read(after, wanted)
            found = [row for row in rows if row["kind"] == "decision"]
            if len(found) >= last or len(rows) < wanted:
                return found[-last:]
            wanted *= READ_PER_DECISION
    except NotFound:
        return []


def _print(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("time", "decision", "what", "why", "$/h"):
        table.add_column(name, justify="right" if name == "$/h" else "left", no_wrap=name in {"time", "decision", "$/h"}, overflow="fold")
    for row in rows:
        kind = str(row.get("decision", ""))
        style = STYLES.get(kind, "")
        table.add_row(_clock(row["at"]), f"[{style}]{kind}[/]" if style else kind, _what(row), "\n".join(row.get("reasons", [])), _usd(row))
    console = Console()
    console.print(table)
    after = next((row["after_usd"] for row in reversed(rows) if row.get("after_usd")), None)
    if after is not None:
        console.print(f"\nThe cluster's machines cost [bold]${after:.4f}[/] an hour after the last of these.", highlight=False)


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at).astimezone().strftime("%m-%d %H:%M:%S")


def _what(row: dict[str, Any]) -> str:
    machines = row.get("machines", [])
    shown = ", ".join(machines[:3]) + (f" and {len(machines) - 3} more" if len(machines) > 3 else "")
    what = str(row.get("what", ""))
    return f"{what}\n[dim]{shown}[/]" if shown and machines[0] not in what else what


def _usd(row: dict[str, Any]) -> str:
    change = float(row.get("usd_per_hour", 0.0))
    return f"{change:+.4f}" if change else ""
