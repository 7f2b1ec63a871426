"""Packing against brute force and its bound: feasible, never below it, and near the optimum."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.packing_validator import faults
from mesaform.autoscaler.model.demand_item import DemandItem
from mesaform.autoscaler.model.shape import make
from mesaform.autoscaler.model.supply import Node
from mesaform.autoscaler.packing import (
    QUICK,
    USUAL,
    Effort,
    Limits,
    Packing,
    Template,
    place,
    solution,
    solve,
)
from mesaform.autoscaler.packing.bounds import with_bound_dimensions
from mesaform.autoscaler.packing.columns import generate_columns, initial_columns
from mesaform.autoscaler.packing.partition import partition
from mesaform.autoscaler.packing.problem import build
from mesaform.placement.constraints import Constraint, InstanceCounts
from tests.support.profiles import examples

PACKINGS = examples(40)
"""Examples of each property in CI; the nightly profile tries twenty times as many."""
pytestmark = pytest.mark.timeout(120 + PACKINGS)

ZONES = ("a", "b", "c")
UNIQUE, SPREAD, TOGETHER = (
    Constraint("hostname", "UNIQUE"),
    Constraint("zone", "GROUP_BY"),
    Constraint("zone", "CLUSTER"),
)


def a_unit(
    name: str, count: int, cpus: float = 1, mem_mib: float = 512, *constraints: Constraint
) -> DemandItem:
    return DemandItem("services", name, make(cpus, mem_mib), count, (), constraints)


def a_template(
    name: str,
    cpus: float,
    mem_mib: float,
    usd: float,
    zone: str = "a",
    pool: str = "p",
    **attributes: str,
) -> Template:
    result = {"zone": zone, "pool": pool, "instance_type": name, **attributes}
    return Template(pool, name, zone, "on-demand", usd, make(cpus, mem_mib, 0, 0, 100), result)


def in_zones(*templates: tuple[str, float, float, float]) -> list[Template]:
    return [a_template(*template, zone=zone) for template in templates for zone in ZONES]


TYPES = [
    a_template("small", 2, 4000, 0.10),
    a_template("wide", 4, 4000, 0.17),
    a_template("deep", 2, 16000, 0.13),
    a_template("big", 8, 16000, 0.38),
]


def packed(
    units: list[DemandItem],
    templates: list[Template],
    slots: int = 1000,
    usd: float | None = None,
    effort: Effort = USUAL,
    usage: InstanceCounts | None = None,
) -> Packing:
    """The answer, after the independent check of every rule."""
    left = {index: unit.count for index, unit in enumerate(units)}
    limits = Limits({template.pool: slots for template in templates}, usd)
    usage = usage or InstanceCounts()
    packing = solve(units, left, templates, usage, limits, effort)
    assert faults(units, left, packing.nodes, usage, limits) == []
    assert packing.bound_usd_per_hour <= packing.usd_per_hour + 1e-9
    assert packing.usd_per_hour == pytest.approx(
        sum(node.template.usd_per_hour for node in packing.nodes)
    )
    return packing


def served(packing: Packing) -> int:
    return sum(count for node in packing.nodes for count in node.load.values())


def cheapest(units: list[DemandItem], templates: list[Template]) -> float:
    """Optimum by brute force: the cheapest way to serve each smaller demand, by last machine."""
    counts = tuple(unit.count for unit in units)
    loads: dict[tuple[int, ...], float] = {}
    for load in product(*(range(count + 1) for count in counts)):
        used = [
            sum(unit.shape[d] * n for unit, n in zip(units, load, strict=True)) for d in range(5)
        ]
        alone = all(
            n <= 1 for unit, n in zip(units, load, strict=True) if UNIQUE in unit.constraints
        )
        fitting = [
            t.usd_per_hour
            for t in templates
            if alone and all(u <= s for u, s in zip(used, t.shape, strict=True))
        ]
        if any(load) and fitting:
            loads[load] = min(fitting)
    best = {(0,) * len(counts): 0.0}
    for want in sorted(product(*(range(count + 1) for count in counts)), key=sum):
        ways = [
            usd + best[rest]
            for load, usd in loads.items()
            if all(n <= w for n, w in zip(load, want, strict=True))
            and (rest := tuple(w - n for w, n in zip(want, load, strict=True))) in best
        ]
        if any(want) and ways:
            best[want] = min(ways)
    return best[counts]


small_units = st.lists(
    st.tuples(
        st.integers(1, 4),
        st.sampled_from([0.3, 0.5, 1, 1.5, 2]),
        st.sampled_from([100, 900, 2000, 3900]),
        st.booleans(),
    ),
    min_size=1,
    max_size=3,
)


@pytest.mark.slow
@settings(deadline=None, max_examples=PACKINGS)
@given(drawn=small_units)
def test_what_few_pieces_cost_is_the_optimum_and_nothing_less_is_claimed(drawn):
    units = [
        a_unit(f"/{n}", count, cpus, mem, *([UNIQUE] if alone else []))
        for n, (count, cpus, mem, alone) in enumerate(drawn)
    ]
    packing, best = packed(units, TYPES), cheapest(units, TYPES)
    assert served(packing) == sum(unit.count for unit in units)
    assert packing.usd_per_hour == pytest.approx(best)
    assert packing.bound_usd_per_hour == pytest.approx(best, rel=1e-5)
    assert packing.bound_usd_per_hour <= best + 1e-9


@pytest.mark.slow
@settings(deadline=None, max_examples=PACKINGS)
@given(drawn=small_units)
def test_columns_alone_come_within_a_tenth_of_the_optimum(drawn):
    """Without the enumeration that makes small answers exact: what larger ones rely on."""
    units = [
        a_unit(f"/{n}", count, cpus, mem, *([UNIQUE] if alone else []))
        for n, (count, cpus, mem, alone) in enumerate(drawn)
    ]
    packing, best = packed(units, TYPES, effort=Effort(patterns=1)), cheapest(units, TYPES)
    assert packing.bound_usd_per_hour <= best + 1e-9
    assert best - 1e-9 <= packing.usd_per_hour <= best * 1.1 + 1e-9


mixed_units = st.lists(
    st.tuples(
        st.integers(1, 40),
        st.sampled_from([0.1, 0.25, 0.5, 1, 1.5, 3]),
        st.sampled_from([100, 512, 1024, 4096]),
        st.sampled_from(
            [
                (),
                (UNIQUE,),
                (SPREAD,),
                (TOGETHER,),
                (Constraint("hostname", "MAX_PER", "3"), SPREAD),
                (Constraint("zone", "MAX_PER", "5"),),
            ]
        ),
    ),
    min_size=1,
    max_size=8,
)


@pytest.mark.slow
@settings(deadline=None, max_examples=PACKINGS)
@given(drawn=small_units, rows=st.sampled_from([1, 2, 100]))
def test_no_bound_is_above_the_optimum_however_rows_are_merged_and_sizes_rounded(drawn, rows):
    """The bounds themselves; a plan's bound is cut at its price, which would hide a wrong one."""
    units = [
        a_unit(f"/{n}", count, cpus, mem, *([UNIQUE] if alone else []))
        for n, (count, cpus, mem, alone) in enumerate(drawn)
    ]
    best = cheapest(units, TYPES)
    parts = partition(
        units, {index: unit.count for index, unit in enumerate(units)}, TYPES, InstanceCounts()
    )
    problem = with_bound_dimensions(build(parts, TYPES, rows_at_most=rows), parts)
    assert problem.bound <= best + 1e-9
    result = generate_columns(
        problem, initial_columns(problem), {"p": 1000}, Effort(patterns=1), np.inf
    )
    assert result.bound <= best + 1e-9
    assert (
        generate_columns(problem, initial_columns(problem), {"p": 1000}, USUAL, np.inf).bound
        <= best + 1e-9
    )
    packing = packed(units, TYPES, effort=Effort(rows=rows, patterns=1))
    assert packing.usd_per_hour >= best - 1e-9
    assert served(packing) == sum(unit.count for unit in units)


@pytest.mark.slow
@settings(deadline=None, max_examples=PACKINGS)
@given(drawn=small_units)
def test_nothing_found_later_is_dearer_than_first_fit(drawn):
    units = [
        a_unit(f"/{n}", count, cpus, mem, *([UNIQUE] if alone else []))
        for n, (count, cpus, mem, alone) in enumerate(drawn)
    ]
    first = packed(units, TYPES, effort=QUICK)
    assert first.method == "first fit"
    assert packed(units, TYPES, effort=Effort(patterns=1)).usd_per_hour <= first.usd_per_hour + 1e-9


@pytest.mark.slow
@settings(deadline=None, max_examples=PACKINGS)
@given(
    drawn=mixed_units,
    slots=st.sampled_from([2, 7, 1000]),
    usd=st.sampled_from([None, 0.6]),
    rows=st.sampled_from([2, 100]),
)
def test_rules_hold_whatever_is_asked_and_merged_rows_break_none(drawn, slots, usd, rows):
    units = [
        a_unit(f"/{n}", count, cpus, mem, *constraints)
        for n, (count, cpus, mem, constraints) in enumerate(drawn)
    ]
    if (
        slots < 1000 or usd is not None
    ):  # what a bound leaves out may leave a spread app uneven: known, and not claimed otherwise
        units = [
            replace(unit, constraints=tuple(c for c in unit.constraints if c != SPREAD))
            for unit in units
        ]
    templates = in_zones(("small", 2, 4000, 0.10), ("wide", 4, 6000, 0.18), ("big", 8, 16000, 0.38))
    packing = packed(units, templates, slots, usd, Effort(rows=rows))
    if (
        slots == 1000
        and usd is None
        and not any(
            c.operator == "MAX_PER" and c.field == "zone"
            for unit in units
            for c in unit.constraints
        )
    ):
        assert served(packing) == sum(unit.count for unit in units)
    assert packed(units, templates, slots, usd, QUICK).bound_usd_per_hour >= 0


def test_the_same_question_has_the_same_answer():
    units = [a_unit(f"/{n}", 17 + n, 0.3 * (n + 1), 300 * (7 - n)) for n in range(6)]
    first = packed(units, TYPES)
    solution._solve.cache_clear()
    assert packed(units, TYPES) == first


def test_what_is_kept_of_an_answer_follows_prices_and_limits_and_is_safe_from_callers():
    units = [a_unit("/web", 10)]
    first = packed(units, TYPES)
    expected = [(node.template.instance_type, dict(node.load)) for node in first.nodes]
    for node in first.nodes:
        node.load.clear()
    again = packed(units, TYPES)
    assert [(node.template.instance_type, node.load) for node in again.nodes] == expected
    dearer = [replace(template, usd_per_hour=template.usd_per_hour * 2) for template in TYPES]
    assert packed(units, dearer).usd_per_hour == pytest.approx(2 * again.usd_per_hour)
    assert len(packed(units, TYPES, slots=1).nodes) == 1
    assert packed(units, TYPES, usd=0.10).usd_per_hour == pytest.approx(0.10)
    assert packed([a_unit("/web", 10, 1, 512, UNIQUE)], TYPES).nodes != again.nodes


def test_zones_are_level_after_buying_for_a_spread_app_and_one_for_a_clustered_one():
    templates = in_zones(("small", 2, 4000, 0.10))
    spread = packed([a_unit("/spread", 6, 1, 100, SPREAD)], templates)
    assert sorted(node.template.zone for node in spread.nodes) == ["a", "b", "c"]
    together = packed([a_unit("/together", 6, 1, 100, TOGETHER)], templates)
    assert len({node.template.zone for node in together.nodes}) == 1


def test_a_spread_app_that_leans_to_one_zone_gets_its_machine_in_another():
    usage = InstanceCounts()
    usage.add_value("/spread", SPREAD, "a", 2)
    usage.add_value("/spread", SPREAD, "b", 2)
    bought = packed(
        [a_unit("/spread", 2, 1, 100, SPREAD)], in_zones(("small", 2, 4000, 0.10)), usage=usage
    )
    assert {node.template.zone for node in bought.nodes} == {"c"}


def test_like_and_unlike_choose_among_the_types():
    units = [
        a_unit("/like", 1, 1, 100, Constraint("instance_type", "LIKE", "d.*")),
        a_unit("/unlike", 1, 1, 100, Constraint("instance_type", "UNLIKE", "(small|deep)")),
    ]
    assert sorted(node.template.instance_type for node in packed(units, TYPES).nodes) == [
        "deep",
        "wide",
    ]


def test_a_first_fit_without_columns_has_a_bound_as_well():
    packing = packed([a_unit("/web", 16, 1, 1900)], TYPES, effort=QUICK)
    assert packing.method == "first fit"
    assert 0 < packing.bound_usd_per_hour <= packing.usd_per_hour


def test_two_pools_share_what_neither_may_hold_alone():
    templates = [a_template("cheap", 2, 4000, 0.10), a_template("dear", 2, 4000, 0.15, pool="q")]
    units = [a_unit("/web", 8, 1, 100)]
    left, limits = {0: 8}, Limits({"p": 3, "q": 3})
    packing = solve(units, left, templates, InstanceCounts(), limits)
    assert faults(units, left, packing.nodes, InstanceCounts(), limits, complete=True) == []
    assert packing.usd_per_hour == pytest.approx(0.45)


def test_gaps_in_all_zones_take_a_spread_app_level_by_level():
    nodes = [Node(zone, "settled", zone, {"zone": zone}, make(4, 4000), "p") for zone in ("a", "b")]
    placement = place([a_unit("/spread", 6, 1, 100, SPREAD)], nodes, InstanceCounts())
    assert placement.placed == {0: {"a": 3, "b": 3}} or sum(placement.placed[0].values()) == 6


def test_pieces_counted_in_whole_steps_bound_what_a_fluid_would_not():
    """8,182 MiB hold three pieces of 2,048 MiB, not 3.995."""
    units, machine = [a_unit("/web", 8, 0.1, 2048)], a_template("m", 4, 8182, 1.0)
    assert packed(units, [machine], effort=QUICK).bound_usd_per_hour == pytest.approx(8 / 3)
    assert packed(units, [machine]).bound_usd_per_hour == pytest.approx(3.0)


def test_what_only_a_dear_pool_holds_is_not_bounded_by_the_cheap_ones_price():
    templates = [a_template("cheap", 2, 4000, 0.10), a_template("dear", 2, 4000, 0.50, pool="q")]
    units = [a_unit("/free", 4, 1, 100), a_unit("/picky", 4, 1, 100, Constraint("pool", "IS", "q"))]
    assert packed(units, templates, effort=QUICK).bound_usd_per_hour == pytest.approx(
        2 * 0.10 + 2 * 0.50
    )


def test_when_the_budget_of_work_is_spent_the_answer_is_that_of_first_fit_with_its_bound():
    units = [a_unit(f"/{n}", 17 + n, 0.3 * (n + 1), 300 * (7 - n)) for n in range(6)]
    spent, first = (
        packed(units, TYPES, effort=Effort(budget=1, patterns=1)),
        packed(units, TYPES, effort=QUICK),
    )
    assert spent.cut_short
    assert served(spent) == sum(unit.count for unit in units)
    assert 0 < spent.bound_usd_per_hour <= spent.usd_per_hour <= first.usd_per_hour + 1e-9
    assert not packed(units, TYPES).cut_short


def test_an_answer_of_which_nothing_is_cheaper_says_so():
    packing = packed([a_unit("/web", 3, 1.5, 1900), a_unit("/db", 2, 1, 2000)], TYPES)
    assert (packing.method, packing.gap) == ("exact", pytest.approx(0, abs=1e-6))


def test_where_nothing_is_for_sale_nothing_is_bought():
    packing = packed([a_unit("/web", 3)], [])
    assert (packing.nodes, packing.gap) == ((), 0)


def test_pieces_that_ask_for_nothing_still_get_a_machine():
    assert served(packed([DemandItem("services", "/nothing", make(0, 0), 5, ())], TYPES)) == 5


def test_what_a_pools_max_leaves_out_is_not_in_the_bound():
    """Four of ten pieces are served; four cost what two cheap machines do, whatever is bought."""
    templates = [a_template("cheap", 2, 4000, 0.10), a_template("dear", 2, 4000, 0.30, pool="q")]
    packing = packed([a_unit("/web", 10, 1, 100)], templates, slots=1)
    assert (served(packing), packing.usd_per_hour) == (4, pytest.approx(0.40))
    assert packing.bound_usd_per_hour == pytest.approx(0.20)


@pytest.mark.slow
def test_demand_of_which_no_two_pieces_are_alike_is_packed_as_well():
    units = [
        a_unit(f"/{n}", 1, 0.05 + (n * 7919 % 1950) / 1000, 50 + n * 104729 % 3900)
        for n in range(800)
    ]
    packing = packed(units, TYPES)
    assert served(packing) == 800
    assert packing.gap < 0.07
    assert not packing.cut_short
