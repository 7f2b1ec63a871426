"""Requests about records that were set aside, over changes of leader, on a real ZooKeeper."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from mesaform.autoscaler.daemon.record_requests import RecordRequests
from mesaform.aws.record_requests import (
    ANSWER,
    ANSWER_NAME,
    REQUEST,
    REQUEST_NAME,
    RecordAnswer,
    RecordRequest,
)
from mesaform.common.errors import Retryable
from mesaform.common.records import Codec, Value
from mesaform.common.set_aside import SetAsideLog
from mesaform.testing.fake_cloud import FakeControl
from mesaform.zookeeper.session import ZooKeeper
from mesaform.zookeeper.set_aside import RecordNodes, SetAsideNodes

pytestmark = [pytest.mark.slow, pytest.mark.zookeeper]
NOW = 1_800_000_000.0
CODEC = Codec("test.number", int)


@pytest.fixture
async def zk(zookeeper_hosts: str) -> AsyncIterator[ZooKeeper]:
    session = ZooKeeper(zookeeper_hosts)
    await session.start()
    yield session
    await session.stop()


class Control(FakeControl):
    """S3 that ends the caller once `calls_left` calls were made."""

    loses_answer = False

    def write_record(self, name: str, codec: Codec[Value], value: Value) -> None:
        if self.loses_answer and name == ANSWER_NAME:
            self.loses_answer = False
            raise Retryable("the connection broke", after_s=1.0)
        super().write_record(name, codec, value)


async def set_aside(zk: ZooKeeper, root: str) -> None:
    """Let a record of the name `one` be set aside."""
    await zk.put(f"{root}/things/one", b"garbage")
    await RecordNodes(zk, root, SetAsideLog()).read("things", f"{root}/things/one", CODEC)


def removal(root: str) -> RecordRequest:
    return RecordRequest(
        id="r-1", action="remove", tree=root, kind="things", name="one", at=NOW, by="operator"
    )


async def names(zk: ZooKeeper, root: str) -> list[str]:
    return [entry.name for entry in await SetAsideNodes(zk, root).all()]


async def test_the_next_leader_does_not_carry_a_request_out_again(
    zk: ZooKeeper, zookeeper_root: str
):
    control = Control()
    await set_aside(zk, zookeeper_root)
    control.write_record(REQUEST_NAME, REQUEST, removal(zookeeper_root))
    await RecordRequests(zk, zookeeper_root, control, lambda: NOW).run()
    assert await names(zk, zookeeper_root) == []
    await set_aside(zk, zookeeper_root)  # another record of the same name
    await RecordRequests(zk, zookeeper_root, control, lambda: NOW).run()
    assert await names(zk, zookeeper_root) == ["one"]
    assert control.read_record(ANSWER_NAME, ANSWER) == RecordAnswer(id="r-1")


async def test_a_leader_that_ends_before_its_answer_carries_the_request_out_once(
    zk: ZooKeeper, zookeeper_root: str
):
    control = Control()
    await set_aside(zk, zookeeper_root)
    control.write_record(REQUEST_NAME, REQUEST, removal(zookeeper_root))
    control.loses_answer = True
    with pytest.raises(Retryable):
        await RecordRequests(zk, zookeeper_root, control, lambda: NOW).run()
    assert await names(zk, zookeeper_root) == []
    await set_aside(zk, zookeeper_root)
    await RecordRequests(zk, zookeeper_root, control, lambda: NOW).run()
    assert await names(zk, zookeeper_root) == ["one"]
    answer = control.read_record(ANSWER_NAME, ANSWER)
    assert isinstance(answer, RecordAnswer)
    assert "the leader ended" in answer.error
