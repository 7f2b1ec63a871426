"""The autoscaler's verdicts on frameworks in `mesaform status`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from mesaform.autoscaler.model.reason import Reason
from mesaform.autoscaler.reporting.decision_text import render_state
from mesaform.autoscaler.reporting.reason_text import reason_view, render_all
from mesaform.common.json_types import Json, JsonObject, as_list, as_object
from mesaform.status.view import FrameworkView


def framework_lines(views: Iterable[FrameworkView]) -> list[str]:
    """One line for each framework that does not have what it wants."""
    return [
        f"framework {view.name} {render_state(view.verdict)}: {render_all(_reasons(view.reasons))}"
        for view in views
        if view.verdict != "satisfied"
    ]


def with_texts(status: JsonObject) -> JsonObject:
    """The JSON of a status with the texts of the reasons of verdicts."""
    autoscaler = as_object(status.get("autoscaler"))
    views: list[Json] = []
    for item in as_list(autoscaler.get("frameworks")):
        view = as_object(item)
        reasons = _reasons(as_object(reason) for reason in as_list(view.get("reasons")))
        texts = [msgspec.to_builtins(reason_view(reason)) for reason in reasons]
        views.append({**view, "reasons": texts})
    return {**status, "autoscaler": {**autoscaler, "frameworks": views}}


def _reasons(stated: Iterable[Mapping[str, object]]) -> list[Reason]:
    """The reasons that this version knows."""
    reasons = []
    for item in stated:
        try:
            reasons.append(msgspec.convert(item, Reason))
        except msgspec.ValidationError:
            continue
    return reasons
