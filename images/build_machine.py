"""Builder machines: launched on a base image, reachable by nobody, gone again whatever happens.

A builder has no rights of its own: what it fetches and what it reports to are presigned URLs in its cloud-config. What a bake that
was killed leaves behind is recognised by tag and age, and removed by the next one (`sweep`).
"""

from __future__ import annotations

import json
import re
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

from botocore.exceptions import ClientError

from mesaform.aws.errors import error_code, translate_errors
from mesaform.common.errors import CloudError, MissingPrerequisite, NotFound, Permanent, Retryable
from mesaform.topology.names import Tag
from mesaform_images.bundle import Recipe

T = TypeVar("T")

IMAGE_TAGS = {Tag.MANAGED_BY: "bake"}
BAKE_TAGS = {Tag.ROLE: "builder", **IMAGE_TAGS}
STALE_AFTER_S = 3600.0
"""No bake takes this long, so what is older belongs to none."""

LAST_LINES = 12
_CLOUD_INIT_ENDED = re.compile(
    r"^(cloud-init: (finished|failed)|.*Cloud-init v\. \S+ finished at )", re.MULTILINE
)

_ALIVE = ("pending", "running", "stopping", "stopped")
_ATTEMPTS = 6


@dataclass(frozen=True, slots=True)
class Builder:
    instance_id: str
    group_id: str
    launched_at: float


def call_with_retry(where: str, call: Callable[[], T]) -> T:
    """Make an AWS call, again while it says that this may help.

    Raises:
        CloudError: it refused, or kept failing.

    """
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            with translate_errors(where):
                return call()
        except Retryable as error:
            if attempt == _ATTEMPTS:
                raise
            time.sleep(min(error.after_s, 2.0 ** (attempt - 2)))
    raise AssertionError


def cloud_config(start_program: str, job: Mapping[str, str]) -> str:
    """A builder's user data: run the start program with its job. JSON, which cloud-init takes as YAML."""
    return "#cloud-config\n" + json.dumps(
        {"runcmd": [["python3", "-c", start_program, json.dumps(dict(job))]]}
    )


def base_image(ec2: Any, ssm: Any, parameter: str) -> dict[str, Any]:
    """The base image as EC2 describes it.

    Raises:
        MissingPrerequisite: the parameter, or the image that it names, does not exist in this region.

    """
    try:
        image_id = call_with_retry(
            f"ssm {parameter}", lambda: ssm.get_parameter(Name=parameter)["Parameter"]["Value"]
        )
        found = call_with_retry(
            f"image {image_id}", lambda: ec2.describe_images(ImageIds=[image_id])["Images"]
        )
    except NotFound as error:
        raise MissingPrerequisite(
            "the base image is not published in this region",
            where=parameter,
            fix="name another under [base] in images/recipe.toml",
        ) from error
    return dict(found[0])


def console_output_tail(ec2: Any, instance_id: str) -> str | None:
    """The end of the console of a builder whose cloud-init has ended; None while it goes on, or where the console is not to be had.

    On AWS the console comes with minutes of delay, so this is only for builders that will never report.
    """
    try:
        output = str(
            call_with_retry(
                "ec2 GetConsoleOutput",
                lambda: ec2.get_console_output(InstanceId=instance_id, Latest=True),
            ).get("Output", "")
        )
    except CloudError:
        return None
    if not _CLOUD_INIT_ENDED.search(output):
        return None
    return "\n".join(line.rstrip() for line in output.splitlines()[-LAST_LINES:])


@contextmanager
def builder(
    ec2: Any,
    recipe: Recipe,
    base: Mapping[str, Any],
    user_data: str,
    name: str,
    subnet_id: str = "",
) -> Iterator[Builder]:
    """A builder for as long as the block lasts. However the block ends, the machine and its security group are gone afterwards.

    Raises:
        MissingPrerequisite: no subnet was named and the account has no default one.
        CloudError: EC2 refused.

    """
    subnet = _subnet(ec2, subnet_id)
    unique = f"{name}-{int(time.time())}-{uuid.uuid4().hex[:8]}"
    try:
        group_id = _create_group(ec2, subnet["VpcId"], unique)
        instance = _launch(ec2, recipe, base, user_data, unique, subnet["SubnetId"], group_id)
        yield Builder(instance["InstanceId"], group_id, instance["LaunchTime"].timestamp())
    finally:
        with uninterrupted():
            _remove(ec2, unique)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Keep Ctrl-C from cutting a clean-up short. Only the main thread can be interrupted, so elsewhere this does nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def state_of(ec2: Any, instance_id: str) -> tuple[str, str]:
    """The machine's state, and EC2's reason for it, if any. A machine too new to be listed is pending."""
    try:
        found = call_with_retry(
            f"instance {instance_id}",
            lambda: ec2.describe_instances(InstanceIds=[instance_id])["Reservations"],
        )
    except NotFound:
        return "pending", ""
    instance = found[0]["Instances"][0]
    return str(instance["State"]["Name"]), str(instance.get("StateReason", {}).get("Message", ""))


def sweep(ec2: Any, now: float) -> list[str]:
    """Remove what bakes that were killed left behind: builders, their groups, and images that were never finished.

    Returns the ids of what was removed.
    """
    removed = []
    for instance in _instances(ec2, _by_tags(BAKE_TAGS)):
        if now - instance["LaunchTime"].timestamp() > STALE_AFTER_S:
            _terminate(ec2, [instance["InstanceId"]])
            removed.append(str(instance["InstanceId"]))
    for group in call_with_retry(
        "ec2 DescribeSecurityGroups",
        lambda: ec2.describe_security_groups(Filters=_by_tags(BAKE_TAGS))["SecurityGroups"],
    ):
        born = group["GroupName"].rsplit("-", 2)[-2]
        if (
            born.isdigit()
            and now - int(born) > STALE_AFTER_S
            and _delete_group(ec2, group["GroupId"])
        ):
            removed.append(str(group["GroupId"]))
    bake_images = call_with_retry(
        "ec2 DescribeImages",
        lambda: ec2.describe_images(Owners=["self"], Filters=_by_tags(IMAGE_TAGS))["Images"],
    )
    for image in bake_images:
        finished = any(tag["Key"] == Tag.RECIPE for tag in image.get("Tags", ()))
        if not finished and now - _epoch(image.get("CreationDate", "")) > STALE_AFTER_S:
            remove_image(ec2, image)
            removed.append(str(image["ImageId"]))
    return removed


def remove_image(ec2: Any, image: Mapping[str, Any]) -> None:
    """Deregister an image and delete its snapshots. Idempotent."""
    _unless_absent("ec2 DeregisterImage", partial(ec2.deregister_image, ImageId=image["ImageId"]))
    for snapshot_id in snapshots_of(image):
        _unless_absent("ec2 DeleteSnapshot", partial(ec2.delete_snapshot, SnapshotId=snapshot_id))


def snapshots_of(image: Mapping[str, Any]) -> list[str]:
    """The snapshots that an image stands on."""
    mappings = image.get("BlockDeviceMappings", ())
    return [
        mapping["Ebs"]["SnapshotId"]
        for mapping in mappings
        if mapping.get("Ebs", {}).get("SnapshotId")
    ]


def tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Tags as EC2 takes them."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def _subnet(ec2: Any, subnet_id: str) -> dict[str, Any]:
    if subnet_id:
        return dict(
            call_with_retry(
                f"subnet {subnet_id}",
                lambda: ec2.describe_subnets(SubnetIds=[subnet_id])["Subnets"],
            )[0]
        )
    filters = [{"Name": "default-for-az", "Values": ["true"]}]
    found = call_with_retry(
        "ec2 DescribeSubnets", lambda: ec2.describe_subnets(Filters=filters)["Subnets"]
    )
    if not found:
        raise MissingPrerequisite(
            "this region has no default subnet to build in",
            where="ec2 DescribeSubnets",
            fix="name one with a way out: mesaform bake --subnet subnet-…",
        )
    return dict(min(found, key=lambda subnet: str(subnet["AvailabilityZone"])))


def _create_group(ec2: Any, vpc_id: str, unique: str) -> str:
    specification = [
        {"ResourceType": "security-group", "Tags": tag_list({**BAKE_TAGS, Tag.NAME: unique})}
    ]
    request = {
        "GroupName": unique,
        "Description": "A Mesaform builder: nobody may come in",
        "VpcId": vpc_id,
        "TagSpecifications": specification,
    }
    return str(
        call_with_retry("ec2 CreateSecurityGroup", lambda: ec2.create_security_group(**request))[
            "GroupId"
        ]
    )


def _launch(
    ec2: Any,
    recipe: Recipe,
    base: Mapping[str, Any],
    user_data: str,
    unique: str,
    subnet_id: str,
    group_id: str,
) -> dict[str, Any]:
    tags = tag_list({**BAKE_TAGS, Tag.NAME: unique})
    disk = {
        "VolumeSize": recipe.disk_gib,
        "VolumeType": "gp3",
        "Encrypted": True,
        "DeleteOnTermination": True,
    }
    interface = {
        "DeviceIndex": 0,
        "SubnetId": subnet_id,
        "Groups": [group_id],
        "AssociatePublicIpAddress": True,
        "DeleteOnTermination": True,
    }
    request: dict[str, Any] = {
        "ImageId": base["ImageId"],
        "InstanceType": recipe.instance_type,
        "MinCount": 1,
        "MaxCount": 1,
        "ClientToken": unique[-64:],
        "UserData": user_data,
        "InstanceInitiatedShutdownBehavior": "terminate",
        "MetadataOptions": {"HttpTokens": "required", "HttpEndpoint": "enabled"},
        "BlockDeviceMappings": [
            {"DeviceName": base.get("RootDeviceName") or "/dev/xvda", "Ebs": disk}
        ],
        "NetworkInterfaces": [interface],
        "TagSpecifications": [
            {"ResourceType": kind, "Tags": tags} for kind in ("instance", "volume")
        ],
    }
    return dict(
        call_with_retry("ec2 RunInstances", lambda: ec2.run_instances(**request))["Instances"][0]
    )


def _remove(ec2: Any, unique: str) -> None:
    """Found by name, not by what a call returned: the answer of the launch may never have arrived."""
    named = [{"Name": f"tag:{Tag.NAME}", "Values": [unique]}]
    instance_ids = [instance["InstanceId"] for instance in _instances(ec2, named)]
    if instance_ids:
        _terminate(ec2, instance_ids)
    give_up_at = time.monotonic() + 180.0
    while _instances(ec2, named, (*_ALIVE, "shutting-down")) and time.monotonic() < give_up_at:
        time.sleep(0.2)
    for group in call_with_retry(
        "ec2 DescribeSecurityGroups",
        lambda: ec2.describe_security_groups(Filters=named)["SecurityGroups"],
    ):
        while not _delete_group(ec2, group["GroupId"]):
            if time.monotonic() > give_up_at:
                raise Permanent(
                    "the builder's security group is still in use",
                    where=group["GroupId"],
                    fix="the next `mesaform bake` removes it",
                )
            time.sleep(1.0)


def _instances(
    ec2: Any, filters: list[dict[str, Any]], states: tuple[str, ...] = _ALIVE
) -> list[dict[str, Any]]:
    by_state = {"Name": "instance-state-name", "Values": list(states)}
    pages = call_with_retry(
        "ec2 DescribeInstances",
        lambda: list(
            ec2.get_paginator("describe_instances").paginate(Filters=[*filters, by_state])
        ),
    )
    return [
        instance
        for page in pages
        for reservation in page["Reservations"]
        for instance in reservation["Instances"]
    ]


def _terminate(ec2: Any, instance_ids: list[str]) -> None:
    _unless_absent(
        "ec2 TerminateInstances", partial(ec2.terminate_instances, InstanceIds=instance_ids)
    )


def _delete_group(ec2: Any, group_id: str) -> bool:
    """Whether the group is gone; False while a machine that is ending still uses it."""

    def delete() -> bool:
        try:
            ec2.delete_security_group(GroupId=group_id)
        except ClientError as error:
            if error_code(error) != "DependencyViolation":
                raise
            return False
        return True

    try:
        return call_with_retry(f"security group {group_id}", delete)
    except NotFound:
        return True


def _unless_absent(where: str, call: Callable[[], Any]) -> None:
    try:
        call_with_retry(where, call)
    except NotFound:
        return


def _by_tags(tags: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"Name": f"tag:{key}", "Values": [value]} for key, value in tags.items()]


def _epoch(text: str) -> float:
    try:
        return datetime.fromisoformat(text).astimezone(UTC).timestamp()
    except ValueError:
        return time.time()
