"""`mesaform validate`: check the cluster file and describe its cluster. Calls no cloud."""

from __future__ import annotations

from typing import Any

import typer

from mesaform.cli.options import DEFAULT_FILE, FileOption, JsonOption
from mesaform.config.schema import ClusterSpec


def register(app: typer.Typer) -> None:
    @app.command()
    def validate(file: FileOption = DEFAULT_FILE, as_json: JsonOption = False) -> None:
        """Check the cluster file; print its masters, pools, addresses and dollars per hour."""
        from pathlib import Path

        from mesaform.config.parser import load

        spec = load(Path(file))
        facts = summary(spec)
        if as_json:
            import json

            typer.echo(json.dumps(facts))
        else:
            _show(file, facts)


def summary(spec: ClusterSpec) -> dict[str, Any]:
    """What a spec comes to. Prices are on-demand dollars per hour, None where no price is known."""
    from mesaform.aws.pricing.price_book import note
    from mesaform.topology.addresses import master_addresses, subnets

    masters: list[dict[str, Any]] = [
        {
            "address": str(address),
            "zone": zone,
            "instance_type": spec.masters.type,
            "usd_per_hour": _price(spec.masters.type),
        }
        for address, zone in zip(master_addresses(spec), spec.zones, strict=True)
    ]
    pools: list[dict[str, Any]] = [
        {
            "name": pool.name,
            "count": pool.count,
            "min": pool.floor,
            "max": pool.max,
            "types": list(pool.types),
            "usd_per_hour": _times(pool.count, _price(pool.types[0])),
        }
        for pool in spec.agents
    ]
    return {
        "name": spec.name,
        "target": spec.target,
        "region": spec.region,
        "engine": spec.engine,
        "network": {
            "cidr": spec.network.cidr,
            "subnets": dict(zip(spec.zones, map(str, subnets(spec)), strict=True)),
        },
        "masters": masters,
        "pools": pools,
        "usd_per_hour": _sum([part["usd_per_hour"] for part in (*masters, *pools)]),
        "limit_usd_per_hour": spec.cost.max_usd_per_hour,
        "price_note": note(
            spec.region, [spec.masters.type, *(pool.types[0] for pool in spec.agents)]
        ),
    }


def _price(instance_type: str) -> float | None:
    from mesaform.aws.pricing.price_book import usd_per_hour

    return usd_per_hour(instance_type)


def _times(count: int, price: float | None) -> float | None:
    return None if price is None else round(count * price, 6)


def _sum(prices: list[Any]) -> float | None:
    return None if None in prices else round(sum(prices), 6)


def _show(file: str, facts: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

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
            f"{master['address']} in {master['zone']}",
            _dollars(master["usd_per_hour"]),
        )
    for pool in facts["pools"]:
        machines = f"{pool['count']} (min {pool['min']}, max {pool['max']})"
        table.add_row(
            f"pool {pool['name']}",
            machines,
            pool["types"][0],
            ", ".join(facts["network"]["subnets"]),
            _dollars(pool["usd_per_hour"]),
        )
    console.print(table)
    console.print(
        f"{_dollars(facts['usd_per_hour'])} per hour to start with, at on-demand prices",
        highlight=False,
    )
    if facts["price_note"]:
        console.print(facts["price_note"], highlight=False)


def _dollars(price: float | None) -> str:
    return "unknown" if price is None else f"${price:.4f}"
