"""The verb `mesaform simulate`: runs policies and baselines on a trace of work.

It launches no machine. Depends on `simulator`, which it imports only when the verb runs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mesaform.cli.native_stdout import redirect_native_stdout
from mesaform.cli.options import DEFAULT_FILE, FileOption, JsonOption, with_options
from mesaform.common.errors import BadInput

if TYPE_CHECKING:
    from mesaform.cli.simulate_history import Past
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
        help="Compare the cost of policies and baselines on a trace of work. Launches nothing.",
    )(with_options(SimulateOptions, simulate))


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulateOptions:
    """Command line of `mesaform simulate`."""

    trace: Annotated[str, typer.Argument(help="A CSV of tasks; see docs/simulator.md.")] = ""
    policy: Annotated[
        str,
        typer.Option(
            "--policy",
            "-p",
            help="A policy file: agents, autoscaler and cost of cluster.yaml."
            " Default: all defaults.",
        ),
    ] = ""
    against: Annotated[
        list[str],
        typer.Option(
            "--against",
            "-a",
            help="Another policy file, or a baseline: clusterman, cluster-autoscaler, karpenter, "
            "karpenter-when-empty, all. Repeatable.",
        ),
    ] = field(default_factory=list)
    synthetic: Annotated[str, typer.Option(help="In place of a file: burst, diurnal or batch.")] = (
        ""
    )
    columns: Annotated[
        str,
        typer.Option(
            "--map",
            help="Columns: cpus=cpu_milli:0.001,mem=memory_mib,start=created,end=deleted.",
        ),
    ] = ""
    from_: Annotated[
        str,
        typer.Option(
            "--from",
            help="Leave out what arrives before, counted from the first arrival: 90m, 12h, 3d.",
        ),
    ] = ""
    until: Annotated[str, typer.Option(help="Leave out what arrives from then on.")] = ""
    limit: Annotated[int, typer.Option(min=0, help="At most so many tasks; 0 for all.")] = 0
    longest: Annotated[str, typer.Option(help="Leave out tasks that run longer: 5d.")] = ""
    seed: Annotated[int, typer.Option(help="Of all chance, synthetic traces included.")] = 1
    boot: Annotated[
        str,
        typer.Option(
            help="Median time from launch to a registered agent."
            " Default: 45s, or the history's own."
        ),
    ] = ""
    reclaims: Annotated[
        float,
        typer.Option(min=0, help="How often an hour the cloud takes a spot machine back."),
    ] = 0.02
    shortages: Annotated[
        float,
        typer.Option(min=0, max=1, help="The part of offerings that have no capacity at any time."),
    ] = 0.0
    notice: Annotated[
        str, typer.Option(help="From the notice of a reclaim to the reclaim; 0: no notice.")
    ] = "2m"
    pull: Annotated[
        str, typer.Option(help="Until an app's image is on a machine: 20s. Its first task waits.")
    ] = "0"
    never_boots: Annotated[
        float, typer.Option(min=0, max=1, help="The part of machines that never register.")
    ] = 0.0
    html: Annotated[str, typer.Option(help="Write the report with plots to this file.")] = ""
    history: Annotated[
        str,
        typer.Option(
            help="In place of a file: the cluster's own last hours or days, from its ledger:"
            " 24h, 7d."
        ),
    ] = ""
    file: FileOption = DEFAULT_FILE
    resumable: Annotated[
        bool,
        typer.Option(
            help="Every task that is stopped goes on where it was, whatever the trace says."
        ),
    ] = False
    as_json: JsonOption = False


def simulate(options: SimulateOptions) -> None:
    """Read the trace, run each policy, and print the results."""
    results = _results(options)
    if options.html:
        _write_html(results, options.html)
    if options.as_json:
        _print_json(results)
    else:
        _print_text(results, options.html)


def _results(options: SimulateOptions) -> _Results:
    from mesaform.simulator.comparison import least_usd
    from mesaform.simulator.trace import all_resumable

    past = _history(options) if options.history else None
    work = _window(_source(options, past), options)
    if options.resumable:
        work = all_resumable(work)
    settings = _settings(options, past)
    own_policy = None if past is None else past.policy
    policies = _policies(options.policy, options.against, own_policy)
    with redirect_native_stdout():
        outcomes = _run(work, policies, settings, quiet=options.as_json)
        bound = least_usd(work, policies[0][0], settings)
    return _Results(work, outcomes, settings, bound, past)


@dataclass(frozen=True, slots=True)
class _Results:
    """Outcomes of the policies on a trace, and the history that the trace comes from."""

    work: Trace
    outcomes: Sequence[Outcome]
    settings: Settings
    bound: Bound
    past: Past | None


def _settings(options: SimulateOptions, past: Past | None) -> Settings:
    """Return the settings of the simulated cloud."""
    from mesaform.simulator.market import Settings

    return Settings(
        options.seed,
        _boot_s(options.boot, past),
        never_boots=options.never_boots,
        reclaims_per_hour=options.reclaims,
        short_share=options.shortages,
        notice_s=_seconds(options.notice, "--notice"),
        pull_s=_seconds(options.pull, "--pull"),
    )


def _boot_s(boot: str, past: Past | None) -> float:
    """Return the boot time of the option, else that of the history, else the default."""
    if boot:
        return _seconds(boot, "--boot")
    if past is None or past.boot_s is None:
        return BOOT_S
    return past.boot_s


def _write_html(results: _Results, path: str) -> None:
    from mesaform.simulator import report

    page = report.page(results.work, results.outcomes, results.settings, results.bound)
    try:
        Path(path).write_text(page, encoding="utf-8")
    except OSError as error:
        raise BadInput(error.strerror or str(error), where=path) from None


def _print_text(results: _Results, html: str) -> None:
    _print_table(results, html)
    past = results.past
    if past is not None and len(results.work.tasks) == len(past.trace.tasks):
        _print_check(past, results.outcomes[0])


def _source(options: SimulateOptions, past: Past | None) -> Trace:
    """Return the trace that the options name."""
    from mesaform.simulator.synthetic import make_trace
    from mesaform.simulator.trace import load, parse_map

    if sum(map(bool, (options.trace, options.synthetic, past))) != 1:
        raise BadInput(
            "one trace is needed",
            fix="name a CSV file, or --synthetic burst, diurnal or batch, or --history 7d",
        )
    if past is not None:
        return past.trace
    if options.synthetic:
        return make_trace(options.synthetic, options.seed)
    columns = parse_map(options.columns) if options.columns else None
    return load(Path(options.trace), columns)


def _window(source: Trace, options: SimulateOptions) -> Trace:
    """Return the part of a trace that the options select."""
    from mesaform.simulator.trace import window

    until_s, longest_s = (
        _seconds(text, name) if text else math.inf
        for text, name in ((options.until, "--until"), (options.longest, "--longest"))
    )
    from_s = _seconds(options.from_ or "0", "--from")
    work = window(source, from_s, until_s, options.limit or None, longest_s)
    if not work.tasks:
        raise BadInput(
            "no task is left of the trace",
            where="--from, --until, --longest",
            fix="the window counts from the first arrival",
        )
    return work


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
    """Return each policy with the name of its baseline; empty for a policy file.

    A baseline buys what the first policy may buy.
    """
    from mesaform.simulator.baselines import BASELINES
    from mesaform.simulator.policy import Policy, load

    first = load(Path(policy)) if policy else own or Policy(name="mesaform")
    names = [name for given in against for name in (BASELINES if given == ALL else (given,))]
    policies = [(first, ""), *(_opponent(name, first) for name in dict.fromkeys(names))]
    return [
        (_renamed(candidate, index, policies), rule)
        for index, (candidate, rule) in enumerate(policies)
    ]


def _opponent(name: str, first: Policy) -> tuple[Policy, str]:
    """Resolve a name of `--against`."""
    from mesaform.simulator.baselines import BASELINES
    from mesaform.simulator.policy import load

    if name in BASELINES:
        return first, name
    if name.endswith((".yaml", ".yml")) or Path(name).exists():
        return load(Path(name)), ""
    raise BadInput(
        f"{name!r} is neither a policy file nor a baseline",
        where="--against",
        fix=f"baselines: {', '.join(BASELINES)}, {ALL}",
    )


def _renamed(policy: Policy, index: int, policies: Sequence[tuple[Policy, str]]) -> Policy:
    """Add a number to the name of a policy file when an earlier one has the same name."""
    taken = [rule or other.name for other, rule in policies[:index]]
    if policies[index][1] or policy.name not in taken:
        return policy
    return policy.model_copy(update={"name": f"{policy.name} ({index + 1})"})


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


def _print_json(results: _Results) -> None:
    import msgspec

    work = results.work
    answer: dict[str, object] = {
        "trace": {
            "name": work.name,
            "tasks": len(work.tasks),
            "left_out": work.left_out,
            "span_s": work.span_s,
        },
        "settings": results.settings,
        "least_usd": results.bound.whole,
        "least_divisible_usd": results.bound.divisible,
        "policies": [
            {
                "name": outcome.name,
                **outcome.figures.as_dict(),
                "unschedulable": outcome.unschedulable,
                "took_s": outcome.took_s,
            }
            for outcome in results.outcomes
        ],
    }
    if results.past is not None:
        answer["paid"] = results.past.paid
    typer.echo(msgspec.json.format(msgspec.json.encode(answer), indent=2).decode())


def _print_table(results: _Results, html: str) -> None:
    from rich.table import Table

    from mesaform.cli.tables import console
    from mesaform.simulator import report_columns

    out, outcomes = console(), results.outcomes
    out.print(
        f"[bold]{results.work.name}[/]: {report_columns.about(results.work, results.settings)}"
    )
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("")
    for outcome in outcomes:
        table.add_column(outcome.name, justify="right")
    for name, _, value, text, better in report_columns.COLUMNS:
        values = [value(outcome) for outcome in outcomes]
        if any(values):
            table.add_row(name, *_cells(values, text, better))
    table.add_row("[dim]took[/]", *(f"[dim]{outcome.took_s:.1f} s[/]" for outcome in outcomes))
    out.print(table)
    out.print(report_columns.headline(outcomes, results.bound))
    if html:
        out.print(f"report: {html}")


def _cells(values: Sequence[float], text: Callable[[float], str], better: int) -> list[str]:
    """Format the values of a row. The best ones are green unless all are equal.

    `better` is positive when more is better.
    """
    if min(values) == max(values):
        return [text(value) for value in values]
    best = max(values) if better > 0 else min(values)
    return [f"[green]{text(value)}[/]" if value == best else text(value) for value in values]


def _history(options: SimulateOptions) -> Past:
    from mesaform.cli.simulate_history import read

    length_s = _seconds(options.history, "--history")
    return read(options.file, length_s, options.history, own_policy=not options.policy)


def _print_check(past: Past, outcome: Outcome) -> None:
    """Print the real cost of the period and the simulated one."""
    from mesaform.cli.simulate_history import check
    from mesaform.cli.tables import console

    for line in check(past.paid, outcome):
        console().print(line)
