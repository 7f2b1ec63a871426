"""Every reason code has one template, and the template uses exactly the declared parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec
import pytest

from mesaform.autoscaler.model.reason import Param, Reason, ReasonCode
from mesaform.autoscaler.reporting.reason_text import TEMPLATES, duration, render

TUPLES = frozenset(
    [
        "agents",
        "apps",
        "actual",
        "capacity",
        "causes",
        "constraints",
        "limits",
        "maxima",
        "missing",
        "pools",
        "refusals",
        "registered",
        "replaced",
        "required",
        "scopes",
        "shortfall",
        "values",
    ]
)
TEXTS = frozenset(
    [
        "agent",
        "app",
        "by",
        "constraint",
        "days",
        "error",
        "event",
        "field",
        "framework",
        "holder",
        "hours",
        "instance_id",
        "instance_type",
        "latest",
        "note",
        "pool",
        "previous_holder",
        "resources",
        "role",
        "slot",
        "source",
        "state",
        "target",
        "text",
        "version",
    ]
)


class RecordedParams(Mapping[str, Param]):
    """Parameters that record which of them are read."""

    def __init__(self, params: Mapping[str, Param]) -> None:
        self.params = params
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> Param:
        self.read.add(name)
        return self.params[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.params)

    def __len__(self) -> int:
        return len(self.params)


def sample(code: ReasonCode) -> dict[str, Param]:
    """A value of each declared parameter, of the right type."""

    def value(name: str) -> Param:
        if name in TUPLES:
            return ("a", "b")
        return f"<{name}>" if name in TEXTS else 1234.5

    return {name: value(name) for name in code.parameters}


def test_every_code_has_a_template():
    assert set(TEMPLATES) == set(ReasonCode)


def test_codes_are_snake_case_and_unique():
    values = [code.value for code in ReasonCode]
    assert len(values) == len(set(values))
    assert all(value == value.lower() and value.replace("_", "").isalpha() for value in values)


@pytest.mark.parametrize("code", list(ReasonCode), ids=str)
def test_a_template_uses_exactly_the_declared_parameters(code: ReasonCode):
    params = RecordedParams(sample(code))
    template = TEMPLATES[code]
    text = template(params) if callable(template) else template.format_map(params)
    assert text
    assert params.read == set(code.parameters)


@pytest.mark.parametrize("code", list(ReasonCode), ids=str)
def test_a_reason_survives_json(code: ReasonCode):
    reason = Reason.of(code, **sample(code))
    copy = msgspec.json.decode(msgspec.json.encode(reason), type=Reason)
    assert copy == reason
    assert hash(copy) == hash(reason)
    assert render(copy) == render(reason)


def test_a_reason_rejects_undeclared_parameters():
    with pytest.raises(TypeError, match="idle_after_s"):
        Reason.of(ReasonCode.IDLE, idle_s=3.0)


def test_a_reason_is_rendered_with_its_numbers():
    reason = Reason.of(ReasonCode.IDLE, idle_s=6.4, idle_after_s=5.0)
    assert render(reason) == "no task for 6 s (idle_after_s 5)"


def test_durations_are_rendered_in_a_fitting_unit():
    assert [duration(seconds) for seconds in (-1.0, 59.0, 1800.0, 9000.0)] == [
        "0 s",
        "59 s",
        "30 min",
        "2.5 h",
    ]
