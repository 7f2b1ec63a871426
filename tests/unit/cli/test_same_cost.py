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
from mesaform.aws.resources.owned import STANDING_KINDS, OwnedResource
from mesaform.cli.validate import summary
from mesaform.config.schema import ClusterSpec, LoadBalancer, Network
from mesaform.status.view import Sources, join
from mesaform.teardown.plan import Inventory, Plan, TeardownRequest, plan
from mesaform.teardown.survey import EngineLoad, _surveyed, _without_standing_prices
from mesaform.topology.names import Tag

ALL = TeardownRequest()
SPECS = [
    ClusterSpec(name="one"),
    ClusterSpec(
        name="one",
        network=Network(
            mode="private", nat="single", load_balancer=LoadBalancer(), private_dns="one.internal"
        ),
    ),
    ClusterSpec(name="one", network=Network(mode="private", nat="none")),
]
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


def resources(spec: ClusterSpec) -> list[OwnedResource]:
    """The disks as EC2 lists them, and the parts of the network with their own prices."""
    sizes = [*master_volumes_gib(spec) * 3, *[spec.agents[0].disk_gib] * 2]
    rates = BOOK_PRICES.rates
    disks = [
        OwnedResource(
            "volume",
            f"vol-{number}",
            {Tag.CLUSTER: "one"},
            usd_per_hour=rates.volume_usd_per_hour("gp3", gib),
        )
        for number, gib in enumerate(sizes)
    ]
    network = [
        OwnedResource(kind, f"{kind}-1", {Tag.CLUSTER: "one"}, usd_per_hour=1.0)
        for kind in STANDING_KINDS
    ]
    return [*disks, *network]


def by_down(spec: ClusterSpec, request: TeardownRequest = ALL) -> Plan:
    engine = EngineLoad({}, {}, "answers")
    costs = machine_costs(spec, MACHINES, BOOK_PRICES)
    standing = sum(item.usd_per_hour for item in standing_items(spec, BOOK_PRICES.rates))
    inventory = Inventory(
        "one",
        tuple(_surveyed(m, engine, cost) for m, cost in zip(MACHINES, costs, strict=True)),
        _without_standing_prices(resources(spec), standing),
        standing_usd_per_hour=standing,
    )
    return plan(inventory, request)


def by_plan(spec: ClusterSpec) -> float:
    costs = costs_of(spec, MACHINES, BOOK_PRICES)
    snapshot = Snapshot(
        spec,
        None,
        None,
        tuple(MACHINES),
        {},
        usd_per_hour=costs.machines,
        standing_usd_per_hour=costs.standing,
    )
    return build_supply(snapshot, NOW).usd_per_hour


def by_cost(spec: ClusterSpec) -> float:
    """An hour of the ledger, with the prices that the autoscaler writes."""
    costs = machine_costs(spec, MACHINES, BOOK_PRICES)
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
    standing = sum(item.usd_per_hour for item in standing_items(spec, BOOK_PRICES.rates))
    bill = with_standing(add_up(rows, NOW, NOW + 3600, columns=4), rows, standing)
    assert sum(share.usd for share in bill.shares) == pytest.approx(bill.usd)
    assert bill.series == pytest.approx([bill.usd] * 4, abs=1e-4)
    return bill.usd


@pytest.mark.parametrize("spec", SPECS)
def test_a_cluster_costs_the_same_in_every_verb(spec: ClusterSpec) -> None:
    validated = summary(spec, BOOK_PRICES)["usd_per_hour"]
    shown = join(spec, Sources(at=NOW, machines=MACHINES), BOOK_PRICES).usd_per_hour
    assert validated == planned_cost(spec, BOOK_PRICES).usd_per_hour
    assert shown == validated
    assert by_plan(spec) == pytest.approx(validated, abs=2e-6)
    assert by_down(spec).usd_per_hour == pytest.approx(validated, abs=2e-6)
    assert by_cost(spec) == pytest.approx(validated, abs=1e-4), "a bill has four digits"


def test_what_stays_without_agents_costs_the_rest_of_the_cluster() -> None:
    removed = by_down(SPECS[1], TeardownRequest(agents_only=True))
    whole = by_down(SPECS[1]).usd_per_hour
    assert removed.usd_per_hour + removed.kept_usd_per_hour == pytest.approx(whole, abs=2e-6)
