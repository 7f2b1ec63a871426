"""Every call in the code is granted, and no granted action is unused.

After a change of calls or of stacks: `.venv/bin/python -m tests.support.operator_policy`.
"""

from __future__ import annotations

import json

import pytest

from mesaform.config.parser import parse
from mesaform.doctor.policy import operator_policy
from mesaform.topology import iam
from tests.support import aws_calls
from tests.support import operator_policy as generated
from tests.support.machine_modules import modules_of_machines

pytestmark = pytest.mark.slow

REGENERATE = "run: .venv/bin/python -m tests.support.operator_policy"
MANAGED_POLICY_CHARACTERS = 6144
"""The longest managed policy, without white space (IAM quotas)."""

ROLE_POLICY_CHARACTERS = 10240
SPEC = parse(
    """\
name: toy
target: aws
network: {operator_cidrs: [203.0.113.7/32]}
account: {kms_key: "arn:aws:kms:us-east-1:111122223333:key/k"}
"""
)


def actions(document) -> set[str]:
    listed = (statement["Action"] for statement in document["Statement"])
    return {name for item in listed for name in ([item] if isinstance(item, str) else item)}


def test_every_call_names_the_service_that_it_calls():
    assert aws_calls.unnamed_sites() == []


@pytest.mark.parametrize("name", [generated.BASE, generated.SERVICES, generated.NETWORK])
def test_the_operators_policy_is_that_of_the_calls_and_the_stacks(name):
    text = (generated.FOLDER / name).read_text()
    assert text == generated.text_of(generated.documents()[name]), REGENERATE
    compact = json.dumps(json.loads(text), separators=(",", ":"))
    assert len(compact) <= MANAGED_POLICY_CHARACTERS


def test_the_operators_policy_has_every_call_of_operators_and_no_unused_action():
    used = set(generated.own_actions())
    for table in (generated.TERRAFORM, generated.NETWORK_TERRAFORM):
        used |= generated.terraform_actions(table)
    granted = set()
    for name in (generated.BASE, generated.SERVICES, generated.NETWORK):
        granted |= actions(json.loads((generated.FOLDER / name).read_text()))
    assert granted == used, REGENERATE


def test_every_resource_type_of_the_stacks_has_a_row():
    rows = {**generated.TERRAFORM, **generated.NETWORK_TERRAFORM}
    assert aws_calls.resource_types() <= set(rows), f"add a row to {generated.__name__}"


def test_the_masters_policy_has_every_call_of_masters_and_no_unused_action():
    called = aws_calls.actions_of(aws_calls.sites(modules_of_machines()))
    implied = {extra for name in called for extra in generated.IMPLIED.get(name, ())}
    document = iam.master_document("toy", "us-east-1", "111122223333", ["m5.large"])
    assert actions(document) == set(called) | implied
    assert len(json.dumps(document, separators=(",", ":"))) <= ROLE_POLICY_CHARACTERS


def test_a_key_of_the_account_adds_its_rights_to_masters_and_operators():
    key = SPEC.account.kms_key
    masters = iam.master_document("toy", "us-east-1", "111122223333", kms_key=key)
    for document in (masters, operator_policy(SPEC, "111122223333")):
        granted = [item for item in document["Statement"] if item["Resource"] == key]
        assert {"kms:CreateGrant", "kms:Decrypt"} < actions({"Statement": granted})


def test_the_printed_policy_has_no_placeholder_left():
    text = json.dumps(operator_policy(SPEC, "111122223333"))
    assert not [word for word in ("ACCOUNT_ID", "REGION", "PARTITION") if word in text]
    assert "arn:aws:s3:::mesaform-111122223333-us-east-1" in text


def test_masters_pass_the_role_below_the_path_that_the_account_demands():
    document = iam.master_document("toy", "us-east-1", "111122223333", iam_path="/team/")
    account = SPEC.account.model_copy(update={"iam_path": "/team/"})
    text = SPEC.model_copy(update={"account": account})
    assert ":role/team/mesaform-*" in json.dumps(operator_policy(text, "111122223333"))
    (statement,) = [item for item in document["Statement"] if item["Sid"] == "PassTheAgentsRole"]
    assert (
        statement["Resource"] == "arn:aws:iam::111122223333:role/team/mesaform-toy-us-east-1-agent"
    )
