"""Machines of one purchase spread over zones while that costs little."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.autoscaler_builders import NOW, ZONES, a_machine, a_snapshot, a_spec, full, queued
from mesaform.autoscaler.model.cluster_view import QueueEntry
from mesaform.autoscaler.model.snapshot import Intent, Snapshot
from mesaform.autoscaler.planner.planner import plan
from mesaform.autoscaler.planner.zone_balance import machines_by_zone
from mesaform.aws.ports import LaunchRequest, Offering
from mesaform.common.resources import EMPTY
from mesaform.config.schema import ClusterSpec
from mesaform.testing.fake_cloud import FakeFleet

EVEN = [Offering("m5.large", zone, "on-demand", 0.1, EMPTY) for zone in ZONES]


def asked(snapshot: Snapshot) -> list[LaunchRequest]:
    commands = plan(snapshot, NOW).commands
    return [
        action.request
        for command in commands
        for action in command.actions
        if hasattr(action, "request")
    ]


def zones_of(snapshot: Snapshot) -> Counter[str]:
    """Zones of the machines that a cloud with capacity everywhere launches."""
    fleet = FakeFleet(lambda: NOW)
    launched = [
        machine for request in asked(snapshot) for machine in fleet.launch(request).machines
    ]
    return Counter(machine.zone for machine in launched)


def waiting(count: int, **fields: Any) -> QueueEntry:
    return queued(count=count, cpus=1.5, mem_mib=512, **fields)


def a_wide_spec() -> ClusterSpec:
    return a_spec(pools=[{"count": 0, "max": 100, "types": ["m5.large"]}])


def test_thirty_machines_at_equal_price_are_ten_in_each_zone():
    snapshot = a_snapshot(a_wide_spec(), queue=[waiting(30)])
    assert zones_of(snapshot) == dict.fromkeys(ZONES, 10)


def test_a_purchase_levels_what_is_there_and_what_is_ordered():
    present = [a_machine(f"i-{n}") for n in range(4)]
    spec = a_wide_spec()
    snapshot = a_snapshot(
        spec, queue=[waiting(7)], machines=present, agents=[full(m) for m in present]
    )
    offering = next(o for o in snapshot.offerings["default"] if o.zone == ZONES[1])
    ordered = LaunchRequest("toy", "default", 1, (offering,), "ms-1")
    snapshot = replace(snapshot, intents=(Intent(ordered, NOW, None),))
    bought = zones_of(snapshot)
    total = Counter({ZONES[0]: 4, ZONES[1]: 1}) + bought
    assert max(total.values()) - min(total.values()) <= 1
    assert bought[ZONES[0]] == 0


def test_work_that_pins_a_zone_gets_its_machines_there():
    pinned = waiting(6, constraints=(("zone", "IS", ZONES[2]),))
    assert zones_of(a_snapshot(a_wide_spec(), queue=[pinned])) == {ZONES[2]: 6}


def test_minima_of_pools_spread_as_well():
    spec = a_spec(pools=[{"count": 0, "min": 6, "max": 100, "types": ["m5.large"]}])
    assert zones_of(a_snapshot(spec)) == dict.fromkeys(ZONES, 2)


def test_a_zone_that_is_much_cheaper_gets_all_machines():
    cheap = [replace(EVEN[0], usd_per_hour=0.08), *EVEN[1:]]
    assert machines_by_zone(30, cheap, {}, 2.0) == {ZONES[0]: 30}


def test_a_zone_that_is_a_little_cheaper_gets_a_little_more():
    cheap = [replace(EVEN[0], usd_per_hour=0.0995), *EVEN[1:]]
    counts = machines_by_zone(30, cheap, {}, 2.0)
    assert counts[ZONES[0]] > 10
    assert min(counts.values()) >= 5


def test_under_a_cost_cap_no_machine_is_dearer_than_what_was_planned():
    spec = a_wide_spec()
    capped = spec.model_copy(
        update={"cost": spec.cost.model_copy(update={"max_usd_per_hour": 0.96 + 1e-6})}
    )
    snapshot = a_snapshot(capped, queue=[waiting(30)])
    dearer = tuple(
        replace(o, usd_per_hour=o.usd_per_hour * (1.001 if o.zone != ZONES[0] else 1))
        for o in snapshot.offerings["default"]
    )
    snapshot = replace(snapshot, offerings={"default": dearer})
    assert set(zones_of(snapshot)) == {ZONES[0]}


@given(
    count=st.integers(0, 60),
    prices=st.lists(st.floats(0.05, 0.2), min_size=1, max_size=4),
    present=st.lists(st.integers(0, 20), min_size=4, max_size=4),
    percent=st.sampled_from([0.0, 1.0, 2.0, 10.0]),
)
def test_balance_costs_at_most_its_percentage_for_each_zone(count, prices, present, percent):
    zones = [f"z{n}" for n in range(len(prices))]
    offered = [
        replace(EVEN[0], zone=z, usd_per_hour=usd) for z, usd in zip(zones, prices, strict=True)
    ]
    there = dict(zip(zones, present, strict=False))
    counts = machines_by_zone(count, offered, there, percent)
    assert sum(counts.values()) == count
    most = min(prices) * (1 + percent / 100 * len(zones) * (1 + sum(present)))
    usd = dict(zip(zones, prices, strict=True))
    assert all(usd[zone] <= most + 1e-9 for zone in counts)
    if percent and len(set(prices)) == 1 and not any(there.values()):
        assert not counts or max(counts.values()) - min(counts.get(z, 0) for z in zones) <= 1


def test_the_planner_prices_what_the_first_zone_of_each_call_costs():
    planned = plan(a_snapshot(a_wide_spec(), queue=[waiting(3)]), NOW)
    assert planned.after_usd_per_hour - planned.usd_per_hour == pytest.approx(3 * 0.096)


def test_an_unknown_type_moves_no_machine():
    assert machines_by_zone(5, [], {}, 2.0) == {}
