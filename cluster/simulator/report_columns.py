"""How a comparison is said in words and columns, on a terminal and on the page alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mesaform.simulator.bound import WAITS_AT_MOST_S, Bound
from mesaform.simulator.comparison import Outcome, savings
from mesaform.simulator.market import Settings
from mesaform.simulator.trace import Trace


def span(seconds: float) -> str:
    """A length of time in one unit."""
    for size, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if abs(seconds) >= size * 1.5 or seconds == size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


Column = tuple[str, str, Callable[[Outcome], float], Callable[[float], str], int]
"""Name, explanation, value, text of a value, and 1 or -1 as larger or smaller is better."""

COLUMNS: Sequence[Column] = (
    (
        "dollars",
        "machines by the second, a minute at least",
        lambda o: o.figures.usd,
        lambda v: f"${v:,.2f}",
        -1,
    ),
    (
        "wait p50",
        "until placed, and again after each disruption",
        lambda o: o.figures.wait_p50_s,
        span,
        -1,
    ),
    ("wait p95", "", lambda o: o.figures.wait_p95_s, span, -1),
    ("wait p99", "", lambda o: o.figures.wait_p99_s, span, -1),
    (
        "cpu used",
        "part of the cpu time paid for",
        lambda o: o.figures.cpu_utilisation,
        lambda v: f"{v:.0%}",
        1,
    ),
    ("memory used", "", lambda o: o.figures.mem_utilisation, lambda v: f"{v:.0%}", 1),
    ("machine hours", "", lambda o: o.figures.machine_hours, lambda v: f"{v:,.0f}", -1),
    ("bought", "machines", lambda o: o.figures.machines_bought, lambda v: f"{v:,.0f}", -1),
    ("most at once", "machines", lambda o: o.figures.machines_most, lambda v: f"{v:,.0f}", -1),
    (
        "disruptions",
        "running tasks stopped by the policy",
        lambda o: o.figures.disruptions,
        lambda v: f"{v:,.0f}",
        -1,
    ),
    (
        "per 1000 task-hours",
        "",
        lambda o: o.figures.disruptions_per_1000_task_hours,
        lambda v: f"{v:,.3g}" if v < 1000 else f"{v:,.0f}",
        -1,
    ),
    (
        "interrupted",
        "tasks on machines that the cloud took back",
        lambda o: o.figures.interruptions,
        lambda v: f"{v:,.0f}",
        -1,
    ),
    (
        "work lost",
        "task-hours run again",
        lambda o: o.figures.lost_task_hours,
        lambda v: f"{v:,.1f} h",
        -1,
    ),
    ("never placed", "tasks", lambda o: o.figures.never_placed, lambda v: f"{v:,.0f}", -1),
    (
        "unschedulable",
        "tasks that no type holds",
        lambda o: float(o.unschedulable),
        lambda v: f"{v:,.0f}",
        -1,
    ),
)
"""Columns of the report: name, explanation, value, format, and 1 if more is better, else -1."""


def headline(outcomes: Sequence[Outcome], bound: Bound) -> str:
    """The answer in a few sentences, shortfalls included."""
    mine = outcomes[0]
    parts = [f"{mine.name} costs ${mine.figures.usd:,.2f}; {least(bound)}"]
    if len(outcomes) > 1:
        best, saved = savings(outcomes)
        word = f"{saved:.1%} less" if saved >= 0 else f"{-saved:.1%} more"
        p95 = f"{span(mine.figures.wait_p95_s)} against {span(best.figures.wait_p95_s)}"
        parts.append(
            f"That is {word} than {best.name}, the cheapest of the others that wait about as long"
            f" or less (p95 {p95})."
        )
        if (room := 1 - bound.whole / best.figures.usd if best.figures.usd else 0.0) > 0:
            parts.append(f"At most {room:.1%} less than {best.name} was possible.")
        churn = max(outcomes[1:], key=lambda other: other.figures.disruptions)
        if churn.figures.disruptions:
            rates = (policy.figures.disruptions_per_1000_task_hours for policy in (mine, churn))
            per = " against ".join(f"{rate:.3g}" for rate in rates)
            parts.append(f"Running tasks stopped per 1000 task-hours: {per} ({churn.name}).")
    return " ".join(parts)


def least(bound: Bound) -> str:
    """The lower bound in a sentence, with what it takes for granted."""
    divisible = (
        f" (${bound.divisible:,.2f} were machines divisible)"
        if bound.divisible < bound.whole
        else ""
    )
    longest = span(WAITS_AT_MOST_S)
    least = f"${bound.whole:,.2f}{divisible}"
    return f"nothing that makes no task wait longer than {longest} can cost less than {least}."


def about(trace: Trace, settings: Settings) -> str:
    """The trace and the cloud in one line."""
    left = f", {trace.left_out:,} that need GPUs left out" if trace.left_out else ""
    faults = [f"boot {span(settings.boot_s)} (median)"]
    faults += (
        [f"{settings.reclaims_per_hour:g} reclaims an hour of each spot machine"]
        if settings.reclaims_per_hour
        else []
    )
    faults += (
        [f"{settings.short_share:.0%} of offerings without capacity at any time"]
        if settings.short_share
        else []
    )
    faults += [f"images take {span(settings.pull_s)}"] if settings.pull_s else []
    faults += [f"{settings.never_boots:.1%} of machines never boot"] if settings.never_boots else []
    tasks = f"{len(trace.tasks):,} tasks over {span(trace.span_s)}{left}"
    return f"{tasks}; {', '.join(faults)}; seed {settings.seed}"
