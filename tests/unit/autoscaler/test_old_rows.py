"""Rows and journal entries that commit 5698494 wrote give the same figures today."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mesaform.autoscaler.accounting.cost_report import By, add_up
from mesaform.autoscaler.model import old_vocabulary
from mesaform.autoscaler.model.decision import KINDS, from_record
from mesaform.autoscaler.model.planner_state import PlannerState
from mesaform.autoscaler.model.reason import Reason, ReasonCode
from mesaform.autoscaler.model.snapshot import Intent
from mesaform.autoscaler.reporting.decision_log import Selection, lines_of, select
from mesaform.autoscaler.reporting.decision_text import decision_view, render_row
from mesaform.aws.ledger_rows import TOPICS, topic_of
from mesaform.simulator import history

FIXTURES = Path(__file__).parent / "fixtures"


def read(name: str) -> list[dict[str, Any]]:
    lines = (FIXTURES / name).read_bytes().splitlines()
    return [msgspec.json.decode(line) for line in lines]


OLD_ROWS = read("ledger_rows_5698494.jsonl")
ROWS = old_vocabulary.translate_rows(OLD_ROWS)
FIGURES = json.loads((FIXTURES / "figures_5698494.json").read_text())
LOGGED = [row for row in ROWS if row["kind"] in {"decision", "override"}]


def old_kinds(rows: Iterable[dict[str, Any]]) -> set[str]:
    return {row["kind"] for row in rows}


NEWER = {
    "pool_stopped",
    "pool_resumed",
    "purchases_stopped",
    "purchases_resumed",
    "expiry",
    "framework",
}
"""Kinds that no row of the old vocabulary has."""


def test_the_fixture_has_every_kind_of_row_and_of_decision():
    assert set(old_vocabulary.ROW_KINDS) <= old_kinds(OLD_ROWS)
    assert {"decision", "usage", "machines", "history", "receipt", "price"} <= old_kinds(OLD_ROWS)
    assert {row["decision"] for row in OLD_ROWS if row["kind"] == "decision"} >= set(
        old_vocabulary.DECISION_KINDS
    )
    assert {row["decision"] for row in ROWS if row["kind"] == "decision"} == set(KINDS) - NEWER


def test_no_old_name_is_left_after_translation():
    assert not old_kinds(ROWS) & set(old_vocabulary.ROW_KINDS)
    for row in ROWS:
        assert not set(row) & set(old_vocabulary.ROW_FIELDS.get(str(row["kind"]), {}))


def test_translation_leaves_current_rows_as_they_are():
    assert old_vocabulary.translate_rows(ROWS) == ROWS


@pytest.mark.parametrize("by", ["pool", "app", "role", "type", "zone", "capacity"])
def test_old_rows_cost_the_same(by: By):
    bill = add_up(ROWS, FIGURES["since"], FIGURES["until"], by)
    assert json.loads(msgspec.json.encode(bill.as_json())) == FIGURES["bills"][by]


def test_the_history_of_work_is_the_same():
    tasks = [asdict(task) for task in history.tasks(ROWS)]
    assert json.loads(msgspec.json.encode(tasks)) == FIGURES["history"]


def test_old_decisions_keep_their_text_and_their_dollars():
    assert [render_row(row) for row in LOGGED] == FIGURES["what"]
    lines = lines_of(LOGGED)
    assert sum(len(line.rows) for line in lines) == len(LOGGED)
    assert sum(line.usd_per_hour for line in lines) == pytest.approx(FIGURES["usd_per_hour"])


def test_old_decisions_are_selected_by_subject():
    assert len(select(LOGGED, Selection("i-1"))) == FIGURES["why"]["i-1"]
    in_prose_only = [
        row
        for row in OLD_ROWS
        if row.get("decision") == "buy" and not row.get("demand") and "/web" in row["reasons"][0]
    ]
    selected = select(LOGGED, Selection("/web"))
    assert len(selected) == FIGURES["why"]["/web"] - len(in_prose_only)


def test_old_prose_becomes_a_reason_with_the_code_text():
    old = [row for row in OLD_ROWS if row["kind"] == "decision"]
    new = [row for row in ROWS if row["kind"] == "decision"]
    for before, after in zip(old, new, strict=True):
        texts = [reason.params["text"] for reason in from_record(after).reasons]
        assert texts == before.get("reasons", [])
        assert decision_view(after)["what"] == before["what"]


def test_old_demand_becomes_names_and_counts():
    (row,) = [row for row in ROWS if row.get("decision") == "unschedulable"][:1]
    decision = from_record(row)
    assert [(part.name, part.count) for part in decision.demand] == [("/web", decision.count)]


def test_a_ledger_is_asked_for_old_kinds_too_and_they_share_their_topic():
    kinds = old_vocabulary.with_old_kinds(("decision", "override", "resource_usage"))
    assert kinds == ("decision", "override", "resource_usage", "held", "order")
    assert set(itertools.chain.from_iterable(TOPICS.values())) >= set(kinds)
    for old, new in old_vocabulary.ROW_KINDS.items():
        assert topic_of(old) == topic_of(new)


@pytest.mark.parametrize("document", read("planner_states_5698494.jsonl"))
def test_an_old_planner_state_is_read(document: dict[str, Any]):
    state = msgspec.convert(old_vocabulary.translate_planner_state(document), PlannerState)
    assert state.last_reported.keys() == document["told"].keys()
    assert state.anomalies == {
        name: Reason.of(ReasonCode.TEXT, text=text) for name, text in document["odd"].items()
    }
    for name, removal in document["removals"].items():
        assert state.removals[name].reason.params == {"text": removal["reason"]}
    for token, replacement in document["replacements"].items():
        assert state.replacements[token].reason.params == {"text": replacement["reason"]}
    assert not set(state.last_reported.values()) & set(old_vocabulary.VERDICT_KINDS)


@pytest.mark.parametrize("document", read("launches_5698494.jsonl"))
def test_an_old_launch_is_read(document: dict[str, Any]):
    intent = msgspec.convert(old_vocabulary.translate_intent(document), Intent)
    assert intent.reason == Reason.of(ReasonCode.TEXT, text=document["reason"])
