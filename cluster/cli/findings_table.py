"""The table of `mesaform doctor`, which fits the terminal. Depends on rich."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mesaform.doctor.finding import Finding, Level

if TYPE_CHECKING:
    from rich.console import RenderableType

COLOURS = {Level.OK: "green", Level.WARNING: "yellow", Level.ERROR: "bold red"}


def print_findings(findings: Sequence[Finding]) -> None:
    """Print the table and a line that counts the findings."""
    from mesaform.cli.tables import console

    out = console()
    for part in show_findings(findings):
        out.print(part)


def show_findings(findings: Sequence[Finding]) -> list[RenderableType]:
    """The table, and the line below it. Long words are broken rather than cut."""
    from rich.table import Table
    from rich.text import Text

    table = Table("", "check", "what was seen, and what to do", box=None, pad_edge=False)
    table.columns[2].overflow = "fold"
    for finding in findings:
        detail = Text(finding.detail)
        if finding.remedy:
            detail.append(f"\n-> {finding.remedy}", style="italic")
        level = Text(finding.level.value, style=COLOURS[finding.level])
        table.add_row(level, Text(finding.check), detail)
    counts = [
        f"{sum(finding.level is level for finding in findings)} {name}"
        for level, name in ((Level.OK, "ok"), (Level.WARNING, "warnings"), (Level.ERROR, "errors"))
    ]
    return [table, Text(", ".join(counts))]
