"""One measurement beside its limit, and how they are printed."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Result:
    """`measured` and `limit` are in `unit`; smaller is better. `how` says what was run."""

    case: str
    measured: float
    limit: float
    unit: str
    how: str

    @property
    def holds(self) -> bool:
        return self.measured <= self.limit


def show(results: list[Result]) -> None:
    """Print the table."""
    table = Table(title="Measured here, beside the limits")
    for column in ("case", "measured", "limit", "ratio", "how"):
        table.add_column(
            column, justify="right" if column in {"measured", "limit", "ratio"} else "left"
        )
    for result in results:
        colour = "green" if result.holds else "red"
        table.add_row(
            result.case,
            f"[{colour}]{result.measured:.2f} {result.unit}[/]",
            f"{result.limit:g} {result.unit}",
            f"{result.measured / result.limit:.2f}",
            result.how,
        )
    Console().print(table)
