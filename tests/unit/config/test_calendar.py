"""Parts of the week, and the settings of consolidation, as people write them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from mesaform.common.errors import BadInput
from mesaform.config.calendar import days_of, hours_of, is_open
from mesaform.config.parser import parse


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def test_days_are_ranges_and_lists_and_go_over_the_weeks_end():
    assert days_of("mon-fri") == {0, 1, 2, 3, 4}
    assert days_of("sat,sun") == {5, 6}
    assert days_of("fri-mon") == {4, 5, 6, 0}
    assert days_of("monday") == days_of("") == frozenset()


@pytest.mark.parametrize(
    "wrong", ["", "9-17", "09:00-09:00", "25:00-26:00", "08:60-09:00", "24:00-24:00"]
)
def test_hours_that_never_open_are_none(wrong):
    assert hours_of(wrong) is None


@pytest.mark.parametrize(
    ("moment", "is_in"),
    [
        ("2027-01-15T21:59", False),  # a Friday
        ("2027-01-15T22:00", True),
        ("2027-01-16T05:59", True),  # Saturday morning belongs to Friday night
        ("2027-01-16T06:00", False),
        ("2027-01-16T23:00", False),  # Saturday night does not
    ],
)
def test_a_window_past_midnight_belongs_to_the_day_on_which_it_begins(moment, is_in):
    assert is_open("fri", "22:00-06:00", at(moment)) is is_in


@pytest.mark.parametrize(
    ("text", "line", "complaint"),
    [
        (
            "consolidation: {windows: [{days: moon, hours: '22:00-06:00', max_agents_percent: 5}]}",
            3,
            "names no days",
        ),
        (
            "consolidation: {windows: [{hours: '22:00-22:00', max_agents_percent: 5}]}",
            3,
            "not a part of a day that opens",
        ),
        ("consolidation: {min_saving_usd_per_hour: -1}", 3, "min_saving_usd_per_hour"),
        ("consolidation: {payback_s: 0}", 3, "payback_s"),
        ("consolidation: {enabeld: true}", 3, "nearest: enabled"),
        ("headroom_slots: [{count: 1, cpus: 1, mem_mib: 64, pool: other}]", 3, "no pool other"),
    ],
)
def test_nonsense_is_refused_with_the_line(text, line, complaint):
    with pytest.raises(BadInput) as caught:
        parse(f"name: a\nautoscaler:\n  {text}\n")
    assert f"cluster.yaml:{line}:" in str(caught.value)
    assert complaint in str(caught.value)
