"""The leader's part of the agents' lease: renewals, and decisions of machines that shut down.

Agents without tasks power off when the lease expires; `mesaform.node.lease_monitor` is their part
and docs/adr/0013 states the reasons. Depends on `zookeeper` and `autoscaler.model`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from mesaform.autoscaler.model.decision import Decision
from mesaform.autoscaler.model.planner_state import BilledMachine
from mesaform.autoscaler.model.reason import Reason, ReasonCode
from mesaform.autoscaler.model.supply import LIVE, PROTECT_TAG
from mesaform.aws.ports import Machine
from mesaform.common.records import Codec, Unreadable
from mesaform.common.set_aside import SetAsideLog
from mesaform.config.schema import ClusterSpec
from mesaform.topology.launch_documents import lease_terms
from mesaform.topology.names import Tag
from mesaform.topology.user_data import Lease, LeaseTerms, ShutdownReport
from mesaform.topology.zookeeper import ZK_LEASE, ZK_LEGACY_SHUTDOWN_REPORTS, ZK_SHUTDOWN_REPORTS
from mesaform.zookeeper.session import ZooKeeper
from mesaform.zookeeper.set_aside import RecordNodes

RENEW_EVERY_S = 5.0
LEASE = Codec("autoscaler.lease", Lease)
REPORT = Codec("autoscaler.shutdown-report", ShutdownReport)
REPORT_KIND = "shutdown-reports"
SHUT_DOWN_FROM_INSIDE = "Client.InstanceInitiatedShutdown"


@dataclass(frozen=True, slots=True)
class SelfTermination:
    """A machine of the autoscaler that shut itself down.

    `at` is the time, or the latest possible one (epoch s). `report` is the machine's own report.
    """

    instance_id: str
    machine: BilledMachine
    at: float
    report: ShutdownReport | None

    @property
    def reason(self) -> str:
        """Reason in the machine's ledger row."""
        return "lease" if self.report else "shutdown"

    def decision(self, after_usd: float) -> Decision:
        """Return the ledger's decision. `after_usd` is the cluster's price after it (USD/h)."""
        report = self.report
        reasons: tuple[Reason, ...] = (Reason.of(ReasonCode.POWERED_OFF),)
        if report is not None:
            expired = Reason.of(
                ReasonCode.LEASE_EXPIRED, silent_s=report.silent_s, lease_s=report.lease_s
            )
            reasons = (expired, Reason.of(ReasonCode.NO_TASK_SINCE, idle_s=report.empty_s))
        kind, usd = self.machine, -self.machine.usd_per_hour
        return Decision(
            at=self.at,
            kind="self_terminated",
            reasons=reasons,
            pool=kind.pool,
            offering=f"{kind.instance_type}/{kind.zone}/{kind.capacity}",
            count=1,
            machines=(self.instance_id,),
            usd_per_hour=round(usd, 6),
            before_usd=round(after_usd - usd, 6),
            after_usd=round(after_usd, 6),
            policy=self.reason,
        )


def endings(
    before: Mapping[str, BilledMachine],
    after: Mapping[str, BilledMachine],
    machines: Iterable[Machine],
    reports: Mapping[str, ShutdownReport],
    now: float,
) -> list[SelfTermination]:
    """Return the machines that shut themselves down since the last pass, oldest first."""
    shut_down = {
        machine.instance_id for machine in machines if machine.ended_by == SHUT_DOWN_FROM_INSIDE
    }
    ended = (shut_down | reports.keys()) & (before.keys() - after.keys())
    endings = [
        _ending(name, before[name], reports.get(name), now)
        for name in ended
        if before[name].managed_by == "autoscaler"
    ]
    return sorted(endings, key=lambda ending: (ending.at, ending.instance_id))


def _ending(
    name: str, machine: BilledMachine, report: ShutdownReport | None, now: float
) -> SelfTermination:
    at = min(now, max(machine.launched_at, report.at)) if report else now
    return SelfTermination(name, machine, at, report)


def succession(previous: Lease | None, term: int, holder: str, now: float) -> Decision | None:
    """Return the decision that reports a change of leader; None for the first leader.

    The absence compares the clocks of two machines, so it is for people only.
    """
    if previous is None:
        return None
    away_s = max(0.0, now - previous.at)
    return Decision(
        at=now,
        kind="leader_changed",
        reasons=(
            Reason.of(
                ReasonCode.LEADER_ABSENT,
                away_s=away_s,
                term=term,
                previous_term=previous.term,
                holder=holder,
                previous_holder=previous.holder,
            ),
        ),
    )


class Leases:
    """The lease of one term of leadership.

    Args:
        zk: a started session.
        path: the autoscaler's folder in ZooKeeper.
        term: this term's number.
        holder: this daemon's address, for people.
        clock: seconds since the epoch; only people read them.
        monotonic: seconds, for how often to renew.

    """

    def __init__(
        self,
        zk: ZooKeeper,
        path: str,
        term: int,
        holder: str,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._zk = zk
        self._path = path.rstrip("/")
        self.term = term
        self._holder = holder
        self._clock = clock
        self._monotonic = monotonic
        self._renewals = 0
        self._renewed_at: float | None = None
        self._terms: LeaseTerms | None = None
        self._protected_ids: tuple[str, ...] = ()

    async def previous(self) -> Lease | None:
        """Return the last lease of the previous leader; None if there is no readable one."""
        stored = await self._zk.get(f"{self._path}/{ZK_LEASE}")
        lease = None if stored is None else LEASE.decode(stored[0])
        return None if isinstance(lease, Unreadable) else lease

    async def renew(
        self, spec: ClusterSpec | None = None, machines: Iterable[Machine] = ()
    ) -> None:
        """Renew the lease, at most every `RENEW_EVERY_S`; at once when its terms change.

        The terms are the spec's and the protected machines'. Without a spec they stay the same.
        """
        terms, protected = self._terms, self._protected_ids
        if spec is not None:
            terms, protected = lease_terms(spec), tuple(sorted(_protected(machines)))
        now = self._monotonic()
        if (
            self._renewed_at is not None
            and now - self._renewed_at < RENEW_EVERY_S
            and (terms, protected) == (self._terms, self._protected_ids)
        ):
            return
        lease = Lease(self.term, self._renewals + 1, self._holder, self._clock(), terms, protected)
        await self._zk.put(f"{self._path}/{ZK_LEASE}", LEASE.encode(lease))
        self._renewals, self._renewed_at, self._terms, self._protected_ids = (
            lease.renewal,
            now,
            terms,
            protected,
        )


class ShutdownReports:
    """Reports of machines that terminated themselves, as records in ZooKeeper.

    Args:
        zk: a started session.
        path: the autoscaler's folder in ZooKeeper.
        log: counts the reports that cannot be read and are set aside.

    """

    def __init__(self, zk: ZooKeeper, path: str, log: SetAsideLog) -> None:
        root = path.rstrip("/")
        self._zk = zk
        self._records = RecordNodes(zk, root, log)
        # Agents of older images write to the first folder.
        self._folders = (f"{root}/{ZK_LEGACY_SHUTDOWN_REPORTS}", f"{root}/{ZK_SHUTDOWN_REPORTS}")

    async def read(self) -> dict[str, ShutdownReport]:
        """Return the reports by instance id."""
        reports: dict[str, ShutdownReport] = {}
        for folder in self._folders:
            readable, _ = await self._records.read_all(REPORT_KIND, folder, REPORT)
            reports |= readable
        return reports

    async def delete(self, reported: Iterable[str], live: Iterable[str]) -> None:
        """Delete the reports of machines that are gone; reports of live machines stay."""
        for name in sorted(set(reported) - set(live)):
            for folder in self._folders:
                await self._zk.delete(f"{folder}/{name}")


async def store_report(zk: ZooKeeper, path: str, report: ShutdownReport) -> None:
    """Write a report below the autoscaler's path, where the leader reads it.

    Raises:
        RecordRefused: the report breaks a constraint.
        ZooKeeperUnavailable: no answer.

    """
    await zk.put(f"{path}/{ZK_SHUTDOWN_REPORTS}/{report.instance_id}", REPORT.encode(report))


def _protected(machines: Iterable[Machine]) -> Iterable[str]:
    return (
        machine.instance_id
        for machine in machines
        if machine.state in LIVE
        and machine.tags.get(PROTECT_TAG) == "true"
        and machine.tags.get(Tag.ROLE) == "agent"
    )
