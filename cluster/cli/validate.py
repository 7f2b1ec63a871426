"""`mesaform validate`: check the cluster file and describe its cluster. Calls no cloud."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from mesaform.cli.options import DEFAULT_FILE, FileOption, JsonOption
from mesaform.config.schema import ClusterSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from mesaform.aws.pricing.cluster_cost import ClusterCost
    from mesaform.aws.pricing.prices import Prices


def register(app: typer.Typer) -> None:
    @app.command()
    def validate(file: FileOption = DEFAULT_FILE, as_json: JsonOption = False) -> None:
        """Check the cluster file; print its masters, pools, addresses and dollars per hour."""
        from pathlib import Path

        from mesaform.aws.pricing.cluster_cost import planned_cost
        from mesaform.cli.context import open_context
        from mesaform.cli.image_contents import require_contents
        from mesaform.cli.stored_prices import stored_prices

        path = Path(file)
        context = open_context(file)
        require_contents(context)
        spec = context.spec
        prices = stored_prices(path.resolve().parent / ".mesaform", spec.region)
        cost = planned_cost(spec, prices)
        facts = summary(spec, prices)
        if as_json:
            import json

            typer.echo(json.dumps(facts))
        else:
            _show(file, facts, cost)


def summary(spec: ClusterSpec, prices: Prices) -> dict[str, Any]:
    """What a spec comes to. Prices are dollars per hour with all parts, None where not known."""
    from mesaform.aws.pricing.cluster_cost import (
        machine_cost,
        planned_cost,
        planned_machines,
        pool_machines,
    )

    cost, machines = planned_cost(spec, prices), planned_machines(spec)
    usd = {machine: machine_cost(machine, prices).usd_per_hour for machine in machines}
    masters = _masters(spec, [usd[machine] for machine in machines])
    pools: list[dict[str, Any]] = [
        {
            "name": pool.name,
            "count": pool.count,
            "min": pool.floor,
            "max": pool.max,
            "types": list(pool.types),
            "usd_per_hour": _sum([usd[machine] for machine in pool_machines(spec, pool)]),
        }
        for pool in spec.agents
    ]
    return {
        "name": spec.name,
        "target": spec.target,
        "region": spec.region,
        "engine": spec.engine,
        "network": _network(spec),
        "masters": masters,
        "pools": pools,
        "usd_per_hour": None if cost.unpriced else cost.usd_per_hour,
        "cost": cost.as_json(),
        "limit_usd_per_hour": spec.cost.max_usd_per_hour,
        "price_note": prices.note([spec.masters.type, *(pool.types[0] for pool in spec.agents)]),
    }


def _sum(prices: list[float | None]) -> float | None:
    known = [price for price in prices if price is not None]
    return round(sum(known), 6) if len(known) == len(prices) else None


def _masters(spec: ClusterSpec, usd_per_hour: Sequence[float | None]) -> list[dict[str, Any]]:
    """The masters; in an existing VPC EC2 assigns their addresses."""
    from itertools import zip_longest

    from mesaform.topology.addresses import master_addresses, master_zones

    addresses, zones = master_addresses(spec), master_zones(spec)
    return [
        {
            "address": "" if address is None else str(address),
            "zone": zone,
            "instance_type": spec.masters.type,
            "usd_per_hour": usd,
        }
        for address, zone, usd in zip_longest(addresses, zones, usd_per_hour[: len(zones)])
    ]


def _network(spec: ClusterSpec) -> dict[str, Any]:
    """Subnets by zone: of machines, and of gateways and endpoints; names in the private zone."""
    from mesaform.topology.addresses import (
        master_names,
        service_names,
        service_subnets,
        subnets,
    )

    return {
        "mode": spec.network.mode,
        "cidr": "" if spec.network.mode == "existing" else spec.network.cidr,
        "zones": list(spec.zones),
        "zones_are_settled": bool(spec.network.zones),
        "subnets": dict(zip(spec.zones, map(str, subnets(spec)), strict=False)),
        "service_subnets": dict(zip(spec.zones, map(str, service_subnets(spec)), strict=False)),
        "names": [*master_names(spec), *service_names(spec)],
    }


def _show(file: str, facts: dict[str, Any], cost: ClusterCost) -> None:
    from rich.console import Console
    from rich.table import Table

    from mesaform.cli.tables import cost_table

    console = Console()
    console.print(
        f"{file} is right: [bold]{facts['name']}[/], {facts['engine']} engine on"
        f" {facts['target']} ({facts['region']})",
        highlight=False,
    )
    table = Table("what", "machines", "type", "where", "$/h", box=None, pad_edge=False)
    for master in facts["masters"]:
        table.add_row(
            "master",
            "1",
            master["instance_type"],
            f"{master['address'] or 'an address that EC2 assigns'} in {master['zone']}",
            _dollars(master["usd_per_hour"]),
        )
    for pool in facts["pools"]:
        machines = f"{pool['count']} (min {pool['min']}, max {pool['max']})"
        table.add_row(
            f"pool {pool['name']}",
            machines,
            pool["types"][0],
            ", ".join(facts["network"]["zones"]),
            _dollars(pool["usd_per_hour"]),
        )
    console.print(table)
    _show_network(console, facts)
    console.print(cost_table(cost))
    console.print(
        f"{_dollars(facts['usd_per_hour'])} per hour to start with, at on-demand prices",
        highlight=False,
    )
    if not facts["network"]["zones_are_settled"]:
        console.print("The first `mesaform up` chooses zones of the account; these are usual ones.")
    if facts["price_note"]:
        console.print(facts["price_note"], highlight=False)


def _show_network(console: Console, facts: dict[str, Any]) -> None:
    """The mode, the subnets, the names, and what the network costs besides the machines."""
    network = facts["network"]
    cidr = f" {network['cidr']}" if network["cidr"] else ", subnets of another owner"
    console.print(f"network: {network['mode']}{cidr}", highlight=False)
    for purpose, key in (("machines", "subnets"), ("gateways and endpoints", "service_subnets")):
        if network[key]:
            listed = ", ".join(f"{cidr} in {zone}" for zone, cidr in network[key].items())
            console.print(f"  {purpose}: {listed}", highlight=False)
    if network["names"]:
        console.print(f"  names in the VPC: {', '.join(network['names'])}", highlight=False)


def _dollars(price: float | None) -> str:
    return "unknown" if price is None else f"${price:.4f}"
