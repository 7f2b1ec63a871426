"""Old images go with their snapshots, unless a machine or a launch template uses them."""

from __future__ import annotations

import time
from typing import Any

import pytest

from mesaform.aws.resources.ec2_storage import Images, Snapshots
from mesaform.topology.names import Tag
from mesaform_images import prune
from mesaform_images.ec2_calls import IMAGE_TAGS, tag_list

pytestmark = pytest.mark.slow


def baked(ec2: Any, name: str, **tags: str) -> str:
    image_id: str = ec2.register_image(
        Name=name, Architecture="x86_64", RootDeviceName="/dev/xvda", VirtualizationType="hvm"
    )["ImageId"]
    ec2.create_tags(Resources=[image_id], Tags=tag_list({**IMAGE_TAGS, **tags}))
    return image_id


def snapshots(ec2: Any) -> set[str]:
    images = ec2.describe_images(Owners=["self"])["Images"]
    return {image["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"] for image in images}


def test_images_that_machines_or_templates_use_stay(cloud: Any) -> None:
    by_template, by_machine, first, second = (
        baked(cloud, f"image-{name}", **{Tag.RECIPE: name}) for name in ("a", "b", "c", "d")
    )
    unfinished = baked(cloud, "unfinished")
    cloud.create_launch_template(
        LaunchTemplateName="another-clusters",
        LaunchTemplateData={"ImageId": first, "InstanceType": "m5.large"},
    )
    cloud.create_launch_template_version(
        LaunchTemplateName="another-clusters", LaunchTemplateData={"ImageId": by_template}
    )
    cloud.modify_launch_template(LaunchTemplateName="another-clusters", DefaultVersion="2")
    cloud.run_instances(ImageId=by_machine, InstanceType="m5.large", MinCount=1, MaxCount=1)
    assert prune.prune_images(cloud, 1, time.time()) == [], "another folder may boot them now"
    later, before = time.time() + prune.MIN_AGE_S + 5, snapshots(cloud)
    removed = set(prune.prune_images(cloud, 1, later))
    assert removed
    assert removed <= {first, second}, "an old version of a template is no use"
    left = {image["ImageId"] for image in cloud.describe_images(Owners=["self"])["Images"]}
    assert {by_template, by_machine, unfinished} <= left
    assert not left & removed
    gone = before - snapshots(cloud)
    listed = {
        item["SnapshotId"] for item in cloud.describe_snapshots(OwnerIds=["self"])["Snapshots"]
    }
    assert len(gone) == len(removed)
    assert not gone & listed
    assert prune.prune_images(cloud, 1, later) == []


def test_listings_leave_out_the_images_and_snapshots_of_the_public(cloud: Any) -> None:
    asked: list[dict[str, Any]] = []
    event = "provide-client-params.ec2"
    cloud.meta.events.register(event, lambda params, **_: asked.append(params), unique_id="asked")
    try:
        assert [*Images(cloud, "toy").list(), *Snapshots(cloud, "toy").list()] == []
    finally:
        cloud.meta.events.unregister(event, unique_id="asked")
    images, snapshots = asked
    assert images["Owners"] == snapshots["OwnerIds"] == ["self"]
