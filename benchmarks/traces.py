"""Benchmark of the planner and of baselines on traces: `python -m benchmarks.traces [TRACE.csv …]`.

Without arguments and `MESAFORM_TRACES` it uses the synthetic traces. Two limits are the project's
own: 20 % below the best baseline with no worse p95 waiting, and a fifth of Karpenter's disruptions
per task-hour. Ratios over 1 are shortfalls. The lower bound shows what was possible.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.table import Result, show
from mesaform.simulator.baselines import BASELINES
from mesaform.simulator.comparison import Outcome, least_usd, savings, simulate
from mesaform.simulator.market import Settings
from mesaform.simulator.policy import Policy
from mesaform.simulator.report_columns import span
from mesaform.simulator.synthetic import KINDS, make_trace
from mesaform.simulator.trace import Trace, load

COST_LIMIT = 0.8
DISRUPTION_LIMIT = 0.2
MINUTES_LIMIT = 2.0
SEEDS = (7, 8, 9)
"""Of synthetic traces; one seed may be lucky."""

POLICY = Policy.model_validate(
    {"name": "mesaform", "autoscaler": {"idle_after_s": 10.0, "consolidation": {"enabled": True}}}
)


def traces(files: Sequence[str]) -> list[Trace]:
    """The traces named, else those of the environment, else the synthetic ones."""
    named = list(files) or [
        name for name in os.environ.get("MESAFORM_TRACES", "").split(os.pathsep) if name
    ]
    return [load(Path(name)) for name in named] or [
        make_trace(kind, seed) for kind in KINDS for seed in SEEDS
    ]


def measure(trace: Trace, settings: Settings) -> list[Result]:
    """One trace: cost and disruptions against the baselines, and how long our run took."""
    outcomes = [simulate(trace, POLICY, settings, rule) for rule in ("", *BASELINES)]
    mine = outcomes[0]
    best, saved = savings(outcomes)
    bound = least_usd(trace, POLICY, settings).whole
    possible = 1 - bound / best.figures.usd if best.figures.usd else 0.0
    p95 = f"p95 {span(mine.figures.wait_p95_s)} against {span(best.figures.wait_p95_s)}"
    costs = f"${mine.figures.usd:,.2f} against ${best.figures.usd:,.2f} ({best.name})"
    how = f"{costs}, at least ${bound:,.2f}, {possible:.0%} less; {p95}"
    return [
        Result(f"{trace.name}: cost / best baseline", 1 - saved, COST_LIMIT, "", how),
        _disruptions(
            trace, mine, next(outcome for outcome in outcomes if outcome.name == "karpenter")
        ),
        Result(
            f"{trace.name}: run",
            mine.took_s / 60,
            MINUTES_LIMIT,
            "min",
            f"{len(trace.tasks):,} tasks, {mine.figures.looks:,} looks",
        ),
    ]


def _disruptions(trace: Trace, mine: Outcome, karpenter: Outcome) -> Result:
    ours, theirs = (
        outcome.figures.disruptions_per_1000_task_hours for outcome in (mine, karpenter)
    )
    ratio = ours / theirs if theirs else float(ours > 0)
    how = f"{ours:.3g} against {theirs:.3g} per 1000 task-hours"
    return Result(f"{trace.name}: disruptions / Karpenter's", ratio, DISRUPTION_LIMIT, "", how)


def main() -> None:
    show([result for trace in traces(sys.argv[1:]) for result in measure(trace, Settings())])


if __name__ == "__main__":
    main()
