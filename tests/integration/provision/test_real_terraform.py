"""The stacks with the real cdktf, Terraform and AWS provider, against the local cloud's API.

The tests that use `shared` run in order and share one deployment: each of these programs takes
seconds of processor time.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from mesaform import provision
from mesaform.cli.context import Context, open_context
from mesaform.common.errors import BadInput, CloudError, MissingPrerequisite, NotOwned
from mesaform.common.progress import Recorded
from mesaform.config.schema import ClusterSpec
from mesaform.provision import environment, image
from mesaform.provision.adoption import search_account
from mesaform.provision.cdktf_driver import synthesize
from mesaform.provision.deployment import read_deployment
from mesaform.provision.image import NOTHING_TO_BOOT
from mesaform.provision.lock import hold_terraform
from mesaform.provision.outdated import find_outdated
from mesaform.provision.preview import preview_changes
from mesaform.provision.state_folders import STACKS, stack_dir, state_file, synth_dir
from mesaform.provision.tools import checkout_root
from tests.integration.provision.conftest import REGION
from tests.integration.provision.stub_files import cluster_text

pytestmark = [pytest.mark.terraform, pytest.mark.slow, pytest.mark.timeout(1500)]
MATCHES = "No changes. Your infrastructure matches the configuration."
"""What Terraform prints of a stack that is as its configuration says."""


@pytest.fixture(scope="module")
def shared(aws, tmp_path_factory) -> Iterator[Context]:
    """The cluster of the tests that share a deployment."""
    file = tmp_path_factory.mktemp("shared") / "cluster.yaml"
    file.write_text(cluster_text("t-shared"))
    with pytest.MonkeyPatch.context() as patch:
        for key, value in aws.variables.items():
            patch.setenv(key, value)
        yield open_context(str(file))


async def test_the_first_error_names_its_resource_and_the_log(aws, shared):
    aws.bake()
    role = f"mesaform-{shared.spec.name}-{REGION}-agent"
    aws.client("iam").create_role(RoleName=role, AssumeRolePolicyDocument="{}")
    try:
        with pytest.raises(CloudError, match=f"{role} already exists") as caught:
            await provision.deploy(shared, Recorded())
    finally:
        aws.client("iam").delete_role(RoleName=role)
    assert caught.value.where == "agents: aws_iam_role.role"
    assert ".log" in caught.value.fix


async def test_a_cancelled_deployment_leaves_its_state_and_no_process(shared):
    first_machine = asyncio.Event()

    class Watching(Recorded):
        def advanced(self, stage: str, detail: str) -> None:
            if "aws_instance" in detail:
                first_machine.set()

    report = Watching()
    work = asyncio.create_task(provision.deploy(shared, report))
    seen = asyncio.create_task(first_machine.wait())
    await asyncio.wait({work, seen}, timeout=600, return_when=asyncio.FIRST_COMPLETED)
    if work.done():
        await work  # it failed before the first machine
    assert first_machine.is_set()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work

    assert stages_done(report)[:2] == ["Describe the stacks", "Search the account by tags"]
    assert processes_of(shared) == []
    assert not list(shared.cluster_dir.glob(".*.lock.info")), (
        "Terraform let go of its locks in order"
    )
    assert state_file(shared.cluster_dir, "network").stat().st_size > 0


async def test_the_next_deployment_completes_it_as_described(aws, shared):
    outputs = await provision.deploy(shared, Recorded())

    assert outputs.complete
    assert outputs.master_private_addresses == ("10.60.0.10", "10.60.32.10", "10.60.64.10")
    assert len(outputs.agent_ids["default"]) == 2
    machines = aws.instances(shared.spec.name)
    known = provision.terraform_instance_ids(shared)
    assert len(known) == 5
    assert {machine["InstanceId"] for machine in machines} == known, (
        "no machine is left that Terraform does not know"
    )
    record = read_deployment(shared.cluster_dir)
    assert record is not None
    assert record.account_id == "123456789012"
    volumes = disks_of_deployment(aws, record.deployment_id)
    assert len(volumes) == len(machines) + 3, "one root disk each, and one for data of each master"
    for machine in machines:
        tags = {tag["Key"]: tag["Value"] for tag in machine["Tags"]}
        assert tags["mesaform:deployment"] == record.deployment_id
    assert {machine["MetadataOptions"]["HttpTokens"] for machine in machines} == {"required"}
    assert {machine["Placement"]["AvailabilityZone"] for machine in machines} == {
        "us-east-1a",
        "us-east-1b",
        "us-east-1c",
    }


async def test_the_same_file_changes_nothing_and_machines_that_are_behind_are_named(shared):
    with hold_terraform(shared.cluster_dir, "test") as held:
        await synthesize(shared, image.look_up(shared.spec), Recorded(), held)
        assert find_outdated(shared.cluster_dir, set()) == ()
        edit_synthesis(shared, "masters", lambda master: master.update(ami="ami-0123456789abcdef0"))
        edit_synthesis(shared, "agents", lambda agent: agent.update(user_data="{}"))
        preview = await preview_changes(shared, NOTHING_TO_BOOT, Recorded(), held)
    assert preview.is_empty, "an image or user data alone replaces nothing"
    assert preview.unchanged == frozenset(STACKS)
    assert sorted((change.role, change.why) for change in preview.outdated) == [
        *[("agent", ("settings",))] * 2,
        *[("master", ("image",))] * 3,
    ]


async def test_a_change_that_no_running_cluster_can_take_is_refused_before_the_plan(shared):
    private = shared.spec.model_dump(mode="json")
    private["network"] |= {"mode": "private"}
    spec = ClusterSpec.model_validate(private)
    report = Recorded()
    with hold_terraform(shared.cluster_dir, "test") as held, pytest.raises(BadInput) as caught:
        await provision.prepare(replace(shared, spec=spec), report, held)
    assert caught.value.where == "network.mode"
    assert "public to private" in str(caught.value)


async def test_an_upgrade_of_masters_replaces_those_whose_user_data_differ(shared):
    path = shared.cluster_dir / "deployment.json"
    record = path.read_bytes()
    path.write_text(json.dumps({**json.loads(record), "secret": ""}))
    try:
        with hold_terraform(shared.cluster_dir, "test") as held:
            upgrade = await provision.prepare(shared, Recorded(), held, {"master"})
    finally:
        path.write_bytes(record)
    assert [(change.role, change.action, change.why) for change in upgrade.changes] == [
        ("master", "replace", ("user_data",))
    ] * 3, "a new secret is in the plan that a person is asked about"
    assert upgrade.outdated == ()


async def test_a_lost_state_stops_up_and_is_rebuilt_from_the_account(aws, shared):
    living = {machine["InstanceId"] for machine in aws.instances(shared.spec.name)}
    listed = {stack: resources_in(state_file(shared.cluster_dir, stack)) for stack in STACKS}
    record = read_deployment(shared.cluster_dir)
    assert record is not None
    disks = disks_of_deployment(aws, record.deployment_id)
    lose_state(shared)

    with pytest.raises(NotOwned, match=r"masters\.tfstate") as caught:
        await provision.deploy(shared, Recorded())
    assert "mesaform adopt" in caught.value.fix
    assert {machine["InstanceId"] for machine in aws.instances(shared.spec.name)} == living

    with hold_terraform(shared.cluster_dir, "test") as held:
        found = await provision.plan_adoption(shared, Recorded(), held)
        assert {entry.import_id for entry in found.imports} >= living
        assert found.absent == ()
        remaining = await provision.adopt(shared, found, Recorded(), held, may_update=True)
        assert remaining == ()
    assert search_account(shared, record.deployment_id).imports == ()
    rebuilt = {stack: resources_in(state_file(shared.cluster_dir, stack)) for stack in STACKS}
    assert rebuilt == listed
    assert {machine["InstanceId"] for machine in aws.instances(shared.spec.name)} == living
    assert disks_of_deployment(aws, record.deployment_id) == disks, "with all their tags"


def test_cdktf_by_hand_changes_nothing_and_destroys(aws, shared, tmp_path):
    outputs = provision.outputs(shared)
    shown = by_hand(shared, tmp_path, "deploy", "--skip-provider-lock")
    assert shown.count(MATCHES) == len(STACKS), f"the adoption left a difference:\n{shown}"
    assert provision.outputs(shared) == outputs, "cdktf by hand works on the same state"
    by_hand(shared, tmp_path, "destroy", "--skip-synth")  # what deploy has synthesized
    assert_nothing_is_left(aws, shared)


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


def stages_done(report: Recorded) -> list[str]:
    return [stage for state, stage, _ in report.events if state == "done"]


def disks_of_deployment(aws, deployment_id: str) -> dict[str, dict[str, str]]:
    """The tags of each disk, by its id."""
    volumes = aws.client("ec2").describe_volumes(
        Filters=[{"Name": "tag:mesaform:deployment", "Values": [deployment_id]}]
    )["Volumes"]
    return {
        volume["VolumeId"]: {tag["Key"]: tag["Value"] for tag in volume["Tags"]}
        for volume in volumes
    }


def assert_nothing_is_left(aws, place) -> None:
    assert aws.instances(place.spec.name) == []
    owned = [{"Name": "tag:mesaform:cluster", "Values": [place.spec.name]}]
    ec2 = aws.client("ec2")
    assert ec2.describe_vpcs(Filters=owned)["Vpcs"] == []
    assert ec2.describe_security_groups(Filters=owned)["SecurityGroups"] == []
    assert ec2.describe_launch_templates(Filters=owned)["LaunchTemplates"] == []
    assert provision.outputs(place) is None


def edit_synthesis(place, stack: str, edit) -> None:
    path = stack_dir(place.cluster_dir, stack) / "cdk.tf.json"
    document = json.loads(path.read_text())
    for instance in document["resource"]["aws_instance"].values():
        edit(instance)
    path.write_text(json.dumps(document))


def processes_of(place) -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter(["cmdline", "cwd"])
        if str(place.cluster_dir)
        in " ".join([process.info["cwd"] or "", *(process.info["cmdline"] or [])])
    ]


def by_hand(place, tmp_path, verb: str, *options: str) -> str:
    """`cdktf <verb> '*'`, as docs/operations.md describes it, with a folder of its own.

    Returns what it printed.
    """
    checkout = checkout_root()
    assert checkout is not None
    ended = subprocess.run(
        [
            checkout / "node_modules" / ".bin" / "cdktf", verb, "*",
            "--auto-approve", "--output", str(tmp_path / "by-hand"), *options,
        ],
        cwd=checkout,
        env=environment.prepare_environment(place, image.look_up(place.spec)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert ended.returncode == 0, f"{ended.stdout[-3000:]}\n{ended.stderr[-3000:]}"
    return ended.stdout


def lose_state(place: Context) -> None:
    """An empty file, one without resources, a missing one, and a truncated one."""
    for stack, content in {"network": "", "notices": None, "agents": "{"}.items():
        path = state_file(place.cluster_dir, stack)
        if content is None:
            path.unlink()
        else:
            path.write_text(content)
    masters = state_file(place.cluster_dir, "masters")
    document = json.loads(masters.read_text())
    masters.write_text(json.dumps({**document, "resources": [], "outputs": {}}))
    shutil.rmtree(synth_dir(place.cluster_dir))


def resources_in(path: Path) -> dict[str, str]:
    """Address and id of every resource in a state file."""
    return {
        f"{entry['type']}.{entry['name']}": entry["instances"][0]["attributes"]["id"]
        for entry in json.loads(path.read_text())["resources"]
        if entry["mode"] == "managed"
    }
