"""Tables and texts of the command line; they fit the terminal, down to 80 columns.

Depends on rich, which is imported when a table is built.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mesaform.common.durations import format_duration
from mesaform.status.view import AgentView, MachineView, Status

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

    from mesaform.aws.pricing.cluster_cost import ClusterCost

WIDTH = 100
"""Columns of a log or a wider terminal."""

COLOURS = {
    "leading": "bold green",
    "standby": "green",
    "active": "green",
    "booting": "yellow",
    "pending": "yellow",
    "recovering": "yellow",
    "draining": "yellow",
    "drained": "yellow",
    "deactivated": "yellow",
    "disconnected": "red",
    "silent": "red",
    "unknown": "red",
    "shutting-down": "dim",
}
"""Styles of rich by state."""


def console(*, stderr: bool = False) -> Console:
    """A console of at most `WIDTH` columns, so that terminal and log look the same."""
    from rich.console import Console

    probe = Console(stderr=stderr, highlight=False)
    return Console(
        stderr=stderr,
        highlight=False,
        width=min(WIDTH, probe.width) if probe.is_terminal else WIDTH,
    )


def dollars(amount: float | None, digits: int = 4) -> str:
    """An amount of US dollars; `?` for an unknown amount."""
    return "?" if amount is None else f"${amount:.{digits}f}"


def show(status: Status, width: int = WIDTH) -> list[RenderableType]:
    """The parts of `mesaform status` from top to bottom, for a width in columns."""
    parts: list[RenderableType] = [_headline(status)]
    if status.masters:
        parts.append(_masters(status, width))
    if status.agents:
        parts.append(_agents(status, width))
    if status.others:
        parts.append(_others(status.others, width))
    parts.append(_facts(status))
    if status.cost.items:
        parts.append(cost_table(status.cost))
    parts += [
        f"[red]no answer from {silent.source}[/red]: {silent.why}" for silent in status.unreachable
    ]
    return parts


def _headline(status: Status) -> str:
    leads = f"led by {status.leader}" if status.leader else "[red]no leader[/red]"
    where = f"{status.target}, {status.region}, {status.engine} engine"
    usd = dollars(status.usd_per_hour)
    return f"[bold]{status.cluster}[/bold] ({where}): {leads}; [bold]{usd} per hour[/bold]"


def cost_rows(cost: ClusterCost) -> list[tuple[str, str, str, str]]:
    """Part, of what, USD an hour and a month, for each part; the sum is the last row."""
    rows = [
        (
            f"{item.kind}{' (estimate)' if item.is_estimate else ''}",
            item.what,
            dollars(item.usd_per_hour),
            f"${item.usd_per_month:,.2f}",
        )
        for item in cost.items
        if item.usd_per_hour
    ]
    total = ("total", "", dollars(cost.usd_per_hour), f"${cost.usd_per_month:,.2f}")
    return [*rows, total] if rows else []


def cost_table(cost: ClusterCost) -> Table:
    """The parts of a cluster's cost; the same in every verb."""
    table = sheet("cost", "of", "$/h", "$/month", right=["$/h", "$/month"])
    for row in cost_rows(cost):
        table.add_row(*row)
    return table


def sheet(*columns: str, right: Iterable[str] = (), wraps: Iterable[str] = ()) -> Table:
    """An empty table. Columns in `wraps` wrap when the table is too wide; others are not cut."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    right_aligned, wrapping = set(right), set(wraps)
    for column in columns:
        table.add_column(
            column,
            justify="right" if column in right_aligned else "left",
            no_wrap=column not in wrapping,
        )
    return table


def fitted(
    rows: Sequence[Mapping[str, str]],
    width: int,
    *,
    right: Iterable[str] = (),
    leave_out: Sequence[str] = (),
) -> Table:
    """A table of rows, each a value by column; no value is cut.

    If the table is too wide, the columns of `leave_out` are removed in that order.
    """
    from rich.console import Console
    from rich.measure import Measurement

    columns, removable, wide = list(rows[0]), list(leave_out), Console(width=10 * WIDTH)
    while True:
        table = sheet(*columns, right=right)
        for row in rows:
            table.add_row(*(row[column] for column in columns))
        if not removable or Measurement.get(wide, wide.options, table).maximum <= width:
            return table
        columns.remove(removable.pop(0))


def _state(view: MachineView) -> str:
    colour = COLOURS.get(view.state, "")
    return f"[{colour}]{view.state}[/{colour}]" if colour else view.state


def _masters(status: Status, width: int) -> Table:
    rows = [
        {
            "master": view.instance_id,
            "address": view.address,
            "state": _state(view) + (" + services" if view.leads_services else ""),
            "type": view.instance_type,
            "zone": view.zone,
            "$/h": dollars(view.usd_per_hour),
        }
        for view in status.masters
    ]
    return fitted(rows, width, right=["$/h"], leave_out=["type", "zone"])


def _share(view: AgentView, name: str, unit: float = 1.0) -> str:
    total = view.resources.get("total", {}).get(name, 0.0) / unit
    used = view.resources.get("used", {}).get(name, 0.0) / unit
    return f"{used:.2g}/{total:.3g}" if total else "-"


def _agents(status: Status, width: int) -> Table:
    rows = [
        {
            "agent": view.instance_id or view.agent_id,
            "address": view.address,
            "state": _state(view),
            "type": f"{view.instance_type}{' spot' if view.capacity == 'spot' else ''}",
            "by": view.managed_by,
            "cpus": _share(view, "cpus"),
            "GiB": _share(view, "mem", 1024),
            "tasks": str(view.tasks),
            "$/h": dollars(view.usd_per_hour),
        }
        for view in status.agents
    ]
    return fitted(
        rows, width, right=["cpus", "GiB", "tasks", "$/h"], leave_out=["by", "address", "GiB"]
    )


def _others(views: Sequence[MachineView], width: int) -> Table:
    rows = [
        {
            "other machine": view.instance_id,
            "address": view.address,
            "state": _state(view),
            "type": view.instance_type,
            "by": view.managed_by,
            "$/h": dollars(view.usd_per_hour),
        }
        for view in views
    ]
    return fitted(rows, width, right=["$/h"], leave_out=["by", "address"])


def _facts(status: Status) -> Table:
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for name, text in _fact_rows(status):
        table.add_row(f"[bold]{name}[/bold]", text)
    return table


def _fact_rows(status: Status) -> list[tuple[str, str]]:
    rows = [(name, url) for name, url in status.urls.items() if name != "autoscaler"]
    if status.tasks is not None:
        rows.append(("tasks", _counted(status.tasks)))
    if status.demand is not None:
        rows.append(("demand", _demand(status)))
    if status.offers is not None:
        rows.append(("offers", _offers(status.offers)))
    rows += _autoscaler_rows(status)
    if status.ends_at:
        rows.append(("ends", _end(status)))
    if status.unpriced:
        rows.append(("no price for", ", ".join(status.unpriced)))
    return rows


def _autoscaler_rows(status: Status) -> list[tuple[str, str]]:
    view = status.autoscaler
    return [
        ("autoscaler", _autoscaler(status)),
        *(("cannot work", reason) for reason in status.unable),
        *(("override", override) for override in view.overrides),
    ]


def _end(status: Status) -> str:
    at = f"{datetime.fromtimestamp(status.ends_at, UTC):%Y-%m-%d %H:%M} UTC (ttl)"
    left_s = status.ends_at - status.at
    if left_s <= 0:
        return f"the time ended at {at}; the machines end now"
    return f"in {format_duration(left_s)}, at {at}; later: mesaform extend 4h"


def _offers(offers: Mapping[str, float]) -> str:
    gib = offers["mem_mib"] / 1024
    return f"{offers['outstanding']:.0f} outstanding: {offers['cpus']:g} cpus, {gib:.3g} GiB"


def _autoscaler(status: Status) -> str:
    view = status.autoscaler
    page = f"{status.urls['autoscaler']}, " if "autoscaler" in status.urls else ""
    heartbeat = ""
    if view.heartbeat_age_s is not None:
        heartbeat = (
            f", last heartbeat {format_duration(view.heartbeat_age_s)} ago from {view.address}"
        )
    freeze = f"; frozen: {view.freeze}" if view.freeze else ""
    return f"{page}{view.state}{heartbeat}{freeze}"


def _counted(counts: Mapping[str, int]) -> str:
    parts = [f"{count} {name}" for name, count in counts.items() if count and name != "total"]
    return ", ".join(parts) or "none"


def _demand(status: Status) -> str:
    demand = status.demand
    if demand is None or not demand.instances:
        return "none"
    apps = ", ".join(f"{app['instances']} x {app['id']}" for app in demand.apps[:4])
    gib = demand.mem_mib / 1024
    return f"{demand.instances} instances wait for {demand.cpus:g} cpus, {gib:.3g} GiB: {apps}"
