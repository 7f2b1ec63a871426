"""`mesaform simulate`: a policy, and what rivals' rules would do, over a trace of work; nothing is bought."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from mesaform.cli.context import FILE_OPTION, JSON_OPTION
from mesaform.cli.native_stdout import redirect_native_stdout
from mesaform.common.errors import BadInput

if TYPE_CHECKING:
    from mesaform.cli.simulate_history import Paid, Past
    from mesaform.simulator.bound import Bound
    from mesaform.simulator.comparison import Outcome
    from mesaform.simulator.market import Settings
    from mesaform.simulator.policy import Policy
    from mesaform.simulator.trace import Trace

ALL = "all"
BOOT_S = 45.0
UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


def register(app: typer.Typer) -> None:
    app.command(
        "simulate",
        help="What a policy would cost on a trace of work, beside other policies and rivals' rules. Buys nothing.",
    )(simulate)


def simulate(
    trace: str = typer.Argument("", help="A CSV of tasks; see docs/simulator.md."),
    policy: str = typer.Option(
        "",
        "--policy",
        "-p",
        help="A policy file: agents, autoscaler and cost of cluster.yaml. Default: all defaults.",
    ),
    against: list[str] = typer.Option(
        (),
        "--against",
        "-a",
        help="Another policy file, or a baseline: clusterman, cluster-autoscaler, karpenter, karpenter-when-empty, all. Repeatable.",
    ),
    synthetic: str = typer.Option("", help="In place of a file: burst, diurnal or batch."),
    columns: str = typer.Option(
        "", "--map", help="Columns: cpus=cpu_milli:0.001,mem=memory_mib,start=created,end=deleted."
    ),
    from_: str = typer.Option(
        "",
        "--from",
        help="Leave out what arrives before, counted from the first arrival: 90m, 12h, 3d.",
    ),
    until: str = typer.Option("", help="Leave out what arrives from then on."),
    limit: int = typer.Option(0, min=0, help="At most so many tasks; 0 for all."),
    longest: str = typer.Option("", help="Leave out tasks that run longer: 5d."),
    seed: int = typer.Option(1, help="Of all chance, synthetic traces included."),
    boot: str = typer.Option(
        "",
        help="Median time from launch to a registered agent. Default: 45s, or the history's own.",
    ),
    reclaims: float = typer.Option(
        0.02, min=0, help="How often an hour the cloud takes a spot machine back."
    ),
    shortages: float = typer.Option(
        0.0, min=0, max=1, help="The part of offerings that have no capacity at any time."
    ),
    never_boots: float = typer.Option(
        0.0, min=0, max=1, help="The part of machines that never register."
    ),
    html: str = typer.Option("", help="Write the report with plots to this file."),
    history: str = typer.Option(
        "",
        help="In place of a file: the cluster's own last hours or days, from its ledger: 24h, 7d.",
    ),
    file: str = FILE_OPTION,
    resumable: bool = typer.Option(
        False, help="Every task that is stopped goes on where it was, whatever the trace says."
    ),
    json_: bool = JSON_OPTION,
) -> None:
    """Read, run each policy, print the table."""
    from mesaform.simulator import report
    from mesaform.simulator.comparison import least_usd
    from mesaform.simulator.market import Settings
    from mesaform.simulator.trace import all_resumable

    past = _history(file, history, own_policy=not policy) if history else None
    work = _work(
        trace,
        synthetic,
        columns,
        seed,
        (from_, until, longest, limit),
        None if past is None else past.trace,
    )
    if resumable:
        work = all_resumable(work)
    boot_s = (
        _seconds(boot, "--boot")
        if boot
        else BOOT_S
        if past is None or past.boot_s is None
        else past.boot_s
    )
    settings = Settings(
        seed, boot_s, never_boots=never_boots, reclaims_per_hour=reclaims, short_share=shortages
    )
    policies = _policies(policy, against, None if past is None else past.policy)
    with redirect_native_stdout():
        outcomes = _run(work, policies, settings, quiet=json_)
    with redirect_native_stdout():
        bound = least_usd(work, policies[0][0], settings)
    if html:
        try:
            Path(html).write_text(report.page(work, outcomes, settings, bound), encoding="utf-8")
        except OSError as error:
            raise BadInput(error.strerror or str(error), where=html) from None
    if json_:
        _print_json(work, outcomes, settings, bound, None if past is None else past.paid)
        return
    _print_table(work, outcomes, settings, bound, html)
    if past is not None and len(work.tasks) == len(past.trace.tasks):
        _print_check(past, outcomes[0])


def _work(
    trace: str,
    synthetic: str,
    columns: str,
    seed: int,
    part: tuple[str, str, str, int],
    past: Trace | None = None,
) -> Trace:
    from mesaform.simulator.synthetic import make_trace
    from mesaform.simulator.trace import load, parse_map, window

    if sum(map(bool, (trace, synthetic, past))) != 1:
        raise BadInput(
            "one trace is needed",
            fix="name a CSV file, or --synthetic burst, diurnal or batch, or --history 7d",
        )
    if past is not None:
        found = past
    else:
        found = (
            make_trace(synthetic, seed)
            if synthetic
            else load(Path(trace), parse_map(columns) if columns else None)
        )
    from_, until, longest, limit = part
    until_s, longest_s = (
        _seconds(text, name) if text else math.inf
        for text, name in ((until, "--until"), (longest, "--longest"))
    )
    found = window(found, _seconds(from_ or "0", "--from"), until_s, limit or None, longest_s)
    if not found.tasks:
        raise BadInput(
            "no task is left of the trace",
            where="--from, --until, --longest",
            fix="the window counts from the first arrival",
        )
    return found


def _seconds(text: str, where: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip())
    if match is None or match[2] not in UNITS:
        raise BadInput(
            f"{text!r} is no length of time", where=where, fix="like 45s, 90m, 12h or 3d"
        )
    return float(match[1]) * UNITS[match[2]]


def _policies(
    policy: str, against: Sequence[str], own: Policy | None = None
) -> list[tuple[Policy, str]]:
    """Each policy with the baseline's name where it is one; baselines buy what the first policy may buy."""
    from mesaform.simulator.baselines import BASELINES
    from mesaform.simulator.policy import Policy, load

    mine = load(Path(policy)) if policy else own or Policy(name="mesaform")
    found: list[tuple[Policy, str]] = [(mine, "")]
    names = [name for given in against for name in (BASELINES if given == ALL else (given,))]
    for name in dict.fromkeys(names):
        if name in BASELINES:
            found.append((mine, name))
        elif name.endswith((".yaml", ".yml")) or Path(name).exists():
            found.append((load(Path(name)), ""))
        else:
            raise BadInput(
                f"{name!r} is neither a policy file nor a baseline",
                where="--against",
                fix=f"baselines: {', '.join(BASELINES)}, {ALL}",
            )
    return [(_renamed(one, index, found), rule) for index, (one, rule) in enumerate(found)]


def _renamed(policy: Policy, index: int, found: Sequence[tuple[Policy, str]]) -> Policy:
    """Two files of one name are told apart by a number."""
    taken = [rule or other.name for other, rule in found[:index]]
    return (
        policy
        if found[index][1] or policy.name not in taken
        else policy.model_copy(update={"name": f"{policy.name} ({index + 1})"})
    )


def _run(
    work: Trace, policies: Sequence[tuple[Policy, str]], settings: Settings, *, quiet: bool
) -> list[Outcome]:
    from rich.console import Console

    from mesaform.simulator.comparison import simulate as run

    outcomes = []
    console = Console(stderr=True, quiet=quiet, highlight=False)
    for policy, rule in policies:
        with console.status(f"{rule or policy.name} on {len(work.tasks):,} tasks of {work.name}"):
            outcomes.append(run(work, policy, settings, rule))
    return outcomes


def _print_json(
    work: Trace,
    outcomes: Sequence[Outcome],
    settings: Settings,
    bound: Bound,
    paid: Paid | None = None,
) -> None:
    import msgspec

    answer: dict[str, Any] = {
        "trace": {
            "name": work.name,
            "tasks": len(work.tasks),
            "left_out": work.left_out,
            "span_s": work.span_s,
        },
        "settings": settings,
        "least_usd": bound.whole,
        "least_divisible_usd": bound.divisible,
        "policies": [
            {
                "name": one.name,
                **one.figures.as_dict(),
                "unschedulable": one.unschedulable,
                "took_s": one.took_s,
            }
            for one in outcomes
        ],
    }
    if paid is not None:
        answer["paid"] = paid
    typer.echo(msgspec.json.format(msgspec.json.encode(answer), indent=2).decode())


def _print_table(
    work: Trace, outcomes: Sequence[Outcome], settings: Settings, bound: Bound, html: str
) -> None:
    from rich.table import Table

    from mesaform.cli.tables import console
    from mesaform.simulator import report_columns

    out = console()
    out.print(f"[bold]{work.name}[/]: {report_columns.about(work, settings)}")
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("")
    for outcome in outcomes:
        table.add_column(outcome.name, justify="right")
    for name, _, value, text, better in report_columns.COLUMNS:
        values = [value(outcome) for outcome in outcomes]
        if not any(values):
            continue
        best = max(values) if better > 0 else min(values)
        mark = len(values) > 1 and min(values) != max(values)
        table.add_row(
            name,
            *(f"[green]{text(one)}[/]" if mark and one == best else text(one) for one in values),
        )
    table.add_row("[dim]took[/]", *(f"[dim]{outcome.took_s:.1f} s[/]" for outcome in outcomes))
    out.print(table)
    out.print(report_columns.headline(outcomes, bound))
    if html:
        out.print(f"report: {html}")


def _history(file: str, length: str, *, own_policy: bool) -> Past:
    from mesaform.cli.simulate_history import read

    return read(file, _seconds(length, "--history"), length, own_policy=own_policy)


def _print_check(past: Past, mine: Outcome) -> None:
    """What the same time really cost, beside what the simulator says of it."""
    from mesaform.cli.simulate_history import check
    from mesaform.cli.tables import console

    for line in check(past.paid, mine):
        console().print(line)
