"""Offerings of a pool have complete prices, and the cpus that its agents offer."""

from __future__ import annotations

import pytest

from mesaform.aws.ports import Offering
from mesaform.aws.pricing.cluster_cost import machine_cost, priced_agent
from mesaform.aws.pricing.pool_offerings import complete, with_offered_cpus
from mesaform.aws.pricing.prices import BOOK_PRICES
from mesaform.config.schema import ClusterSpec, Pool
from mesaform.simulator.comparison import catalogue_of
from mesaform.simulator.policy import Policy
from mesaform.topology.capacity import agent_resources

SPEC = ClusterSpec(name="one")
TYPES = ("t3.large", "t2.2xlarge", "m5.large")
VCPUS = {"t3.large": 2, "t2.2xlarge": 8, "m5.large": 2}


def offered(pool: Pool) -> dict[str, Offering]:
    listed = [
        Offering(
            name,
            "us-east-1a",
            "on-demand",
            BOOK_PRICES.on_demand(name) or 0.0,
            agent_resources(VCPUS[name], 8192, pool.disk_gib),
        )
        for name in TYPES
    ]
    weighed = complete(with_offered_cpus(listed, pool), pool, SPEC, BOOK_PRICES)
    return {offering.instance_type: offering for offering in weighed}


def test_a_t_type_offers_its_baseline_and_has_no_surplus_credits() -> None:
    pool = Pool(types=TYPES)
    by_type = offered(pool)
    assert by_type["t3.large"].resources.milli["cpus"] == 600
    assert by_type["t2.2xlarge"].resources.milli["cpus"] == 1350
    assert by_type["m5.large"].resources.milli["cpus"] == 2000
    cost = machine_cost(priced_agent(SPEC, "t3.large", "", "on-demand", pool), BOOK_PRICES)
    assert cost.credits == 0


def test_with_burst_a_t_type_offers_all_vcpus_at_the_price_of_its_surplus_credits() -> None:
    usual, burst = offered(Pool(types=TYPES)), offered(Pool(types=TYPES, burst=True))
    assert burst["t3.large"].resources.milli["cpus"] == 2000
    surplus = burst["t3.large"].usd_per_hour - usual["t3.large"].usd_per_hour
    assert surplus == pytest.approx(2 * 0.7 * 0.05)
    assert burst["m5.large"] == usual["m5.large"]


@pytest.mark.parametrize("has_burst", [False, True])
def test_an_offering_costs_what_its_machine_costs_in_every_verb(has_burst: bool) -> None:
    pool = Pool(types=TYPES, burst=has_burst)
    for name, offering in offered(pool).items():
        machine = priced_agent(SPEC, name, "us-east-1a", "on-demand", pool)
        assert offering.usd_per_hour == machine_cost(machine, BOOK_PRICES).usd_per_hour


def test_the_simulator_buys_at_complete_prices() -> None:
    policy = Policy.model_validate({"agents": [{"types": ["m5.large", "t3.large"]}]})
    spec = policy.spec
    for offering in catalogue_of(policy)["default"]:
        machine = priced_agent(
            spec, offering.instance_type, offering.zone, offering.capacity, spec.agents[0]
        )
        assert offering.usd_per_hour == machine_cost(machine, BOOK_PRICES).usd_per_hour
