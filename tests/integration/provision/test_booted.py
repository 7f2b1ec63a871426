"""Settings with which machines booted are read from EC2, and decide what `mesaform up` may do."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from mesaform.aws.client import client
from mesaform.cli.change_run import ChangeRequest, require_allowed
from mesaform.common.errors import BadInput
from mesaform.config.schema import ClusterSpec
from mesaform.provision.booted import Booted, with_boot_settings
from mesaform.provision.outdated import deployed_spec, find_outdated
from mesaform.provision.preview import Preview
from mesaform.provision.state_folders import stack_dir
from mesaform.topology.launch_documents import MasterData, node_document
from mesaform.topology.names import Tag
from tests.integration.aws.conftest import REGION, cloud, moto_url
from tests.support.terraform_state import write_state

__all__ = ["cloud", "moto_url"]
CERTIFICATE = "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n"
A, B, C = map(CERTIFICATE.format, "ABC")
UP = ChangeRequest("mesaform up", yes=True)


def document(role: Any = "master", authorities: str = "", **settings: object) -> str:
    spec = ClusterSpec.model_validate({"name": "toy", **settings})
    return node_document(spec, role, "r", masters=MasterData("ab"), authorities=authorities)


def preview_of(folder: Path, booted: str, declared: str, role: str = "master") -> Preview:
    """A machine that booted one document and is declared with another one."""
    ec2 = client("ec2", REGION)
    image = "ami-12345678"
    launched = ec2.run_instances(ImageId=image, MinCount=1, MaxCount=1, UserData=booted)
    identity = launched["Instances"][0]["InstanceId"]
    tags = {Tag.ROLE: role, Tag.NAME: f"mesaform-toy-{role}-1"}
    stack = f"{role}s"
    path = stack_dir(folder, stack) / "cdk.tf.json"
    path.parent.mkdir(parents=True)
    machine = {"user_data": declared, "ami": image, "tags": tags}
    path.write_text(json.dumps({"resource": {"aws_instance": {"x": machine}}}))
    digest = hashlib.sha1(booted.encode()).hexdigest()
    present = {"id": identity, "ami": image, "user_data": digest, "tags": tags}
    write_state(folder, stack, [("aws_instance", present)])
    preview = Preview(outdated=find_outdated(folder, set()))
    return with_boot_settings(preview, folder, Booted(REGION))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "after", "setting"),
    [
        ({}, {"tls": True, "authorities": A}, "tls"),
        ({"tls": True, "authorities": A}, {}, "tls"),
        ({"tls": True, "authorities": A}, {"tls": True, "authorities": C}, "the CA"),
        ({"tls": True, "authorities": A}, {"tls": True, "authorities": B + A}, "the CA"),
        ({}, {"access": {"token": "required"}}, "access"),
        ({"access": {"token": "required"}}, {}, "access"),
        ({}, {"access": {"authenticate_frameworks": True}}, "access"),
    ],
)
def test_up_refuses_a_change_with_which_masters_do_not_work_together_and_names_the_way(
    cloud: Any, tmp_path: Path, before: dict[str, Any], after: dict[str, Any], setting: str
) -> None:
    preview = preview_of(tmp_path, document(**before), document(**after))
    (machine,) = preview.incompatible
    assert machine.why == (setting,)
    for request in (UP, ChangeRequest("mesaform upgrade agents", only_role="agent")):
        shown = preview.for_role(request.only_role) if request.only_role else preview
        with pytest.raises(BadInput, match="mesaform-toy-master-1") as caught:
            require_allowed(shown, request)
        assert caught.value.where == setting
        assert "mesaform up --upgrade" in caught.value.fix


@pytest.mark.parametrize(
    ("before", "after", "settings"),
    [
        ({}, {"http": {"jsonp": True}}, ("http.jsonp",)),
        (
            {"tls": True, "authorities": A},
            {"tls": True, "authorities": A + B, "debug": "ssm"},
            ("debug", "tls"),
        ),
        ({"tls": True, "authorities": A + B}, {"tls": True, "authorities": B}, ("tls",)),
        ({}, {"access": {"frameworks": [{"principal": "spark"}]}}, ("access",)),
    ],
)
def test_a_setting_that_only_new_machines_read_is_named_and_not_refused(
    cloud: Any,
    tmp_path: Path,
    before: dict[str, Any],
    after: dict[str, Any],
    settings: tuple[str, ...],
) -> None:
    preview = preview_of(tmp_path, document(**before), document(**after))
    assert [machine.why for machine in preview.outdated] == [settings]
    require_allowed(preview, UP)


def test_an_agent_of_before_a_change_of_tls_counts_too(cloud: Any, tmp_path: Path) -> None:
    booted, declared = document("agent"), document("agent", A, tls=True)
    preview = preview_of(tmp_path, booted, declared, "agent")
    with pytest.raises(BadInput, match="agent-1"):
        require_allowed(
            preview.for_role("master"),
            ChangeRequest("mesaform upgrade masters", only_role="master"),
        )


def test_user_data_that_cannot_be_read_leave_the_machine_behind_by_its_settings(
    cloud: Any, tmp_path: Path
) -> None:
    preview = preview_of(tmp_path, "no document", document())
    assert [machine.why for machine in preview.outdated] == [("settings",)]
    assert preview.incompatible == ()


def test_the_spec_of_the_last_deployment_is_read_from_the_state_of_the_agents(
    tmp_path: Path,
) -> None:
    assert deployed_spec(tmp_path) is None
    path = write_state(
        tmp_path, "agents", [("aws_ssm_parameter", {"id": "p", "value": '{"name":"toy"}'})]
    )
    path.write_text(path.read_text().replace('"name": "x"', '"name": "spec"'))
    assert deployed_spec(tmp_path) == {"name": "toy"}
