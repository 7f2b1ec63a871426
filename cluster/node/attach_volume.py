"""Attaches a master's data volume to its instance and ends.

EC2 attaches a volume to one instance at a time, so a replacement waits until the machine before it
has ended. The node runs this program as a process of its own, so that botocore's memory is freed.
Exit codes: 0 attached, 78 it can never be attached, 1 try again later.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from mesaform.aws.client import client
from mesaform.aws.errors import error_code
from mesaform.common.backoff import Backoff
from mesaform.common.errors import MesaformError
from mesaform.node.data_volume import DEVICE, VolumeRefused
from mesaform.node.model import EXIT_REFUSED

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

GIVE_UP_AFTER_S = 600.0
ABSENT_AFTER_S = 120.0
"""How long EC2 may not know a new volume, or a new right: its answers become consistent late."""

LOG_INTERVAL_S = 15.0
BACKOFF = Backoff(first_s=0.2, cap_s=2.0)
NEVER = frozenset({"InvalidVolume.ZoneMismatch", "InvalidParameterValue"})
ABSENT = frozenset({"InvalidVolume.NotFound", "UnauthorizedOperation"})
EXIT_LATER = 1


class NotAttached(Exception):
    """The volume could not be attached in time; the message says what was in the way."""


def attach(
    open_ec2: Callable[[], EC2Client],
    volume_id: str,
    instance_id: str,
    log: Callable[[str], None],
    *,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Attach the volume; return once EC2 has accepted it. Idempotent.

    `open_ec2` is called for each attempt: the metadata service may give the machine's credentials
    late, because a new instance profile spreads slowly or the host is busy.

    Raises:
        VolumeRefused: it is in another zone, or does not exist.
        NotAttached: another instance has it, EC2 does not answer, or there are no credentials.

    """
    began = monotonic()
    logged_at, failures = began - LOG_INTERVAL_S, 0
    while (obstacle := _attempt(open_ec2, volume_id, instance_id, monotonic() - began)) is not None:
        now = monotonic()
        if now - began > GIVE_UP_AFTER_S:
            raise NotAttached(obstacle)
        if now - logged_at >= LOG_INTERVAL_S:
            log(f"waiting for the data volume {volume_id}: {obstacle}")
            logged_at = now
        failures += 1
        sleep(BACKOFF.delay_s(failures))


def _attempt(
    open_ec2: Callable[[], EC2Client], volume_id: str, instance_id: str, waited_s: float
) -> str | None:
    """Call EC2 once; None once the volume is this instance's, else what is in the way."""
    try:
        ec2 = open_ec2()
    except MesaformError as error:
        return str(error)
    try:
        ec2.attach_volume(VolumeId=volume_id, InstanceId=instance_id, Device=DEVICE)
    except ClientError as error:
        code = error_code(error)
        if code == "VolumeInUse":
            return _holder(ec2, volume_id, instance_id)
        is_absent = code in ABSENT and waited_s > ABSENT_AFTER_S
        if code in NEVER or is_absent:
            raise VolumeRefused(str(error)) from None
        return str(error)
    except BotoCoreError as error:
        return str(error)
    return None


def _holder(ec2: EC2Client, volume_id: str, instance_id: str) -> str | None:
    """Which other instance has the volume; None if this one has it."""
    try:
        answer = ec2.describe_volumes(VolumeIds=[volume_id])
    except (ClientError, BotoCoreError) as error:
        return f"it is in use, and EC2 does not say by whom: {error}"
    holders = {
        str(item.get("InstanceId")): str(item.get("State"))
        for raw in answer["Volumes"]
        for item in raw.get("Attachments", [])
    }
    if holders.get(instance_id) in {"attaching", "attached", "busy"}:
        return None
    names = ", ".join(f"{name} ({state})" for name, state in holders.items())
    return f"it is in use by {names or 'another instance'}"


def main(argv: Sequence[str] | None = None) -> int:
    """Attach the volume that the arguments name: volume, instance, region."""
    volume_id, instance_id, region = argv if argv is not None else sys.argv[1:]

    def log(line: str) -> None:
        sys.stdout.write(f"node: {line}\n")
        sys.stdout.flush()

    try:
        attach(partial(client, "ec2", region), volume_id, instance_id, log)
    except VolumeRefused as error:
        log(f"refused: the data volume {volume_id}: {error}")
        return EXIT_REFUSED
    except NotAttached as error:
        log(f"the data volume {volume_id} is not attached: {error}")
        return EXIT_LATER
    return 0


if __name__ == "__main__":
    sys.exit(main())
