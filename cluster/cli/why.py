"""`mesaform why`: the autoscaler's last decisions from the ledger, with reasons and dollars; on request those about one thing."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import typer

from mesaform.cli.context import FILE_OPTION, JSON_OPTION, Context, open_context
from mesaform.cli.override_client import seconds
from mesaform.common.errors import Exit

TOLD = ("decision", "order")
"""Kinds of the ledger's rows that make the story: what the autoscaler decided, and what people ordered."""

READ_PER_LINE = 12
"""Rows read for each line wanted: several decisions make one line."""

READ_FOR_SUBJECT = 5000
"""How many of the newest rows are searched for what concerns one app, task, agent or machine."""

STYLES = {
    "buy": "green",
    "reactivate": "green",
    "deactivate": "cyan",
    "pause": "magenta",
    "bound": "magenta",
    "hint": "magenta",
    "abandon": "yellow",
    "terminate": "cyan",
    "give_up": "yellow",
    "notice": "yellow",
    "gone": "yellow",
    "refuse": "yellow",
    "no_capacity": "yellow",
    "launch_failed": "red",
}


def register(app: typer.Typer) -> None:
    app.command(
        "why",
        help="What the autoscaler decided lately, and why; `why <app|task|agent|instance>` for one of them.",
    )(why)


def why(
    subject: str = typer.Argument(
        "", help="Only what concerns this app, task, agent or instance, by its id."
    ),
    file: str = FILE_OPTION,
    last: int = typer.Option(20, "--last", "-n", min=1, help="How many lines."),
    since: str = typer.Option(
        "", "--since", "-s", help="How far back: 30m, 24h, 7d. Without it, all."
    ),
    verbose: bool = typer.Option(
        False, "--verbose", "-v", help="Every decision by itself, with all ids."
    ),
    json_: bool = JSON_OPTION,
) -> None:
    """Print the last decisions, oldest first; those taken together are one line."""
    context = open_context(file)
    context.enter_cloud()
    rows = decisions(
        context, last, seconds(since) if since else 0.0, subject, each=verbose or json_
    )
    if json_:
        import msgspec

        typer.echo(msgspec.json.format(msgspec.json.encode({"decisions": rows}), indent=2).decode())
        return
    if not rows:
        typer.echo(
            f"Nothing in the ledger of {context.spec.name} concerns {subject}."
            if subject
            else f"The ledger of {context.spec.name} has no decisions yet: the autoscaler found nothing to buy, to remove or to refuse."
        )
        raise typer.Exit(Exit.OK)
    _print(rows, last, verbose=verbose)


def decisions(
    context: Context, last: int, since_s: float, subject: str = "", *, each: bool = True
) -> list[dict[str, Any]]:
    """The rows of the newest `last` decisions (of the newest `last` lines, unless `each`), oldest first. No ledger has none."""
    import time

    from mesaform.autoscaler.reporting.decision_log import subject_rows
    from mesaform.aws import client
    from mesaform.aws.ledger import S3Ledger
    from mesaform.common.errors import NotFound

    spec = context.spec
    ledger = S3Ledger(client.account_bucket(spec.region), spec.name, spec.region)
    after = time.time() - since_s if since_s else 0.0
    wanted = READ_FOR_SUBJECT if subject else last if each else last * READ_PER_LINE
    try:
        rows = ledger.read(after, wanted, TOLD)
    except NotFound:
        return []
    found = [dict(row) for row in subject_rows(rows, subject)] if subject else rows
    return found[-last:] if each else found


def _print(rows: list[dict[str, Any]], last: int, *, verbose: bool) -> None:
    from mesaform.autoscaler.reporting.decision_log import Line, tell
    from mesaform.cli.tables import console, sheet

    lines = (
        [
            Line(row["at"], row["at"], str(row.get("decision") or row.get("order")), [row])
            for row in rows
        ]
        if verbose
        else tell(rows)
    )
    table = sheet("time", "what", "why", "$/h", right=["$/h"], wraps=["what", "why"])
    for line in lines[-last:]:
        style = STYLES.get(line.kind, "")
        what = f"[{style}]{_escaped(line.what)}[/]" if style else _escaped(line.what)
        ids = (
            f"\n[dim]{', '.join((*line.machines, *_agents(line)))}[/]"
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


def _after(rows: list[dict[str, Any]]) -> float | None:
    """What the cluster cost an hour after the last pass that says so: each of its decisions tells the rate before the pass."""
    last = next((row for row in reversed(rows) if row.get("after_usd")), None)
    if last is None:
        return None
    if "before_usd" not in last:
        return float(last["after_usd"])
    return float(last["before_usd"]) + sum(
        float(row.get("usd_per_hour", 0.0)) for row in rows if row["at"] == last["at"]
    )


def _agents(line: Any) -> list[str]:
    return list(dict.fromkeys(name for row in line.rows for name in row.get("agents", ())))


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at).astimezone().strftime("%m-%d %H:%M:%S")


def _usd(change: float) -> str:
    return f"{change:+.4f}" if change else ""
