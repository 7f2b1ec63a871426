"""Builder machines: launched on a base image, not reachable, removed in any case.

A builder has no rights: its cloud-config has one presigned URL, of its job, which names the others.
A builder whose operator was killed powers itself off after an hour, which terminates it.
`leftovers` removes one that was already stopped.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from mesaform.aws.errors import error_code
from mesaform.common.errors import CloudError, MissingPrerequisite, NotFound, Permanent
from mesaform.topology.names import Tag
from mesaform_images import build_network
from mesaform_images.build_network import ANY_NETWORK, Site, WantedNetwork
from mesaform_images.ec2_calls import (
    BUILDER_TAGS,
    call_unless_absent,
    call_with_retry,
    poll_pause_s,
    tag_filters,
    tag_list,
    uninterrupted,
)

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ec2.literals import InstanceStateNameType
    from mypy_boto3_ec2.type_defs import (
        FilterTypeDef,
        ImageTypeDef,
        InstanceTypeDef,
    )

CONSOLE_TAIL_LINES = 12
REMOVAL_TIMEOUT_S = 180.0
CLIENT_TOKEN_LENGTH = 64
STOP_TIMEOUT_S = 300.0
USER_DATA_BYTES = 16_384
"""EC2's limit of user data before its encoding."""

_CLOUD_INIT_END = re.compile(
    r"^(cloud-init: (finished|failed)|.*Cloud-init v\. \S+ finished at )", re.MULTILINE
)
_ALIVE: tuple[InstanceStateNameType, ...] = ("pending", "running", "stopping", "stopped")


@dataclass(frozen=True, slots=True)
class Builder:
    """A launched builder. `launched_at` is in seconds since the epoch."""

    instance_id: str
    group_id: str
    launched_at: float


@dataclass(frozen=True, slots=True)
class BuilderSpec:
    """What to launch, and where (`build_network.site`)."""

    instance_type: str
    disk_gib: int
    base: ImageTypeDef
    user_data: str
    name: str
    wanted: WantedNetwork = ANY_NETWORK


def cloud_config(start_program: str, job_url: str) -> str:
    """Return user data that runs the start program with the URL of its job. JSON is valid YAML.

    Raises:
        MissingPrerequisite: it is larger than EC2 accepts: the session token, which is part of the
            URL, is too long.

    """
    command = ["python3", "-c", start_program, job_url]
    text = "#cloud-config\n" + json.dumps({"runcmd": [command]})
    if len(text.encode()) > USER_DATA_BYTES:
        raise MissingPrerequisite(
            f"the builder's user data has {len(text.encode())} bytes, EC2 accepts"
            f" {USER_DATA_BYTES}: the credentials' session token is too long",
            where="ec2 RunInstances",
            fix="use credentials with a shorter session token, or of a user",
        )
    return text


def console_output_tail(ec2: EC2Client, instance_id: str) -> str | None:
    """Return the end of the console of a builder whose cloud-init ended.

    None while it runs, or if the console cannot be read. On AWS the console is delayed by minutes,
    so this is only for builders that will never report.
    """
    try:
        answer = call_with_retry(
            "ec2 GetConsoleOutput",
            lambda: ec2.get_console_output(InstanceId=instance_id, Latest=True),
        )
    except CloudError:
        return None
    output = answer.get("Output", "")
    if not _CLOUD_INIT_END.search(output):
        return None
    return "\n".join(line.rstrip() for line in output.splitlines()[-CONSOLE_TAIL_LINES:])


@contextmanager
def builder(ec2: EC2Client, spec: BuilderSpec) -> Iterator[Builder]:
    """Launch a builder for the duration of the block.

    The machine and its security group are removed however the block ends.

    Raises:
        MissingPrerequisite: no subnet is named, there is no default one, and none may be created.
        CloudError: EC2 refused.

    """
    unique = f"{spec.name}-{int(time.time())}-{uuid.uuid4().hex[:8]}"
    with build_network.site(ec2, spec.wanted, spec.instance_type, unique) as site:
        launched: list[str] = []
        try:
            group_id = _create_group(ec2, site.vpc_id, unique)
            instance = _launch(ec2, spec, unique, site, group_id)
            launched.append(instance["InstanceId"])
            yield Builder(instance["InstanceId"], group_id, instance["LaunchTime"].timestamp())
        finally:
            with uninterrupted():
                _remove(ec2, unique, launched)


def stop(
    ec2: EC2Client,
    instance_id: str,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Stop a machine and wait until its disk is at rest. Idempotent.

    An image of a stopped machine is whole, and the machine's own shutdown timer stays in force
    until then. CreateImage of a running machine would reboot it and lose the timer.

    Raises:
        Permanent: the machine did not stop in time, or it is gone.

    """
    call_with_retry("ec2 StopInstances", lambda: ec2.stop_instances(InstanceIds=[instance_id]))
    started = clock()
    while (elapsed_s := clock() - started) < STOP_TIMEOUT_S:
        state, reason = state_of(ec2, instance_id)
        if state == "stopped":
            return
        if state in ("shutting-down", "terminated"):
            raise Permanent(f"the builder is {state}. {reason}".strip(), where=instance_id)
        sleep(poll_pause_s(elapsed_s))
    raise Permanent(f"the builder did not stop within {STOP_TIMEOUT_S:.0f} s", where=instance_id)


def creation_time(group_name: str) -> float | None:
    """Return when a builder's group was created (epoch s), from its name; None for other groups."""
    stamp = group_name.rsplit("-", 2)[-2] if group_name.count("-") >= 2 else ""
    return float(stamp) if stamp.isdigit() else None


def state_of(ec2: EC2Client, instance_id: str) -> tuple[str, str]:
    """Return the machine's state, and EC2's reason for it or an empty text.

    A machine that EC2 does not list yet is pending.
    """
    try:
        reservations = call_with_retry(
            f"instance {instance_id}",
            lambda: ec2.describe_instances(InstanceIds=[instance_id])["Reservations"],
        )
    except NotFound:
        return "pending", ""
    instance = reservations[0]["Instances"][0]
    return instance["State"]["Name"], instance.get("StateReason", {}).get("Message", "")


def list_instances(
    ec2: EC2Client,
    filters: list[FilterTypeDef],
    states: tuple[InstanceStateNameType, ...] = _ALIVE,
) -> list[InstanceTypeDef]:
    """List the instances that match filters and are in one of the states."""
    state_filter: FilterTypeDef = {"Name": "instance-state-name", "Values": list(states)}
    paginator = ec2.get_paginator("describe_instances")
    pages = call_with_retry(
        "ec2 DescribeInstances",
        lambda: list(paginator.paginate(Filters=[*filters, state_filter])),
    )
    return [
        instance
        for page in pages
        for reservation in page["Reservations"]
        for instance in reservation["Instances"]
    ]


def terminate(ec2: EC2Client, instance_ids: list[str]) -> None:
    """Terminate instances. Idempotent."""
    call = partial(ec2.terminate_instances, InstanceIds=instance_ids)
    call_unless_absent("ec2 TerminateInstances", call)


def delete_group(ec2: EC2Client, group_id: str) -> bool:
    """Delete a security group; return False while a terminating machine still uses it."""

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


def _create_group(ec2: EC2Client, vpc_id: str, unique: str) -> str:
    tags = tag_list({**BUILDER_TAGS, Tag.NAME: unique})
    answer = call_with_retry(
        "ec2 CreateSecurityGroup",
        lambda: ec2.create_security_group(
            GroupName=unique,
            Description="A Mesaform builder: no ingress",
            VpcId=vpc_id,
            TagSpecifications=[{"ResourceType": "security-group", "Tags": tags}],
        ),
    )
    return answer["GroupId"]


def _launch(
    ec2: EC2Client, spec: BuilderSpec, unique: str, site: Site, group_id: str
) -> InstanceTypeDef:
    tags = tag_list({**BUILDER_TAGS, Tag.NAME: unique})
    run_instances = partial(
        ec2.run_instances,
        ImageId=spec.base["ImageId"],
        InstanceType=spec.instance_type,  # type: ignore[arg-type]  # any type of EC2
        MinCount=1,
        MaxCount=1,
        ClientToken=unique[-CLIENT_TOKEN_LENGTH:],
        UserData=spec.user_data,
        InstanceInitiatedShutdownBehavior="terminate",
        MetadataOptions={"HttpTokens": "required", "HttpEndpoint": "enabled"},
        BlockDeviceMappings=[
            {
                "DeviceName": spec.base.get("RootDeviceName") or "/dev/xvda",
                "Ebs": {
                    "VolumeSize": spec.disk_gib,
                    "VolumeType": "gp3",
                    "Encrypted": True,
                    "DeleteOnTermination": True,
                },
            }
        ],
        NetworkInterfaces=[
            {
                "DeviceIndex": 0,
                "SubnetId": site.subnet_id,
                "Groups": [group_id],
                "AssociatePublicIpAddress": site.has_public_address,
                "DeleteOnTermination": True,
            }
        ],
        TagSpecifications=[
            {"ResourceType": "instance", "Tags": tags},
            {"ResourceType": "volume", "Tags": tags},
        ],
    )
    return call_with_retry("ec2 RunInstances", run_instances)["Instances"][0]


def _remove(ec2: EC2Client, unique: str, launched: list[str]) -> None:
    """Remove by name and by id.

    The answer of the launch, with the id, may never have arrived; and EC2 may not list a new
    machine yet.
    """
    filters = tag_filters({Tag.NAME: unique})
    listed = [instance["InstanceId"] for instance in list_instances(ec2, filters)]
    if instance_ids := sorted({*listed, *launched}):
        terminate(ec2, instance_ids)
    deadline = time.monotonic() + REMOVAL_TIMEOUT_S
    _wait(deadline, 0.2, lambda: not list_instances(ec2, filters, (*_ALIVE, "shutting-down")))
    groups = call_with_retry(
        "ec2 DescribeSecurityGroups",
        lambda: ec2.describe_security_groups(Filters=filters)["SecurityGroups"],
    )
    for group in groups:
        if not _wait(deadline, 1.0, partial(delete_group, ec2, group["GroupId"])):
            raise Permanent(
                "the builder's security group is still in use",
                where=group["GroupId"],
                fix="the next `mesaform bake` removes it",
            )


def _wait(deadline: float, pause_s: float, is_done: Callable[[], bool]) -> bool:
    """Poll until something is done or the deadline is over; return whether it is done."""
    while not is_done():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause_s)
    return True
