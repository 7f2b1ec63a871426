"""Placing and packing: nothing fits twice, nothing is forgotten, and the answer is cheap."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesaform.autoscaler.model.demand_item import DemandItem
from mesaform.autoscaler.model.shape import Shape, contains, make, plus, times
from mesaform.autoscaler.model.supply import Node
from mesaform.autoscaler.packing import Limits, Template, place, solve
from mesaform.placement.constraints import InstanceCounts
from tests.support.profiles import examples

PACKINGS = examples(40)
pytestmark = pytest.mark.timeout(120 + PACKINGS)


def a_unit(
    name: str = "/web", count: int = 1, cpus: float = 1, mem_mib: float = 512, **fields
) -> DemandItem:
    return DemandItem("services", name, make(cpus, mem_mib), count, (), **fields)


def a_template(name: str, cpus: float, mem_mib: float, usd: float) -> Template:
    return Template(
        "default", name, "z", "on-demand", usd, make(cpus, mem_mib, 0, 0, 1000), {"zone": "z"}
    )


SMALL, MIDDLE, LARGE = (
    a_template("small", 2, 7680, 0.1),
    a_template("middle", 4, 15360, 0.2),
    a_template("large", 16, 61440, 0.76),
)
LEAN = a_template("lean", 4, 7680, 0.17)


def buy(
    units: list[DemandItem],
    templates: list[Template],
    slots: int = 10_000,
    usd: float | None = None,
):
    left = {index: unit.count for index, unit in enumerate(units)}
    limits = Limits({"default": slots}, usd)
    return list(solve(units, left, templates, InstanceCounts(), limits).nodes)


def cost(nodes) -> float:
    return round(sum(node.template.usd_per_hour for node in nodes), 6)


def test_the_largest_pieces_are_placed_first_so_that_small_ones_fill_the_gaps():
    nodes = [
        Node("a", "settled", "a", {}, make(4, 8000), "default"),
        Node("b", "settled", "b", {}, make(3, 8000), "default"),
    ]
    placement = place(
        [a_unit("/small", 3, cpus=1), a_unit("/large", 1, cpus=4)], nodes, InstanceCounts()
    )
    assert placement.placed == {1: {"a": 1}, 0: {"b": 3}}


def test_one_large_machine_is_bought_where_it_is_cheaper_than_many_small():
    assert [
        node.template.instance_type for node in buy([a_unit(count=16)], [SMALL, MIDDLE, LARGE])
    ] == ["large"]


def test_the_rest_goes_onto_the_smallest_machine_that_holds_it():
    nodes = buy([a_unit(count=17)], [SMALL, MIDDLE, LARGE])
    assert sorted(node.template.instance_type for node in nodes) == ["large", "small"]


def test_a_machine_with_less_memory_is_taken_where_memory_is_not_needed():
    assert [
        node.template.instance_type for node in buy([a_unit(count=4, mem_mib=100)], [MIDDLE, LEAN])
    ] == ["lean"]


def test_fat_and_lean_pieces_share_machines():
    units = [a_unit("/fat", 4, cpus=0.5, mem_mib=7000), a_unit("/lean", 4, cpus=3, mem_mib=100)]
    assert cost(buy(units, [MIDDLE])) == pytest.approx(0.8)


def test_slots_and_dollars_bound_what_is_bought():
    assert len(buy([a_unit(count=100)], [SMALL], slots=3)) == 3
    assert cost(buy([a_unit(count=100)], [SMALL], usd=0.55)) == pytest.approx(0.5)


def test_what_fits_nowhere_buys_nothing():
    assert buy([a_unit(cpus=100)], [SMALL, LARGE]) == []


units = st.lists(
    st.builds(
        lambda n, count, cpus, mem: a_unit(f"/{n}", count, cpus, mem),
        st.integers(),
        st.integers(1, 60),
        st.sampled_from([0.1, 0.5, 1, 1.5, 3, 9]),
        st.sampled_from([10, 256, 1024, 4096, 30000]),
    ),
    min_size=1,
    max_size=6,
)


@pytest.mark.slow
@settings(deadline=None, max_examples=PACKINGS)
@given(units=units, slots=st.integers(0, 30), usd=st.sampled_from([None, 0.5, 3.0]))
def test_no_machine_is_overfull_nothing_is_bought_for_twice_and_bounds_are_kept(units, slots, usd):
    nodes = buy(units, [SMALL, MIDDLE, LARGE, LEAN], slots, usd)
    served: dict[int, int] = {}
    for node in nodes:
        load: Shape = (0, 0, 0, 0, 0)
        for index, count in node.load.items():
            load = plus(load, times(units[index].shape, count))
            served[index] = served.get(index, 0) + count
        assert contains(node.template.shape, load)
        assert any(load)
    assert all(count <= units[index].count for index, count in served.items())
    assert len(nodes) <= slots
    assert usd is None or cost(nodes) <= usd + 1e-6
    if slots == 30 and usd is None and len(nodes) < slots:
        for index, unit in enumerate(units):
            assert served.get(index, 0) == (unit.count if contains(LARGE.shape, unit.shape) else 0)


@pytest.mark.slow
def test_fifty_thousand_small_and_a_thousand_larger_pieces_pack_into_the_fewest_machines():
    """The packing case that Cluster Autoscaler publishes: 2,595 machines are the optimum."""
    units = [
        DemandItem("services", "/small", make(0.05, 100, 0, 0, 1), 50_000, ()),
        DemandItem("services", "/larger", make(0.095, 190, 0, 0, 1), 1_000, ()),
    ]
    node = Template("default", "n", "z", "on-demand", 1.0, make(1, 5000, 0, 0, 100), {})
    started = time.thread_time()
    assert len(buy(units, [node])) <= 2_600
    assert time.thread_time() - started < 3
