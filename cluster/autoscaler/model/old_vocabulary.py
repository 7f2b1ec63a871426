"""Field names of stored documents in earlier vocabularies, and the reader that translates them. Pure.

The journal in ZooKeeper and the heartbeat in S3 hold the planner state as JSON. Documents written by
commit 5698494 (the last one before the vocabulary changed) stay readable.
"""

from __future__ import annotations

from collections.abc import Mapping

from mesaform.common.json_types import Json, JsonObject

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
    "probes": {"came": "has_registered"},
    "notices": {"told": "is_reported"},
}
"""By (new) field of `PlannerState`: old and new field names of its values."""


def translate_journal_state(document: JsonObject) -> JsonObject:
    """The journal's `state` document in today's vocabulary."""
    renamed = _rename(document, JOURNAL_FIELDS)
    planner_state = renamed.get("planner_state")
    if isinstance(planner_state, dict):
        renamed["planner_state"] = translate_planner_state(planner_state)
    return renamed


def translate_planner_state(document: JsonObject) -> JsonObject:
    """A stored planner state in today's vocabulary. A document in today's vocabulary is returned equal."""
    renamed = _rename(document, PLANNER_STATE_FIELDS)
    for name, fields in PLANNER_STATE_VALUE_FIELDS.items():
        values = renamed.get(name)
        if isinstance(values, dict):
            renamed[name] = {key: _renamed_value(value, fields) for key, value in values.items()}
    return renamed


def _renamed_value(value: Json, fields: Mapping[str, str]) -> Json:
    return _rename(value, fields) if isinstance(value, dict) else value


def _rename(document: JsonObject, fields: Mapping[str, str]) -> JsonObject:
    return {fields.get(key, key): value for key, value in document.items()}
