"""One cluster costs the same in `validate`, `status`, `plan`, `cost` and `down`."""

from __future__ import annotations

import pytest

from mesaform.autoscaler.accounting.cost_report import add_up
from mesaform.autoscaler.accounting.standing_cost import with_standing
from mesaform.autoscaler.model.snapshot import Snapshot
from mesaform.autoscaler.model.supply_builder import build_supply
from mesaform.autoscaler.observation.complete_prices import costs_of
from mesaform.aws.ports import Machine
from mesaform.aws.pricing.cluster_cost import (
    machine_costs,
    master_volumes_gib,
    planned_cost,
    standing_items,
)
from mesaform.aws.pricing.prices import BOOK_PRICES
from mesaform.aws.resources.owned import OwnedResource
from mesaform.cli.validate import summary
from mesaform.config.schema import ClusterSpec
from mesaform.status.view import Sources, join
from mesaform.teardown.plan import Inventory, TeardownRequest, plan
from mesaform.teardown.survey import EngineLoad, _surveyed
from mesaform.topology.names import Tag

SPEC = ClusterSpec(name="one")
NOW = 1_800_000_000.0


def listed(name: str, instance_type: str, role: str) -> Machine:
    tags = {Tag.CLUSTER: "one", Tag.ROLE: role, Tag.MANAGED_BY: "terraform"}
    if role == "agent":
        tags[Tag.POOL] = "default"
    return Machine(name, instance_type, "us-east-1a", "on-demand", "running", "", "", NOW, tags)


MACHINES = [
    *(listed(f"i-m{number}", "t3.medium", "master") for number in range(3)),
    *(listed(f"i-a{number}", "m5.large", "agent") for number in range(2)),
]


def volumes() -> list[OwnedResource]:
    """The disks as EC2 lists them."""
    sizes = [*master_volumes_gib(SPEC) * 3, *[SPEC.agents[0].disk_gib] * 2]
    rates = BOOK_PRICES.rates
    return [
        OwnedResource(
            "volume",
            f"vol-{number}",
            {Tag.CLUSTER: "one"},
            usd_per_hour=rates.volume_usd_per_hour("gp3", gib),
        )
        for number, gib in enumerate(sizes)
    ]


def by_down() -> float:
    engine = EngineLoad({}, {}, "answers")
    costs = machine_costs(SPEC, MACHINES, BOOK_PRICES)
    items = standing_items(SPEC, BOOK_PRICES.rates)
    inventory = Inventory(
        "one",
        tuple(_surveyed(m, engine, cost) for m, cost in zip(MACHINES, costs, strict=True)),
        tuple(volumes()),
        standing_usd_per_hour=sum(item.usd_per_hour for item in items),
    )
    return plan(inventory, TeardownRequest()).usd_per_hour


def by_plan() -> float:
    costs = costs_of(SPEC, MACHINES, BOOK_PRICES)
    snapshot = Snapshot(
        SPEC,
        None,
        None,
        tuple(MACHINES),
        {},
        usd_per_hour=costs.machines,
        standing_usd_per_hour=costs.standing,
    )
    return build_supply(snapshot, NOW).usd_per_hour


def by_cost() -> float:
    """An hour of the ledger, with the prices that the autoscaler writes."""
    costs = machine_costs(SPEC, MACHINES, BOOK_PRICES)
    rows: list[dict[str, object]] = [
        {
            "kind": "machine_started",
            "at": NOW,
            "launched_at": NOW,
            "instance_id": machine.instance_id,
            "usd_per_hour": cost.usd_per_hour,
            "pool": machine.tags.get(Tag.POOL, ""),
            "role": machine.tags[Tag.ROLE],
        }
        for machine, cost in zip(MACHINES, costs, strict=True)
    ]
    standing = sum(item.usd_per_hour for item in standing_items(SPEC, BOOK_PRICES.rates))
    bill = with_standing(add_up(rows, NOW, NOW + 3600, columns=4), rows, standing)
    assert sum(share.usd for share in bill.shares) == pytest.approx(bill.usd)
    assert bill.series == pytest.approx([bill.usd] * 4, abs=1e-4)
    return bill.usd


def test_a_cluster_costs_the_same_in_every_verb() -> None:
    validated = summary(SPEC, BOOK_PRICES)["usd_per_hour"]
    shown = join(SPEC, Sources(at=NOW, machines=MACHINES), BOOK_PRICES).usd_per_hour
    assert validated == planned_cost(SPEC, BOOK_PRICES).usd_per_hour
    assert shown == validated
    assert by_plan() == pytest.approx(validated, abs=2e-6)
    assert by_down() == pytest.approx(validated, abs=2e-6)
    assert by_cost() == pytest.approx(validated, abs=1e-4), "a bill has four digits"
