"""Reading of Terraform's plans: which machines go out of service, and why."""

from __future__ import annotations

from typing import Any

import pytest

from mesaform.cli.confirm_changes import describe_changes, needs_confirmation
from mesaform.provision.data_volumes import find_losses
from mesaform.provision.preview import MachineChange, Preview, read_changes, replaces_ground
from mesaform.topology.names import Tag

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
    assert list(read_changes([replaced])) == [
        MachineChange("i-1", "mesaform-a-master-1", "master", "replace", ("ami",))
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
    changes = list(read_changes([plan("aws_instance", actions, MASTER, after)]))
    assert [change.action for change in changes] == ([expected] if expected else [])


def test_a_new_machine_is_no_change():
    created: Any = {
        "resource_changes": [
            {"type": "aws_instance", "change": {"actions": ["create"], "before": None, "after": {}}}
        ]
    }
    assert list(read_changes([created])) == []


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


def change(role: str = "agent", identity: str = "i-1") -> MachineChange:
    return MachineChange(identity, f"{role}-1", role, "replace", ("user_data",))


@pytest.mark.parametrize(
    ("preview", "tasks", "expected"),
    [
        (Preview(), {}, False),
        (Preview((change(),)), {}, False),
        (Preview((change(),)), {"i-1": 0, "i-2": 9}, False),
        (Preview((change(),)), {"i-1": 1}, True),
        (Preview((change(),)), None, True),
        (Preview((change("master"),)), {}, True),
        (Preview((), ("masters",)), {}, True),
    ],
)
def test_masters_and_agents_with_tasks_need_confirmation(preview, tasks, expected):
    assert needs_confirmation(preview, tasks) is expected


def test_the_question_names_machines_attributes_tasks_and_that_masters_change_one_at_a_time():
    changes = (change("master", "i-1"), change("master", "i-2"), change("agent", "i-3"))
    text = "\n".join(describe_changes(Preview(changes, ("agents",)), {"i-3": 2}))
    assert "replace agent agent-1 (i-3) because of user_data; 2 tasks run there" in text
    assert "2 masters change, one at a time" in text
    assert "agents cannot be planned" in text
