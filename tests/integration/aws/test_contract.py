"""What the ports promise, held against the fake and against the adapters on moto's server."""

from __future__ import annotations

import time
from typing import Any

import pytest

from harness.autoscaler_builders import ZONES, a_machine
from mesaform.aws.control import S3Control
from mesaform.aws.fleet import AwsFleet
from mesaform.aws.ledger import S3Ledger
from mesaform.aws.ports import Control, Fleet, LaunchRequest, Ledger
from mesaform.common.errors import NotFound, NotOwned
from mesaform.testing.fake_cloud import FakeControl, FakeFleet, FakeLedger
from mesaform.topology.names import Tag
from tests.integration.aws.conftest import REGION

pytestmark = pytest.mark.slow


@pytest.fixture(params=["fake", "aws"])
def fleet(request: pytest.FixtureRequest) -> Fleet:
    if request.param == "fake":
        fleet = FakeFleet(time.time)
        fleet.add(a_machine("i-master", by="terraform", role="master"))
        return fleet
    cloud = request.getfixturevalue("cloud")
    tags = [
        {"Key": key, "Value": value}
        for key, value in {
            Tag.CLUSTER: "toy",
            Tag.ROLE: "master",
            Tag.MANAGED_BY: "terraform",
        }.items()
    ]
    image = cloud.describe_images(Owners=["self"])["Images"][0]["ImageId"]
    cloud.run_instances(
        ImageId=image,
        MinCount=1,
        MaxCount=1,
        InstanceType="t3.medium",
        TagSpecifications=[{"ResourceType": "instance", "Tags": tags}],
    )
    return AwsFleet(REGION)


@pytest.fixture(params=["fake", "s3"])
def ledger(request: pytest.FixtureRequest) -> Ledger:
    return (
        FakeLedger()
        if request.param == "fake"
        else S3Ledger(request.getfixturevalue("bucket"), "toy", REGION)
    )


@pytest.fixture(params=["fake", "s3"])
def control(request: pytest.FixtureRequest) -> Control:
    return (
        FakeControl()
        if request.param == "fake"
        else S3Control(request.getfixturevalue("bucket"), "toy", REGION)
    )


def a_request(fleet: Fleet, **fields: Any) -> LaunchRequest:
    capacity = fields.pop("capacity", "on-demand")
    offerings = [
        o for o in fleet.offerings(["m5.large", "m5.xlarge"], ZONES) if o.capacity == capacity
    ]
    return LaunchRequest(
        **{
            "cluster": "toy",
            "pool": "default",
            "count": 2,
            "offerings": tuple(offerings),
            "token": "ms-1",
            **fields,
        }
    )


def bought(fleet: Fleet) -> list[str]:
    return [
        machine.instance_id
        for machine in fleet.machines("toy")
        if machine.tags[Tag.ROLE] == "agent"
    ]


def test_a_launch_gives_the_requested_machines_with_tags_of_ownership(fleet: Fleet):
    result = fleet.launch(a_request(fleet))
    assert len(result.machines) == 2
    assert result.without_capacity == ()
    agents = [machine for machine in fleet.machines("toy") if machine.tags[Tag.ROLE] == "agent"]
    assert {machine.instance_id for machine in agents} == {
        machine.instance_id for machine in result.machines
    }
    for machine in agents:
        assert machine.instance_type == "m5.large"
        assert machine.zone in ZONES
        assert (machine.tags[Tag.MANAGED_BY], machine.tags[Tag.POOL], machine.tags[Tag.LAUNCH]) == (
            "autoscaler",
            "default",
            "ms-1",
        )
        assert abs(machine.launched_at - time.time()) < 60


def test_the_same_token_launches_nothing_more(fleet: Fleet):
    first = fleet.launch(a_request(fleet))
    second = fleet.launch(a_request(fleet))
    assert {m.instance_id for m in second.machines} == {m.instance_id for m in first.machines}
    assert len(bought(fleet)) == 2


def test_a_spot_launch_gives_spot_machines(fleet: Fleet):
    result = fleet.launch(a_request(fleet, capacity="spot"))
    assert [machine.capacity for machine in result.machines] == ["spot", "spot"]
    assert [m.capacity for m in fleet.machines("toy") if m.tags[Tag.ROLE] == "agent"] == [
        "spot",
        "spot",
    ]


def test_terminating_twice_is_no_error_and_neither_are_unknown_ids(fleet: Fleet):
    ids = [machine.instance_id for machine in fleet.launch(a_request(fleet)).machines]
    fleet.terminate("toy", [*ids, "i-00000000deadbeef0"])
    fleet.terminate("toy", ids)
    states = {m.instance_id: m.state for m in fleet.machines("toy")}
    assert all(states.get(name, "terminated") in {"terminated", "shutting-down"} for name in ids)


def test_a_master_is_never_terminated_nor_anything_named_beside_it(fleet: Fleet):
    ids = [machine.instance_id for machine in fleet.launch(a_request(fleet)).machines]
    master = next(
        machine.instance_id
        for machine in fleet.machines("toy")
        if machine.tags[Tag.ROLE] == "master"
    )
    with pytest.raises(NotOwned) as caught:
        fleet.terminate("toy", [*ids, master])
    assert caught.value.where == master
    assert all(machine.state in {"pending", "running"} for machine in fleet.machines("toy"))


def test_another_clusters_machines_are_neither_listed_nor_terminated(fleet: Fleet):
    ids = [machine.instance_id for machine in fleet.launch(a_request(fleet)).machines]
    assert fleet.machines("other") == []
    with pytest.raises(NotOwned):
        fleet.terminate("other", ids)
    assert len(bought(fleet)) == 2


def test_offerings_have_prices_and_what_the_engine_will_advertise(fleet: Fleet):
    offered = fleet.offerings(["m5.large"], ZONES, 40)
    assert {(o.zone, o.capacity) for o in offered} == {
        (zone, capacity) for zone in ZONES for capacity in ("on-demand", "spot")
    }
    for offering in offered:
        assert (
            offering.resources.cpus,
            offering.resources.mem_mib,
            offering.resources.disk_mib,
        ) == (2, 7680, 35840)
        assert offering.usd_per_hour == pytest.approx(
            0.096 if offering.capacity == "on-demand" else 0.0384
        )


def test_a_pools_template_is_known_by_its_newest_version(fleet: Fleet):
    template = fleet.templates("toy")["default"]
    assert template.latest == "1"
    assert template.alike == {"1"}
    assert fleet.templates("other") == {}


def test_a_type_that_does_not_exist_is_refused_with_the_nearest_that_does(fleet: Fleet):
    with pytest.raises(NotFound) as caught:
        fleet.offerings(["m5.lrage"], ZONES)
    assert "m5.lrage" in caught.value.what
    assert "m5.large" in caught.value.fix


def test_what_is_written_is_read_back_in_order_of_time(ledger: Ledger):
    for at in (1_800_000_300.5, 1_799_000_000.0, 1_800_000_100.0):
        ledger.append({"kind": "decision", "at": at, "what": str(at)})
    assert [row["at"] for row in ledger.read()] == [
        1_799_000_000.0,
        1_800_000_100.0,
        1_800_000_300.5,
    ]
    assert [row["at"] for row in ledger.read(since=1_800_000_100.0)] == [
        1_800_000_100.0,
        1_800_000_300.5,
    ]
    assert [row["at"] for row in ledger.read(limit=2)] == [1_800_000_100.0, 1_800_000_300.5]


def test_a_machines_row_written_twice_is_one_row(ledger: Ledger):
    for _ in range(2):
        ledger.append({"kind": "machine_started", "at": 1_800_000_000.0, "instance_id": "i-1"})
        ledger.append(
            {
                "kind": "decision",
                "at": 1_800_000_000.0,
                "what": "two decisions of one moment are two",
            }
        )
    assert [row["kind"] for row in ledger.read()].count("machine_started") == 1
    assert [row["kind"] for row in ledger.read()].count("decision") == 2


def test_rows_are_read_by_kind_and_the_limit_counts_only_those(ledger: Ledger):
    for number in range(6):
        ledger.append(
            {
                "kind": "usage" if number % 2 else "decision",
                "at": 1_800_000_000.0 + number,
                "what": str(number),
            }
        )
    assert [row["what"] for row in ledger.read(kinds=["decision"])] == ["0", "2", "4"]
    assert [row["what"] for row in ledger.read(limit=2, kinds=["decision"])] == ["2", "4"]


def test_records_written_together_are_read_one_by_one_and_given_again_change_nothing(
    ledger: Ledger,
):
    rows = [
        {
            "kind": "held" if number % 3 else "decision",
            "at": 1_800_000_000.0 + 900 * number,
            "row": f"r{number}",
        }
        for number in range(9)
    ]
    ledger.append_many(rows[:6])
    ledger.append_many(rows[3:])
    assert ledger.read() == rows
    assert [row["row"] for row in ledger.read(kinds=["decision"])] == ["r0", "r3", "r6"]


def test_tidying_changes_nothing_that_is_read(ledger: Ledger):
    for number in range(30):
        ledger.append(
            {
                "kind": "decision" if number % 2 else "held",
                "at": 1_800_000_000.0 + number,
                "what": str(number),
            }
        )
    before = ledger.read()
    for now in (1_800_000_100.0, 1_800_200_000.0, 1_800_400_000.0):
        ledger.compact(now)
        assert ledger.read() == before
        assert ledger.read(limit=4) == before[-4:]
        assert ledger.read(since=1_800_000_020.0, kinds=["held"]) == [
            row for row in before[20:] if row["kind"] == "held"
        ]


def test_a_freeze_lasts_until_it_ends(control: Control):
    assert control.frozen_reason() is None
    control.freeze("mesaform down")
    assert control.frozen_reason() == "mesaform down"
    control.unfreeze()
    control.unfreeze()
    assert control.frozen_reason() is None


def test_the_last_heartbeat_is_read(control: Control):
    assert control.last_heartbeat() is None
    control.write_heartbeat(1.0, frozen=False, address="127.42.0.10:9550")
    control.write_heartbeat(
        2.0, frozen=True, address="127.42.32.10:9550", planner_state={"idle_since": {"i-1": 1.0}}
    )
    assert control.last_heartbeat() == {
        "at": 2.0,
        "frozen": True,
        "address": "127.42.32.10:9550",
        "planner_state": {"idle_since": {"i-1": 1.0}},
    }
