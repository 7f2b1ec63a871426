"""What became of purchases, by unit of demand; units whose purchases are of no use stop. Pure.

A unit of demand is an item by its key. A purchase for it is of no use

- if its machine registered and the unit refused it: the machine is not what was expected, and the
  unit does not fit on it; or the unit fits on it by the planner's own matcher, but none of its
  pieces started for `REFUSED_AFTER_S` while its framework refused offers;
- if its machines are given back without having had a task although the unit waited, `MAX_UNUSED`
  launches in a row, each within the payback time of the last, whatever the cause.

Then the unit buys nothing for `FIRST_STOP_S`, then one machine as a probe; each stop is twice as
long as the one before it. A unit whose demand is withdrawn before its machines come
(`MAX_WITHDRAWN` launches in a row) pauses for `FIRST_PAUSE_S`, doubling, and then buys as before. A
machine that gets a task of the unit, and a change of the app's configuration, end both.

Machines that end before they register are counted by `launch_failures`, apps whose tasks fail by
`demand.failing_apps`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from mesaform.autoscaler.model.demand_item import DemandItem
from mesaform.autoscaler.model.lifecycle import REGISTERED
from mesaform.autoscaler.model.purchase_record import UnitPurchases
from mesaform.autoscaler.model.reason import Reason, ReasonCode
from mesaform.autoscaler.model.supply import LISTING_LAG_S, AgentNode
from mesaform.autoscaler.planner import purchase_refusals, purchase_stops
from mesaform.autoscaler.planner.pass_context import Prepared
from mesaform.aws.ports import Machine
from mesaform.topology.names import Tag

MAX_UNUSED = 2
"""Launches in a row without a task after which a unit that waits for machines stops."""

FIRST_STOP_S = 1800.0
MAX_DOUBLINGS = 16
"""Length of the first stop (s), and limit of the exponent of later ones, against overflow."""

MAX_WITHDRAWN = 2
"""Launches in a row without a task after which a unit pauses whose demand is withdrawn."""

FIRST_PAUSE_S = 30.0
MAX_PAUSE_S = 1800.0
"""Length of the first pause, and the greatest one (s)."""

OFFERED_S = 5.0
"""Seconds that a unit has to wait beside an idle machine for the machine to count as offered."""

REFUSED_AFTER_S = 60.0
"""Seconds that pieces wait although they fit on registered agents until these count as refused."""

RECORD_LIFETIME_S = 86_400.0
"""Seconds that the record of a unit without demand is kept after its last stop or unused launch."""


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Records by unit, and the items with their stops and the machines that they refused."""

    purchases: dict[str, UnitPurchases]
    items: tuple[DemandItem, ...]


def observe(prepared: Prepared, items: Sequence[DemandItem]) -> Outcomes:
    """Update the records of units from what a pass sees, and restrict the items by them."""
    if prepared.snapshot.cluster is None:
        return Outcomes(prepared.snapshot.state.purchases, tuple(items))
    observer = _Observer(prepared, {item.key: item for item in items if item.blocked is None})
    records = {
        key: record
        for key, known in prepared.snapshot.state.purchases.items()
        if (record := observer.updated(key, known)) is not None
    }
    restricted = (
        purchase_stops.restricted(item, records.get(item.key), prepared.now) for item in items
    )
    return Outcomes(records, tuple(restricted))


class _Observer:
    """Updates records from the machines and the items of one pass."""

    def __init__(self, prepared: Prepared, items: Mapping[str, DemandItem]) -> None:
        self._snapshot = prepared.snapshot
        self._supply = prepared.supply
        self._now = prepared.now
        self._items = items
        self._nodes = {node.name: node for node in prepared.supply.agent_nodes}
        self._by_token: dict[str, list[Machine]] = {}
        for machine in prepared.snapshot.machines:
            self._by_token.setdefault(machine.tags.get(Tag.LAUNCH, ""), []).append(machine)
        self._ordered = {intent.request.token for intent in prepared.snapshot.intents}

    def updated(self, key: str, record: UnitPurchases) -> UnitPurchases | None:
        """The record after this pass; None once it is of no more use."""
        item = self._items.get(key)
        if item is not None and item.config != record.config:
            return purchase_stops.new_record(item)
        record = self._with_launches(self._without_pause(record), item)
        record = self._without_waiting(record, item)
        if item is not None:
            record = self._with_refusal(record, item)
        if record.unused >= MAX_UNUSED:
            record = self._stopped(record, self._unused_reason(record))
        return record if item is not None or self._is_of_use(record) else None

    def _with_launches(self, record: UnitPurchases, item: DemandItem | None) -> UnitPurchases:
        """The record with the outcomes of its open launches."""
        record = self._with_workers(record)
        if item is not None:
            record = self._with_offered(record)
        for token in record.launches:
            record = self._settled(token, record)
        return record

    def _with_workers(self, record: UnitPurchases) -> UnitPurchases:
        """The record with the machines of open launches that have or had a task."""
        workers = {name for name in self._machines_of(record) if self._has_worked(name)}
        new = sorted(workers - set(record.worked))
        return replace(record, worked=(*record.worked, *new)) if new else record

    def _machines_of(self, record: UnitPurchases) -> list[str]:
        """The machines of a record's open launches that EC2 lists."""
        tokens = (self._by_token.get(token, ()) for token in record.launches)
        return [machine.instance_id for machines in tokens for machine in machines]

    def _has_worked(self, name: str) -> bool:
        node = self._nodes.get(name)
        if node is not None and node.agent is not None:
            return not node.agent.is_empty or node.agent.ended > 0
        return "busy" in self._supply.history.get(name, ())

    def _with_offered(self, record: UnitPurchases) -> UnitPurchases:
        """The record with the machines that were idle while the unit waited for some time."""
        pieces = record.pieces
        if record.app and (pieces is None or self._now - pieces.since < OFFERED_S):
            return record
        idle = {node.name for node in self._new_agents(record)}
        new = sorted(idle - set(record.offered))
        return replace(record, offered=(*record.offered, *new)) if new else record

    def _is_used(self, machines: Sequence[Machine], record: UnitPurchases) -> bool:
        """Whether half of a launch's machines serve the unit."""
        serving = sum(self._serves(machine.instance_id, record) for machine in machines)
        return serving > 0 and serving * 2 >= len(machines)

    def _serves(self, name: str, record: UnitPurchases) -> bool:
        """Whether a machine runs a task of the unit; of units without an app, had any task."""
        if not record.app:
            return name in record.worked
        node = self._nodes.get(name)
        return node is not None and node.agent is not None and record.app in node.agent.apps

    def _settled(self, token: str, record: UnitPurchases) -> UnitPurchases:
        """The record with a launch closed, once it is known whether its machines were used."""
        machines = self._by_token.get(token, [])
        left = {name: at for name, at in record.launches.items() if name != token}
        if self._is_used(machines, record):
            return UnitPurchases(record.app, record.config, left, pieces=record.pieces)
        ends = [self._end_of(machine, record) for machine in machines]
        if None in ends or self._may_appear(token, record):
            return record
        return self._closed(replace(record, launches=left), ends)

    def _closed(self, record: UnitPurchases, ends: Sequence[str | None]) -> UnitPurchases:
        """The record after all machines of a launch ended in these ways."""
        if self._now - record.unused_at > self._payback_s:
            record = replace(record, unused=0, withdrawn=0)
        if ends.count("other") >= len(ends) / 2:
            return record
        record = replace(record, unused_at=self._now)
        if "unused" in ends:
            return replace(record, unused=record.unused + 1)
        record = replace(record, withdrawn=record.withdrawn + 1)
        return self._paused(record) if record.withdrawn >= MAX_WITHDRAWN else record

    def _end_of(self, machine: Machine, record: UnitPurchases) -> _End | None:
        """How a machine that never had a task was given back, else `other`; None while it lives."""
        name = machine.instance_id
        removal, node = self._snapshot.state.removals.get(name), self._nodes.get(name)
        is_leaving = removal is not None and removal.phase in {"draining", "terminating"}
        if node is not None and not is_leaving:
            return None
        if removal is None or removal.reason.code != ReasonCode.IDLE or name in record.worked:
            return "other"
        return "unused" if name in record.offered else "withdrawn"

    def _may_appear(self, token: str, record: UnitPurchases) -> bool:
        """Whether EC2 may list the first machine of a launch later."""
        is_late = self._now - record.launches[token] >= LISTING_LAG_S
        return token not in self._by_token and (token in self._ordered or not is_late)

    @property
    def _payback_s(self) -> float:
        """The time within which a purchase and its return are a loop, from return to return."""
        settings = self._snapshot.spec.autoscaler
        return settings.consolidation.payback_s + settings.boot_timeout_s + settings.idle_after_s

    def _unused_reason(self, record: UnitPurchases) -> Reason:
        return Reason.of(
            ReasonCode.PURCHASES_UNUSED,
            count=record.unused,
            within_s=self._payback_s,
            retry_s=0.0,
        )

    def _stopped(self, record: UnitPurchases, reason: Reason) -> UnitPurchases:
        pause_s = FIRST_STOP_S * 2.0 ** min(record.stops, MAX_DOUBLINGS)
        return UnitPurchases(
            record.app,
            record.config,
            stops=record.stops + 1,
            until=self._now + pause_s,
            reason=reason,
            unused_at=self._now,
            pieces=record.pieces,
            refused_by=record.refused_by,
        )

    def _paused(self, record: UnitPurchases) -> UnitPurchases:
        exponent = min(record.withdrawn - MAX_WITHDRAWN, MAX_DOUBLINGS)
        until = self._now + min(MAX_PAUSE_S, FIRST_PAUSE_S * 2.0**exponent)
        reason = Reason.of(ReasonCode.DEMAND_WITHDRAWN, count=record.withdrawn, retry_s=0.0)
        return replace(record, until=until, reason=reason)

    def _without_pause(self, record: UnitPurchases) -> UnitPurchases:
        """The record without a pause that is over."""
        is_pause = record.reason is not None and record.reason.code == ReasonCode.DEMAND_WITHDRAWN
        return replace(record, reason=None) if is_pause and self._now >= record.until else record

    def _without_waiting(self, record: UnitPurchases, item: DemandItem | None) -> UnitPurchases:
        """The record without what a changed number of running instances refutes."""
        present = tuple(name for name in record.refused_by if name in self._nodes)
        record = replace(record, refused_by=present)
        if item is None:
            return replace(record, pieces=None)
        running = purchase_stops.running_instances(self._snapshot, item)
        if record.pieces is None or record.pieces.running == running:
            return record
        return replace(record, pieces=None, refused_by=())

    def _with_refusal(self, record: UnitPurchases, item: DemandItem) -> UnitPurchases:
        """The record after agents registered that the unit cannot or does not use."""
        new_agents = self._new_agents(record)
        for node in new_agents:
            differences = purchase_refusals.mismatch(item, node, self._snapshot)
            if differences:
                reason = purchase_refusals.machine_refused(item, node, differences)
                return self._stopped(record, reason)
        refusing = self._refusing(record, item)
        if not refusing:
            return record
        refused_by = tuple(dict.fromkeys((*record.refused_by, *refusing)))
        record = replace(record, refused_by=refused_by, pieces=None)
        for node in new_agents:
            if node.name in refusing:
                return self._stopped(record, purchase_refusals.machine_refused(item, node, ()))
        return record

    def _new_agents(self, record: UnitPurchases) -> list[AgentNode]:
        """Agents of open launches that get offers and have had no task."""
        names = (name for name in self._machines_of(record) if name not in record.worked)
        nodes = (self._nodes[name] for name in names if name in self._nodes)
        return [node for node in nodes if node.state in REGISTERED and node.removal is None]

    def _refusing(self, record: UnitPurchases, item: DemandItem) -> tuple[str, ...]:
        """Agents on which the unit fits and did not start for long, while it refused offers."""
        pieces = record.pieces
        if pieces is None or pieces.waiting != item.count:
            return ()
        is_late = self._now - pieces.since >= REFUSED_AFTER_S
        if not is_late or not purchase_refusals.refused_offers(item):
            return ()
        return tuple(name for name in pieces.agents if name in self._nodes)

    def _is_of_use(self, record: UnitPurchases) -> bool:
        """Whether the record of a unit without demand is kept."""
        last = max(record.until, record.unused_at)
        return bool(record.launches) or self._now - last < RECORD_LIFETIME_S


_End = Literal["unused", "withdrawn", "other"]
