"""Disks of machines that an interrupted run created."""

from __future__ import annotations

import pytest

from mesaform.provision.disk_tags import tag_disks
from mesaform.topology import names
from tests.integration.provision.test_guards import Cloud

pytestmark = pytest.mark.slow
OWNER, SECOND = "cccccccccccccccc", "dddddddddddddddd"


def test_untagged_disks_of_this_deployment_get_the_tags_of_their_machine(aws, place):
    cloud = Cloud(aws, place.spec.name)
    ours = cloud.machine(OWNER, cloud.vpc(OWNER)[1])
    theirs = cloud.machine(SECOND, cloud.vpc(SECOND)[1])
    ec2 = aws.client("ec2")
    kept = ec2.create_volume(AvailabilityZone=zone_of(ec2, ours), Size=1)["VolumeId"]
    ec2.attach_volume(VolumeId=kept, InstanceId=ours, Device="/dev/sdf")

    assert tag_disks(place.spec, OWNER) == 1
    (root,) = set(disks_of(ec2, ours)) - {kept}
    assert tags_of(ec2, root) == names.tags(place.spec, DEPLOYMENT=OWNER)
    assert tags_of(ec2, kept) == {}, "it outlives the machine: it may be somebody else's"
    assert [tags_of(ec2, disk) for disk in disks_of(ec2, theirs)] == [{}]
    assert tag_disks(place.spec, OWNER) == 0


def instance_of(ec2, instance_id):
    return ec2.describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"][0]


def zone_of(ec2, instance_id):
    return instance_of(ec2, instance_id)["Placement"]["AvailabilityZone"]


def disks_of(ec2, instance_id):
    mappings = instance_of(ec2, instance_id)["BlockDeviceMappings"]
    return [mapping["Ebs"]["VolumeId"] for mapping in mappings]


def tags_of(ec2, volume_id):
    volume = ec2.describe_volumes(VolumeIds=[volume_id])["Volumes"][0]
    return {tag["Key"]: tag["Value"] for tag in volume.get("Tags", ())}
