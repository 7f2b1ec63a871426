"""The stacks with the real cdktf, Terraform and AWS provider, against moto's API."""

from __future__ import annotations

import asyncio
import json
import subprocess

import psutil
import pytest

from mesaform import provision
from mesaform.common.errors import CloudError, MissingPrerequisite
from mesaform.common.progress import Recorded
from mesaform.provision import cdktf_driver, environment
from mesaform.provision.deployment import read_deployment
from mesaform.provision.image import NOTHING_TO_BOOT
from mesaform.provision.lock import hold_terraform
from mesaform.provision.preview import preview_changes
from mesaform.provision.state_folders import STACKS, stack_dir, state_file

pytestmark = [pytest.mark.terraform, pytest.mark.slow, pytest.mark.timeout(400)]


def plan(place, stack: str) -> subprocess.CompletedProcess[str]:
    settled = environment.prepare_environment(place, NOTHING_TO_BOOT)
    return subprocess.run(
        [settled.environment["TERRAFORM_BINARY_NAME"], "plan", "-detailed-exitcode", "-no-color"],
        cwd=stack_dir(place.cluster_dir, stack),
        env=settled.environment,
        capture_output=True,
        text=True,
        check=False,
    )


async def test_a_cluster_comes_up_as_described_stays_as_it_is_and_goes_without_a_trace(aws, place):
    aws.bake()
    report = Recorded()

    result = await provision.deploy(place, report)

    assert result.complete
    assert result.master_private_addresses == ("127.60.0.10", "127.60.32.10", "127.60.64.10")
    assert len(result.agent_ids["default"]) == 2
    assert {
        i["InstanceId"] for i in aws.instances(place.spec.name)
    } == provision.terraform_instance_ids(place)
    assert (
        next(stage for state, stage, _ in report.events if state == "done") == "Describe the stacks"
    )
    assert {stage for state, stage, _ in report.events if state == "done"} >= {
        f"Deploy {stack}" for stack in STACKS
    }
    for stack in STACKS:
        again = plan(place, stack)
        assert again.returncode == 0, again.stdout
        assert "No changes." in again.stdout

    machines = aws.instances(place.spec.name)
    record = read_deployment(place.cluster_dir)
    assert record is not None
    assert record.account_id == "123456789012"
    volumes = aws.client("ec2").describe_volumes(
        Filters=[{"Name": "tag:mesaform:deployment", "Values": [record.deployment_id]}]
    )["Volumes"]
    assert len(volumes) == len(machines)
    for machine in machines:
        tags = {tag["Key"]: tag["Value"] for tag in machine["Tags"]}
        assert tags["mesaform:deployment"] == record.deployment_id
    await assert_changes_are_previewed(aws, place)

    machines = aws.instances(place.spec.name)
    assert {machine["MetadataOptions"]["HttpTokens"] for machine in machines} == {"required"}
    assert {machine["Placement"]["AvailabilityZone"] for machine in machines} == {
        "us-east-1a",
        "us-east-1b",
        "us-east-1c",
    }

    await provision.destroy(place, report)

    assert aws.instances(place.spec.name) == []
    owned = [{"Name": "tag:mesaform:cluster", "Values": [place.spec.name]}]
    ec2 = aws.client("ec2")
    assert ec2.describe_vpcs(Filters=owned)["Vpcs"] == []
    assert ec2.describe_security_groups(Filters=owned)["SecurityGroups"] == []
    assert ec2.describe_launch_templates(Filters=owned)["LaunchTemplates"] == []
    assert provision.outputs(place) is None


async def assert_changes_are_previewed(aws, place) -> None:
    """The same file changes no machine; another image and other user data replace machines."""
    with hold_terraform(place.cluster_dir, "test") as held:
        same = await provision.prepare(place, Recorded(), held)
        assert (same.changes, same.unplanned, same.is_synthesized) == ((), (), True)
        edit_synthesis(place, "masters", lambda master: master.update(ami=aws.bake()))
        edit_synthesis(place, "agents", lambda agent: agent.update(user_data="{}"))
        preview = await preview_changes(place, NOTHING_TO_BOOT, Recorded())
    assert sorted((change.role, change.action, change.why) for change in preview.changes) == [
        *[("agent", "replace", ("user_data",))] * 2,
        *[("master", "replace", ("ami",))] * 3,
    ]


def edit_synthesis(place, stack: str, edit) -> None:
    path = stack_dir(place.cluster_dir, stack) / "cdk.tf.json"
    document = json.loads(path.read_text())
    for instance in document["resource"]["aws_instance"].values():
        edit(instance)
    path.write_text(json.dumps(document))


async def test_a_cancelled_deployment_keeps_its_state_and_the_next_one_carries_on(aws, place):
    aws.bake()
    first_machine = asyncio.Event()

    class Watching(Recorded):
        def advanced(self, stage: str, detail: str) -> None:
            if "aws_instance" in detail:
                first_machine.set()

    work = asyncio.create_task(provision.deploy(place, Watching()))
    await asyncio.wait_for(first_machine.wait(), 120)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work

    assert [
        p
        for p in psutil.process_iter(["cmdline"])
        if str(place.cluster_dir) in " ".join(p.info["cmdline"] or [])
    ] == []
    assert not list(place.cluster_dir.glob(".*.lock.info")), (
        "Terraform let go of its locks in order"
    )
    assert state_file(place.cluster_dir, "network").stat().st_size > 0

    aws.bake()  # the checkout may have changed meanwhile
    result = await provision.deploy(place, Recorded())
    assert result.complete
    known = provision.terraform_instance_ids(place)
    assert len(known) == 5
    assert {i["InstanceId"] for i in aws.instances(place.spec.name)} == known, (
        "no machine is left that Terraform does not know"
    )
    await provision.destroy(place, Recorded())


async def test_the_first_error_of_terraform_is_shown_with_its_resource_and_the_log(aws, place):
    aws.bake()
    role = f"mesaform-{place.spec.name}-agent"
    aws.client("iam").create_role(RoleName=role, AssumeRolePolicyDocument="{}")
    try:
        with pytest.raises(CloudError, match=f"{role} already exists") as caught:
            await provision.deploy(place, Recorded())
    finally:
        aws.client("iam").delete_role(RoleName=role)
    assert caught.value.where == "agents: aws_iam_role.role"
    assert ".log" in caught.value.fix
    await provision.destroy(place, Recorded())


async def test_without_an_image_nothing_is_created_and_bake_is_named(aws, place):
    ec2 = aws.client("ec2")
    for image in ec2.describe_images(Owners=["self"])["Images"]:
        ec2.deregister_image(ImageId=image["ImageId"])
    with pytest.raises(MissingPrerequisite, match="mesaform bake"):
        await provision.deploy(place, Recorded())
    assert not place.cluster_dir.exists()


async def test_destroying_what_was_never_deployed_does_nothing(place):
    await provision.destroy(place, Recorded())
    assert cdktf_driver.terraforms(psutil.Process().pid) == []
