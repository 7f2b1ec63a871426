"""Control objects in S3 with the names and fields of commit 5698494 are still read."""

from __future__ import annotations

import json

from mesaform.aws import client
from mesaform.aws.control import S3Control
from mesaform.aws.overrides import Override
from tests.integration.aws.conftest import REGION

PAUSE = Override("o1", "pause", "ann@host", 1.0, 99.0)
HINT = Override("o2", "hint", "bob@host", 2.0, 99.0, count=3, cpus=1.0, mem_mib=512)
OLD_PAUSE = {"id": "o1", "kind": "pause", "by": "ann@host", "at": 1.0, "until": 99.0}


def put(bucket: str, name: str, document: object) -> None:
    s3 = client.client("s3", REGION)
    s3.put_object(Bucket=bucket, Key=f"toy/control/{name}.json", Body=json.dumps(document).encode())


def names(bucket: str) -> set[str]:
    listed = client.client("s3", REGION).list_objects_v2(Bucket=bucket, Prefix="toy/control/")
    return {item["Key"].rpartition("/")[2] for item in listed.get("Contents", [])}


def test_an_old_freeze_is_obeyed_and_lifted(bucket: str) -> None:
    control = S3Control(bucket, "toy", REGION)
    put(bucket, "fence", {"reason": "mesaform down", "at": 1.0})
    assert control.frozen_reason() == "mesaform down"
    control.unfreeze()
    assert control.frozen_reason() is None
    assert names(bucket) == set()


def test_an_old_heartbeat_is_read_until_a_new_one_is_written(bucket: str) -> None:
    control = S3Control(bucket, "toy", REGION)
    put(bucket, "beat", {"at": 1.0, "fenced": True, "address": "a:1", "memory": {"x": 1}})
    assert control.last_heartbeat() == {
        "at": 1.0,
        "frozen": True,
        "address": "a:1",
        "planner_state": {"x": 1},
    }
    control.write_heartbeat(2.0, frozen=False, address="a:2")
    heartbeat = control.last_heartbeat()
    assert heartbeat is not None
    assert heartbeat["at"] == 2.0


def test_old_overrides_are_kept_by_the_first_change(bucket: str) -> None:
    control = S3Control(bucket, "toy", REGION)
    put(bucket, "orders", [OLD_PAUSE])
    assert control.overrides() == (PAUSE,)
    control.update_overrides(lambda overrides: (*overrides, HINT))
    assert control.overrides() == (PAUSE, HINT)
    assert "overrides.json" in names(bucket)
    control.update_overrides(lambda _: ())
    assert control.overrides() == ()
