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
from mesaform.provision import environment, image
from mesaform.provision.deployment import read_deployment
from mesaform.provision.image import NOTHING_TO_BOOT
from mesaform.provision.lock import hold_terraform
from mesaform.provision.preview import Preview, preview_changes
from mesaform.provision.state_folders import STACKS, stack_dir, state_file
from mesaform.provision.tools import cdktf_program, tools_folder

pytestmark = [pytest.mark.terraform, pytest.mark.slow, pytest.mark.timeout(400)]


async def test_a_cluster_comes_up_after_a_failure_stays_as_described_and_goes_without_a_trace(
    aws, place
):
    aws.bake()
    failed = Recorded()
    await assert_the_first_error_names_its_resource_and_the_log(aws, place, failed)
    report = Recorded()

    outputs = await provision.deploy(place, report)

    assert outputs.complete
    assert outputs.master_private_addresses == ("127.60.0.10", "127.60.32.10", "127.60.64.10")
    assert len(outputs.agent_ids["default"]) == 2
    assert {
        i["InstanceId"] for i in aws.instances(place.spec.name)
    } == provision.terraform_instance_ids(place)
    done = stages_done(report)
    assert done[:2] == ["Describe the stacks", "Search the account by tags"]
    assert "Deploy agents" in done
    assert {*stages_done(failed), *done} >= {f"Deploy {stack}" for stack in STACKS}

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
    assert_nothing_is_left(aws, place)


def stages_done(report: Recorded) -> list[str]:
    return [stage for state, stage, _ in report.events if state == "done"]


async def assert_the_first_error_names_its_resource_and_the_log(aws, place, report) -> None:
    """Deploy while the agents' role exists already; afterwards it does not any more."""
    role = f"mesaform-{place.spec.name}-agent"
    aws.client("iam").create_role(RoleName=role, AssumeRolePolicyDocument="{}")
    try:
        with pytest.raises(CloudError, match=f"{role} already exists") as caught:
            await provision.deploy(place, report)
    finally:
        aws.client("iam").delete_role(RoleName=role)
    assert caught.value.where == "agents: aws_iam_role.role"
    assert ".log" in caught.value.fix


def assert_nothing_is_left(aws, place) -> None:
    assert aws.instances(place.spec.name) == []
    owned = [{"Name": "tag:mesaform:cluster", "Values": [place.spec.name]}]
    ec2 = aws.client("ec2")
    assert ec2.describe_vpcs(Filters=owned)["Vpcs"] == []
    assert ec2.describe_security_groups(Filters=owned)["SecurityGroups"] == []
    assert ec2.describe_launch_templates(Filters=owned)["LaunchTemplates"] == []
    assert provision.outputs(place) is None


async def assert_changes_are_previewed(aws, place) -> None:
    """The same file changes nothing; another image and other user data replace machines."""
    with hold_terraform(place.cluster_dir, "test") as held:
        same = await provision.prepare(place, Recorded(), held)
        assert same == Preview((), (), frozenset(STACKS), is_synthesized=True)
        record = (place.cluster_dir / "deployment.json").read_bytes()
        without = {**json.loads(record), "secret": ""}
        (place.cluster_dir / "deployment.json").write_text(json.dumps(without))
        renewed = await provision.prepare(place, Recorded(), held)
        assert {(change.role, change.why) for change in renewed.changes} == {
            ("master", ("user_data",))
        }, "a new secret is in the plan that a person is asked about"
        (place.cluster_dir / "deployment.json").write_bytes(record)
        assert (await provision.prepare(place, Recorded(), held)).changes == ()
        edit_synthesis(place, "masters", lambda master: master.update(ami=aws.bake()))
        edit_synthesis(place, "agents", lambda agent: agent.update(user_data="{}"))
        preview = await preview_changes(place, NOTHING_TO_BOOT, Recorded(), held)
    assert sorted((change.role, change.action, change.why) for change in preview.changes) == [
        *[("agent", "replace", ("user_data",))] * 2,
        *[("master", "replace", ("ami",))] * 3,
    ]
    assert preview.unchanged == {"network", "notices"}


def edit_synthesis(place, stack: str, edit) -> None:
    path = stack_dir(place.cluster_dir, stack) / "cdk.tf.json"
    document = json.loads(path.read_text())
    for instance in document["resource"]["aws_instance"].values():
        edit(instance)
    path.write_text(json.dumps(document))


async def test_a_cancelled_deployment_keeps_its_state_is_completed_and_goes_with_cdktf_by_hand(
    aws, place, tmp_path
):
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

    assert processes_of(place) == []
    assert not list(place.cluster_dir.glob(".*.lock.info")), (
        "Terraform let go of its locks in order"
    )
    assert state_file(place.cluster_dir, "network").stat().st_size > 0

    outputs = await provision.deploy(place, Recorded())
    assert outputs.complete
    known = provision.terraform_instance_ids(place)
    assert len(known) == 5
    assert {i["InstanceId"] for i in aws.instances(place.spec.name)} == known, (
        "no machine is left that Terraform does not know"
    )
    by_hand(place, tmp_path, "deploy")
    assert provision.outputs(place) == outputs, "cdktf by hand works on the same state"
    by_hand(place, tmp_path, "destroy")
    assert_nothing_is_left(aws, place)


def processes_of(place) -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter(["cmdline", "cwd"])
        if str(place.cluster_dir)
        in " ".join([process.info["cwd"] or "", *(process.info["cmdline"] or [])])
    ]


def by_hand(place, tmp_path, verb: str) -> None:
    """`cdktf <verb> '*'`, as docs/operations.md describes it, with output of its own."""
    subprocess.run(
        [
            cdktf_program(), verb, "*", "--auto-approve", "--output", str(tmp_path / "by-hand"),
            *(["--skip-provider-lock"] if verb == "deploy" else []),
        ],
        cwd=tools_folder(),
        env=environment.prepare_environment(place, image.look_up(place.spec)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
    )  # fmt: skip


async def test_without_an_image_nothing_is_created_and_bake_is_named(aws, place):
    ec2 = aws.client("ec2")
    for baked in ec2.describe_images(Owners=["self"])["Images"]:
        ec2.deregister_image(ImageId=baked["ImageId"])
    with pytest.raises(MissingPrerequisite, match="mesaform bake"):
        await provision.deploy(place, Recorded())
    assert not place.cluster_dir.exists()


async def test_destroying_what_was_never_deployed_does_nothing(place):
    await provision.destroy(place, Recorded())
    assert not place.cluster_dir.exists()
    assert processes_of(place) == []
