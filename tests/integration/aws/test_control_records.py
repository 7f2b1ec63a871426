"""Control objects that cannot be read: a freeze stays in force, overrides become a pause."""

from __future__ import annotations

from typing import cast

import pytest

from mesaform.autoscaler.daemon.expiry import ClusterExpiry, Operator, Terminator
from mesaform.autoscaler.daemon.weekly_profile_store import NAME, PROFILE
from mesaform.autoscaler.model.weekly_profile import Profile
from mesaform.aws import client
from mesaform.aws.bucket_objects import READ_LIMIT_BYTES
from mesaform.aws.control import S3Control
from mesaform.aws.expiry import NAME as EXPIRY_NAME
from mesaform.aws.overrides import Override
from mesaform.aws.set_aside import SetAsideObjects
from mesaform.common.errors import MesaformError
from mesaform.common.records import Unreadable
from mesaform.common.set_aside import SetAsideLog
from tests.integration.aws.conftest import REGION

UNREADABLE = [
    b"garbage",
    b"null",
    b"",
    b"[1]",
    b'{"schema":"control.overrides/2","orders":{}}',
    b" " * (17 * 1024 * 1024),
]


def put(bucket: str, name: str, data: bytes) -> None:
    client.client("s3", REGION).put_object(Bucket=bucket, Key=f"toy/control/{name}.json", Body=data)


def leader(bucket: str) -> tuple[S3Control, SetAsideLog]:
    log = SetAsideLog()
    return S3Control(bucket, "toy", REGION, log), log


@pytest.mark.parametrize("data", UNREADABLE)
def test_a_freeze_that_cannot_be_read_stays_in_force_until_it_ends(bucket, data):
    put(bucket, "freeze", data)
    assert "cannot be read" in S3Control(bucket, "toy", REGION).frozen_reason()
    control, log = leader(bucket)
    for _ in range(3):
        assert "cannot be read" in control.frozen_reason()
    assert log.counts == {"freeze": 1}
    [entry] = SetAsideObjects(bucket, "toy", REGION).all()
    assert SetAsideObjects(bucket, "toy", REGION).content("freeze", entry.name) == data
    control.unfreeze()
    assert control.frozen_reason() is None


@pytest.mark.parametrize("data", UNREADABLE)
def test_overrides_that_cannot_be_read_become_a_pause(bucket, data):
    put(bucket, "overrides", data)
    with pytest.raises(MesaformError, match="cannot be read"):
        S3Control(bucket, "toy", REGION).overrides()
    control, log = leader(bucket)
    for _ in range(3):
        [pause] = control.overrides()
        assert (pause.kind, pause.by) == ("pause", "mesaform")
    assert log.counts == {"overrides": 1}
    [entry] = SetAsideObjects(bucket, "toy", REGION).all()
    assert SetAsideObjects(bucket, "toy", REGION).content("overrides", entry.name) == data
    assert control.update_overrides(lambda _: ()) == ()


def test_overrides_are_put_back_by_an_operator(bucket):
    control, _ = leader(bucket)
    hint = Override("o1", "hint", "ann@host", 1.0, 99.0, count=3)
    control.update_overrides(lambda _: (hint,))
    put(bucket, "overrides", b"garbage")
    control.overrides()
    objects = SetAsideObjects(bucket, "toy", REGION)
    [entry] = objects.all()
    objects.restore("overrides", entry.name)
    assert objects.all() == []
    assert [item.kind for item in control.overrides()] == ["pause"], "it is garbage again"


def test_a_heartbeat_that_cannot_be_read_counts_as_none_and_is_replaced(bucket):
    put(bucket, "heartbeat", b"null")
    control, _ = leader(bucket)
    assert control.last_heartbeat() is None
    control.write_heartbeat(1.0, frozen=False, address="a:1")
    assert control.last_heartbeat()["at"] == 1.0


def test_a_profile_that_cannot_be_read_is_kept(bucket):
    put(bucket, NAME, b'{"schema":"autoscaler.profile/9"}')
    control, log = leader(bucket)
    stored = control.read_record(NAME, PROFILE)
    assert isinstance(stored, Unreadable)
    control.write_record(NAME, PROFILE, Profile())
    assert control.read_record(NAME, PROFILE) == Profile()
    assert log.counts == {NAME: 1}


@pytest.mark.slow
def test_an_object_that_fills_the_memory_is_read_up_to_a_limit(bucket):
    put(bucket, NAME, b" " * (READ_LIMIT_BYTES + 1))
    control, log = leader(bucket)
    stored = control.read_record(NAME, PROFILE)
    assert isinstance(stored, Unreadable)
    [entry] = SetAsideObjects(bucket, "toy", REGION).all()
    assert (entry.kind, entry.size_bytes) == (NAME, READ_LIMIT_BYTES)
    assert log.counts == {NAME: 1}


async def test_an_expiry_that_cannot_be_read_ends_nothing_and_is_shown_once(bucket):
    put(bucket, EXPIRY_NAME, b'{"schema":"control.expiry/2","deployment":"d1","ends":"at once"}')
    control, log = leader(bucket)
    expiry = ClusterExpiry(
        address="10.0.0.1",
        control=S3Control(bucket, "toy", REGION),
        leaders_control=control,
        machines=list,
        terminator=cast("Terminator", None),
        operator=cast("Operator", None),
        is_leading=lambda: True,
        decided=lambda _: None,
        left_s=lambda _: None,
        clock=lambda: 1e10,
    )
    for _ in range(3):
        await expiry.step()
    [entry] = SetAsideObjects(bucket, "toy", REGION).all()
    assert (entry.kind, log.counts) == (EXPIRY_NAME, {EXPIRY_NAME: 1})
    assert entry.place == f"s3://{bucket}/toy/control/expiry.json"
