"""Reading of Terraform's plans: which machines go out of service, and why."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from mesaform.provision.data_volumes import find_losses
from mesaform.provision.machine_changes import (
    MachineChange,
    ResourceCounts,
    changed_templates,
    changes_of,
    count_changes,
    replaces_ground,
)
from mesaform.provision.outdated import find_outdated
from mesaform.provision.preview import preview_first
from mesaform.provision.state_folders import stack_dir
from mesaform.topology.names import Tag
from tests.support.terraform_state import write_state

MASTER = {
    "id": "i-1",
    "instance_type": "t3.medium",
    "tags": {Tag.ROLE: "master", Tag.NAME: "mesaform-a-master-1"},
}


def plan(kind: str, actions: list[str], before: dict, after: dict | None, **more: object) -> dict:
    change = {"actions": actions, "before": before, "after": after, **more}
    return {"resource_changes": [{"type": kind, "change": change}]}


def test_a_replacement_is_named_with_the_attribute_that_forces_it():
    replaced = plan(
        "aws_instance", ["delete", "create"], MASTER, {"ami": "ami-2"}, replace_paths=[["ami"]]
    )
    assert list(changes_of([replaced])) == [
        MachineChange(
            "i-1", "mesaform-a-master-1", "master", "replace", ("ami",), type_before="t3.medium"
        )
    ]


@pytest.mark.parametrize(
    ("actions", "after", "expected"),
    [
        (["delete"], None, "destroy"),
        (["create", "delete"], MASTER, "replace"),
        (["update"], {**MASTER, "instance_type": "t3.large"}, "stop and start"),
        (["update"], MASTER, None),
        (["no-op"], MASTER, None),
    ],
)
def test_actions_that_end_a_machines_service(actions, after, expected):
    changes = list(changes_of([plan("aws_instance", actions, MASTER, after)]))
    assert [change.action for change in changes] == ([expected] if expected else [])


def test_a_new_machine_is_an_addition_that_disturbs_nobody():
    created = plan("aws_instance", ["create"], {}, MASTER | {"id": None})
    (change,) = changes_of([created])
    assert (change.action, change.name, change.role) == ("add", "mesaform-a-master-1", "master")
    assert not change.is_disruptive
    assert (change.instance_id, change.type_after) == ("", "t3.medium")


def test_a_replaced_subnet_replaces_the_ground_of_every_machine():
    assert replaces_ground(plan("aws_subnet", ["delete", "create"], {}, {}))
    assert not replaces_ground(plan("aws_route", ["delete", "create"], {}, {}))


@pytest.mark.parametrize(
    ("actions", "after", "phrase"),
    [
        (["delete"], None, "vol would be deleted"),
        (["delete", "create"], {"size": 10}, "vol would be replaced (kms_key_id)"),
        (["update"], {"size": 8}, "vol would shrink from 10 to 8 GiB"),
        (["update"], {"size": 20}, None),
        (["create"], {"size": 10}, None),
        (["no-op"], {"size": 10}, None),
    ],
)
def test_a_plan_that_loses_the_data_of_a_master_is_found(actions, after, phrase):
    change: Any = {"actions": actions, "before": {"size": 10}, "after": after}
    if actions == ["delete", "create"]:
        change["replace_paths"] = [["kms_key_id"]]
    changed: Any = {"type": "aws_ebs_volume", "address": "vol", "change": change}
    assert list(find_losses([{"resource_changes": [changed]}])) == ([phrase] if phrase else [])


def write_stack(folder: Path, stack: str, machines: dict[str, Any], **kinds: Any) -> None:
    path = stack_dir(folder, stack) / "cdk.tf.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"resource": {"aws_instance": machines, **kinds}}))


def test_the_first_deployment_adds_all_that_the_stacks_declare(tmp_path: Path):
    for stack in ("network", "notices", "agents"):
        write_stack(tmp_path, stack, {})
    write_stack(tmp_path, "masters", {"master-1": MASTER}, aws_iam_role={"role": {}})
    preview = preview_first(tmp_path)
    assert [(change.action, change.name) for change in preview.changes] == [
        ("add", "mesaform-a-master-1")
    ]
    assert preview.total == ResourceCounts(added=2)
    assert preview.unplanned == ()


def test_resources_are_counted_by_what_happens_to_them():
    many: Any = {
        "resource_changes": [
            {"type": "a", "change": {"actions": actions}}
            for actions in (["create"], ["update"], ["delete"], ["delete", "create"], ["no-op"])
        ]
        + [{"type": "a", "mode": "data", "change": {"actions": ["create"]}}]
    }
    assert count_changes(many) == ResourceCounts(1, 1, 1, 1)


@pytest.mark.parametrize(
    ("declared", "why"),
    [
        ({"ami": "ami-1", "user_data": "{}"}, None),
        ({"ami": "ami-2", "user_data": "{}"}, ("image",)),
        ({"ami": "ami-1", "user_data": '{"a":1}'}, ("settings",)),
    ],
)
def test_machines_with_an_older_image_or_older_settings_are_named_but_do_not_change(
    tmp_path: Path, declared: dict[str, str], why: tuple[str, ...] | None
):
    write_stack(tmp_path, "masters", {"x": {**MASTER, **declared}})
    present: dict[str, object] = {
        "id": "i-1",
        "ami": "ami-1",
        "user_data": hashlib.sha1(b"{}").hexdigest(),
    }
    write_state(tmp_path, "masters", [("aws_instance", present)])
    outdated = find_outdated(tmp_path, set())
    assert [item.why for item in outdated] == ([why] if why else [])
    assert find_outdated(tmp_path, {"i-1"}) == (), "the plan changes it anyway"


@pytest.mark.parametrize(("volume", "why"), [("vol-1", []), ("vol-2", [("settings",)])])
def test_user_data_that_name_another_stacks_output_are_compared_with_its_value(
    tmp_path: Path, volume: str, why: list[tuple[str, ...]]
):
    stack = "data.terraform_remote_state.cross-stack-reference-input-network"
    declared = f'{{"volume_id":"${{{stack}.outputs.cross-stack-output-volumemaster-1id}}"}}'
    write_stack(tmp_path, "masters", {"x": {**MASTER, "user_data": declared}})
    booted = hashlib.sha1(b'{"volume_id":"vol-1"}').hexdigest()
    write_state(tmp_path, "masters", [("aws_instance", {"id": "i-1", "user_data": booted})])
    outputs = {"cross-stack-output-volumemaster-1id": volume}
    write_state(tmp_path, "network", [], outputs)
    assert [item.why for item in find_outdated(tmp_path, set())] == why


@pytest.mark.parametrize(
    ("after", "names"),
    [
        ({"name": "t", "image_id": "ami-2", "tags": {}}, ["t"]),
        ({"name": "t", "image_id": "ami-1", "tags": {"a": "b"}}, []),
        (None, []),
    ],
    ids=["another image", "other tags", "it is removed"],
)
def test_templates_that_would_launch_other_machines_are_named(
    after: dict[str, Any] | None, names: list[str]
):
    before = {"name": "t", "image_id": "ami-1", "tags": {}, "latest_version": 1}
    changed = plan("aws_launch_template", ["update"], before, after)
    assert list(changed_templates([changed])) == names


def test_a_template_that_is_created_has_launched_no_machine():
    assert list(changed_templates([plan("aws_launch_template", ["create"], {}, {"a": 1})])) == []
