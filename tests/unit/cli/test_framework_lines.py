"""Verdicts on frameworks in `mesaform status` and in its JSON."""

from __future__ import annotations

from typing import Any

from mesaform.autoscaler.model.framework_demand import FrameworkVerdict
from mesaform.autoscaler.model.reason import Reason, ReasonCode
from mesaform.cli.framework_lines import framework_lines, with_texts
from mesaform.cli.plan import framework_table
from mesaform.status.view import FrameworkView

SUPPRESSED: dict[str, Any] = {"code": "framework_suppressed", "params": {"framework": "batch"}}
OF_LATER_VERSION: dict[str, Any] = {"code": "of_a_later_version", "params": {}}


def test_a_line_names_each_framework_that_lacks_something_and_no_other():
    views = [
        FrameworkView("F-1", "batch", "suppressed", reasons=(SUPPRESSED, OF_LATER_VERSION)),
        FrameworkView("F-2", "spark", "satisfied", "spark"),
    ]
    assert framework_lines(views) == [
        "framework batch asks for no offers: batch suppressed offers in all its roles"
    ]


def test_the_json_of_a_status_has_the_texts_of_the_reasons():
    view: Any = {"id": "F-1", "name": "batch", "verdict": "suppressed", "reasons": [SUPPRESSED]}
    answer: Any = with_texts({"autoscaler": {"state": "active", "frameworks": [view]}})
    (shown,) = answer["autoscaler"]["frameworks"]
    assert answer["autoscaler"]["state"] == "active"
    assert shown["reasons"][0]["code"] == "framework_suppressed"
    assert "suppressed offers" in shown["reasons"][0]["text"]


def test_a_table_of_verdicts_shows_what_a_framework_says_as_it_is():
    failed = Reason.of(ReasonCode.ADAPTER_FAILED, adapter="hook", error="[red]no", attempts=1)
    verdict = FrameworkVerdict("F", "[bold]x", "unknown", 0.0, 0.0, reasons=(failed,))
    table = framework_table([verdict])
    texts = [str(cell) for column in table.columns for cell in column.cells]
    assert "[bold]x" in texts
    assert any("[red]no" in text for text in texts)
