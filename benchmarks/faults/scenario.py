"""A fault and its outcome, and the table of outcomes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from benchmarks.faults.site import Site

COLUMNS = "{:<42} {:>9} {:>7} {:>4} {:>5} {:>4}"
HEAD = COLUMNS.format("fault", "recovery", "target", "lost", "twice", "left")


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a fault.

    `recovery_s` is None where the fault was not injected; `note` says why, or what failed. `lost`
    counts tasks, `bought_twice` machines beyond the demand, `left_over` resources and processes.
    """

    recovery_s: float | None
    lost: int = 0
    bought_twice: int = 0
    left_over: int = 0
    note: str = ""

    @property
    def is_whole(self) -> bool:
        """Whether nothing was lost, bought twice or left over, and the cluster recovered."""
        return not (self.lost or self.bought_twice or self.left_over or self.note.startswith("!"))


@dataclass(frozen=True, slots=True)
class Scenario:
    """A fault that can be injected. `group` is the word that `--only` selects."""

    group: str
    name: str
    target_s: float
    run: Callable[[Site], Outcome]


@dataclass(frozen=True, slots=True)
class Row:
    """A scenario with its outcome."""

    scenario: Scenario
    outcome: Outcome

    def text(self) -> str:
        """The row of the table, 80 columns at most."""
        outcome = self.outcome
        recovery = "not run" if outcome.recovery_s is None else f"{outcome.recovery_s:.1f} s"
        counts = (outcome.lost, outcome.bought_twice, outcome.left_over)
        target = f"{self.scenario.target_s:g} s"
        line = COLUMNS.format(self.scenario.name, recovery, target, *counts)
        return f"{line}\n    {outcome.note}" if outcome.note else line


def as_text(rows: Sequence[Row]) -> str:
    """The table for people."""
    return "\n".join([HEAD, "-" * len(HEAD), *(row.text() for row in rows)])


def as_json(rows: Sequence[Row], seed: int) -> str:
    """The table for programs."""
    listed = [
        {
            "fault": row.scenario.name,
            "group": row.scenario.group,
            "target_s": row.scenario.target_s,
            **asdict(row.outcome),
        }
        for row in rows
    ]
    return json.dumps({"seed": seed, "faults": listed}, indent=2)
