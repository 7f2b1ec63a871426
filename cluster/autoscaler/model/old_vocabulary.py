"""Reading of stored documents that were written in an older vocabulary. Pure.

This is the only module that knows old names. It maps the vocabulary of commit 5698494, the last one
before names and reasons changed, to the current one: kinds of ledger rows, decisions and verdicts,
field names of rows, of the journal in ZooKeeper and of the heartbeat in S3, and prose reasons,
which become `Reason(TEXT)`. Documents in the current vocabulary stay as they are.

Fixtures: `tests/unit/autoscaler/fixtures/`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial

from mesaform.autoscaler.model.reason import ReasonCode
from mesaform.common.json_types import Json, JsonObject

DECISION_KINDS: Mapping[str, str] = {
    "strange": "anomaly",
    "left": "self_terminated",
    "lead": "leader_changed",
    "gone": "instance_terminated",
    "advertises": "capacity_mismatch",
    "refuse": "unschedulable",
    "abandon": "drain_timed_out",
}
VERDICT_KINDS: Mapping[str, str] = {
    "never": "impossible",
    "held": "paused",
    "not_dry": "offers_available",
    "untaken": "offer_declined",
    "budget": "cost_cap",
}
ROW_KINDS: Mapping[str, str] = {
    "held": "resource_usage",
    "level": "cluster_totals",
    "order": "override",
}
ROW_FIELDS: Mapping[str, Mapping[str, str]] = {
    "decision": {"what": "text"},
    "override": {"order": "override", "order_id": "override_id", "what": "text"},
    "cluster_totals": {"level": "totals"},
    "interruption": {
        "told_at": "reported_at",
        "told_by": "reported_by",
        "warned_s": "warning_s",
    },
}
"""By (new) kind of row: old and new field names."""

JOURNAL_FIELDS: Mapping[str, str] = {"memory": "planner_state"}
"""Old and new field names of the journal's `state` document."""

PLANNER_STATE_FIELDS: Mapping[str, str] = {
    "registered": "registered_at",
    "rented": "billed_machines",
    "told": "last_reported",
    "odd": "anomalies",
    "hinted": "hint_baselines",
    "spared": "cooldown_until",
    "lives": "lifetimes",
    "lives_until": "lifetimes_until",
}
"""Old and new field names of `PlannerState`."""

PLANNER_STATE_VALUE_FIELDS: Mapping[str, Mapping[str, str]] = {
    "removals": {"asked_at": "requested_at"},
    "replacements": {"old": "old_instance_ids"},
    "backoffs": {"strikes": "consecutive_errors"},
    "notices": {"told": "is_reported"},
}
"""By (new) field of `PlannerState`: old and new field names of its values."""

_CODES = frozenset(code.value for code in ReasonCode)


def with_old_kinds(kinds: Collection[str]) -> tuple[str, ...]:
    """The kinds of rows with the old names of each: what to ask a ledger for."""
    old = (name for name, current in ROW_KINDS.items() if current in kinds)
    return (*kinds, *old)


def translate_rows(rows: Iterable[Mapping[str, Json]]) -> list[JsonObject]:
    """Ledger rows in the current vocabulary, in the given order."""
    return [translate_row(row) for row in rows]


def translate_row(row: Mapping[str, Json]) -> JsonObject:
    """A ledger row in the current vocabulary."""
    old_kind = str(row["kind"])
    kind = ROW_KINDS.get(old_kind, old_kind)
    renamed = {**_rename(row, ROW_FIELDS.get(kind, {})), "kind": kind}
    return _translate_decision(renamed) if kind == "decision" else renamed


def translate_journal_state(document: JsonObject) -> JsonObject:
    """The journal's `state` document in the current vocabulary."""
    renamed = _rename(document, JOURNAL_FIELDS)
    planner_state = renamed.get("planner_state")
    if isinstance(planner_state, dict):
        renamed["planner_state"] = translate_planner_state(planner_state)
    return renamed


def translate_planner_state(document: JsonObject) -> JsonObject:
    """A planner state in the current vocabulary. A document that has it already stays equal."""
    state = _rename(document, PLANNER_STATE_FIELDS)
    for name, fields in PLANNER_STATE_VALUE_FIELDS.items():
        _translate_values(state, name, partial(_rename_value, fields=fields))
    for name in ("removals", "replacements"):
        _translate_values(state, name, _translate_reason_field)
    _translate_values(state, "anomalies", translate_reason)
    _translate_values(state, "last_reported", _translate_verdict_kind)
    return state


def translate_intent(document: JsonObject) -> JsonObject:
    """A journaled launch in the current vocabulary."""
    reason = document.get("reason")
    return {**document, "reason": translate_reason(reason) if reason else None}


def translate_reason(reason: Json) -> Json:
    """A reason; prose becomes the code `text`, and so does a code that this version lacks."""
    if isinstance(reason, str):
        return _text(reason)
    if isinstance(reason, dict) and reason.get("code") not in _CODES:
        return _text(str(reason.get("code")))
    return reason


def _text(text: str) -> JsonObject:
    return {"code": ReasonCode.TEXT.value, "params": {"text": text}}


def _translate_decision(row: JsonObject) -> JsonObject:
    """A decision: its kind, its reasons, and its demand, which was text (`4 x /web`)."""
    kind = str(row["decision"])
    reasons, demand = row.get("reasons"), row.get("demand")
    return {
        **row,
        "decision": DECISION_KINDS.get(kind, kind),
        "reasons": [translate_reason(reason) for reason in _items(reasons)],
        "demand": [_translate_demand(part) for part in _items(demand)],
    }


def _items(value: Json) -> Iterable[Json]:
    return value if isinstance(value, list | tuple) else ()


def _translate_demand(part: Json) -> Json:
    if not isinstance(part, str):
        return part
    count, _, name = part.partition(" x ")
    return {"name": name, "count": int(count) if count.isdigit() else 0}


def _translate_verdict_kind(kind: Json) -> Json:
    return VERDICT_KINDS.get(kind, kind) if isinstance(kind, str) else kind


def _translate_reason_field(value: Json) -> Json:
    if not isinstance(value, dict):
        return value
    return {**value, "reason": translate_reason(value.get("reason"))}


def _translate_values(state: JsonObject, name: str, translate: Callable[[Json], Json]) -> None:
    """Replace the values of a field of the state, if it has the field."""
    values = state.get(name)
    if isinstance(values, dict):
        state[name] = {key: translate(value) for key, value in values.items()}


def _rename_value(value: Json, fields: Mapping[str, str]) -> Json:
    return _rename(value, fields) if isinstance(value, dict) else value


def _rename(document: Mapping[str, Json], fields: Mapping[str, str]) -> JsonObject:
    return {fields.get(key, key): value for key, value in document.items()}
