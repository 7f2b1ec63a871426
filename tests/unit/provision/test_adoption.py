"""Adoption without Terraform: what the stacks declare, references, plans that may be applied."""

from __future__ import annotations

import pytest

from mesaform.common.json_types import JsonObject
from mesaform.provision.adoption.account import FINDERS, NOT_IMPORTED
from mesaform.provision.adoption.declared import Declared, resolve
from mesaform.provision.adoption.importing import (
    Import,
    find_excess,
    ignore_differences,
    import_blocks,
    prepare_folder,
)
from mesaform.provision.state_folders import CONFIGURATION_FILE, adoption_dir, stack_dir
from mesaform.provision.terraform_run import OutlineChange
from tests.support import aws_calls


def test_every_kind_of_resource_in_the_stacks_can_be_found():
    kinds = aws_calls.resource_types()
    assert {"aws_vpc", "aws_sqs_queue", "aws_nat_gateway", "aws_lb"} <= kinds
    assert kinds <= {*FINDERS, *NOT_IMPORTED}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("${aws_vpc.vpc.id}", "vpc-1"),
        ("${aws_iam_role.role.name}", "mesaform-a-master"),
        ("${aws_vpc.other.id}", ""),
        ("plain", "plain"),
        (None, ""),
    ],
)
def test_a_reference_becomes_the_id_that_was_found(value, expected):
    ids = {"aws_vpc.vpc": "vpc-1", "aws_iam_role.role": "mesaform-a-master"}
    assert resolve(value, ids) == expected


@pytest.mark.parametrize(
    ("kind", "action", "is_excess"),
    [
        ("aws_instance", "import", False),
        ("aws_instance", "update", True),
        ("aws_iam_role_policy", "create", False),
        ("aws_instance", "create", True),
        ("aws_vpc", "create", True),
        ("aws_ebs_volume", "create", True),
        ("aws_instance", "replace", True),
        ("aws_iam_role", "delete", True),
    ],
)
def test_a_plan_of_an_adoption_may_not_replace_remove_or_create_machines(kind, action, is_excess):
    change = OutlineChange(f"{kind}.x", kind, action)
    assert bool(list(find_excess([change]))) is is_excess


def test_ignored_differences_keep_every_attribute():
    document: JsonObject = {
        "resource": {"aws_vpc": {"vpc": {"cidr_block": "10.0.0.0/16"}}},
        "terraform": {},
    }
    assert ignore_differences(document) == {
        "resource": {
            "aws_vpc": {
                "vpc": {"cidr_block": "10.0.0.0/16", "lifecycle": {"ignore_changes": "all"}}
            }
        },
        "terraform": {},
    }


def test_an_import_block_names_address_and_id():
    declared = Declared("network", "aws_vpc", "vpc", {})
    assert import_blocks([Import(declared, "vpc-1")]) == (
        'import {\n  to = aws_vpc.vpc\n  id = "vpc-1"\n}'
    )


def test_plans_of_an_adoption_are_closed_to_other_users(tmp_path):
    origin = stack_dir(tmp_path, "masters")
    origin.mkdir(parents=True)
    (origin / CONFIGURATION_FILE).write_text('{"resource": {"aws_instance": {"m": {"ami": "a"}}}}')
    adoption_dir(tmp_path).mkdir(parents=True, mode=0o755)
    entry = Import(Declared("masters", "aws_instance", "m", {}), "i-1")
    place = prepare_folder(tmp_path, "masters", [entry])
    assert adoption_dir(tmp_path).stat().st_mode & 0o777 == 0o700
    modes = {path.name: path.stat().st_mode & 0o777 for path in place.iterdir()}
    assert modes == {CONFIGURATION_FILE: 0o600, "imports.tf": 0o600}
    again = prepare_folder(tmp_path, "masters", [])
    assert (again / "imports.tf").read_text() == ""
