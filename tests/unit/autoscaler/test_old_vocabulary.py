"""Journal documents of commit 5698494 are readable. That commit's code recorded the fixtures."""

from __future__ import annotations

import json
import zlib
from dataclasses import fields
from pathlib import Path

import msgspec

from harness.autoscaler_builders import a_reason
from mesaform.autoscaler.daemon.journal import LAUNCH, STATE, JournalState
from mesaform.autoscaler.model.notice import Notice
from mesaform.autoscaler.model.old_vocabulary import translate_journal_state
from mesaform.autoscaler.model.planner_state import Backoff, PlannerState
from mesaform.autoscaler.model.removal import Removal, Replacement
from mesaform.autoscaler.model.snapshot import Intent
from mesaform.autoscaler.reporting.reason_text import render

FIXTURES = Path(__file__).parent / "fixtures"


def recorded(name: str) -> bytes:
    return (FIXTURES / name).read_bytes()


def state_of_5698494() -> PlannerState:
    state = STATE.decode(zlib.compress(recorded("journal_state_5698494.json")))
    assert isinstance(state, JournalState)
    assert state.epoch == 3
    return state.planner_state


NEWER = {
    "experiments",
    "failing_apps",
    "failures_seen",
    "frameworks",
    "launch_failures",
    "purchases",
    "reported",
}
"""Fields that the old state did not have."""


def test_no_field_of_a_recorded_state_is_lost():
    state, empty = state_of_5698494(), PlannerState()
    lost = [
        field.name
        for field in fields(PlannerState)
        if field.name not in NEWER and getattr(state, field.name) == getattr(empty, field.name)
    ]
    assert lost == []


def test_renamed_fields_keep_their_values():
    state = state_of_5698494()
    assert state.registered_at == {"i-0a1": 1763899000.0, "i-0a2": 1763899010.0}
    assert state.last_reported == {"services:/web": "pool_max"}
    assert render(state.anomalies["i-0a1"]).startswith("comes from version 1")
    assert state.hint_baselines == {"hint-1": (4000, 8192000, 0, 0, 0)}
    assert state.cooldown_until == {"i-0a6": 1763903600.0}
    assert len(state.lifetimes["/web"]) == 24
    assert state.lifetimes_until == 1763900020.0
    assert state.billed_machines["i-0a1"].planned_usd_per_hour == 0.096


def test_renamed_fields_of_values_keep_their_values():
    state = state_of_5698494()
    assert state.removals["i-0a4"] == Removal(
        "agent-4",
        "terminating",
        1763900210.0,
        a_reason("no task for 300 s (idle_after_s 300)"),
        requested_at=1763900215.0,
    )
    assert state.replacements["ms-1"] == Replacement(
        ("i-0a2", "i-0a5"),
        1,
        1763900190.0,
        a_reason("one m5.xlarge takes the place of 2 x m5.large"),
        "replace",
    )
    assert state.backoffs["m5.large/us-east-1a/spot"] == Backoff(1763900300.0, 2, 4)
    assert state.notices["i-0a7"] == Notice(
        "interruption",
        "i-0a7",
        1763900100.0,
        1763900220.0,
        "queue",
        "spot interruption (terminate)",
        is_reported=True,
    )


def test_todays_documents_are_unchanged_by_the_translation():
    today = {"epoch": 4, "planner_state": msgspec.to_builtins(state_of_5698494())}
    document = json.loads(msgspec.json.encode(today))
    assert translate_journal_state(document) == document


def test_a_recorded_launch_is_readable():
    intent = LAUNCH.decode(recorded("journal_launch_5698494.json"))
    assert isinstance(intent, Intent)
    assert intent.instance_ids == ("i-0b1", "i-0b2")
    assert intent.request.token == "ms-1"
    assert intent.request.offerings[0].key == "m5.large/us-east-1a/spot"


def test_a_state_with_probes_is_readable_and_its_frameworks_are_tested_anew():
    state = STATE.decode(
        b'{"schema":"autoscaler.state/1","epoch":3,"launches":[],"planner_state":{"leader_since":9,'
        b'"probes":{"fw-1":{"at":8,"accepted":1,"asked":0,"size":2,"has_registered":true}}}}'
    )
    assert isinstance(state, JournalState)
    assert (state.planner_state.leader_since, state.planner_state.experiments) == (9, {})
