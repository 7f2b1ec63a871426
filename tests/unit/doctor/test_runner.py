"""Checks are contained and bounded, and their table fits a terminal of 80 columns."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from mesaform.cli.findings_table import show_findings
from mesaform.common.errors import NotAuthenticated, Permanent
from mesaform.config.parser import parse
from mesaform.doctor.finding import Finding, Level, errors, ok
from mesaform.doctor.runner import Check, run_checks
from mesaform.doctor.subject import Caller, Examination, Subject

SPEC = parse("name: toy\n")
EXAMINATION = Examination(Subject(SPEC), Caller("123456789012", "arn:aws:iam::123456789012:user/a"))
FAULTS = [
    Permanent("AccessDenied: no", where="ec2 DescribeVpcs"),
    NotAuthenticated("ExpiredToken"),
    KeyError("Zones"),
    RecursionError(),
]
WIDTH = 80


def raising(fault):
    def look(_examination):
        raise fault

    return look


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
def test_a_check_that_fails_is_a_warning_with_its_reason_and_ends_no_other(fault):
    good = Check("good", lambda _examination: [ok("good", "seen")])
    broken, other = run_checks([Check("broken", raising(fault)), good], EXAMINATION)
    assert (broken.check, broken.level) == ("broken", Level.WARNING)
    assert "not checked" in broken.detail
    assert broken.remedy
    assert other == ok("good", "seen")


def test_a_check_without_an_answer_is_a_warning_when_the_time_is_over():
    release = threading.Event()
    stuck = Check("stuck", lambda _examination: [ok("stuck", str(release.wait()))])
    good = Check("good", lambda _examination: [ok("good", "seen")])
    late, other = run_checks([stuck, good], EXAMINATION, timeout_s=0.2)
    release.set()
    assert (late.level, late.check) == (Level.WARNING, "stuck")
    assert "in time" in late.detail
    assert other.check == "good"


WORDS = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF), max_size=300)
FINDINGS = st.builds(
    Finding, st.text("abc '", min_size=1, max_size=20), st.sampled_from(Level), WORDS, WORDS
)


@given(st.lists(FINDINGS, max_size=6))
def test_no_line_of_the_table_is_wider_than_80_columns(findings):
    console = Console(width=WIDTH, record=True, file=None, quiet=False)
    with console.capture() as captured:
        for part in show_findings(findings):
            console.print(part)
    assert max(map(len, captured.get().splitlines())) <= WIDTH


def test_only_errors_stop_up():
    levels = [Finding("c", level, "d", "r") for level in Level]
    assert [item.level for item in errors(levels)] == [Level.ERROR]
