"""Parsing of Terraform's JSON output. The samples were recorded from Terraform 1.11."""

from __future__ import annotations

import json

from mesaform.provision.progress import Ended, Fault, Planned, Step, first_cause, read


def hook(kind: str, address: str, action: str) -> str:
    return json.dumps(
        {"@level": "info", "type": kind, "hook": {"resource": {"addr": address}, "action": action}}
    )


def summary(operation: str, add: int, change: int, remove: int) -> str:
    changes = {"add": add, "change": change, "import": 0, "remove": remove, "operation": operation}
    return json.dumps({"@level": "info", "type": "change_summary", "changes": changes})


def diagnostic(**fields: object) -> str:
    return json.dumps({"@level": "error", "type": "diagnostic", "diagnostic": fields})


def test_steps_and_counts_are_read_in_order():
    lines = [
        json.dumps({"@level": "info", "type": "version", "terraform": "1.11.4", "ui": "1.2"}),
        summary("plan", 22, 1, 2),
        hook("apply_start", "aws_vpc.vpc", "create"),
        hook("apply_progress", "aws_internet_gateway.gateway", "delete"),
        hook("apply_start", "aws_subnet.a", "update"),
        hook("apply_complete", "aws_vpc.vpc", "create"),
        hook("apply_complete", "aws_internet_gateway.gateway", "delete"),
        hook("apply_start", "data.aws_region.here", "read"),
        summary("apply", 22, 1, 2),
    ]
    assert read(lines) == [
        Planned(25),
        Step("aws_vpc.vpc", "creating"),
        Step("aws_internet_gateway.gateway", "destroying"),
        Step("aws_subnet.a", "changing"),
        Step("aws_vpc.vpc", "created"),
        Step("aws_internet_gateway.gateway", "destroyed"),
        Ended("22 added, 1 changed, 2 destroyed"),
    ]


def test_an_error_has_its_resource_and_its_whole_text_in_one_line():
    error = diagnostic(
        severity="error",
        summary="creating IAM Role (x): EntityAlreadyExists: Role with name x already exists.",
        detail="",
        address="aws_iam_role.role",
    )
    detailed = diagnostic(severity="error", summary="Invalid index", detail="The key\nis absent.")
    warning = diagnostic(severity="warning", summary="deprecated", detail="")
    assert read([error, detailed, warning]) == [
        Fault(
            "creating IAM Role (x): EntityAlreadyExists: Role with name x already exists.",
            "aws_iam_role.role",
        ),
        Fault("Invalid index: The key is absent."),
    ]


def test_lines_that_are_no_message_are_skipped():
    assert read(["", "panic: runtime error", "[1]", "null", '{"type": 3}', '{"type": "x"}']) == []


def test_the_cause_is_the_first_fault_that_is_no_consequence_of_a_stop():
    halted, cancelled = (
        Fault("execution halted"),
        Fault("x: context canceled", "aws_instance.a"),
    )
    real, vague = Fault("no rights", "aws_iam_role.role"), Fault("something")
    assert first_cause([halted, cancelled, vague, real]) == real
    assert first_cause([halted, cancelled]) == cancelled
    assert first_cause([]) is None


def test_of_several_faults_that_of_the_resource_that_failed_first_is_reported():
    errored = '{"type":"apply_errored","hook":{"resource":{"addr":"%s"},"action":"create"}}'
    addresses = ("aws_iam_instance_profile.profile", "aws_instance.a")
    failed = [event.resource for event in read(errored % address for address in addresses)]
    launch, profile = (Fault("no", address) for address in reversed(addresses))

    assert failed == list(addresses)
    assert first_cause([launch, profile], failed) == profile
    assert first_cause([Fault("general"), launch], failed) == launch
