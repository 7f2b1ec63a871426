"""`mesaform plan`: what the autoscaler would do now. It runs the planner and changes nothing."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import typer

from mesaform.autoscaler.model import old_vocabulary
from mesaform.autoscaler.model.planner_state import PlannerState
from mesaform.autoscaler.planner.planner import Packed, Plan, plan
from mesaform.autoscaler.reporting.decision_text import render_decision, render_state
from mesaform.autoscaler.reporting.reason_text import render, render_all
from mesaform.autoscaler.reporting.verdict_text import render_verdict
from mesaform.aws.overrides import describe
from mesaform.cli.context import Context, open_context
from mesaform.cli.native_stdout import redirect_native_stdout
from mesaform.cli.options import DEFAULT_FILE, FileOption, JsonOption
from mesaform.common.json_types import as_object

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console
    from rich.table import Table

    from mesaform.autoscaler.model.framework_demand import FrameworkVerdict
    from mesaform.autoscaler.planner.verdicts import Verdict
    from mesaform.aws.pricing.cluster_cost import ClusterCost


def register(app: typer.Typer) -> None:
    app.command(
        "plan",
        help="What the autoscaler would do now: demand, verdicts, machines. Changes nothing.",
    )(show)


def show(file: FileOption = DEFAULT_FILE, json_: JsonOption = False) -> None:
    """Observe, plan, print."""
    context = open_context(file)
    context.enter_cloud()
    with redirect_native_stdout():
        planned = asyncio.run(_plan(context))
    if json_:
        import msgspec

        from mesaform.autoscaler.reporting.api_views import describe

        answer = {
            **describe(planned.plan),
            "cost": planned.cost.as_json(),
            "errors": list(planned.errors),
            "dry_run": True,
        }
        typer.echo(msgspec.json.format(msgspec.json.encode(answer), indent=2).decode())
        return
    _print(planned)


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan, what the cluster costs now, and what is not known."""

    plan: Plan
    cost: ClusterCost
    errors: tuple[str, ...]


async def _plan(context: Context) -> Planned:
    """The plan of the daemon's code with the state of its last heartbeat."""
    from mesaform.autoscaler.daemon.weekly_profile_store import NAME, PROFILE, readable
    from mesaform.autoscaler.observation.observer import Observer, ServicesClient, services_urls
    from mesaform.aws.pricing.cluster_cost import cluster_cost
    from mesaform.cli.wiring import Wiring

    spec, wiring = context.spec, Wiring(context)
    masters = list(wiring.masters)
    control = await asyncio.to_thread(lambda: wiring.control)
    freeze, heartbeat, orders = await asyncio.gather(
        asyncio.to_thread(control.frozen_reason),
        asyncio.to_thread(control.last_heartbeat),
        asyncio.to_thread(control.overrides),
    )
    memory = remembered(heartbeat["planner_state"] if heartbeat else None)
    async with wiring.open_session() as session:
        prices = await asyncio.to_thread(lambda: wiring.prices)
        observer = Observer(
            wiring.operator(session),
            ServicesClient(services_urls(masters), session),
            wiring.priced_fleet,
            prices=lambda: prices,
        )
        snapshot = await observer.snapshot(spec, memory, (), freeze, orders)
    if spec.autoscaler.profile.enabled:
        snapshot = replace(
            snapshot,
            profile=readable(await asyncio.to_thread(control.read_record, NAME, PROFILE)),
        )
    note = prices.note({spec.masters.type, *(name for pool in spec.agents for name in pool.types)})
    cost = cluster_cost(spec, snapshot.machines, prices)
    errors = (*snapshot.read_errors, *([note] if note else []))
    return Planned(plan(snapshot, time.time()), cost, errors)


def remembered(document: object) -> PlannerState:
    """The published planner state; an empty one if there is none, or of an unknown version."""
    import msgspec

    try:
        return msgspec.convert(
            old_vocabulary.translate_planner_state(as_object(document)), PlannerState
        )
    except (msgspec.ValidationError, AttributeError, KeyError):
        return PlannerState()


def _print(planned: Planned) -> None:
    from rich.console import Console

    from mesaform.cli.tables import cost_table

    console, plan_ = Console(), planned.plan
    for line in planned.errors:
        console.print(f"[yellow]not known:[/] {line}", highlight=False)
    for label, reason in (
        ("frozen", plan_.freeze),
        ("paused", plan_.paused),
        ("waiting", plan_.waiting),
        ("nothing is removed", plan_.removals_blocked),
    ):
        if reason is not None:
            console.print(f"[yellow]{label}:[/] {render(reason)}", highlight=False)
    for override in plan_.overrides:
        console.print(f"[magenta]override:[/] {describe(override)}", highlight=False)
    if plan_.verdicts:
        console.print(_demand_table(plan_.verdicts))
    else:
        console.print("Nothing waits for a machine.")
    if plan_.frameworks:
        console.print(framework_table(plan_.frameworks))
    _print_steps(console, plan_)
    if planned.cost.items:
        console.print(cost_table(planned.cost))


def _demand_table(verdicts: Iterable[Verdict]) -> Table:
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("demand", "count", "verdict", "reason"):
        table.add_column(name, justify="right" if name == "count" else "left", overflow="fold")
    for verdict in verdicts:
        item = verdict.unit
        table.add_row(item.name, str(item.count), render_verdict(verdict), render_all(item.reasons))
    return table


def framework_table(verdicts: Iterable[FrameworkVerdict]) -> Table:
    """The verdict on each framework, with how it is known."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("framework", "verdict", "known by", "evidence"):
        table.add_column(name, overflow="fold")
    for verdict in verdicts:
        source = f"{verdict.adapter}, {verdict.age_s:.0f} s ago" if verdict.adapter else "offers"
        cells = (verdict.name, render_state(verdict.state), source, render_all(verdict.reasons))
        table.add_row(*map(Text, cells))
    return table


def _print_steps(console: Console, plan_: Plan) -> None:
    for command in plan_.commands:
        decision = command.decision
        zone = f" in {decision.zone}" if decision.kind == "buy" and decision.zone else ""
        change = f"  [bold]{decision.usd_per_hour:+.4f} $/h[/]" if decision.usd_per_hour else ""
        console.print(
            f"would [bold]{decision.kind}[/]: {render_decision(decision)}{zone} "
            f"({render_all(decision.reasons)}){change}",
            highlight=False,
        )
    if plan_.packed is not None:
        console.print(_packed(plan_.packed), highlight=False)
    if not plan_.commands:
        console.print("The autoscaler would do nothing now.")
    console.print(
        f"now ${plan_.usd_per_hour:.4f} an hour, then ${plan_.after_usd_per_hour:.4f}",
        highlight=False,
    )


def _packed(packed: Packed) -> str:
    least = f"${packed.bound_usd_per_hour:.4f}"
    how = f"at least {least} for the same work: gap {packed.gap_percent:g} % ({packed.method})"
    return f"{packed.machines} machines packed at ${packed.usd_per_hour:.4f} an hour, {how}"
