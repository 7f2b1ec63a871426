"""What a stretch of time cost, from the ledger's rows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.autoscaler.bill import CLUSTER, UNKNOWN, UNUSED, add_up, bars, usage

HOUR = 3600.0


def started(name: str, at: float, usd: float = 1.0, pool: str = "default", role: str = "agent", **fields) -> dict:
    row = {"kind": "machine_started", "at": at, "launched_at": at, "instance_id": name, "usd_per_hour": usd, "pool": pool, "role": role}
    return {**row, **fields}


def stopped(name: str, at: float, **fields) -> dict:
    return {"kind": "machine_stopped", "at": at, "instance_id": name, **fields}


def used(at: float, unused: float = 0.0, **apps: float) -> dict:
    return {"kind": "usage", "at": at, "usd_by_app": {f"/{name}": usd for name, usd in apps.items()}, "usd_unused": unused}


def test_a_machine_counts_from_its_launch_to_its_end_and_only_within_the_stretch():
    rows = [started("i-1", 0), stopped("i-1", 4 * HOUR), started("i-2", 5 * HOUR, usd=0.5)]
    bill = add_up(rows, HOUR, 6 * HOUR)
    assert bill.usd == pytest.approx(3 + 0.5)
    assert bill.machines == 2


def test_a_machine_that_nobody_saw_stop_ends_with_the_receipt_of_the_teardown():
    rows = [started("i-1", 0), {"kind": "receipt", "at": HOUR}, started("i-2", 2 * HOUR)]
    assert add_up(rows, 0, 3 * HOUR).usd == pytest.approx(2.0)


def test_a_machine_of_seconds_is_billed_for_a_minute():
    assert add_up([started("i-1", 0, usd=60.0), stopped("i-1", 5)], 0, HOUR).usd == pytest.approx(1.0)


def test_dollars_are_told_apart_by_pool_and_by_role_and_idle_ones_named():
    rows = [started("i-1", 0), stopped("i-1", 2 * HOUR, idle_s=HOUR), started("i-m", 0, usd=0.1, pool="", role="master")]
    by_pool = add_up(rows, 0, 2 * HOUR, "pool")
    assert [(share.name, share.usd, share.idle_usd) for share in by_pool.shares] == [("default", 2.0, 1.0), (CLUSTER, 0.2, 0.0)]
    assert {share.name: share.usd for share in add_up(rows, 0, 2 * HOUR, "role").shares} == {"agent": 2.0, "master": 0.2}


def test_apps_pay_for_what_they_held_and_what_nobody_held_or_nobody_wrote_down_is_told():
    rows = [started("i-1", 0), *(used(at, 0.25, web=0.5, api=0.25) for at in range(0, 3600, 300))]
    bill = add_up(rows, 0, 2 * HOUR, "app")
    shares = {share.name: share.usd for share in bill.shares}
    held = (3300 + 900) / 3600
    assert shares["/web"] == pytest.approx(0.5 * held, abs=1e-4)
    assert shares[UNUSED] == pytest.approx(0.25 * held, abs=1e-4)
    assert shares[UNKNOWN] == pytest.approx(2 - held, abs=1e-4)


def test_what_was_planned_is_told_beside_what_was_paid():
    bill = add_up([started("i-1", 0, usd=1.5, planned_usd_per_hour=1.0)], 0, HOUR)
    assert (bill.planned_usd, bill.usd) == (1.0, 1.5)


MACHINES = st.lists(
    st.tuples(st.integers(0, 20), st.integers(0, 20), st.sampled_from([0.1, 1.0]), st.sampled_from(["a", "b", ""])), max_size=8
)


@given(
    machines=MACHINES,
    samples=st.lists(st.tuples(st.integers(0, 40), st.sampled_from([0.0, 0.3, 9.0])), max_size=6),
    since=st.integers(0, 20),
)
def test_whatever_it_is_told_apart_by_no_dollar_is_lost_or_counted_twice(machines, samples, since):
    rows = []
    for number, (start, length, usd, pool) in enumerate(machines):
        rows.append(started(f"i-{number}", start * HOUR, usd, pool, "agent" if pool else "master"))
        if length:
            rows.append(stopped(f"i-{number}", (start + length) * HOUR))
    rows += [used(at * HOUR / 2, usd, web=usd) for at, usd in samples]
    for by in ("pool", "app", "role"):
        bill = add_up(rows, since * HOUR, 30 * HOUR, by)
        assert sum(share.usd for share in bill.shares) == pytest.approx(bill.usd, abs=1e-4)
        assert sum(bill.series) * (bill.until - bill.since) / HOUR / len(bill.series) == pytest.approx(bill.usd, abs=1e-3)


def test_a_plot_is_as_high_as_its_highest_value():
    lines = bars([0, 1, 2, 4], 2)
    assert lines == ["   █", " ▄██"]


def test_an_agents_dollars_are_shared_by_its_apps_as_far_as_it_is_used():
    by_app, unused = usage([(1.0, 0.5, {"/web": 3, "/api": 1}), (2.0, 0.0, {})])
    assert by_app == {"/api": 0.125, "/web": 0.375}
    assert unused == 2.5
