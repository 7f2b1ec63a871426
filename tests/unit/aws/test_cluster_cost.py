"""The price function of every verb: all parts of a machine and of a cluster, in any region."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from mesaform.aws.ports import Machine
from mesaform.aws.pricing.cluster_cost import (
    CostKind,
    billed_agents,
    cluster_cost,
    machine_cost,
    planned_cost,
    planned_machines,
    priced_agent,
    priced_master,
    surplus_usd_per_hour,
)
from mesaform.aws.pricing.price_list import RATE_QUERIES, rate_in, rates_of
from mesaform.aws.pricing.prices import BOOK_PRICES, Prices
from mesaform.aws.pricing.rates import BOOK, Rates
from mesaform.config.schema import ClusterSpec
from mesaform.localcloud import pricing

SPEC = ClusterSpec(name="one")
POOL = SPEC.agents[0]
FRANKFURT = "eu-central-1"


def listed(instance_type: str, role: str, state: str = "running") -> Machine:
    tags = {"mesaform:role": role, "mesaform:pool": "default"}
    return Machine("i-1", instance_type, "us-east-1a", "on-demand", state, "", "", 0.0, tags)  # type: ignore[arg-type]


def sample() -> list[Machine]:
    """The machines of the sample cluster as EC2 lists them."""
    masters = [listed("t3.medium", "master") for _ in range(3)]
    return [*masters, *(listed("m5.large", "agent") for _ in range(2))]


def test_a_machine_costs_its_instance_disk_address_and_traffic() -> None:
    agent = priced_agent(SPEC, "m5.large", "us-east-1a", "on-demand", POOL)
    cost = machine_cost(agent, BOOK_PRICES)
    assert cost.instance == 0.096
    assert cost.volumes == pytest.approx(40 * 0.08 / 730)
    assert cost.address == 0.005
    assert cost.credits == 0
    assert 0 < cost.traffic < 0.0005
    parts = cost.instance + cost.volumes + cost.address + cost.traffic
    assert cost.usd_per_hour == pytest.approx(parts)


def test_the_sample_cluster_costs_all_that_the_review_found_missing() -> None:
    cost = cluster_cost(SPEC, sample(), BOOK_PRICES)
    by_kind = {item.kind: item.usd_per_month for item in cost.items}
    assert by_kind[CostKind.INSTANCES] == pytest.approx(231.2, abs=0.1)
    assert by_kind[CostKind.ADDRESSES] == pytest.approx(18.25)
    data_volumes = 3 * 10 * 0.08
    assert by_kind[CostKind.VOLUMES] == pytest.approx(11.2 + data_volumes)
    assert 3 < by_kind[CostKind.REQUESTS] < 8
    assert cost.usd_per_hour == pytest.approx(sum(item.usd_per_hour for item in cost.items), 1e-5)


def test_what_runs_as_planned_costs_what_was_planned() -> None:
    assert cluster_cost(SPEC, sample(), BOOK_PRICES) == planned_cost(SPEC, BOOK_PRICES)


def test_a_machine_that_ec2_bills_no_more_costs_nothing() -> None:
    ended = listed("m5.large", "agent", "shutting-down")
    assert cluster_cost(SPEC, [*sample(), ended], BOOK_PRICES) == planned_cost(SPEC, BOOK_PRICES)
    assert billed_agents([ended]) == 0
    assert cluster_cost(SPEC, [ended], BOOK_PRICES).usd_per_hour == 0


def test_a_t_type_that_is_sold_in_full_costs_its_surplus_credits() -> None:
    assert surplus_usd_per_hour("t3.large", BOOK) == pytest.approx(2 * 0.7 * 0.05)
    assert surplus_usd_per_hour("t4g.2xlarge", BOOK) == pytest.approx(8 * 0.6 * 0.04)
    assert surplus_usd_per_hour("t2.large", BOOK) == 0
    assert surplus_usd_per_hour("m5.large", BOOK) == 0


def test_masters_of_a_large_cluster_pass_the_baseline_of_a_t_type() -> None:
    few = machine_cost(priced_master(SPEC, "t3.medium", "us-east-1a", 100), BOOK_PRICES)
    many = machine_cost(priced_master(SPEC, "t3.medium", "us-east-1a", 1000), BOOK_PRICES)
    assert few.credits == 0
    assert 0 < many.credits <= 2 * 0.8 * 0.05


def test_a_type_without_a_price_is_named_and_its_other_parts_count() -> None:
    cost = cluster_cost(SPEC, [listed("zz9.large", "agent")], BOOK_PRICES)
    assert cost.unpriced == ("zz9.large",)
    assert cost.usd_per_hour > 0.005


def test_shorter_passes_cost_more_requests_and_traffic() -> None:
    fast = SPEC.model_copy(
        update={"autoscaler": SPEC.autoscaler.model_copy(update={"interval_s": 1.0})}
    )
    assert (
        planned_cost(fast, BOOK_PRICES).usd_per_hour > planned_cost(SPEC, BOOK_PRICES).usd_per_hour
    )
    assert planned_machines(SPEC)[0].is_agent is False


def rates_from_list(region: str) -> Rates:
    """The rates that the local cloud's price list has for a region."""
    read: dict[str, float | None] = {}
    for query in RATE_QUERIES:
        asked: Mapping[str, str] = query.filters(region)
        filters = [{"Field": key, "Value": value} for key, value in asked.items()]
        body = json.dumps({"ServiceCode": query.service, "Filters": filters}).encode()
        documents = json.loads(pricing.answer("GetProducts", body).body)["PriceList"]
        read[query.name] = rate_in(documents, query)
    return rates_of(read)


def test_the_price_list_has_the_rates_of_each_region() -> None:
    assert rates_from_list("us-east-1") == BOOK
    abroad = rates_from_list(FRANKFURT)
    assert abroad.volume_usd_per_gib_month["gp3"] == pytest.approx(0.088)
    assert abroad.nat_gateway_usd_per_hour == pytest.approx(0.0495)
    assert abroad.credit_usd["t4g"] == pytest.approx(0.044)


def test_a_region_has_its_own_prices_and_says_when_it_has_none() -> None:
    prices = Prices(
        FRANKFURT, {"m5.large": 0.115}, rates=rates_from_list(FRANKFURT), has_rates=True
    )
    agent = priced_agent(SPEC, "m5.large", "eu-central-1a", "on-demand", POOL)
    assert machine_cost(agent, prices).instance == 0.115
    assert machine_cost(agent, prices).volumes == pytest.approx(40 * 0.088 / 730)
    assert prices.note(["m5.large"]) == ""
    assert "eu-central-1" in Prices(FRANKFURT, {"m5.large": 0.115}).note(["m5.large"])
    assert "c5.large" in prices.note(["m5.large", "c5.large"])


def test_of_several_prices_of_a_product_the_one_of_the_right_usage_counts() -> None:
    query = next(query for query in RATE_QUERIES if query.name == "address_usd_per_hour")

    def document(usage: str, usd: str, unit: str = "Hrs") -> str:
        rate = {"unit": unit, "pricePerUnit": {"USD": usd}}
        return json.dumps(
            {
                "product": {"attributes": {"usagetype": usage}},
                "terms": {"OnDemand": {"T": {"priceDimensions": {"R": rate}}}},
            }
        )

    documents = [
        document("EUC1-PublicIPv4:InUseAddress", "0.0000000000"),
        document("EUC1-PublicIPv4:InUseAddress", "0.0050000000"),
        document("EUC1-PublicIPv4:IdleAddress", "0.0010000000"),
        document("EUC1-PublicIPv4:InUseAddress", "0.0020000000", "Bytes"),
    ]
    assert rate_in(documents, query) == 0.005
    assert rate_in(documents[2:3], query) is None


@pytest.mark.parametrize(
    ("instance_type", "cpus"),
    [("m5.large", 2), ("c5.medium", 1), ("m5.xlarge", 4), ("c5.9xlarge", 36), ("t3.large", 0.6)],
)
def test_what_tasks_send_to_other_zones_is_in_a_machine_s_price(
    instance_type: str, cpus: float
) -> None:
    def traffic(spec: ClusterSpec) -> float:
        agent = priced_agent(spec, instance_type, "us-east-1a", "on-demand", POOL)
        return machine_cost(agent, BOOK_PRICES).traffic

    stated = ClusterSpec.model_validate({"name": "one", "cost": {"task_gib_per_cpu_hour": 1.5}})
    share = (len(SPEC.zones) - 1) / len(SPEC.zones)
    usd = 1.5 * cpus * share * 2 * BOOK.zone_usd_per_gib
    assert traffic(stated) - traffic(SPEC) == pytest.approx(usd)
    assert usd > 0
