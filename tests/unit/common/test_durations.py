from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesaform.common.durations import (
    format_duration,
    format_short_duration,
    parse_duration_s,
    parse_mesos_duration_s,
)
from mesaform.common.errors import BadInput


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("1h30m", 5400), ("2d", 172800), ("1w", 604800), ("0.5h", 1800)],
)
def test_durations_of_the_command_line(text, seconds):
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "m", "-5m", "5 m", "1h 30m", "5min", "1e3s", "∞"])
def test_other_texts_are_refused_with_an_example(text):
    with pytest.raises(BadInput, match="is not a duration"):
        parse_duration_s(text, where="--for")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("15secs", 15), ("10mins", 600), ("500ms", 0.5), ("1.5hrs", 5400), (" 1weeks ", 604800)],
)
def test_durations_of_mesos_flags(text, seconds):
    assert parse_mesos_duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["15s", "secs", "15", "15 seconds", ""])
def test_mesos_units_are_spelt_as_mesos_spells_them(text):
    with pytest.raises(BadInput, match="is not a duration"):
        parse_mesos_duration_s(text)


def test_a_duration_is_shown_in_its_two_largest_units():
    shown = [format_duration(seconds) for seconds in (-5, 0.4, 59, 65, 3600, 100_000)]
    assert shown == ["0 s", "0 s", "59 s", "1 min 5 s", "1 h 0 min", "1 d 3 h"]


def test_a_short_duration_has_one_unit():
    shown = [format_short_duration(seconds) for seconds in (45, 60, 80, 150, 86400, 115_200)]
    assert shown == ["45 s", "1 min", "80 s", "2.5 min", "1 d", "32 h"]


@given(st.integers(1, 10**6), st.sampled_from("smhdw"))
def test_a_whole_number_and_a_unit_are_read_exactly(number, unit):
    size = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}[unit]
    assert parse_duration_s(f"{number}{unit}") == number * size
