"""Parsing of cdktf's output. The samples were recorded from cdktf 0.21 and Terraform 1.11."""

from __future__ import annotations

from mesaform.provision.progress import Ended, Fault, Planned, Reader, Step, first_cause

STACKS = ("network", "notices", "masters", "agents")

PLAIN = """\
network  Plan: 22 to add, 0 to change, 0 to destroy.
network  aws_vpc.vpc (vpc): Creating...
network  aws_subnet.subnet-us-east-1a (subnet-us-east-1a): Creating...
         aws_security_group.masters (masters): Creating...
masters  aws_instance.master-1 (master-1): Still creating... [10s elapsed]
masters  aws_instance.master-1 (master-1): Creation complete after 11s [id=i-1]
network  Apply complete! Resources: 22 added, 0 changed, 0 destroyed.
"""
PLAIN_ERROR = """\
masters  Error: creating IAM Role (x): EntityAlreadyExists: Role with name x already exists.

           with aws_iam_role.role (role),
           on cdk.tf.json line 105, in resource.aws_iam_role.role (role):
          105:       }
agents  aws_iam_instance_profile.profile (profile): Creation complete after 5s [id=x]
"""
BOXED_ERROR = """\
agents  \x1b[31m╷\x1b[0m
        │ Error: waiting for EC2 Instance (i-9) create: context canceled
        │
        │   with aws_instance.default-1 (default-1),
        │   on cdk.tf.json line 123, in resource.aws_instance.default-1 (default-1):
        │
        ╵
        ╷
        │ Error: execution halted
        │
        ╵
"""


def test_the_progress_of_what_takes_long_is_shown():
    line = (
        "network  aws_internet_gateway.gateway (gateway):"
        " Still destroying... [id=igw-1, 00m30s elapsed]"
    )
    assert Reader(STACKS).read([line]) == [
        Step("network", "aws_internet_gateway.gateway", "destroying")
    ]


def test_a_line_without_a_stack_belongs_to_the_stack_before():
    assert Reader(STACKS).read(PLAIN.splitlines()) == [
        Planned("network", 22),
        Step("network", "aws_vpc.vpc", "creating"),
        Step("network", "aws_subnet.subnet-us-east-1a", "creating"),
        Step("network", "aws_security_group.masters", "creating"),
        Step("masters", "aws_instance.master-1", "creating"),
        Step("masters", "aws_instance.master-1", "created"),
        Ended("network", "Apply complete! Resources: 22 added, 0 changed, 0 destroyed."),
    ]


def test_an_error_is_reported_with_its_stack_and_resource_and_what_follows_is_read_on():
    assert Reader(STACKS).read(PLAIN_ERROR.splitlines()) == [
        Fault(
            "creating IAM Role (x): EntityAlreadyExists: Role with name x already exists.",
            "masters",
            "aws_iam_role.role",
        ),
        Step("agents", "aws_iam_instance_profile.profile", "created"),
    ]


def test_errors_in_boxes_are_read_as_well():
    reader = Reader(STACKS)
    result = [*reader.read(BOXED_ERROR.splitlines()), *reader.finish()]
    assert result == [
        Fault(
            "waiting for EC2 Instance (i-9) create: context canceled",
            "agents",
            "aws_instance.default-1",
        ),
        Fault("execution halted", "agents"),
    ]


def test_lines_may_come_in_any_portions():
    reader = Reader(STACKS)
    assert [event for line in PLAIN_ERROR.splitlines() for event in reader.read([line])] == Reader(
        STACKS
    ).read(PLAIN_ERROR.splitlines())


def test_the_stacks_own_complaint_is_a_fault():
    assert Reader(STACKS).read(["    mesaform: cluster.yaml:2: agent: unknown field"]) == [
        Fault("cluster.yaml:2: agent: unknown field")
    ]


def test_the_cause_is_the_first_fault_that_is_no_consequence_of_a_stop():
    halted, cancelled = (
        Fault("execution halted", "agents"),
        Fault("x: context canceled", "agents", "aws_instance.a"),
    )
    real, vague = Fault("no rights", "masters", "aws_iam_role.role"), Fault("something", "masters")
    assert first_cause([halted, cancelled, vague, real]) == real
    assert first_cause([halted, cancelled]) == cancelled
    assert first_cause([]) is None
