"""Checkov passes on every example except for the checks that `exceptions.toml` explains."""

from __future__ import annotations

import re

import pytest

from tests.checkov.findings import (
    CHECKOV,
    Exemption,
    Finding,
    exemptions,
    read_report,
    run_checkov,
    unexplained,
    unneeded,
)
from tests.support.synthesis import example_files

DISK = Finding("CKV_AWS_189", "minimal", "resource.data", "key")
KNOWN = {"CKV_AWS_189": Exemption("why", ("minimal",))}


def test_a_finding_needs_a_reason_for_its_check_and_its_example():
    assert unexplained((DISK,), KNOWN) == []
    others = (
        Finding("CKV_AWS_1", "minimal", "resource.data", "key"),
        Finding("CKV_AWS_189", "private", "resource.data", "key"),
    )
    assert unexplained((DISK, *others), KNOWN) == [
        "minimal: resource.data: CKV_AWS_1: key",
        "private: resource.data: CKV_AWS_189: key",
    ]


def test_an_exemption_that_no_finding_needs_is_reported():
    assert unneeded((DISK,), KNOWN) == []
    assert unneeded((), KNOWN) == [
        "CKV_AWS_189: fails nowhere",
        "CKV_AWS_189: does not fail in minimal",
    ]


def test_a_report_of_checkov_is_read():
    failed = {
        "check_id": "CKV_AWS_189",
        "check_name": "key",
        "file_path": "/minimal/stacks/a/cdk.tf.json",
        "resource": "resource.data",
    }
    report = {
        "results": {"failed_checks": [failed], "parsing_errors": []},
        "summary": {"passed": 7, "parsing_errors": 0},
    }
    outcome = read_report(report)
    assert (outcome.passed, outcome.findings) == (7, (DISK,))


def test_every_exemption_names_a_check_examples_that_exist_and_a_reason():
    for check, exemption in exemptions().items():
        assert re.fullmatch(r"CKV2?_AWS_\d+", check)
        assert set(exemption.examples) <= set(example_files()), check
        assert exemption.reason.endswith("."), check
        assert len(exemption.reason) > 40, check


@pytest.mark.slow
@pytest.mark.skipif(not CHECKOV.exists(), reason="Checkov is not installed: make checkov")
def test_checkov_passes_on_every_example_but_for_the_listed_checks(tmp_path):
    outcome = run_checkov(tmp_path)
    assert outcome.passed > 1000
    assert unexplained(outcome.findings, exemptions()) == []
    assert unneeded(outcome.findings, exemptions()) == []
