"""The daemon learns of a machine's end from the queue, the machine, and an earlier leader."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from mesaform.aws import client
from mesaform.aws.fleet import AwsFleet
from mesaform.aws.ledger import S3Ledger
from mesaform.aws.ports import Machine
from mesaform.node.interruption_monitor import Settings, send_to_leader
from mesaform.topology import eventbridge
from mesaform.topology.user_data import MachineNotice
from tests.integration.autoscaler.test_daemon import Cluster, alive, leads, scalars, until
from tests.integration.aws.conftest import REGION
from tests.unit.autoscaler.test_notice import an_event

pytestmark = [pytest.mark.slow, pytest.mark.zookeeper]


@pytest.fixture
def host() -> str:
    return "127.96.1.1"


class Queue:
    """The cluster's queue as the stack makes it."""

    def __init__(self) -> None:
        self.sqs = client.client("sqs", REGION)
        attributes = {"VisibilityTimeout": str(eventbridge.VISIBILITY_S)}
        self.url = self.sqs.create_queue(
            QueueName=eventbridge.queue_name("toy"), Attributes=attributes
        )["QueueUrl"]

    def send(self, body: str) -> None:
        self.sqs.send_message(QueueUrl=self.url, MessageBody=body)

    def interrupt(self, machine: Machine) -> None:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.send(
            an_event(**{"instance-id": machine.instance_id}).replace("2026-11-21T12:00:00Z", now)
        )

    def is_empty(self) -> bool:
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        return not any(
            int(value)
            for value in self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)[
                "Attributes"
            ].values()
        )


@pytest.fixture
def queue(bucket: str) -> Queue:
    return Queue()


def occupied(outcome: Cluster, machine: Machine) -> None:
    """A registered agent full of two tasks of the services'."""
    outcome.register(machine)
    agent = outcome.agents[f"S-{machine.instance_id}"]
    agent["allocated_resources"] = scalars(cpus=2, mem=1024)
    outcome.tasks += [
        {
            "task_id": {"value": f"web.instance-{machine.instance_id}.{number}"},
            "agent_id": {"value": f"S-{machine.instance_id}"},
            "framework_id": {"value": "F-services"},
            "state": "TASK_RUNNING",
            "resources": scalars(cpus=1, mem=512),
        }
        for number in range(2)
    ]


async def with_a_busy_machine(outcome: Cluster, daemon: Any, fleet: AwsFleet) -> Machine:
    await until(lambda: leads(daemon))
    outcome.want(2)
    (machine,) = await until(lambda: alive(fleet))
    occupied(outcome, machine)
    outcome.want(0)
    await until(lambda: _has_seen(daemon, machine))
    return machine


async def _has_seen(daemon: Any, machine: Machine) -> bool:
    """A pass ended that had the machine's agent before it."""
    passed = (await daemon.get("/health"))["last_pass_at"]
    await until(lambda: _later(daemon, passed))
    return True


async def _later(daemon: Any, than: float) -> bool:
    return bool((await daemon.get("/health"))["last_pass_at"] > than)


async def test_a_message_in_the_queue_replaces_a_machine_in_seconds_and_drains_it(
    cluster, daemons, spec, queue, bucket
):
    fleet, daemon = AwsFleet(REGION), await daemons()
    machine = await with_a_busy_machine(cluster, daemon, fleet)
    queue.send("nobody can read this")
    queue.interrupt(machine)
    queue.interrupt(machine)
    both = await until(lambda: len(result := alive(fleet)) == 2 and result)
    await until(lambda: "DEACTIVATE_AGENT" in cluster.calls)
    assert "DRAIN_AGENT" not in cluster.calls
    (fresh,) = [item for item in both if item.instance_id != machine.instance_id]
    cluster.register(fresh)
    await until(lambda: "DRAIN_AGENT" in cluster.calls)
    cluster.tasks.clear()
    await until(queue.is_empty)
    assert len(alive(fleet)) == 2
    fleet.terminate("toy", [machine.instance_id])
    (row,) = await until(lambda: S3Ledger(bucket, "toy", REGION).read(kinds=("interruption",)))
    assert (row["instance_id"], row["reported_by"]) == (machine.instance_id, "queue")
    story = [
        row["decision"]
        for row in S3Ledger(bucket, "toy", REGION).read(kinds=("decision",))
        if machine.instance_id in row.get("machines", [])
    ]
    assert story[:4] == ["buy", "notice", "deactivate", "drain"]


async def test_what_came_while_nobody_led_is_heard_by_the_next_leader(
    cluster, daemons, spec, queue
):
    fleet, first = AwsFleet(REGION), await daemons()
    machine = await with_a_busy_machine(cluster, first, fleet)
    await first.kill()
    queue.interrupt(machine)
    await daemons()
    await until(lambda: "DEACTIVATE_AGENT" in cluster.calls)
    await until(queue.is_empty)


async def test_a_machine_reports_its_own_end_until_it_is_recorded_and_no_other_ends(
    cluster, daemons, spec
):
    """There is no queue at all."""
    fleet, daemon = AwsFleet(REGION), await daemons()
    machine = await with_a_busy_machine(cluster, daemon, fleet)
    notice = MachineNotice(
        machine.instance_id,
        "interruption",
        time.time(),
        time.time() + 60,
        "spot interruption (terminate)",
    )
    place = (f"{daemon.host}:{daemon.port}",)

    async def events_from(address: str) -> bool:
        return await asyncio.to_thread(
            send_to_leader, Settings(machine.instance_id, address, place), notice
        )

    for _ in range(3):
        assert not await events_from("127.0.0.1")
    assert "DEACTIVATE_AGENT" not in cluster.calls
    await until(lambda: events_from(machine.private_address))
    await until(lambda: "DEACTIVATE_AGENT" in cluster.calls)
