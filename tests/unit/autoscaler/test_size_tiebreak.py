"""Of machines with the same price for the same work the smaller ones are bought."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mesaform.autoscaler.model.demand_item import DemandItem
from mesaform.autoscaler.model.shape import make
from mesaform.autoscaler.packing import Limits, Packing, Template
from mesaform.autoscaler.planner import priorities, size_tiebreak
from mesaform.placement.constraints import InstanceCounts


def a_template(name: str, cpus: float, usd: float) -> Template:
    return Template(
        "default",
        name,
        "us-east-1a",
        "on-demand",
        usd,
        make(cpus, cpus * 4096),
        {"pool": "default"},
    )


SIZES = [a_template("one", 1, 0.05), a_template("two", 2, 0.1), a_template("eight", 8, 0.4)]


def packed(
    count: int,
    templates=SIZES,
    *,
    cpus: float = 1.0,
    slots: int = 100,
    most: int = 100,
    usd: float | None = None,
) -> Packing:
    units, left = [DemandItem("services", "/web", make(cpus, 1024), count, ())], {0: count}
    limits = Limits({"default": slots}, usd)
    seen = size_tiebreak.weigh(templates, units, left, limits, {"default": most})
    return size_tiebreak.restore_prices(
        priorities.pack_by_rank(units, left, seen, InstanceCounts(), limits), seen, templates
    )


def types(packing: Packing) -> list[str]:
    return sorted(node.template.instance_type for node in packing.nodes)


def test_eight_pieces_get_eight_small_machines_and_not_a_large_one_at_the_same_price():
    assert types(packed(8)) == ["one"] * 8


def test_prices_and_the_bound_are_the_true_ones():
    packing = packed(8)
    assert packing.usd_per_hour == pytest.approx(0.4)
    assert packing.usd_per_hour >= packing.bound_usd_per_hour > 0.4 * 0.98
    assert all(node.template in SIZES for node in packing.nodes)


def test_a_large_machine_that_is_cheaper_is_bought_all_the_same():
    assert types(packed(8, [*SIZES[:2], a_template("eight", 8, 0.39)])) == ["eight"]


def test_a_pool_that_may_not_have_many_more_machines_gets_large_ones():
    assert len(packed(8, slots=10, most=100).nodes) < 8


def test_under_a_dollar_cap_prices_are_seen_as_they_are():
    templates = size_tiebreak.weigh(
        SIZES,
        [DemandItem("services", "/web", make(1, 1024), 8, ())],
        {0: 8},
        Limits({"default": 9}, 1.0),
        {},
    )
    assert templates == SIZES


def test_machines_of_many_pieces_never_seem_much_dearer():
    huge = replace(SIZES[0], shape=make(1000, 4_000_000), usd_per_hour=50.0)
    units = [DemandItem("services", "/web", make(1, 1024), 1000, ())]
    seen = size_tiebreak.weigh([huge], units, {0: 1000}, Limits({"default": 9}), {"default": 9})
    assert 1 < seen[0].usd_per_hour / 50.0 < 1.015
