"""Regular expressions of users: their syntax, and the time that they may take."""

from __future__ import annotations

import re
import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesaform.common.patterns import BadPattern, matches, require_pattern

LONGEST = 1024
"""Characters of an agent's attribute that constraints compare."""

CATASTROPHIC = [
    "(a+)+b",
    "(a|a)*b",
    "(a|aa)+b",
    "(.*a){25}b",
    "(x+x+)+y",
    "((a{0,30}){0,30})b",
    r"(\w|[^a])*" * 90,
    "([a-zA-Z]+)*b",
    "(a?){200}a{200}b",
]


@pytest.mark.parametrize("pattern", CATASTROPHIC)
def test_no_pattern_takes_more_than_seconds_of_processor_time(pattern):
    for text in ("a" * LONGEST, "x" * LONGEST, "a" * (LONGEST - 1) + "é"):
        before = time.process_time()
        with suppress(BadPattern):
            matches(pattern, text)
        assert time.process_time() - before < 5.0


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("(", "missing )"),
        ("(?=a)b", "invalid perl operator"),
        (r"(a)\1", "invalid escape sequence"),
        ("((a{100}){100}){100}", "invalid repetition size"),
        (r"[\pL\pN]{1,900}", "too large"),
        ("\ud800", "surrogate"),
    ],
)
def test_what_is_no_pattern_is_refused_with_the_reason(pattern, reason):
    with pytest.raises(BadPattern, match=re.escape(reason)):
        require_pattern(pattern)
    with pytest.raises(BadPattern):
        matches(pattern, "a")


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("m5.*", "m5.large", True),
        ("us-east-1[ab]", "us-east-1c", False),
        ("r", "r1", False),
        ("a|b", "b", True),
        ("", "", True),
        (r"ip-10-0-\d{1,3}", "ip-10-0-12", True),
        (".", "é", True),
        (".*", "\ud800", False),
    ],
)
def test_a_pattern_matches_the_whole_text(pattern, text, expected):
    assert matches(pattern, text) is expected


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=50))
def test_an_escaped_text_matches_itself(text):
    assert matches(re.escape(text), text)
