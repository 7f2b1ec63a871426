"""EC2's calls that launch, inspect or image instances, answered as AWS answers them."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from moto.core.responses import ActionResult
from moto.core.types import Base64EncodedString
from moto.core.utils import utcnow
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.amis import Ami
from moto.ec2.responses.amis import AmisResponse
from moto.ec2.responses.general import General
from moto.ec2.responses.instances import InstanceResponse
from moto.ec2.utils import convert_tag_spec, random_ami_id

from mesaform.localcloud.moto_patches import launch, spot_role, states, vcpu_quota
from mesaform.localcloud.moto_patches.moto_types import (
    Ec2Backend,
    Ec2Response,
    Image,
    Parameters,
    PatchedInstance,
    Reservation,
    instances_of,
)
from mesaform.localcloud.moto_patches.tokens import execute_once
from mesaform.localcloud.protocol import Event

CONSOLE_BYTES = 64 * 1024
"""How much of the end of a console log EC2 returns."""
_moto_register_image = AmisResponse.register_image
_moto_instance_status = InstanceResponse.describe_instance_status


class Consoles:
    """The folder with the machines' console logs; set by the endpoint's composition."""

    machines = Path(os.devnull)


def _run_instances(self: Ec2Response) -> ActionResult:
    request = dict(self.params)
    if request.get("NetworkInterfaces") and request.get("SubnetId"):
        raise EC2ClientError(
            "InvalidParameterCombination",
            "Network interfaces and an instance-level subnet ID may not be specified "
            "on the same request",
        )
    backend = self.ec2_backend
    if self._get_param("DryRun", False):
        launch.require_launchable(backend, launch.resolve(backend, request))
        self.error_on_dryrun()
    spot_role.require(self, is_spot=launch.lifecycle(launch.resolve(backend, request)) == "spot")
    return ActionResult(
        execute_once(backend, "RunInstances", request, lambda: _run(backend, request))
    )


def _run(backend: Ec2Backend, request: Parameters) -> Reservation:
    spec = launch.resolve(backend, request)
    zone = launch.place(backend, spec)
    launch.require_capacity(spec, zone)
    count = int(request.get("MaxCount") or request.get("MinCount") or 1)
    vcpu_quota.require(backend, spec, count)
    return launch.launch(backend, spec, count, zone)


def _console_output(self: Ec2Response) -> ActionResult:
    instance = self.ec2_backend.get_instance(self._get_param("InstanceId"))
    text = b""
    path = Consoles.machines / instance.id / "console.log"
    if path.exists():
        with path.open("rb") as source:
            source.seek(max(0, path.stat().st_size - CONSOLE_BYTES))
            text = source.read()
    output = Base64EncodedString.from_raw_string(text.decode(errors="replace"))
    return ActionResult({"InstanceId": instance.id, "Timestamp": utcnow(), "Output": output})


def _create_image(self: Ec2Response) -> ActionResult:
    self.error_on_dryrun()
    request = dict(self.params)
    backend = self.ec2_backend
    instance = backend.get_instance(request.get("InstanceId"))
    name = request.get("Name")
    if any(image.name == name for image in backend.amis.values()):
        raise EC2ClientError("InvalidAMIName.Duplicate", f"AMI name {name} is already in use.")
    if instance.state not in {"running", "stopped", "stopping"}:
        raise EC2ClientError(
            "IncorrectState",
            f"Instance '{instance.id}' is not in a state from which an image can be made: "
            f"{instance.state}",
        )
    image = _pending_image(backend, instance, request)
    backend.amis[image.id] = image
    return ActionResult({"ImageId": image.id})


def _pending_image(backend: Ec2Backend, instance: PatchedInstance, request: Parameters) -> Image:
    source = backend.amis.get(instance.image_id)
    image: Image = Ami(
        backend,
        random_ami_id(),
        instance=instance,
        name=request.get("Name"),
        description=request.get("Description") or "",
        state="pending",
        root_device_type="ebs",
        root_device_name=instance.root_device_name,
        region_name=instance.placement.zone,
        snapshot_description=f"Created by CreateImage({instance.id})",
    )
    image.architecture = source.architecture if source else instance.architecture
    tags = convert_tag_spec(request.get("TagSpecifications") or [])
    image.add_tags(tags.get("image", {}))
    image.ebs_snapshot.add_tags(tags.get("snapshot", {}))
    image.copied_from = (instance.id, instance.image_id)
    return image


def _register_image(self: Ec2Response) -> ActionResult:
    """Register with the architecture and root device, which moto drops. It has nothing to boot."""
    answer = _moto_register_image(self)
    image = self.ec2_backend.amis[answer.result["ImageId"]]
    image.architecture = self._get_param("Architecture") or "i386"
    image.root_device_name = self._get_param("RootDeviceName") or image.root_device_name
    return answer


def _instance_status(self: Ec2Response) -> ActionResult:
    """Add the filter `event.code`, which moto lacks: instances with such scheduled events."""
    codes = self._filters_from_querystring().get("event.code")
    if codes is None:
        return _moto_instance_status(self)
    statuses = []
    for _, instance in instances_of([self.ec2_backend]):
        events = [event for event in states.events(instance) if event.code in codes]
        if events and instance.state == "running":
            statuses.append(
                {
                    "InstanceId": instance.id,
                    "AvailabilityZone": instance.placement.zone,
                    "Events": [_event(event) for event in events],
                }
            )
    return ActionResult({"InstanceStatuses": statuses})


def _event(event: Event) -> Parameters:
    at = datetime.fromtimestamp(event.at, UTC)
    return {
        "InstanceEventId": event.id,
        "Code": event.code,
        "Description": f"scheduled {event.code}",
        "NotBefore": at,
        "NotAfter": at,
    }


def apply() -> None:
    """Patch moto in this process."""
    InstanceResponse.describe_instance_status = _instance_status
    InstanceResponse.run_instances = _run_instances
    General.get_console_output = _console_output
    AmisResponse.create_image = _create_image
    AmisResponse.register_image = _register_image
