"""Instances become process trees, and EC2's state follows them."""

from __future__ import annotations

import os
import signal

import pytest
from botocore.exceptions import ClientError

from mesaform.localcloud import processes
from tests.integration.localcloud.conftest import (
    Cloud,
    cloud_config,
    eventually,
    processes_of,
    running,
)

pytestmark = pytest.mark.slow


def members(cloud: Cloud, instance: str) -> set[int]:
    return processes.Census().take().get(instance, set())


def test_an_instance_is_pending_until_its_process_runs_and_then_running(cloud: Cloud) -> None:
    image = cloud.image()
    cloud.fault(kind="boot_delay", seconds=30)
    instance = cloud.launch(image)
    assert cloud.state(instance) == "pending"
    assert not members(cloud, instance)
    cloud.clear_faults()
    cloud.wait_state(instance, "running")
    assert running([cloud.node_facts(instance)["pid"]])


def test_the_node_is_started_from_the_image_with_nothing_of_the_operators_environment(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = cloud.launch(
        cloud.image(), InstanceType="m5.xlarge", PrivateIpAddress=cloud.address("0.20")
    )
    facts = cloud.node_facts(instance)
    assert facts["argv"][0] == str(
        (cloud.root / "images" / cloud.image()).resolve() / "opt/mesaform/venv/bin/python"
    )
    assert facts["argv"][1:] == ["-m", "mesaform.node"]
    environment = facts["env"]
    assert environment["AWS_ENDPOINT_URL"] == cloud.url
    assert (
        environment["AWS_EC2_METADATA_SERVICE_ENDPOINT"] == f"http://{cloud.address('0.20')}:1338"
    )
    assert environment["MESAFORM_HARDWARE"] == '{"vcpus":4,"mem_mib":16384}'
    assert environment["MESAFORM_INSTANCE_ID"] == instance
    assert (
        environment["HOME"]
        == environment["MESAFORM_MACHINE_DIR"]
        == str(cloud.machine_dir(instance))
    )
    assert not {name for name in environment if name.startswith("AWS_")} - {
        "AWS_ENDPOINT_URL",
        "AWS_EC2_METADATA_SERVICE_ENDPOINT",
    }
    assert not {"PYTHONPATH", "VIRTUAL_ENV"} & set(environment)


def test_a_terminated_instance_leaves_no_process_no_interface_and_no_volume(cloud: Cloud) -> None:
    instance = cloud.launch(cloud.image())
    cloud.node_facts(instance)
    before = eventually(
        lambda: len(pids := members(cloud, instance)) >= 3 and pids,
        "node and both tasks are counted",
    )
    volumes = [item["Ebs"]["VolumeId"] for item in cloud.describe(instance)["BlockDeviceMappings"]]
    interfaces = [
        item["NetworkInterfaceId"] for item in cloud.describe(instance)["NetworkInterfaces"]
    ]
    answer = cloud.ec2.terminate_instances(InstanceIds=[instance])["TerminatingInstances"][0]
    assert answer["CurrentState"]["Name"] == "shutting-down"
    ended = cloud.wait_state(instance, "terminated")
    assert not running(before)
    assert "stopped in order" in cloud.console(instance)
    assert ended["StateReason"]["Code"] == "Client.UserInitiatedShutdown"
    assert "PrivateIpAddress" not in ended
    left = cloud.ec2.describe_volumes(Filters=[{"Name": "volume-id", "Values": volumes}])["Volumes"]
    left += cloud.ec2.describe_network_interfaces(
        Filters=[{"Name": "network-interface-id", "Values": interfaces}]
    )["NetworkInterfaces"]
    assert left == []


def test_a_machine_whose_node_is_killed_is_terminated_with_a_reason_and_its_tasks_end(
    cloud: Cloud,
) -> None:
    instance = cloud.launch(cloud.image())
    facts = cloud.node_facts(instance)
    cloud.wait_state(instance, "running")
    os.kill(facts["pid"], signal.SIGKILL)
    ended = cloud.wait_state(instance, "terminated")
    assert ended["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"
    assert not running({facts["task"]})


@pytest.mark.parametrize(("behavior", "state"), [("stop", "stopped"), ("terminate", "terminated")])
def test_a_shutdown_from_inside_follows_the_shutdown_behavior(
    cloud: Cloud, behavior: str, state: str
) -> None:
    instance = cloud.launch(cloud.image(), InstanceInitiatedShutdownBehavior=behavior)
    facts = cloud.node_facts(instance)
    cloud.wait_state(instance, "running")
    os.kill(facts["pid"], signal.SIGUSR1)
    cloud.wait_state(instance, state)
    assert not running({facts["pid"], facts["task"]})


def test_a_stopped_instance_keeps_its_volume_and_address_and_boots_again(cloud: Cloud) -> None:
    instance = cloud.launch(cloud.image())
    first = cloud.node_facts(instance)
    before = cloud.wait_state(instance, "running")
    cloud.ec2.stop_instances(InstanceIds=[instance])
    stopped = cloud.wait_state(instance, "stopped")
    assert not running({first["pid"], first["task"]})
    assert stopped["PrivateIpAddress"] == before["PrivateIpAddress"]
    assert stopped["BlockDeviceMappings"] == before["BlockDeviceMappings"]
    (cloud.machine_dir(instance) / "facts.json").unlink()
    cloud.ec2.start_instances(InstanceIds=[instance])
    cloud.wait_state(instance, "running")
    assert cloud.node_facts(instance)["pid"] != first["pid"]


def test_a_reboot_gives_a_new_process_and_the_same_machine(cloud: Cloud) -> None:
    instance = cloud.launch(cloud.image())
    first = cloud.node_facts(instance)
    cloud.wait_state(instance, "running")
    (cloud.machine_dir(instance) / "facts.json").unlink()
    cloud.ec2.reboot_instances(InstanceIds=[instance])
    assert cloud.node_facts(instance)["pid"] != first["pid"]
    assert cloud.state(instance) == "running"
    assert not running({first["pid"], first["task"]})


def test_an_instance_whose_image_has_no_folder_fails_to_boot_with_a_reason(cloud: Cloud) -> None:
    builder = cloud.launch()
    cloud.wait_state(builder, "running")
    image = cloud.ec2.create_image(InstanceId=builder, Name="loses-its-folder")["ImageId"]
    eventually(lambda: cloud.image_state(image) == "available", "the image is made")
    (cloud.root / "images" / image).rmdir()
    instance = cloud.launch(image)
    ended = cloud.wait_state(instance, "terminated")
    assert ended["StateReason"]["Code"] == "Server.InternalError"
    assert f"image {image} has no folder" in ended["StateReason"]["Message"]
    assert "boot failed" in cloud.console(instance)


def test_an_address_that_linux_cannot_bind_is_a_named_failure_of_that_instance(
    cloud: Cloud,
) -> None:
    vpc = cloud.ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    subnet = cloud.ec2.create_subnet(VpcId=vpc, CidrBlock="10.9.0.0/24")["Subnet"]["SubnetId"]
    instance = cloud.launch(SubnetId=subnet)
    ended = cloud.wait_state(instance, "terminated")
    assert "cannot listen on 10.9.0." in ended["StateReason"]["Message"]


def test_private_addresses_never_collide_with_fixed_ones_or_each_other(cloud: Cloud) -> None:
    subnet = cloud.ec2.create_subnet(
        VpcId=cloud.network()[0], CidrBlock=cloud.address("200.0/28"), AvailabilityZone="us-east-1c"
    )["Subnet"]["SubnetId"]
    fixed = cloud.launch(SubnetId=subnet, PrivateIpAddress=cloud.address("200.9"))
    others = [
        item["PrivateIpAddress"]
        for item in cloud.ec2.run_instances(
            ImageId=cloud.base_image,
            InstanceType="m5.large",
            MinCount=8,
            MaxCount=8,
            SubnetId=subnet,
        )["Instances"]
    ]
    assert len({*others, cloud.address("200.9")}) == 9
    with pytest.raises(cloud.ec2.exceptions.ClientError, match=r"InvalidIPAddress\.InUse"):
        cloud.launch(SubnetId=subnet, PrivateIpAddress=cloud.address("200.9"))
    with pytest.raises(cloud.ec2.exceptions.ClientError, match="InsufficientFreeAddressesInSubnet"):
        cloud.ec2.run_instances(
            ImageId=cloud.base_image,
            InstanceType="m5.large",
            MinCount=9,
            MaxCount=9,
            SubnetId=subnet,
        )
    cloud.ec2.terminate_instances(InstanceIds=[fixed])
    cloud.wait_state(fixed, "terminated")
    cloud.launch(SubnetId=subnet, PrivateIpAddress=cloud.address("200.9"))


def test_a_client_token_makes_run_instances_idempotent(cloud: Cloud) -> None:
    first = cloud.launch(ClientToken="only-once")
    assert cloud.launch(ClientToken="only-once") == first
    with pytest.raises(cloud.ec2.exceptions.ClientError, match="IdempotentParameterMismatch"):
        cloud.launch(ClientToken="only-once", InstanceType="m5.xlarge")


def test_volumes_are_as_requested_and_the_root_volume_always_exists(cloud: Cloud) -> None:
    devices = [
        {
            "DeviceName": "/dev/xvda",
            "Ebs": {"VolumeSize": 33, "Encrypted": True, "VolumeType": "gp3"},
        },
        {"DeviceName": "/dev/sdb", "Ebs": {"VolumeSize": 5, "DeleteOnTermination": False}},
    ]
    instance = cloud.launch(
        BlockDeviceMappings=devices,
        TagSpecifications=[{"ResourceType": "volume", "Tags": [{"Key": "k", "Value": "v"}]}],
    )
    volumes = {
        item["Attachments"][0]["Device"]: item
        for item in cloud.ec2.describe_volumes(
            Filters=[{"Name": "attachment.instance-id", "Values": [instance]}]
        )["Volumes"]
    }
    assert (
        volumes["/dev/xvda"]["Size"],
        volumes["/dev/xvda"]["Encrypted"],
        volumes["/dev/xvda"]["VolumeType"],
    ) == (33, True, "gp3")
    assert volumes["/dev/sdb"]["Encrypted"] is False
    assert all(item["Tags"] == [{"Key": "k", "Value": "v"}] for item in volumes.values())
    cloud.ec2.terminate_instances(InstanceIds=[instance])
    cloud.wait_state(instance, "terminated")
    assert [
        item["State"]
        for item in cloud.ec2.describe_volumes(VolumeIds=[volumes["/dev/sdb"]["VolumeId"]])[
            "Volumes"
        ]
    ] == ["available"]


def test_instances_are_found_by_tag_and_state(cloud: Cloud) -> None:
    instance = cloud.launch(
        TagSpecifications=[
            {"ResourceType": "instance", "Tags": [{"Key": "mesaform:cluster", "Value": "x"}]}
        ]
    )
    cloud.wait_state(instance, "running")
    filters = [
        {"Name": "tag:mesaform:cluster", "Values": ["x"]},
        {"Name": "instance-state-name", "Values": ["running"]},
    ]
    instance_ids = [
        item["InstanceId"]
        for page in cloud.ec2.describe_instances(Filters=filters)["Reservations"]
        for item in page["Instances"]
    ]
    assert instance_ids == [instance]


def test_an_unknown_image_or_type_is_refused_as_ec2_does(cloud: Cloud) -> None:
    with pytest.raises(cloud.ec2.exceptions.ClientError, match=r"InvalidAMIID\.NotFound"):
        cloud.launch("ami-0123456789abcdef0")
    with pytest.raises(cloud.ec2.exceptions.ClientError, match="InvalidInstanceType"):
        cloud.launch(InstanceType="m5.gigantic")


def test_cloud_init_writes_files_and_runs_commands_in_the_machines_own_root(cloud: Cloud) -> None:
    commands = [["sh", "-c", 'cat "$MESAFORM_ROOT/opt/mesaform/hello"'], "exit 3", "echo after"]
    instance = cloud.launch(
        user_data=cloud_config({"/opt/mesaform/hello": "hello from the file\n"}, commands)
    )
    eventually(
        lambda: "finished, 1 commands failed" in cloud.console(instance), "cloud-init is done"
    )
    text = cloud.console(instance)
    assert "hello from the file" in text
    assert "exit code 3" in text
    assert text.index("exit code 3") < text.index("after")
    assert (cloud.machine_dir(instance) / "root/opt/mesaform/hello").exists()
    assert cloud.state(instance) == "running"


def test_cloud_init_refuses_to_write_outside_the_machines_folders(cloud: Cloud) -> None:
    instance = cloud.launch(user_data=cloud_config({"/etc/mesaform-must-not-exist": "x"}, []))
    eventually(
        lambda: (
            "failed: write_files: /etc/mesaform-must-not-exist is not below"
            in cloud.console(instance)
        ),
        "it is refused",
    )


def test_no_test_ended_a_machine_of_another(cloud: Cloud) -> None:
    """Last in this module: what all the tests above left is exactly what EC2 says is there."""
    world = cloud.ec2.describe_instances(
        Filters=[{"Name": "instance-state-name", "Values": ["running", "pending"]}]
    )["Reservations"]
    wanted = {item["InstanceId"] for page in world for item in page["Instances"]}
    owners = {
        owner
        for owner, pids in processes.Census().take().items()
        if pids & processes_of(cloud.root)
    }
    assert eventually(lambda: owners == wanted, f"{owners} is {wanted}")


def test_the_folder_of_a_volume_outlives_its_machine_and_follows_it_to_the_next(
    cloud: Cloud,
) -> None:
    image = cloud.image()
    first = cloud.launch(image)
    cloud.wait_state(first, "running")
    zone = cloud.describe(first)["Placement"]["AvailabilityZone"]
    volume = cloud.ec2.create_volume(AvailabilityZone=zone, Size=1, VolumeType="gp3")["VolumeId"]
    cloud.ec2.attach_volume(VolumeId=volume, InstanceId=first, Device="/dev/sdf")
    link = cloud.machine_dir(first) / "volumes" / volume
    eventually(link.is_dir, "the machine sees its volume")
    assert cloud.node_facts(first)["env"]["MESAFORM_VOLUMES"] == str(link.parent)
    (link / "data").write_text("kept")
    second = cloud.launch(image)
    cloud.wait_state(second, "running")
    with pytest.raises(ClientError, match="VolumeInUse"):
        cloud.ec2.attach_volume(VolumeId=volume, InstanceId=second, Device="/dev/sdf")
    cloud.ec2.terminate_instances(InstanceIds=[first])
    cloud.wait_state(first, "terminated")
    (listed,) = cloud.ec2.describe_volumes(VolumeIds=[volume])["Volumes"]
    assert (listed["State"], listed["Attachments"]) == ("available", [])
    cloud.ec2.attach_volume(VolumeId=volume, InstanceId=second, Device="/dev/sdf")
    moved = cloud.machine_dir(second) / "volumes" / volume
    eventually(moved.is_dir, "the next machine sees the volume")
    assert (moved / "data").read_text() == "kept"
    cloud.ec2.detach_volume(VolumeId=volume)
    eventually(lambda: not moved.exists(), "the volume is gone from the machine")
    cloud.ec2.delete_volume(VolumeId=volume)
    eventually(lambda: not (cloud.root / "volumes" / volume).exists(), "its folder is removed")
    cloud.ec2.terminate_instances(InstanceIds=[second])


def test_volumes_are_attached_by_the_rules_of_ec2(cloud: Cloud) -> None:
    cloud.fault(kind="boot_delay", seconds=60)
    instance = cloud.launch(cloud.image())
    zone = cloud.describe(instance)["Placement"]["AvailabilityZone"]
    other = next(name for name in cloud.network()[1] if name != zone)
    near, far = (
        cloud.ec2.create_volume(AvailabilityZone=name, Size=1, VolumeType="gp3")["VolumeId"]
        for name in (zone, other)
    )
    with pytest.raises(ClientError, match="IncorrectState"):
        cloud.ec2.attach_volume(VolumeId=near, InstanceId=instance, Device="/dev/sdf")
    cloud.clear_faults()
    cloud.wait_state(instance, "running")
    with pytest.raises(ClientError, match="ZoneMismatch"):
        cloud.ec2.attach_volume(VolumeId=far, InstanceId=instance, Device="/dev/sdf")
    root = cloud.describe(instance)["RootDeviceName"]
    with pytest.raises(ClientError, match="already in use"):
        cloud.ec2.attach_volume(VolumeId=near, InstanceId=instance, Device=root)
    cloud.ec2.terminate_instances(InstanceIds=[instance])
    for volume in (near, far):
        cloud.ec2.delete_volume(VolumeId=volume)
