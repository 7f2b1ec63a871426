"""`debug: ssm`: rights and user data of machines, the agent in the image, and its start."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from mesaform.common.errors import BadInput
from mesaform.config.parser import parse
from mesaform.node.session_manager import start_agent
from mesaform.provision.image import NOTHING_TO_BOOT
from mesaform.topology.session_manager import ACTIONS
from mesaform.topology.user_data import parse_node_document
from mesaform_images.builder.host import StepFailed
from mesaform_images.builder.steps.session_manager import package_url
from mesaform_images.bundle import installed_layout, installed_recipe, parse_recipe
from mesaform_stacks.base import Settings
from mesaform_stacks.cluster import describe

TEXT = "name: west\ntarget: aws\nnetwork: {operator_cidrs: [203.0.113.0/24]}\n"


def resources(text: str, terraform_type: str) -> list:
    settings = Settings(spec=parse(text), images=NOTHING_TO_BOOT, folder=Path("/x"))
    return [
        item.arguments
        for stack in describe(settings)
        for item in stack.resources
        if item.kind.terraform_type == terraform_type
    ]


def sessions(text: str) -> int:
    """How many roles may open sessions."""
    policies = [json.loads(item["policy"]) for item in resources(text, "aws_iam_role_policy")]
    statements = [statement for policy in policies for statement in policy["Statement"]]
    return sum(list(ACTIONS) == statement["Action"] for statement in statements)


def test_both_roles_get_the_agents_rights_only_when_asked_for():
    assert sessions(TEXT) == 0
    assert sessions(TEXT + "debug: ssm\n") == 2
    assert len(resources(TEXT, "aws_iam_role_policy")) == 1, "agents have no rights otherwise"


def test_machines_are_told_in_their_user_data_and_nothing_changes_for_others():
    asked = resources(TEXT + "debug: ssm\n", "aws_instance")
    assert all(parse_node_document(item["user_data"]).session_manager for item in asked)
    assert not any(
        "session_manager" in item["user_data"] for item in resources(TEXT, "aws_instance")
    )


@pytest.mark.parametrize(
    ("region", "start"),
    [
        ("eu-west-1", "https://s3.eu-west-1.amazonaws.com/amazon-ssm-eu-west-1/latest/"),
        ("cn-north-1", "https://s3.cn-north-1.amazonaws.com.cn/amazon-ssm-cn-north-1/latest/"),
    ],
)
def test_the_agent_comes_from_amazons_bucket_of_the_region(region, start):
    recipe = installed_layout().images / "recipe.toml"
    assert installed_recipe().has_session_manager
    template = next(
        line.partition('"')[2].rstrip('"')
        for line in recipe.read_text().splitlines()
        if line.startswith("url = ")
    )
    url = package_url(template, region, "arm64")
    assert url == f"{start}debian_arm64/amazon-ssm-agent.deb"
    with pytest.raises(StepFailed, match="must be https"):
        package_url(template.replace("https", "http"), region, "arm64")
    without = recipe.read_text().replace(template, "")
    assert not parse_recipe(without, "recipe.toml").has_session_manager


def test_the_node_starts_the_agent_on_machines_with_units_and_goes_on_without_it(
    tmp_path, monkeypatch
):
    systemctl, log = tmp_path / "systemctl", tmp_path / "log"
    lines: list[str] = []
    systemctl.write_text(f'#!/bin/sh\necho "$@" > {log}\n')
    systemctl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert not start_agent({}, lines.append), "the local hypervisor has no units"
    on_aws = {"MESAFORM_POWEROFF": "systemctl poweroff"}
    assert start_agent(on_aws, lines.append)
    assert log.read_text() == "enable --now amazon-ssm-agent.service\n"
    systemctl.write_text("#!/bin/sh\nexit 1\n")
    assert not start_agent(on_aws, lines.append)
    assert "does not start" in lines[0]


def test_another_way_to_debug_is_refused():
    with pytest.raises(BadInput, match="debug: must be ssm"):
        parse(TEXT + "debug: ssh\n")
