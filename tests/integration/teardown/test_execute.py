"""A teardown against real EC2 and S3 APIs: nothing is left after any interruption."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mesaform.aws.control import S3Control
from mesaform.aws.fleet import AwsFleet
from mesaform.aws.ledger import S3Ledger
from mesaform.aws.overrides import Override
from mesaform.aws.resources.sweep import Sweep, resource_kinds
from mesaform.common.errors import ClusterUnreachable, MesaformError
from mesaform.common.progress import Recorded, Silent
from mesaform.teardown.execute import TITLES, Outcome, Teardown
from mesaform.teardown.journal import FILE, Journal
from mesaform.teardown.plan import Plan, TeardownRequest, plan
from mesaform.teardown.receipt import Receipt, ReceiptFacts
from mesaform.teardown.survey import Survey, TeardownPorts, survey

from .conftest import REGION, Cloud, one_of_everything, tag_specification

pytestmark = pytest.mark.slow
BUCKET = "mesaform-123456789012-us-east-1"
NAME = "one"
PAUSE = Override(id="p", kind="pause", by="ann", at=0.0, until=2_100_000_000.0)


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 2_000_000_000.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class Engine:
    """An operator API with these agents (instance id -> tasks). Draining ends tasks by default."""

    tasks: dict[str, int]
    stubborn: bool = False
    reachable: bool = True
    deactivated: list[str] = field(default_factory=list)
    drained: list[str] = field(default_factory=list)

    async def get_agents(self) -> dict[str, Any]:
        self._answer()
        return {
            "agents": [
                {
                    "agent_info": {
                        "id": {"value": f"S-{i}"},
                        "attributes": [
                            {"name": "instance_id", "type": "TEXT", "text": {"value": i}}
                        ],
                    }
                }
                for i in self.tasks
            ]
        }

    async def get_tasks(self) -> dict[str, Any]:
        self._answer()
        return {
            "tasks": [
                {"agent_id": {"value": f"S-{i}"}}
                for i, count in self.tasks.items()
                for _ in range(count)
            ]
        }

    async def deactivate(self, agent_id: str) -> None:
        self._answer()
        self.deactivated.append(agent_id)

    async def drain(
        self, agent_id: str, grace_s: float | None = None, *, mark_gone: bool = False
    ) -> None:
        self._answer()
        self.drained.append(agent_id)
        if not self.stubborn:
            self.tasks[agent_id.removeprefix("S-")] = 0

    def _answer(self) -> None:
        if not self.reachable:
            raise ClusterUnreachable("no leading master answers")


class Setup:
    """A cluster as `up` leaves it: machines of Terraform and of an active autoscaler, network."""

    def __init__(self, cloud: Cloud, folder: Path) -> None:
        self.cloud, self.folder, self.clock = cloud, folder, Clock()
        self.ec2 = cloud.client("ec2")
        cloud.client("s3").create_bucket(Bucket=BUCKET)
        self.masters = [self.instance("master", "terraform", "t3.medium") for _ in range(3)]
        self.agents = [self.instance("agent", "terraform") for _ in range(2)]
        self.bought = self.instance("agent", "autoscaler", "m5.4xlarge")
        self.rest = one_of_everything(cloud, NAME, suffix="one", octet=10)
        self.ec2.terminate_instances(InstanceIds=[self.rest["instance"]])
        self.state: dict[str, set[str]] = {
            "network": {self.rest["vpc"], self.rest["subnet"], self.rest["internet gateway"]},
            "masters": set(self.masters),
            "agents": {*self.agents, self.rest["launch template"]},
        }
        self.engine: Engine | None = Engine({self.agents[0]: 2, self.agents[1]: 0, self.bought: 1})
        self.control = S3Control(BUCKET, NAME, REGION)
        self.ledger = S3Ledger(BUCKET, NAME, REGION)
        self.heartbeat(frozen=False)
        self.sweep = Sweep(resource_kinds(NAME, REGION), NAME, sleep=self.clock.sleep, rounds=20)
        self.destroyed: list[tuple[str, ...]] = []
        self.fences_seen: set[str | None] = set()
        self.terraform_works = True

    def instance(self, role: str, managed_by: str, kind: str = "m5.large") -> str:
        tags = tag_specification(
            "instance",
            NAME,
            **{
                "mesaform:role": role,
                "mesaform:managed-by": managed_by,
                "mesaform:pool": "default",
            },
        )
        answer = self.ec2.run_instances(
            ImageId="ami-12c6146b",
            MinCount=1,
            MaxCount=1,
            InstanceType=kind,
            TagSpecifications=tags,
        )
        identity: str = answer["Instances"][0]["InstanceId"]
        return identity

    def heartbeat(self, *, frozen: bool) -> None:
        self.control.write_heartbeat(self.clock(), frozen=frozen, address="127.42.0.10:9550")

    async def sleep(self, seconds: float) -> None:
        """The autoscaler's heartbeat during the teardown, which says whether it sees the freeze."""
        await self.clock.sleep(seconds)
        self.fences_seen.add(self.control.frozen_reason())
        self.heartbeat(frozen=self.control.frozen_reason() is not None)

    async def destroy(self, stacks: tuple[str, ...]) -> None:
        """Terraform's part: remove what the state lists, stack by stack."""
        if not self.terraform_works:
            raise MesaformError("terraform ended with 1", where="agents")
        for stack in stacks:
            for item in [
                item
                for item in await self.sweep.inventory({"instance", "launch template"})
                if item.id in self.state.get(stack, set())
            ]:
                self.sweep.remove(item)
            self.state.pop(stack, None)
        self.destroyed.append(stacks)

    def world(self) -> TeardownPorts:
        return TeardownPorts(
            cluster=NAME,
            fleet=AwsFleet(REGION),
            sweep=self.sweep,
            control=self.control,
            ledger=self.ledger,
            operator=self.engine,
            stacks=lambda: {stack: frozenset(ids) for stack, ids in self.state.items()},
            destroy=self.destroy,
            forget=self.state.clear,
            clock=self.clock,
            sleep=self.sleep,
        )

    async def down(
        self, report: Any = None, request: TeardownRequest | None = None
    ) -> tuple[Survey, Plan, Outcome, Receipt]:
        """What `mesaform down` does, once."""
        world = self.world()
        result = await survey(world)
        planned = plan(result.inventory, request or TeardownRequest())
        teardown = Teardown(
            world, Journal(self.folder, NAME, self.clock()), report or Silent(), drain_grace_s=30
        )
        outcome = await teardown.run(result, planned)
        receipt = teardown.receipt(
            result, outcome, ReceiptFacts(NAME, "local", REGION, self.clock(), 0.0)
        )
        Journal(self.folder, NAME, self.clock()).close(receipt.as_record(), self.clock())
        return result, planned, outcome, receipt

    async def left(self) -> set[str]:
        return {item.kind for item in await self.sweep.inventory()}


@pytest.fixture
def setup(cloud: Cloud, tmp_path: Path) -> Setup:
    return Setup(cloud, tmp_path / "clusters" / NAME)


async def test_a_teardown_leaves_nothing_but_images(setup: Setup) -> None:
    setup.control.update_overrides(lambda _: (PAUSE,))
    _, planned, outcome, _ = await setup.down()
    assert outcome.swept.is_clean
    assert outcome.troubles == ()
    assert await setup.left() == {"image", "snapshot"}
    assert setup.destroyed == [("agents", "masters", "network")]
    assert setup.control.frozen_reason() is None, (
        "the next cluster of this name must not find a freeze"
    )
    assert setup.control.overrides() == (), "nor a pause"
    assert {"freeze", "deactivate", "drain", "terminate", "destroy", "sweep"} == {
        step.kind for step in planned.steps
    }


async def test_the_autoscaler_is_fenced_before_anything_goes_and_agents_are_drained(
    setup: Setup,
) -> None:
    shown = Recorded()
    await setup.down(shown)
    assert [stage for state, stage, _ in shown.events if state == "started"] == list(
        TITLES.values()
    )
    assert ("done", TITLES["freeze"], "it obeys") in shown.events
    assert setup.fences_seen == {"mesaform down"}
    assert setup.engine is not None
    assert len(setup.engine.deactivated) == 3
    assert setup.engine.drained == [f"S-{setup.bought}", f"S-{setup.agents[0]}"]


async def test_an_agent_that_does_not_drain_is_waited_for_only_so_long(setup: Setup) -> None:
    assert setup.engine is not None
    setup.engine.stubborn = True
    began = setup.clock()
    _, _, outcome, _ = await setup.down()
    assert outcome.swept.is_clean
    assert setup.clock() - began < 90


async def test_without_a_leader_everything_goes_all_the_same(setup: Setup) -> None:
    assert setup.engine is not None
    setup.engine.reachable = False
    _, planned, outcome, _ = await setup.down()
    assert "drain" not in {step.kind for step in planned.steps}
    assert outcome.swept.is_clean


async def test_an_autoscaler_that_died_is_not_waited_for(setup: Setup) -> None:
    setup.clock.now += 3600
    began = setup.clock()
    _, planned, _, _ = await setup.down()
    assert "freeze" not in {step.kind for step in planned.steps}
    assert setup.clock() - began < 20


async def test_lost_state_files_are_made_good_by_the_sweep(setup: Setup) -> None:
    setup.state.clear()
    _, planned, outcome, _ = await setup.down()
    assert planned.stacks == ()
    assert outcome.swept.is_clean
    assert await setup.left() == {"image", "snapshot"}


async def test_a_terraform_that_fails_is_reported_and_the_sweep_deletes_the_rest(
    setup: Setup,
) -> None:
    setup.terraform_works = False
    _, _, outcome, receipt = await setup.down()
    assert any("terraform ended with 1" in trouble for trouble in outcome.troubles)
    assert outcome.swept.is_clean
    assert receipt.left == ()
    assert setup.state == {}


async def test_agents_only_leaves_masters_and_network(setup: Setup) -> None:
    await setup.down(request=TeardownRequest(agents_only=True))
    alive = [m.instance_id for m in AwsFleet(REGION).machines(NAME) if m.state == "running"]
    assert sorted(alive) == sorted(setup.masters)
    assert {"vpc", "subnet", "role"} <= await setup.left()
    assert setup.control.frozen_reason()


async def test_the_receipt_names_every_machine_with_hours_and_dollars(setup: Setup) -> None:
    setup.clock.now = max(m.launched_at for m in AwsFleet(REGION).machines(NAME)) + 7200
    setup.heartbeat(frozen=False)
    _, planned, _, receipt = await setup.down()
    by_kind = {(line.role, line.managed_by): line for line in receipt.lines}
    assert by_kind["master", "terraform"].machines == 3
    assert by_kind["agent", "terraform"].machines == 2
    assert by_kind["agent", "autoscaler"].machines == 1
    assert by_kind["agent", "autoscaler"].usd == pytest.approx(2 * 0.768, rel=0.05)
    assert receipt.usd == pytest.approx(sum(line.usd for line in receipt.lines))
    assert receipt.hours == pytest.approx(12, rel=0.05)
    assert receipt.idle_usd is None
    assert receipt.stopped_usd_per_hour == pytest.approx(planned.usd_per_hour)
    assert set(receipt.listed.values()) == {0}


async def test_the_receipt_counts_what_only_the_ledger_remembers_and_nothing_of_an_earlier_life(
    setup: Setup,
) -> None:
    now = setup.clock()
    row = {
        "instance_type": "c5.large",
        "capacity": "spot",
        "usd_per_hour": 0.03,
        "pool": "default",
        "managed_by": "autoscaler",
        "role": "agent",
    }
    setup.ledger.append(
        {"kind": "machine_started", "at": now - 90000, "instance_id": "i-earlier", **row}
    )
    setup.ledger.append(
        {"kind": "machine_stopped", "at": now - 86400, "instance_id": "i-earlier", **row}
    )
    setup.ledger.append({"kind": "receipt", "at": now - 80000})
    setup.ledger.append(
        {"kind": "machine_started", "at": now - 7200, "instance_id": "i-short", **row}
    )
    setup.ledger.append(
        {"kind": "machine_stopped", "at": now - 3600, "instance_id": "i-short", **row}
    )
    _, _, _, receipt = await setup.down()
    ran = {machine.instance_id: machine for machine in receipt.machines}
    assert "i-earlier" not in ran
    assert ran["i-short"].usd == pytest.approx(0.03)
    assert setup.ledger.read()[-1]["kind"] == "receipt"


class Crash(BaseException):
    """As hard an end as can be had in a process: nothing catches it."""


class CrashAt:
    """Ends the program at its n-th word of progress."""

    def __init__(self, number: int) -> None:
        self.left = number

    def _word(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Crash

    def started(self, stage: str, detail: str = "") -> None:
        self._word()

    def advanced(self, stage: str, detail: str) -> None:
        return

    def done(self, stage: str, detail: str = "") -> None:
        self._word()

    def failed(self, stage: str, detail: str = "") -> None:
        return


@pytest.mark.parametrize("word", range(2 * len(TITLES)))
async def test_cut_short_at_any_step_the_next_run_ends_with_nothing_left(
    setup: Setup, word: int
) -> None:
    with pytest.raises(Crash):
        await setup.down(CrashAt(word))
    assert (setup.folder / FILE).exists()
    if word > 8:  # the masters are gone, and with them the engine
        setup.engine = None
    _, _, outcome, receipt = await setup.down()
    assert outcome.swept.is_clean
    assert await setup.left() == {"image", "snapshot"}
    assert {machine.instance_id for machine in receipt.machines} >= {
        *setup.masters,
        *setup.agents,
        setup.bought,
    }
    assert not (setup.folder / FILE).exists()
    assert [
        json.loads(path.read_text())["cluster"] for path in setup.folder.glob("receipt-*.json")
    ] == [NAME]


async def test_down_of_nothing_finds_nothing(cloud: Cloud, tmp_path: Path) -> None:
    setup = Setup(cloud, tmp_path)
    await setup.down(request=TeardownRequest(images=True))
    setup.engine = None
    setup.clock.now += 3600
    result, planned, outcome, receipt = await setup.down(request=TeardownRequest(images=True))
    assert result.inventory.is_empty
    assert [step.kind for step in planned.steps] == ["sweep"]
    assert (outcome.swept.removed, outcome.swept.remaining) == ([], [])
    assert receipt.machines == ()


def test_a_journal_cut_short_by_a_full_disk_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"cluster": "on')
    assert not Journal(tmp_path, NAME, 1.0).is_resumed
    assert [path.name for path in tmp_path.iterdir()] == [f"{FILE}.set-aside"]
