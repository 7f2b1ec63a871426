"""Which snapshots are kept, and how one is chosen by its name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesaform.common import snapshots
from mesaform.common.records import DOCUMENT_LIMIT_BYTES, RecordRefused, Unreadable
from mesaform.common.snapshots import (
    DAY_S,
    DEFAULT_RETENTION,
    SNAPSHOT,
    Retention,
    Snapshot,
    SnapshotName,
    choose,
    parse_name,
    surplus,
)

NOW = 1_795_750_000.0
HOURLY, DAILY = DEFAULT_RETENTION.keep_newest, DEFAULT_RETENTION.keep_days
deployments = st.sampled_from(["a1", "b2", "none"])
names = st.builds(
    SnapshotName.of, st.floats(NOW - 200 * DAY_S, NOW).map(lambda at: float(int(at))), deployments
)


@given(st.sets(names, max_size=300), st.sampled_from(["a1", "b2", ""]))
def test_what_is_kept_is_bounded_and_has_the_newest_of_the_deployment(found, deployment):
    surplus_names = surplus(found, deployment, NOW)
    kept = found - set(surplus_names)
    own = {name for name in found if name.deployment == (deployment or "none")}
    assert surplus_names == sorted(surplus_names)
    assert len(kept & own) <= HOURLY + DAILY + 1
    assert len(kept - own) <= 2, "one of each other deployment"
    assert set(sorted(own, reverse=True)[:HOURLY]) <= kept
    assert surplus(kept, deployment, NOW) == [], "pruning is idempotent"


def test_after_months_there_are_two_days_of_hours_and_two_weeks_of_days():
    hours = [SnapshotName.of(NOW - hour * 3600.0, "a1") for hour in range(24 * 60)]
    kept = sorted(set(hours) - set(surplus(hours, "a1", NOW)), reverse=True)
    assert kept[:HOURLY] == hours[:HOURLY]
    ages_days = [(NOW - name.at) / DAY_S for name in kept[HOURLY:]]
    assert len(ages_days) in {DAILY - 2, DAILY - 1, DAILY}
    assert max(ages_days) < DAILY + 1


@given(
    st.sets(names, max_size=60), st.integers(1, 5), st.integers(0, 3), st.sampled_from([0, 30, 90])
)
def test_a_cluster_file_sets_how_many_are_kept(found, newest, days, former_days):
    retention = Retention(keep_newest=newest, keep_days=days, keep_former_days=former_days)
    kept = found - set(surplus(found, "a1", NOW, retention))
    own = {name for name in found if name.deployment == "a1"}
    assert len(kept & own) <= newest + days + 1
    assert set(sorted(own, reverse=True)[:newest]) <= kept
    assert all(name.at > NOW - former_days * DAY_S for name in kept - own)


@given(names)
def test_a_name_tells_its_time_and_deployment(name):
    assert parse_name(str(name)) == name


@pytest.mark.parametrize(
    "text", ["", "x", "2026-11-27T04-00-00Z", "2026-13-27T04-00-00Z.a", "2026-11-27T04-00-00Z.a/b"]
)
def test_other_objects_are_no_snapshots(text):
    assert parse_name(text) is None


def test_the_newest_of_a_day_is_chosen_and_only_of_the_deployment():
    day, hour = "2026-11-27", 1_795_750_800.0
    first, last = (SnapshotName.of(hour + n * DEFAULT_RETENTION.interval_s, "a1") for n in (0, 5))
    other = SnapshotName.of(hour + 6 * DEFAULT_RETENTION.interval_s, "b2")
    later = SnapshotName.of(hour + 2 * DAY_S, "a1")
    found = [later, other, first, last]
    assert first.when.startswith(day)
    assert choose(found, day, "a1") == last
    assert choose(found, "", "a1") == later
    assert choose(found, str(first), "a1") == first
    assert choose(found, day, "") == other
    assert choose(found, "2020", "") is None


def test_a_snapshot_is_a_compressed_record_with_a_schema_and_a_limit(monkeypatch):
    snapshot = Snapshot(cluster="c", deployment="d", at=1.0, nodes={"/m/a": b"x" * 10_000})
    data = SNAPSHOT.encode(snapshot)
    assert len(data) < 500
    assert SNAPSHOT.decode(data) == snapshot
    assert isinstance(SNAPSHOT.decode(data[:-5]), Unreadable)
    huge = Snapshot(
        cluster="c", deployment="d", at=1.0, nodes={"/m/a": bytes(DOCUMENT_LIMIT_BYTES)}
    )
    with pytest.raises(RecordRefused):
        SNAPSHOT.encode(huge)
    assert snapshots.DEFAULT_RETENTION.interval_s == 3600.0
