"""The leader's part of the agents' lease: renewals, and decisions of machines that shut down.

Agents without tasks power off when the lease expires; `mesaform.node.lease_monitor` is their part
and docs/adr/0013 states the reasons. Depends on `zookeeper` and `autoscaler.model`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import msgspec

from mesaform.autoscaler.model.decision import Decision
from mesaform.autoscaler.model.planner_state import BilledMachine
from mesaform.autoscaler.model.reason import Reason, ReasonCode
from mesaform.autoscaler.model.supply import LIVE, PROTECT_TAG
from mesaform.aws.ports import Machine
from mesaform.config.schema import ClusterSpec
from mesaform.topology.launch_documents import lease_terms
from mesaform.topology.names import Tag
from mesaform.topology.user_data import Lease, LeaseTerms, ShutdownReport
from mesaform.topology.zookeeper import ZK_LEASE, ZK_LEGACY_SHUTDOWN_REPORTS, ZK_SHUTDOWN_REPORTS
from mesaform.zookeeper.session import ZooKeeper

RENEW_EVERY_S = 5.0
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
        try:
            return None if stored is None else msgspec.json.decode(stored[0], type=Lease)
        except msgspec.DecodeError:
            return None

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
        await self._zk.put(f"{self._path}/{ZK_LEASE}", msgspec.json.encode(lease))
        self._renewals, self._renewed_at, self._terms, self._protected_ids = (
            lease.renewal,
            now,
            terms,
            protected,
        )

    async def shutdown_reports(self) -> dict[str, ShutdownReport]:
        """Return the shutdown reports by instance id; unreadable reports are deleted."""
        reports: dict[str, ShutdownReport] = {}
        for folder in self._report_folders:
            reports |= await self._reports_below(folder)
        return reports

    async def _reports_below(self, folder: str) -> dict[str, ShutdownReport]:
        reports = {}
        for name in await self._zk.children(folder):
            node = await self._zk.get(f"{folder}/{name}")
            if node is None:
                continue
            try:
                reports[name] = msgspec.json.decode(node[0], type=ShutdownReport)
            except msgspec.DecodeError:
                await self._zk.delete(f"{folder}/{name}")
        return reports

    @property
    def _report_folders(self) -> tuple[str, str]:
        """Both folders that agents write to; agents of older images use the first."""
        return (
            f"{self._path}/{ZK_LEGACY_SHUTDOWN_REPORTS}",
            f"{self._path}/{ZK_SHUTDOWN_REPORTS}",
        )

    async def delete_reports(self, reported: Iterable[str], live: Iterable[str]) -> None:
        """Delete the reports of machines that are gone; reports of live machines stay."""
        for name in sorted(set(reported) - set(live)):
            for folder in self._report_folders:
                await self._zk.delete(f"{folder}/{name}")


async def store_report(zk: ZooKeeper, path: str, report: ShutdownReport) -> None:
    """Write a report below the autoscaler's path, where the leader reads it.

    Raises:
        ZooKeeperUnavailable: no answer.

    """
    await zk.put(f"{path}/{ZK_SHUTDOWN_REPORTS}/{report.instance_id}", msgspec.json.encode(report))


def _protected(machines: Iterable[Machine]) -> Iterable[str]:
    return (
        machine.instance_id
        for machine in machines
        if machine.state in LIVE
        and machine.tags.get(PROTECT_TAG) == "true"
        and machine.tags.get(Tag.ROLE) == "agent"
    )
