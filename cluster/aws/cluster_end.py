"""Terminates all machines of one deployment, masters included: the end of its time to live.

`AwsFleet` terminates only machines that the autoscaler launched. Depends on EC2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mesaform.aws import client
from mesaform.aws.catalogue import chunks
from mesaform.aws.errors import translate_errors
from mesaform.aws.fleet import REMOVABLE_STATES, TERMINATE_BATCH
from mesaform.aws.ports import Machine
from mesaform.topology.names import Tag

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client


class ClusterEnd:
    """The machines of one deployment in a region. Calls block."""

    def __init__(self, region: str) -> None:
        self.ec2: EC2Client = client.client("ec2", region)

    def terminate(self, machines: Sequence[Machine], deployment: str) -> None:
        """Terminate the machines that carry the deployment's tag. Idempotent.

        Raises:
            CloudError: EC2 refused or did not answer; some may be terminated.

        """
        ids = [
            machine.instance_id
            for machine in machines
            if machine.tags.get(Tag.DEPLOYMENT) == deployment and machine.state in REMOVABLE_STATES
        ]
        for batch in chunks(ids, TERMINATE_BATCH):
            with translate_errors("ec2 TerminateInstances"):
                self.ec2.terminate_instances(InstanceIds=batch)
