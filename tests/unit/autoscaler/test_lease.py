"""The leader's part of the lease: renewals, and reports of machines that shut down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, Literal

import msgspec
import pytest

from harness.autoscaler_builders import NOW, a_spec
from mesaform.autoscaler.daemon.daemon import Term
from mesaform.autoscaler.daemon.lease import (
    RENEW_EVERY_S,
    SHUT_DOWN_FROM_INSIDE,
    Leases,
    ShutdownReports,
    endings,
    succession,
)
from mesaform.autoscaler.daemon.orders import Orders
from mesaform.autoscaler.model.decision import from_record
from mesaform.autoscaler.model.planner_state import BilledMachine, PlannerState
from mesaform.autoscaler.model.reason import Reason, ReasonCode
from mesaform.autoscaler.model.snapshot import Intent
from mesaform.autoscaler.reporting.decision_log import lines_of
from mesaform.autoscaler.reporting.decision_text import render_decision, render_reasons
from mesaform.autoscaler.reporting.telemetry import Telemetry
from mesaform.aws.clock import CloudClock
from mesaform.aws.ports import Machine
from mesaform.common.errors import Permanent, Retryable
from mesaform.common.faults import Fault
from mesaform.common.set_aside import SetAsideLog
from mesaform.testing.fake_cloud import FakeControl
from mesaform.topology.names import Tag
from mesaform.topology.user_data import Lease, LeaseTerms, ShutdownReport
from mesaform.zookeeper.session import ZooKeeper

OURS = BilledMachine(
    "m5.large", "us-east-1a", "on-demand", 0.1, "default", "autoscaler", "agent", NOW - 7200
)


def a_machine(
    name: str = "i-1", state: Any = "terminated", ended_by: str = "", **tags: str
) -> Machine:
    return Machine(
        name,
        "m5.large",
        "us-east-1a",
        "on-demand",
        state,
        "",
        "",
        NOW - 7200,
        {Tag.ROLE: "agent", **tags},
        ended_by,
    )  # type: ignore[arg-type]


def a_word(name: str = "i-1", at: float = NOW - 600) -> ShutdownReport:
    return ShutdownReport(name, at, 1800, 1804.2, 2000.4)


def test_a_self_termination_with_a_report_has_its_reasons_and_time():
    (ending,) = endings({"i-1": OURS}, {}, [a_machine()], {"i-1": a_word()}, NOW)
    assert (ending.at, ending.reason) == (NOW - 600, "lease")
    decision = ending.decision(after_usd=0.5)
    assert render_decision(decision) == "i-1 (m5.large) terminated itself"
    assert render_reasons(decision) == [
        "no autoscaler renewed its lease for 1804 s (lease_s 1800)",
        "no task for 2000 s",
    ]
    assert (decision.usd_per_hour, decision.before_usd, decision.after_usd) == (-0.1, 0.6, 0.5)
    assert from_record(decision.record()) == decision


@pytest.mark.parametrize(("shown", "counted"), [(NOW + 5000, NOW), (NOW - 90000, OURS.launched_at)])
def test_the_time_of_a_report_is_within_the_life_of_its_machine(shown, counted):
    (ending,) = endings({"i-1": OURS}, {}, [], {"i-1": a_word(at=shown)}, NOW)
    assert ending.at == counted


def test_a_self_termination_without_a_report_is_a_power_off():
    (ending,) = endings({"i-1": OURS}, {}, [a_machine(ended_by=SHUT_DOWN_FROM_INSIDE)], {}, NOW)
    assert (ending.at, ending.reason) == (NOW, "shutdown")
    assert ending.decision(0.5).reasons == (Reason.of(ReasonCode.POWERED_OFF),)


def test_only_ended_autoscaled_machines_are_self_terminations():
    words = {"i-1": a_word()}
    assert endings({"i-1": OURS}, {"i-1": OURS}, [a_machine(state="running")], words, NOW) == []
    assert (
        endings({"i-1": OURS}, {}, [a_machine(ended_by="Client.UserInitiatedShutdown")], {}, NOW)
        == []
    )
    terraforms = replace(OURS, managed_by="terraform")
    assert (
        endings({"i-1": terraforms}, {}, [a_machine(ended_by=SHUT_DOWN_FROM_INSIDE)], words, NOW)
        == []
    )


def test_several_self_terminations_are_one_line():
    before = {f"i-{n}": OURS for n in (1, 2, 3)}
    words = {name: a_word(name, NOW - 600 + 3 * n) for n, name in enumerate(before)}
    rows = [item.decision(0.5).record() for item in endings(before, {}, [], words, NOW)]
    (line,) = lines_of(rows)
    assert (
        line.what
        == "3 machines: 3 x m5.large terminated by themselves; one after another within 6 s"
    )
    assert line.reasons[0] == "no autoscaler renewed its lease for 1804 s (lease_s 1800)"
    assert line.usd_per_hour == pytest.approx(-0.3)


def test_a_new_leader_says_for_how_long_nobody_worked():
    lease = Lease(3, 40, "10.0.0.1:9550", NOW - 1900)
    shown = succession(lease, 4, "10.0.0.2:9550", NOW)
    assert shown is not None
    assert render_decision(shown) == "the autoscaler on 10.0.0.2:9550 took over from 10.0.0.1:9550"
    assert render_reasons(shown) == [
        "no leader for 1900 s (term 4 on 10.0.0.2:9550 after 3 on 10.0.0.1:9550)"
    ]
    ahead = succession(replace_lease(lease, NOW + 50), 4, "10.0.0.2:9550", NOW)
    assert ahead is not None
    assert "for 0 s" in render_reasons(ahead)[0], "clocks apart"
    assert succession(None, 1, "10.0.0.1:9550", NOW) is None


def replace_lease(lease: Lease, at: float) -> Lease:
    return msgspec.structs.replace(lease, at=at)


@pytest.fixture
async def zk(zookeeper_hosts: str) -> AsyncIterator[ZooKeeper]:
    session = ZooKeeper(zookeeper_hosts)
    await session.start()
    yield session
    await session.stop()


class Clock:
    def __init__(self) -> None:
        self.now = 100.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def leases(zk: ZooKeeper, zookeeper_root: str, clock: Clock) -> Leases:
    return Leases(
        zk, zookeeper_root, 7, "10.0.0.1:9550", clock=lambda: NOW, monotonic=lambda: clock.now
    )


@pytest.mark.zookeeper
async def test_the_lease_changes_with_each_renewal_and_not_more_often_than_needed(
    leases: Leases, clock: Clock
):
    spec = a_spec(idle_after_s=30, lease_s=900)
    await leases.renew(spec)
    first = await leases.previous()
    assert first == Lease(7, 1, "10.0.0.1:9550", NOW, LeaseTerms(900, 30))
    await leases.renew(spec)
    assert await leases.previous() == first
    clock.now += RENEW_EVERY_S
    await leases.renew()
    second = await leases.previous()
    assert second == msgspec.structs.replace(first, renewal=2), "without a spec its terms stay"


@pytest.mark.zookeeper
async def test_new_terms_and_protected_machines_renew_at_once(leases: Leases):
    await leases.renew(a_spec(lease_s=900))
    await leases.renew(a_spec(lease_s=0))
    off = await leases.previous()
    assert off is not None
    assert off.terms is not None
    assert (off.renewal, off.terms.lease_s) == (2, 0)
    protect = {"mesaform:protect": "true"}
    machines = [
        a_machine("i-2", "running", **protect),
        a_machine("i-3", "running"),
        a_machine("i-4", "terminated", **protect),
    ]
    await leases.renew(a_spec(lease_s=0), machines)
    shown = await leases.previous()
    assert shown is not None
    assert shown.protected == ("i-2",)


@pytest.mark.zookeeper
async def test_a_leader_without_a_spec_renews(leases: Leases):
    await leases.renew()
    shown = await leases.previous()
    assert shown is not None
    assert shown.terms is None


def reports_in(zk: ZooKeeper, root: str) -> tuple[ShutdownReports, SetAsideLog]:
    log = SetAsideLog()
    return ShutdownReports(zk, root, log), log


@pytest.mark.zookeeper
async def test_reports_stay_until_their_machines_end_and_unreadable_ones_are_set_aside(
    zk: ZooKeeper, zookeeper_root: str
):
    stored, log = reports_in(zk, zookeeper_root)
    assert await stored.read() == {}
    for name in ("i-1", "i-2"):
        await zk.put(f"{zookeeper_root}/shutdown-reports/{name}", msgspec.json.encode(a_word(name)))
    await zk.put(f"{zookeeper_root}/shutdown-reports/i-3", b"rubbish")
    reports = await stored.read()
    assert set(reports) == {"i-1", "i-2"}
    assert log.counts == {"shutdown-reports": 1}
    await stored.delete(reports, live=["i-2"])
    assert await zk.children(f"{zookeeper_root}/shutdown-reports") == ["i-2"]


@pytest.mark.zookeeper
async def test_reports_of_agents_with_an_older_image_are_read_and_deleted(
    zk: ZooKeeper, zookeeper_root: str
):
    old, new = f"{zookeeper_root}/farewells/i-1", f"{zookeeper_root}/shutdown-reports/i-2"
    await zk.put(old, msgspec.json.encode(a_word("i-1")))
    await zk.put(new, msgspec.json.encode(a_word("i-2")))
    stored, _ = reports_in(zk, zookeeper_root)
    reports = await stored.read()
    assert reports == {"i-1": a_word("i-1"), "i-2": a_word("i-2")}
    await stored.delete(reports, live=())
    assert await zk.get(old) is None
    assert await zk.get(new) is None


class Rest(asyncio.Event):
    """What ends the rest between two passes; `begun` when the first pass has ended."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = asyncio.Event()

    async def wait(self) -> Literal[True]:
        self.begun.set()
        return await super().wait()


class Troubled:
    """Stand-in for the spec's source, journal, observer and lease; fails passes with one error."""

    term = 7

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.renewals = 0
        self.woken = Rest()
        self.faults: list[Fault] = []
        self.readings = None

    def take_faults(self) -> list[Fault]:
        return []

    async def get(self) -> None:
        raise self.error

    async def open(self) -> tuple[PlannerState, list[Intent]]:
        return PlannerState(), []

    async def require_unrestored(self) -> None:
        return

    async def waiting(self) -> int:
        return 0

    entries = ()

    async def run(self) -> None:
        return

    async def previous(self) -> None:
        return None

    async def renew(self, *_: object) -> None:
        self.renewals += 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "renewed"),
    [
        (Retryable("RequestLimitExceeded", after_s=1.0), True),
        (Permanent("UnauthorizedOperation"), False),
        (ZeroDivisionError("a fault of ours"), False),
    ],
)
async def test_a_daemon_that_the_cloud_keeps_waiting_renews_and_one_that_cannot_work_does_not(
    error: Exception, renewed: bool
):
    it, telemetry = Troubled(error), Telemetry()
    stand_in: Any = it
    health, clock = telemetry.health, CloudClock()
    term = Term(
        observer=stand_in,
        actor=stand_in,
        journal=stand_in,
        leases=stand_in,
        orders=Orders(FakeControl(), health.conditions, "a:1", telemetry.troubled, clock.now),
        specs=stand_in,
        telemetry=telemetry,
        probe=stand_in,
        learner=stand_in,
        address="127.0.0.1:9550",
        clock=clock,
        inbox=stand_in,
        health=health,
        requests=stand_in,
        reports=stand_in,
    )
    running = asyncio.create_task(term.run())
    await asyncio.wait_for(it.woken.begun.wait(), 60)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert telemetry.status["errors"] == [str(error)]
    assert it.renewals == (2 if renewed else 1), "once at the beginning of the term"
