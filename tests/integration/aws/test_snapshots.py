"""Snapshots of the state as objects in S3, and what a teardown says of them."""

from __future__ import annotations

import pytest

from mesaform.aws.bucket import ensure_bucket
from mesaform.aws.client import client
from mesaform.aws.snapshots import SnapshotObjects
from mesaform.common.errors import NotFound
from mesaform.common.records import Unreadable
from mesaform.common.snapshots import Snapshot, SnapshotName
from mesaform.teardown.account import kept_snapshots
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
