"""Snapshots of the state as objects in S3, and what a teardown says of them."""

from __future__ import annotations

import pytest

from mesaform.aws.bucket import ensure_bucket
from mesaform.aws.client import client
from mesaform.aws.snapshots import SnapshotObjects
from mesaform.aws.stored_retention import read_retention
from mesaform.common.errors import BadInput, NotFound
from mesaform.common.records import Unreadable
from mesaform.common.snapshots import DEFAULT_RETENTION, Retention, Snapshot, SnapshotName
from mesaform.config.parser import parse
from mesaform.teardown.account import kept_snapshots
from mesaform.topology.names import spec_parameter_name
from tests.integration.aws.conftest import REGION

AT = 1_795_750_800.0


def a_snapshot(at: float = AT, deployment: str = "d1") -> Snapshot:
    return Snapshot(
        cluster="toy", deployment=deployment, at=at, nodes={"/marathon/apps/a": b"\x00\xff"}
    )


def test_snapshots_are_listed_by_age_read_back_whole_and_removed(cloud):
    store = SnapshotObjects(ensure_bucket(REGION), "toy", REGION)
    later, first = store.write(a_snapshot(AT + 3600, "d2")), store.write(a_snapshot())
    assert store.names() == [first, later]
    assert store.read(first) == a_snapshot()
    store.remove(first)
    store.remove(first)
    assert store.names() == [later]
    with pytest.raises(NotFound):
        store.read(first)


def test_other_objects_and_other_clusters_are_not_taken_for_snapshots(cloud):
    bucket = ensure_bucket(REGION)
    store = SnapshotObjects(bucket, "toy", REGION)
    SnapshotObjects(bucket, "toy-2", REGION).write(a_snapshot())
    name = SnapshotName.of(AT, "d1")
    s3 = client("s3", REGION)
    s3.put_object(Bucket=bucket, Key="toy/snapshots/notes.txt", Body=b"x")
    s3.put_object(Bucket=bucket, Key=f"toy/snapshots/{name}", Body=b"damaged")
    assert store.names() == [name]
    assert isinstance(store.read(name), Unreadable)


def test_without_a_bucket_there_are_no_snapshots(cloud):
    assert SnapshotObjects("mesaform-000000000000-us-east-1", "toy", REGION).names() == []
    assert kept_snapshots(REGION, "toy") == []


def test_a_teardown_names_the_snapshots_that_it_keeps(cloud):
    bucket = ensure_bucket(REGION)
    newest = SnapshotObjects(bucket, "toy", REGION).write(a_snapshot())
    (kept,) = kept_snapshots(REGION, "toy")
    assert kept["id"] == f"s3://{bucket}/toy/snapshots/"
    assert kept["name"] == f"1 snapshot, the newest {newest}"
    assert kept_snapshots(REGION, "other") == []


def test_masters_read_the_retention_of_the_cluster_file(cloud):
    text = "name: toy\nsnapshots: {interval_s: 600, keep_newest: 12, keep_days: 0}\n"
    assert read_retention("toy", REGION) == DEFAULT_RETENTION, "the agents stack writes it"
    client("ssm", REGION).put_parameter(
        Name=spec_parameter_name("toy"), Value=parse(text).model_dump_json(), Type="String"
    )
    assert read_retention("toy", REGION) == Retention(
        interval_s=600, keep_newest=12, keep_days=0, keep_former_days=90
    )


def test_a_retention_that_keeps_nothing_is_refused():
    with pytest.raises(BadInput, match=r"snapshots.interval_s: must be at least 300") as refusal:
        parse("name: toy\nsnapshots: {interval_s: 10, keep_newest: 0}\n")
    assert "snapshots.keep_newest: must be at least 1" in str(refusal.value)
