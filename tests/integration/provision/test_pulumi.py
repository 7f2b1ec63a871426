"""The Pulumi program against an AWS endpoint: its settings, its guard, and `pulumi preview`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mesaform.common.errors import NotOwned
from mesaform.config.parser import parse
from mesaform.provision.deployment import read_deployment
from mesaform.provision.state_folders import state_file
from mesaform_stacks.pulumi.settings import prepare_settings

EXAMPLE = Path(__file__).parents[3] / "examples" / "pulumi"
PROGRAM = Path(__file__).parents[3] / "stacks" / "pulumi"


@pytest.mark.slow
def test_the_first_run_settles_the_deployment_and_further_runs_keep_it(aws, place):
    aws.bake()
    first = prepare_settings(str(place.file))
    record = read_deployment(place.cluster_dir)
    assert (record.deployment_id, record.secret) == (first.deployment_id, first.secret)
    assert record.zones == first.spec.zones
    assert first.secret
    assert not first.state_bucket, "the state is Pulumi's"
    again = prepare_settings(str(place.file))
    assert again.spec.model_dump_json() == first.spec.model_dump_json()
    assert (again.deployment_id, again.secret) == (first.deployment_id, first.secret)


@pytest.mark.slow
def test_a_cluster_of_terraform_is_left_to_terraform(aws, place):
    aws.bake()
    state = {
        "version": 4,
        "serial": 1,
        "resources": [
            {
                "mode": "managed",
                "type": "aws_vpc",
                "name": "vpc",
                "instances": [{"attributes": {"id": "vpc-0123"}}],
            }
        ],
    }
    file = state_file(place.cluster_dir, "network")
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(state))
    with pytest.raises(NotOwned, match="1 in network") as caught:
        prepare_settings(str(place.file))
    assert "mesaform down" in caught.value.fix
    assert read_deployment(place.cluster_dir) is None, "nothing was changed"


def test_a_cluster_of_another_folder_is_not_taken_over(aws, place):
    aws.bake()
    ec2 = aws.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.99.0.0/16")["Vpc"]["VpcId"]
    ec2.create_tags(Resources=[vpc], Tags=[{"Key": "mesaform:cluster", "Value": place.spec.name}])
    with pytest.raises(NotOwned, match="did not create"):
        prepare_settings(str(place.file))
    assert read_deployment(place.cluster_dir) is None
    ec2.delete_vpc(VpcId=vpc)


@pytest.mark.slow
def test_the_example_declares_the_same_resources_in_each_run(aws, place):
    """Pulumi finds nothing to change in a second run whose inputs are those of the first."""
    parse((EXAMPLE / "cluster.yaml").read_text())
    aws.bake()
    first, second = (run_with_mocks(EXAMPLE / "__main__.py", place.file) for _ in range(2))
    assert len(first["resources"]) > 50
    assert by_name(first) == by_name(second)
    assert first["outputs"]["engine"] == "http://publicIp of masters-master-1:5050"
    assert aws.instances(place.spec.name) == []


def by_name(declared: dict) -> dict[str, dict]:
    return {entry["name"]: entry for entry in declared["resources"]}


def run_with_mocks(program: Path, cluster_file: Path) -> dict:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.integration.stacks.pulumi_run", str(program)],
        env={**os.environ, "MESAFORM_CLUSTER_FILE": str(cluster_file)},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    return json.loads(ended.stdout)


@pytest.mark.skipif(shutil.which("pulumi") is None, reason="there is no pulumi on this machine")
@pytest.mark.slow
def test_pulumi_preview_creates_everything_and_changes_nothing(aws, place, tmp_path):
    aws.bake()
    environment = {
        **os.environ,
        "PULUMI_BACKEND_URL": f"file://{tmp_path}",
        "PULUMI_CONFIG_PASSPHRASE": "test",
        "PULUMI_HOME": os.environ.get("PULUMI_HOME", str(Path.home() / ".pulumi")),
        "MESAFORM_CLUSTER_FILE": str(place.file),
    }

    def pulumi(*words: str) -> str:
        ended = subprocess.run(
            ["pulumi", "--non-interactive", *words],
            cwd=PROGRAM,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, f"{ended.stdout[-3000:]}{ended.stderr[-3000:]}"
        return ended.stdout

    pulumi("stack", "init", "test")
    steps = json.loads(pulumi("preview", "--json"))["steps"]
    assert {step["op"] for step in steps} == {"create"}
    assert aws.instances(place.spec.name) == []
