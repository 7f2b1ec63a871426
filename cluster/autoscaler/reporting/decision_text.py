"""Rendering of decisions and overrides for people, from their kind and fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from mesaform.autoscaler.model.decision import Decision, Kind, from_record
from mesaform.autoscaler.reporting.reason_text import reason_view, render
from mesaform.aws.overrides import Override, describe
from mesaform.aws.ports.ledger import Row
from mesaform.common.printable import printable

_NOTICES = {
    "interruption": "is interrupted",
    "scheduled": "has a scheduled event",
    "rebalance": "is at risk: AWS recommends to move its work",
}


def render_decision(decision: Decision) -> str:
    """What was decided, as one clause. The prose of an old row stays as it is."""
    return printable(decision.text or _TEMPLATES[decision.kind](decision))


def render_reasons(decision: Decision) -> list[str]:
    """Why, one text a reason."""
    return [render(reason) for reason in decision.reasons]


def render_packing(decision: Decision) -> str:
    """How near to the lower bound the pass of a purchase packed; empty where nothing was packed."""
    if not decision.method:
        return ""
    return (
        f"packed at ${decision.packed_usd:.4f} an hour, at least ${decision.bound_usd:.4f} "
        f"(gap {decision.gap_percent:g} %, {decision.method})"
    )


def render_row(row: Row) -> str:
    """A row of a decision or an override in the current vocabulary, as one clause."""
    if row["kind"] == "decision":
        return render_decision(from_record(row))
    return str(row.get("text") or render_override_row(row))


def render_override_row(row: Row) -> str:
    """A row of an override: what was set, and who withdrew it."""
    fields = {**row, "id": row["override_id"], "kind": row["override"]}
    text = describe(msgspec.convert(fields, Override))
    withdrawn_by = row.get("withdrawn_by")
    return f"withdrawn by {withdrawn_by}: {text}" if withdrawn_by else text


def decision_view(row: Row) -> Row:
    """The row of a decision with its texts: `what`, and `text` in each reason."""
    decision = from_record(row)
    reasons = [reason_view(reason) for reason in decision.reasons]
    return {**row, "what": render_decision(decision), "reasons": reasons}


def _purchase(decision: Decision) -> str:
    return f"{decision.count} x {decision.instance_type} for pool {decision.pool}"


def _subject(decision: Decision) -> str:
    """The instance with its type, or the agent without an instance."""
    names = ", ".join(decision.machines or decision.agents)
    return f"{names} ({decision.instance_type})" if decision.offering else names


def _with(clause: str) -> Callable[[Decision], str]:
    return lambda decision: f"{_subject(decision)} {clause}"


_STATES = {
    "satisfied": "has what it wants",
    "wants_more": "wants more",
    "refuses_offers": "refuses what there is",
    "suppressed": "asks for no offers",
    "unknown": "may want more: unknown",
}
"""Verdicts on frameworks for people."""


def render_state(state: str) -> str:
    """The verdict on a framework, as a clause without its subject."""
    return _STATES.get(state, state)


def _framework(decision: Decision) -> str:
    names = ", ".join(item.name for item in decision.demand)
    return f"framework {names} {render_state(decision.policy)}"


def _unschedulable(decision: Decision) -> str:
    return f"no machine for {', '.join(str(part) for part in decision.demand)}"


def _names(decision: Decision) -> str:
    return ", ".join(part.name for part in decision.demand)


def _notice(decision: Decision) -> str:
    capacity = decision.offering.rpartition("/")[2]
    names = ", ".join(decision.machines)
    clause = _NOTICES.get(decision.policy, "is announced to end")
    return f"{names} ({decision.instance_type}, {capacity}) {clause}"


def _capacity_mismatch(decision: Decision) -> str:
    return (
        f"{decision.instance_type} in pool {decision.pool} advertises less capacity than expected"
    )


def _leader_changed(decision: Decision) -> str:
    params = decision.reasons[0].params if decision.reasons else {}
    holder, previous = params.get("holder", "another master"), params.get("previous_holder", "")
    change = "leads again" if holder == previous else f"took over from {previous}"
    return f"the autoscaler on {holder} {change}"


_TEMPLATES: Mapping[Kind, Callable[[Decision], str]] = {
    "buy": _purchase,
    "no_capacity": _purchase,
    "launch_failed": _purchase,
    "reactivate": _with("is reactivated"),
    "deactivate": _with("is deactivated"),
    "drain": _with("drains"),
    "terminate": _with("is terminated"),
    "drain_timed_out": _with("is reactivated: its drain timed out"),
    "give_up": _with("is given up"),
    "unschedulable": _unschedulable,
    "notice": _notice,
    "instance_terminated": _with("has ended"),
    "self_terminated": _with("terminated itself"),
    "capacity_mismatch": _capacity_mismatch,
    "anomaly": _with("is not as expected"),
    "leader_changed": _leader_changed,
    "expiry": lambda _: "the cluster ends",
    "pool_stopped": lambda decision: f"pool {decision.pool} STOPS buying machines",
    "pool_resumed": lambda decision: f"pool {decision.pool} buys machines again",
    "purchases_stopped": lambda decision: f"purchases for {_names(decision)} STOP",
    "framework": _framework,
    "purchases_resumed": lambda decision: f"machines are bought for {_names(decision)} again",
}
