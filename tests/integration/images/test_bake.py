"""A bake against the local cloud: the builder boots and reports, the image has its recipe's tag."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from harness.ports import free_port
from mesaform.cli.context import local_environment
from mesaform.common.errors import MissingPrerequisite, Permanent
from mesaform.common.progress import Recorded
from mesaform.common.record_files import write_record
from mesaform.localcloud import daemon
from mesaform.localcloud.layout import Layout
from mesaform.localcloud.operator_credentials import CREDENTIALS, OperatorCredentials
from mesaform.topology.names import Tag
from mesaform_images import bundle
from mesaform_images.bake import BUILD_TIMEOUT_S, BakeOptions, bake
from mesaform_images.build_network import WantedNetwork
from mesaform_images.lookup import find_image

pytestmark = pytest.mark.slow

REGION = "us-east-1"
CHECKOUT = Path(__file__).parents[3]

# Replaces the real start program in tests that are not about the installed software.
REPORTS = """
import json, os, pathlib, sys, time, urllib.request
job = json.loads(urllib.request.urlopen(sys.argv[1]).read())
def put(url, data):
    headers = {"Content-Type": "application/octet-stream"}
    urllib.request.urlopen(urllib.request.Request(url, data, headers, method="PUT"))
def report(state, step="", error=""):
    progress = {"state": state, "step": step, "error": error, "steps": [], "versions": {}}
    put(job["report"], json.dumps(progress).encode())
"""
QUICK = (
    REPORTS
    + """
home = pathlib.Path(os.environ["MESAFORM_ROOT"]) / "opt/mesaform"
home.mkdir(parents=True)
(home / "recipe.json").write_text(json.dumps({"digest": job["digest"]}))
report("done")
"""
)
FAILS = (
    REPORTS
    + 'put(job["log"], b"the whole story")\n'
    + 'report("failed", "install locked packages", "no such package: ghost")'
)
DIES = REPORTS + 'report("running", "compile"); print("out of memory"); sys.exit(137)'
HANGS = REPORTS + 'report("running", "thinking"); time.sleep(600)'


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A local cloud of the module's own; gives the environment that points at it."""
    folder = tmp_path_factory.mktemp("cloud")
    running = daemon.start(folder, port=free_port("127.0.0.1"))
    yield local_environment(Layout(folder), running.url, REGION)
    daemon.stop(folder)


@pytest.fixture(autouse=True)
def _in_cloud(cloud: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in cloud.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(autouse=True)
def _nothing_left(_in_cloud: None) -> Iterator[None]:
    """After every bake no builder, security group or unfinished image remains."""
    yield
    ec2 = boto3.client("ec2", region_name=REGION)
    assert builders(ec2) == []
    assert [
        group
        for group in ec2.describe_security_groups()["SecurityGroups"]
        if group["GroupName"].startswith("mesaform-bake")
    ] == []
    for image in ec2.describe_images(Owners=["self"])["Images"]:
        tags = {tag["Key"]: tag["Value"] for tag in image.get("Tags", ())}
        if tags.get(Tag.MANAGED_BY) == "bake":
            assert Tag.RECIPE in tags


def builders(ec2: Any) -> list[str]:
    filters = [
        {"Name": f"tag:{Tag.ROLE}", "Values": ["builder"]},
        {"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]},
    ]
    return [
        item["InstanceId"]
        for r in ec2.describe_instances(Filters=filters)["Reservations"]
        for item in r["Instances"]
    ]


def sources(start_program: str, mark: str) -> bundle.Sources:
    """This checkout's sources with another start program; `mark` makes the recipe unique."""
    real = bundle.read_sources(bundle.installed_layout())
    return replace(
        real, builder={**real.builder, "start.py": start_program.encode(), "mark": mark.encode()}
    )


def test_a_bake_gives_an_image_of_its_recipe_and_a_second_one_reuses_it() -> None:
    quick = sources(QUICK, "once")
    with pytest.raises(MissingPrerequisite, match="mesaform bake"):
        find_image(quick.digest(), REGION)["ImageId"]
    first = bake(REGION, Recorded(), sources=quick)
    assert not first.reused
    assert find_image(quick.digest(), REGION)["ImageId"] == first.image_id
    again = bake(REGION, Recorded(), sources=quick)
    assert (again.image_id, again.reused) == (first.image_id, True)
    ec2 = boto3.client("ec2", region_name=REGION)
    (image,) = ec2.describe_images(ImageIds=[first.image_id])["Images"]
    assert {tag["Key"]: tag["Value"] for tag in image["Tags"]}[Tag.RECIPE] == quick.digest()


def test_a_forced_bake_builds_a_newer_image() -> None:
    quick = sources(QUICK, "forced")
    first = bake(REGION, Recorded(), sources=quick)
    time.sleep(1.0 - time.time() % 1.0)  # EC2 dates images by the second
    second = bake(REGION, Recorded(), BakeOptions(force=True), quick)
    assert second.image_id != first.image_id
    assert find_image(quick.digest(), REGION)["ImageId"] == second.image_id


def test_a_builder_that_fails_is_quoted_and_its_log_is_kept(tmp_path: Path) -> None:
    failing = sources(FAILS, "fails")
    with pytest.raises(
        Permanent, match="step `install locked packages`: no such package: ghost"
    ) as caught:
        bake(REGION, Recorded(), BakeOptions(log_dir=tmp_path), failing)
    log = tmp_path / f"bake-{failing.digest()}-x86_64.log"
    assert log.read_text() == "the whole story"
    assert str(log) in caught.value.fix


def test_a_builder_that_ends_without_a_report_fails_soon_with_its_console() -> None:
    began = time.monotonic()
    with pytest.raises(
        Permanent,
        match=r"(?s)step `compile`: the builder ended without a report"
        r".*out of memory.*cloud-init: finished",
    ):
        bake(REGION, Recorded(), sources=sources(DIES, "dies"))
    assert time.monotonic() - began < BUILD_TIMEOUT_S / 2


def test_a_builder_is_out_of_everybodys_reach_and_needs_no_rights() -> None:
    seen: list[dict[str, Any]] = []
    ec2 = boto3.client("ec2", region_name=REGION)

    class Looking(Recorded):
        def advanced(self, stage: str, detail: str) -> None:
            super().advanced(stage, detail)
            (instance,) = ec2.describe_instances(InstanceIds=builders(ec2))["Reservations"][0][
                "Instances"
            ]
            group_id = instance["SecurityGroups"][0]["GroupId"]
            (group,) = ec2.describe_security_groups(GroupIds=[group_id])["SecurityGroups"]
            seen.append({"instance": instance, "group": group})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bake(REGION, Looking(), sources=sources(HANGS, "reach"))
    assert seen[0]["group"]["IpPermissions"] == []
    assert seen[0]["instance"]["MetadataOptions"]["HttpTokens"] == "required"
    assert "IamInstanceProfile" not in seen[0]["instance"]


def with_terminal() -> None:
    """Take SIGHUP as a child of a terminal does; nohup has its children ignore it."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def test_ctrl_c_a_polite_kill_and_a_closed_terminal_in_the_middle_leave_nothing(
    tmp_path: Path, cloud: dict[str, str]
) -> None:
    program = (
        "from tests.integration.images.test_bake import *\n"
        "from mesaform.cli import interrupt\n"
        "class Say(Recorded):\n"
        "    def advanced(self, stage, detail): print(detail, flush=True)\n"
        "with interrupt.raised(): bake(REGION, Say(), sources=sources(HANGS, 'killed'))\n"
    )
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        child = subprocess.Popen(
            [sys.executable, "-c", program],
            env={**os.environ, **cloud},
            cwd=CHECKOUT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=with_terminal,  # noqa: PLW1509 - it calls one function of the kernel
        )
        assert child.stdout is not None
        next(line for line in child.stdout if line.strip() == "thinking")
        child.send_signal(number)
        child.communicate(timeout=120)
        assert child.returncode != 0
        assert builders(boto3.client("ec2", region_name=REGION)) == []


def test_what_a_bake_that_was_killed_left_behind_is_removed_once_it_is_an_hour_old() -> None:
    from mesaform.aws import client
    from mesaform_images import build_machine, ec2_images, leftovers

    quick = sources(QUICK, "stale")
    ec2 = client.client("ec2", REGION)
    parameter = quick.recipe.base_parameters["x86_64"]
    base = ec2_images.base_image(ec2, client.client("ssm", REGION), parameter)
    user_data = build_machine.cloud_config("import time; time.sleep(600)", "http://127.0.0.1/")
    spec = build_machine.BuilderSpec("t3.small", 8, base, user_data, "mesaform-bake-stale")
    with build_machine.builder(ec2, spec) as machine:
        assert leftovers.remove_leftovers(ec2, time.time()) == [], "it may be somebody's"
        removed = leftovers.remove_leftovers(ec2, time.time() + leftovers.STALE_AFTER_S + 5)
        assert machine.instance_id in removed


def test_a_base_image_that_the_region_does_not_publish_is_named() -> None:
    real = sources(QUICK, "base")
    elsewhere = replace(
        real,
        recipe=replace(
            real.recipe,
            base_parameters={"x86_64": "/aws/service/debian/release/99/latest/amd64"},
        ),
    )
    with pytest.raises(MissingPrerequisite, match="/aws/service/debian/release/99"):
        bake(REGION, Recorded(), sources=elsewhere)


def test_the_verb_prints_the_image_for_programs(tmp_path: Path, cloud: dict[str, str]) -> None:
    (tmp_path / "cluster.yaml").write_text(
        "version: 1\nname: demo\nagents:\n  - {name: default, types: [m5.large]}\n"
    )
    (tmp_path / ".mesaform/local").mkdir(parents=True)
    endpoint = {"url": cloud["AWS_ENDPOINT_URL"], "pid": os.getpid()}
    (tmp_path / ".mesaform/local/endpoint.json").write_text(json.dumps(endpoint))
    secret = cloud["AWS_SECRET_ACCESS_KEY"]
    credentials = OperatorCredentials(cloud["AWS_ACCESS_KEY_ID"], secret, "no token")
    write_record(tmp_path / ".mesaform/local/credentials.json", CREDENTIALS, credentials)
    command = [
        sys.executable,
        "-m",
        "mesaform.cli.main",
        "bake",
        "--json",
        "-f",
        str(tmp_path / "cluster.yaml"),
    ]
    result = subprocess.run(
        command, cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=240
    )
    assert result.returncode == 0, result.stderr
    (baked,) = json.loads(result.stdout)
    assert baked["region"] == REGION
    assert find_image(baked["recipe"], REGION)["ImageId"] == baked["image_id"]


def test_an_arm64_image_is_made_of_a_stopped_builder_and_boots_arm64_types_only() -> None:
    quick = sources(QUICK, "graviton")
    ec2 = boto3.client("ec2", region_name=REGION)
    states: list[str] = []
    create_image = "before-call.ec2.CreateImage"

    def note_state(**_: Any) -> None:
        (instance,) = ec2.describe_instances(InstanceIds=builders(ec2))["Reservations"][0][
            "Instances"
        ]
        states.append(f"{instance['InstanceType']} {instance['State']['Name']}")

    from mesaform.aws import client

    client.client("ec2", REGION).meta.events.register(create_image, note_state, unique_id="state")
    try:
        baked = bake(REGION, Recorded(), BakeOptions("arm64"), quick)
    finally:
        client.client("ec2", REGION).meta.events.unregister(create_image, unique_id="state")
    assert states == ["t4g.small stopped"], "its shutdown timer is never lost in a reboot"
    (image,) = ec2.describe_images(ImageIds=[baked.image_id])["Images"]
    assert image["Architecture"] == "arm64"
    assert find_image(quick.digest(), REGION, "arm64")["ImageId"] == baked.image_id
    with pytest.raises(MissingPrerequisite, match="no x86_64 image"):
        find_image(quick.digest(), REGION)
    with pytest.raises(ClientError, match="does not match the architecture 'arm64'"):
        ec2.run_instances(ImageId=baked.image_id, InstanceType="m5.large", MinCount=1, MaxCount=1)
    snapshot_id = image["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    (snapshot,) = ec2.describe_snapshots(SnapshotIds=[snapshot_id])["Snapshots"]
    assert {tag["Key"]: tag["Value"] for tag in snapshot["Tags"]}[Tag.MANAGED_BY] == "bake"


def test_the_urls_of_a_job_cannot_be_read_once_the_builder_reports() -> None:
    bake(REGION, Recorded(), sources=sources(QUICK, "job"))
    s3 = boto3.client("s3", region_name=REGION)
    names = [
        item["Key"]
        for bucket in s3.list_buckets()["Buckets"]
        for item in s3.list_objects_v2(Bucket=bucket["Name"]).get("Contents", ())
    ]
    assert [name for name in names if name.endswith("report.json")]
    assert [name for name in names if name.endswith("job.json")] == []


def test_an_account_without_a_default_vpc_bakes_in_a_temporary_one() -> None:
    region = "eu-north-1"
    ec2 = boto3.client("ec2", region_name=region)
    for subnet in ec2.describe_subnets()["Subnets"]:
        ec2.delete_subnet(SubnetId=subnet["SubnetId"])
    network = WantedNetwork(temporary_cidr="127.231.77.0/26")
    vpcs = {vpc["VpcId"] for vpc in ec2.describe_vpcs()["Vpcs"]}
    gateways = ec2.describe_internet_gateways()["InternetGateways"]
    baked = bake(region, Recorded(), BakeOptions(network=network), sources(QUICK, "no vpc"))
    assert find_image(baked.recipe, region)["ImageId"] == baked.image_id
    assert {vpc["VpcId"] for vpc in ec2.describe_vpcs()["Vpcs"]} == vpcs
    assert ec2.describe_internet_gateways()["InternetGateways"] == gateways


def test_networks_and_snapshots_that_killed_bakes_left_are_removed() -> None:
    from mesaform.aws import client
    from mesaform_images import build_network, leftovers
    from mesaform_images.ec2_calls import IMAGE_TAGS, tag_list

    region = "eu-north-1"
    ec2 = client.client("ec2", region)
    gateways = ec2.describe_internet_gateways()["InternetGateways"]
    name = f"mesaform-bake-{'0' * 16}-{int(time.time())}-abcdef01"
    network = build_network.site(
        ec2, WantedNetwork(temporary_cidr="127.231.78.0/26"), "t3.small", name
    )
    site = network.__enter__()  # and its operator is killed
    volume = ec2.create_volume(AvailabilityZone=f"{region}a", Size=1)["VolumeId"]
    snapshot = ec2.create_snapshot(
        VolumeId=volume,
        TagSpecifications=[{"ResourceType": "snapshot", "Tags": tag_list(IMAGE_TAGS)}],
    )["SnapshotId"]
    assert leftovers.remove_leftovers(ec2, time.time()) == [], "they may be somebody's"
    removed = leftovers.remove_leftovers(ec2, time.time() + leftovers.STALE_AFTER_S + 5)
    assert {name, snapshot} <= set(removed)
    assert site.vpc_id not in {vpc["VpcId"] for vpc in ec2.describe_vpcs()["Vpcs"]}
    assert ec2.describe_internet_gateways()["InternetGateways"] == gateways
