"""Steps of packing: filling machines, grouping sizes, and dimensions that need no search."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesaform.autoscaler.model.shape import how_often, make, minus, times
from mesaform.autoscaler.packing import bounds
from mesaform.autoscaler.packing.buckets import round_up_sizes
from mesaform.autoscaler.packing.model import Template
from mesaform.autoscaler.packing.partition import Part
from mesaform.autoscaler.packing.patterns import fill_patterns
from mesaform.autoscaler.packing.problem import Problem, build
from tests.support.profiles import examples

PACKINGS = examples(100)
pytestmark = pytest.mark.timeout(120 + PACKINGS)

shapes = st.builds(
    make,
    st.sampled_from([0.05, 0.1, 0.25, 0.3, 1, 1.5, 7]),
    st.sampled_from([10, 100, 333, 1024, 2048, 30000]),
    ports=st.sampled_from([0, 1, 1, 1, 30]),
)
machines = st.builds(
    make,
    st.sampled_from([1, 1.9, 8, 64]),
    st.sampled_from([2000, 8182, 65000]),
    ports=st.sampled_from([10, 100, 1000]),
)


def a_problem(asked, sizes) -> Problem:
    templates = [
        Template("p", f"t{n}", "z", "on-demand", 1.0 + n, size, {}) for n, size in enumerate(sizes)
    ]
    everywhere = frozenset(range(len(templates)))
    parts = [
        Part(n, f"/{n}", shape, count, everywhere, per_machine)
        for n, (shape, count, per_machine) in enumerate(asked)
    ]
    return build(parts, templates, rows_at_most=1000)


asked = st.lists(
    st.tuples(shapes, st.integers(1, 50), st.sampled_from([10**9, 10**9, 1, 3])),
    min_size=1,
    max_size=6,
)


@pytest.mark.slow
@settings(deadline=None, max_examples=PACKINGS)
@given(asked=asked, sizes=st.lists(machines, min_size=1, max_size=4), data=st.data())
def test_filling_many_machines_at_once_is_filling_each_by_hand(asked, sizes, data):
    problem = a_problem(asked, sizes)
    ways = [np.array(data.draw(st.permutations(range(problem.wanted.size)))) for _ in range(2)]
    left = np.array([data.draw(st.integers(0, int(count))) for count in problem.wanted])
    loads = fill_patterns(problem, ways, left)
    for way, by_kind in zip(ways, loads, strict=True):
        for kind, load in enumerate(by_kind):
            free, expected = tuple(problem.sizes[kind].tolist()), np.zeros_like(left)
            for row in way:
                shape = tuple(problem.shapes[row].tolist())
                often = min(
                    (have // want for have, want in zip(free, shape, strict=True) if want),
                    default=10**9,
                )
                expected[row] = min(often, left[row], problem.row_limits[kind, row])
                free = tuple(
                    have - want * int(expected[row]) for have, want in zip(free, shape, strict=True)
                )
            assert load.tolist() == expected.tolist()


def test_a_dimension_that_another_exhausts_first_needs_no_look():
    """Ten ports a cpu and a port a piece of at least 100 mCPU: cpus end first."""
    problem = a_problem(
        [(make(0.1, 10, ports=1), 50, 10**9), (make(0.5, 900, ports=1), 50, 10**9)],
        [make(1, 1500, ports=10)],
    )
    assert problem.binding_dimensions == (0, 1)
    scarce = a_problem(
        [(make(0.1, 10, ports=2), 50, 10**9), (make(0.5, 900, ports=1), 50, 10**9)],
        [make(1, 1500, ports=10)],
    )
    assert scarce.binding_dimensions == (0, 1, 4)


@pytest.mark.slow
@settings(deadline=None, max_examples=PACKINGS)
@given(
    drawn=st.lists(
        st.tuples(shapes, st.integers(1, 9), st.sampled_from("ab")), min_size=1, max_size=40
    ),
    at_most=st.integers(1, 12),
)
def test_a_bucket_is_as_large_as_all_that_is_in_it_and_there_are_few(drawn, at_most):
    result = round_up_sizes(
        [shape for shape, _, _ in drawn],
        [count for _, count, _ in drawn],
        [kind for _, _, kind in drawn],
        at_most,
    )
    for (shape, _, _), bucket in zip(drawn, result, strict=True):
        assert how_often(shape, bucket) >= 1
        assert min(minus(bucket, times(shape, 1))) >= 0
    kinds = {kind for _, _, kind in drawn}
    assert len({(kind, bucket) for (_, _, kind), bucket in zip(drawn, result, strict=True)}) <= max(
        at_most, len(kinds)
    )


def test_few_sizes_are_not_rounded_at_all():
    sizes = [make(n, 100 * n) for n in range(1, 6)]
    assert round_up_sizes(sizes, [1] * 5, ["same"] * 5, 5) == sizes


@pytest.mark.slow
@settings(deadline=None, max_examples=PACKINGS)
@given(asked=asked, sizes=st.lists(machines, min_size=1, max_size=4), usd=st.floats(0.001, 10))
def test_prices_that_make_a_machine_worth_more_than_it_costs_are_lowered_until_none_is(
    asked, sizes, usd
):
    problem = a_problem(asked, sizes)
    prices = bounds._proven(
        problem,
        problem.sizes,
        np.full((len(bounds._allowed(problem)), problem.sizes.shape[1]), usd),
    )
    assert (
        (problem.sizes * prices[problem.groups]).sum(axis=1) <= problem.usd_per_hour * (1 + 1e-9)
    ).all()


@pytest.mark.slow
@settings(deadline=None, max_examples=PACKINGS)
@given(asked=asked, sizes=st.lists(machines, min_size=1, max_size=4), data=st.data())
def test_no_load_of_a_machine_is_worth_more_than_it_costs_at_the_least_prices(asked, sizes, data):
    templates = [
        Template(
            f"p{n}", f"t{n}", "z", "on-demand", data.draw(st.sampled_from([0.1, 1, 5])), size, {}
        )
        for n, size in enumerate(sizes)
    ]
    places = [
        frozenset(range(data.draw(st.integers(0, len(sizes) - 1)), len(sizes))) for _ in asked
    ]
    parts = [
        Part(n, f"/{n}", shape, count, places[n], most)
        for n, (shape, count, most) in enumerate(asked)
    ]
    rows = data.draw(st.sampled_from([1, 3, 100]))
    cut = bounds.with_bound_dimensions(build(parts, templates, rows_at_most=rows), parts)
    if cut.is_proof and not cut.is_empty:
        for loads in fill_patterns(
            cut, [np.arange(cut.wanted.size), np.arange(cut.wanted.size)[::-1]], cut.wanted
        ):
            assert (loads @ cut.lower_prices <= cut.usd_per_hour * (1 + 1e-9)).all()
