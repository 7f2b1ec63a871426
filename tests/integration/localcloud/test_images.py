"""Images are created from machines, found by tag, booted from, and removed when unused."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.integration.localcloud.conftest import Cloud, cloud_config, eventually

pytestmark = pytest.mark.slow


def built(cloud: Cloud, files: dict[str, str]) -> str:
    """A builder whose cloud-init is done."""
    builder = cloud.launch(user_data=cloud_config(files, []))
    eventually(lambda: "cloud-init: finished" in cloud.console(builder), "the builder is done")
    return builder


def make(cloud: Cloud, builder: str, name: str) -> str:
    tags = [
        {"ResourceType": kind, "Tags": [{"Key": "mesaform:recipe", "Value": name}]}
        for kind in ("image", "snapshot")
    ]
    image = cloud.ec2.create_image(InstanceId=builder, Name=name, TagSpecifications=tags)["ImageId"]
    eventually(lambda: cloud.image_state(image) == "available", "the image is made")
    return str(image)


def test_the_base_image_is_found_as_on_aws_and_has_another_owner(cloud: Cloud) -> None:
    described = cloud.ec2.describe_images(ImageIds=[cloud.base_image])["Images"][0]
    assert described["Name"].startswith("debian-12-amd64-")
    assert (described["Architecture"], described["State"], described["RootDeviceName"]) == (
        "x86_64",
        "available",
        "/dev/xvda",
    )
    assert cloud.base_image not in {
        image["ImageId"] for image in cloud.ec2.describe_images(Owners=["self"])["Images"]
    }


def test_an_image_has_what_the_builder_had_and_is_found_by_its_tag(cloud: Cloud) -> None:
    builder = built(cloud, {"/opt/mesaform/recipe.json": '{"digest":"digest-1"}'})
    image = make(cloud, builder, "digest-1")
    folder = cloud.root / "images" / image
    assert (folder / "opt/mesaform/recipe.json").read_text() == '{"digest":"digest-1"}'
    images = cloud.ec2.describe_images(
        Owners=["self"], Filters=[{"Name": "tag:mesaform:recipe", "Values": ["digest-1"]}]
    )["Images"]
    assert [item["ImageId"] for item in images] == [image]
    snapshot = images[0]["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    assert cloud.ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"][0]["Tags"] == [
        {"Key": "mesaform:recipe", "Value": "digest-1"}
    ]


def test_an_image_outlives_its_builder(cloud: Cloud) -> None:
    builder = built(cloud, {"/opt/mesaform/file": "content"})
    image = make(cloud, builder, "outlives")
    cloud.ec2.terminate_instances(InstanceIds=[builder])
    cloud.wait_state(builder, "terminated")
    assert (cloud.root / "images" / image / "opt/mesaform/file").read_text() == "content"


def test_two_images_cannot_have_one_name(cloud: Cloud) -> None:
    builder = built(cloud, {})
    make(cloud, builder, "only-one")
    with pytest.raises(cloud.ec2.exceptions.ClientError, match=r"InvalidAMIName\.Duplicate"):
        cloud.ec2.create_image(InstanceId=builder, Name="only-one")


def test_the_folder_of_a_deregistered_image_is_removed_after_its_last_machine(cloud: Cloud) -> None:
    image = make(
        cloud,
        built(cloud, {"/opt/mesaform/venv/bin/python": "#!/bin/sh\nexec sleep 1000\n"}),
        "goes",
    )
    snapshot = cloud.ec2.describe_images(ImageIds=[image])["Images"][0]["BlockDeviceMappings"][0][
        "Ebs"
    ]["SnapshotId"]
    instance = cloud.launch(image)
    cloud.wait_state(instance, "running")
    cloud.ec2.deregister_image(ImageId=image)
    cloud.ec2.delete_snapshot(SnapshotId=snapshot)
    assert cloud.state(instance) == "running"
    assert (cloud.root / "images" / image).is_dir()
    cloud.ec2.terminate_instances(InstanceIds=[instance])
    eventually(lambda: not (cloud.root / "images" / image).exists(), "its folder is removed")


def test_files_of_an_image_are_shared_not_copied(cloud: Cloud) -> None:
    builder = built(cloud, {"/opt/mesaform/big": "x" * 100_000})
    image = make(cloud, builder, "shared")
    own, copied = (
        cloud.machine_dir(builder) / "root/opt/mesaform/big",
        cloud.root / "images" / image / "opt/mesaform/big",
    )
    assert own.stat().st_ino == copied.stat().st_ino


def test_presigned_addresses_put_and_get_objects(cloud: Cloud) -> None:
    s3 = cloud.client("s3")
    s3.create_bucket(Bucket="presigned")
    put = s3.generate_presigned_url(
        "put_object", Params={"Bucket": "presigned", "Key": "a/report.json"}, ExpiresIn=300
    )
    with urllib.request.urlopen(
        urllib.request.Request(put, data=b'{"ok":true}', method="PUT")
    ) as answer:
        assert answer.status == 200
    get = s3.generate_presigned_url(
        "get_object", Params={"Bucket": "presigned", "Key": "a/report.json"}, ExpiresIn=300
    )
    with urllib.request.urlopen(get) as answer:
        assert answer.read() == b'{"ok":true}'
    absent = s3.generate_presigned_url(
        "get_object", Params={"Bucket": "presigned", "Key": "absent"}, ExpiresIn=300
    )
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(absent)


def test_large_objects_go_up_in_parts_and_come_down_whole(cloud: Cloud, tmp_path: Path) -> None:
    s3 = cloud.client("s3")
    s3.create_bucket(Bucket="bundles")
    content = os.urandom(9_000_000)
    (tmp_path / "bundle").write_bytes(content)
    s3.upload_file(str(tmp_path / "bundle"), "bundles", "wheel.tar")
    assert s3.get_object(Bucket="bundles", Key="wheel.tar")["Body"].read() == content
    assert s3.head_object(Bucket="bundles", Key="wheel.tar")["ContentLength"] == len(content)
