"""What a stretch of time cost, from the ledger's rows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesaform.autoscaler.accounting.cost_report import (
    CLUSTER,
    UNKNOWN,
    UNUSED,
    add_up,
    apportioned,
    bars,
)

HOUR = 3600.0


def started(
    name: str, at: float, usd: float = 1.0, pool: str = "default", role: str = "agent", **fields
) -> dict:
    row = {
        "kind": "machine_started",
        "at": at,
        "launched_at": at,
        "instance_id": name,
        "usd_per_hour": usd,
        "pool": pool,
        "role": role,
    }
    return {**row, **fields}


def stopped(name: str, at: float, **fields) -> dict:
    return {"kind": "machine_stopped", "at": at, "instance_id": name, **fields}


def used(at: float, unused: float = 0.0, **apps: float) -> dict:
    return {
        "kind": "usage",
        "at": at,
        "usd_by_app": {f"/{name}": usd for name, usd in apps.items()},
        "usd_unused": unused,
    }


def test_a_machine_counts_from_its_launch_to_its_end_and_only_within_the_stretch():
    rows = [started("i-1", 0), stopped("i-1", 4 * HOUR), started("i-2", 5 * HOUR, usd=0.5)]
    bill = add_up(rows, HOUR, 6 * HOUR)
    assert bill.usd == pytest.approx(3 + 0.5)
    assert bill.machines == 2


def test_a_machine_that_nobody_saw_stop_ends_with_the_receipt_of_the_teardown():
    rows = [started("i-1", 0), {"kind": "receipt", "at": HOUR}, started("i-2", 2 * HOUR)]
    assert add_up(rows, 0, 3 * HOUR).usd == pytest.approx(2.0)


def test_a_machine_of_seconds_is_billed_for_a_minute():
    assert add_up([started("i-1", 0, usd=60.0), stopped("i-1", 5)], 0, HOUR).usd == pytest.approx(
        1.0
    )


def test_a_bill_by_pool_names_idle_dollars():
    rows = [
        started("i-1", 0),
        stopped("i-1", 2 * HOUR, idle_s=HOUR),
        started("i-m", 0, usd=0.1, pool="", role="master"),
    ]
    by_pool = add_up(rows, 0, 2 * HOUR, "pool")
    assert [(share.name, share.usd, share.idle_usd) for share in by_pool.shares] == [
        ("default", 2.0, 1.0),
        (CLUSTER, 0.2, 0.0),
    ]


def test_a_bill_may_be_by_type_zone_or_capacity_type():
    rows = [
        started("i-1", 0, instance_type="m5.large", zone="a", capacity="spot"),
        started("i-2", 0, usd=2.0, instance_type="m5.xlarge", zone="a", capacity="on-demand"),
    ]
    shown = {
        by: {share.name: share.usd for share in add_up(rows, 0, HOUR, by).shares}
        for by in ("type", "zone", "capacity")
    }
    assert shown == {
        "type": {"m5.large": 1.0, "m5.xlarge": 2.0},
        "zone": {"a": 3.0},
        "capacity": {"spot": 1.0, "on-demand": 2.0},
    }


def test_a_spot_price_counts_from_when_it_changed():
    machine = started(
        "i-1",
        0,
        usd=1.0,
        instance_type="m5.large",
        zone="a",
        capacity="spot",
        planned_usd_per_hour=0.5,
    )
    rows = [
        machine,
        {"kind": "price", "at": HOUR, "offering": "m5.large/a/spot", "usd_per_hour": 3.0},
    ]
    rows.append({"kind": "price", "at": HOUR, "offering": "m5.large/b/spot", "usd_per_hour": 9.0})
    bill = add_up(rows, 0, 2 * HOUR)
    assert (bill.planned_usd, bill.usd) == (1.0, 4.0)
    assert add_up(rows, HOUR, 2 * HOUR).usd == 3.0


def test_machines_stated_later_need_no_row_of_their_start():
    machine = {key: value for key, value in started("i-1", 0).items() if key not in ("kind", "at")}
    rows = [{"kind": "machines", "at": 9 * HOUR, "machines": [{**machine, "usd_now": 2.0}]}]
    assert add_up(rows, 8 * HOUR, 10 * HOUR).usd == 3.0
    assert add_up([*rows, stopped("i-1", 9.5 * HOUR)], 9 * HOUR, 10 * HOUR).usd == 1.0


def held(
    since: float, at: float, used: dict, unused: float, idle: float = 0.0, waited: float = 0.0
) -> dict:
    usd = sum(used.values()) + unused
    return {
        "kind": "resource_usage",
        "since": since,
        "at": at,
        "used": [[app, role, usd] for (app, role), usd in used.items()],
        "machines": [["default", "m5.large", "a", "spot", at - since, 0.0, usd, unused, idle]],
        "waited": [["/web", waited, waited / HOUR]],
    }


def test_roles_and_apps_pay_for_what_they_used_and_the_rest_is_a_line_of_its_own():
    rows = [
        started("i-1", 0),
        held(
            0,
            HOUR,
            {("/web", "dev"): 0.3, ("/api", "dev"): 0.2, ("spark", "prod"): 0.1},
            0.4,
            idle=0.25,
            waited=60,
        ),
    ]
    by_role = add_up(rows, 0, 2 * HOUR, "role")
    assert {share.name: share.usd for share in by_role.shares} == {
        "dev": 0.5,
        "prod": 0.1,
        UNUSED: 0.4,
        UNKNOWN: 1.0,
    }
    assert (by_role.idle_usd, by_role.unused_usd, by_role.waited_task_s) == (0.25, 0.4, 60.0)
    assert {share.name: share.usd for share in add_up(rows, 0, HOUR, "app").shares} == {
        "/web": 0.3,
        "/api": 0.2,
        "spark": 0.1,
        UNUSED: 0.4,
    }


def test_half_of_a_row_counts_for_half_of_its_time_and_two_leaders_rows_of_one_time_count_once():
    rows = [
        started("i-1", 0),
        held(0, HOUR, {("/web", "*"): 1.0}, 0.0),
        held(0.5 * HOUR, 1.5 * HOUR, {("/api", "*"): 1.0}, 0.0),
    ]
    bill = add_up(rows, 0.25 * HOUR, 1.5 * HOUR, "app")
    assert {share.name: share.usd for share in bill.shares} == {"/web": 0.75, "/api": 0.5}


def test_unused_and_unrecorded_dollars_are_lines_of_their_own():
    rows = [started("i-1", 0), *(used(at, 0.25, web=0.5, api=0.25) for at in range(0, 3600, 300))]
    bill = add_up(rows, 0, 2 * HOUR, "app")
    shares = {share.name: share.usd for share in bill.shares}
    held = (3300 + 900) / 3600
    assert shares["/web"] == pytest.approx(0.5 * held, abs=1e-4)
    assert shares[UNUSED] == pytest.approx(0.25 * held, abs=1e-4)
    assert shares[UNKNOWN] == pytest.approx(2 - held, abs=1e-4)


def test_a_bill_has_the_planned_price_beside_the_paid_one():
    bill = add_up([started("i-1", 0, usd=1.5, planned_usd_per_hour=1.0)], 0, HOUR)
    assert (bill.planned_usd, bill.usd) == (1.0, 1.5)


MACHINES = st.lists(
    st.tuples(
        st.integers(0, 20),
        st.integers(0, 20),
        st.sampled_from([0.1, 1.0]),
        st.sampled_from(["a", "b", ""]),
    ),
    max_size=8,
)


@pytest.mark.slow
@given(
    machines=MACHINES,
    samples=st.lists(
        st.tuples(st.integers(0, 40), st.sampled_from([0.0, 0.3, 9.0]), st.booleans()), max_size=6
    ),
    prices=st.lists(st.tuples(st.integers(0, 40), st.sampled_from([0.0123, 0.7])), max_size=3),
    since=st.integers(0, 20),
)
def test_the_lines_of_any_grouping_add_up_to_the_bill(machines, samples, prices, since):
    rows = []
    for number, (start, length, usd, pool) in enumerate(machines):
        kind = {"instance_type": f"m{number}.large", "zone": "ab"[number % 2], "capacity": "spot"}
        rows.append(
            started(
                f"i-{number}", start * HOUR, usd / 7, pool, "agent" if pool else "master", **kind
            )
        )
        if length:
            rows.append(stopped(f"i-{number}", (start + length) * HOUR))
    rows += [
        {"kind": "price", "at": at * HOUR / 2, "offering": "m1.large/b/spot", "usd_per_hour": usd}
        for at, usd in prices
    ]
    for at, usd, new in samples:
        end = (at + 1) * HOUR / 2
        rows.append(
            held(at * HOUR / 2, end, {("/web", "dev"): usd / 3, ("/api", "*"): usd}, usd)
            if new
            else used(at * HOUR / 2, usd, web=usd)
        )
    for by in ("pool", "app", "role", "type", "zone", "capacity"):
        bill = add_up(rows, since * HOUR, 30 * HOUR, by)
        assert round(sum(share.usd for share in bill.shares) * 10_000) == round(bill.usd * 10_000)
        assert all(share.usd >= 0 for share in bill.shares)
        assert sum(bill.series) * (bill.until - bill.since) / HOUR / len(
            bill.series
        ) == pytest.approx(bill.usd, abs=1e-3)


@pytest.mark.slow
@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1000), max_size=8))
def test_rounded_parts_add_up_to_the_rounded_whole_and_none_is_off_by_a_unit(amounts):
    whole = sum(amounts.values())
    parts = apportioned(amounts, whole)
    assert round(sum(parts.values()) * 10_000) == round(whole * 10_000)
    assert all(abs(parts[name] - amounts[name]) < 1.001e-4 for name in amounts)


def test_a_plot_is_as_high_as_its_highest_value():
    lines = bars([0, 1, 2, 4], 2)
    assert lines == ["   █", " ▄██"]
