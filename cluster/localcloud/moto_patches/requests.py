"""EC2's calls that launch, end, inspect or image instances, answered the way AWS answers them."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from moto.core.responses import ActionResult
from moto.core.types import Base64EncodedString
from moto.core.utils import utcnow
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.amis import Ami
from moto.ec2.responses.amis import AmisResponse
from moto.ec2.responses.general import General
from moto.ec2.responses.instances import InstanceResponse
from moto.ec2.utils import convert_tag_spec, random_ami_id

from mesaform.localcloud.moto_patches import launch
from mesaform.localcloud.moto_patches.tokens import once

CONSOLE_BYTES = 64 * 1024
_status_of_moto = InstanceResponse.describe_instance_status


class Consoles:
    """Where console logs are, put here by the endpoint's composition."""

    machines = Path(os.devnull)


def _run_instances(self: Any) -> ActionResult:
    self.error_on_dryrun()
    request = dict(self.params)
    if request.get("NetworkInterfaces") and request.get("SubnetId"):
        raise EC2ClientError(
            "InvalidParameterCombination",
            "Network interfaces and an instance-level subnet ID may not be specified on the same request",
        )
    return ActionResult(
        once(self.ec2_backend, "RunInstances", request, lambda: _run(self.ec2_backend, request))
    )


def _run(backend: Any, request: dict[str, Any]) -> Any:
    spec = launch.resolve(backend, request)
    zone = launch.place(backend, spec)
    launch.require_capacity(spec, zone)
    return launch.launch(
        backend, spec, int(request.get("MaxCount") or request.get("MinCount") or 1), zone
    )


def _console_output(self: Any) -> ActionResult:
    instance = self.ec2_backend.get_instance(self._get_param("InstanceId"))
    text = b""
    path = Consoles.machines / instance.id / "console.log"
    if path.exists():
        with path.open("rb") as source:
            source.seek(max(0, path.stat().st_size - CONSOLE_BYTES))
            text = source.read()
    output = Base64EncodedString.from_raw_string(text.decode(errors="replace"))
    return ActionResult({"InstanceId": instance.id, "Timestamp": utcnow(), "Output": output})


def _create_image(self: Any) -> ActionResult:
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
            f"Instance '{instance.id}' is not in a state from which an image can be made: {instance.state}",
        )
    source = backend.amis.get(instance.image_id)
    image = Ami(
        backend,
        random_ami_id(),
        instance=instance,
        name=name,
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
    backend.amis[image.id] = image
    return ActionResult({"ImageId": image.id})


def _instance_status(self: Any) -> ActionResult:
    """With the filter `event.code`, which moto does not know: the instances that have such scheduled events, and these."""
    codes = self._filters_from_querystring().get("event.code")
    if codes is None:
        return _status_of_moto(self)
    found = []
    for reservation in self.ec2_backend.reservations.values():
        for instance in reservation.instances:
            events = [event for event in getattr(instance, "events", ()) if event.code in codes]
            if events and instance.state == "running":
                found.append(
                    {
                        "InstanceId": instance.id,
                        "AvailabilityZone": instance.placement.zone,
                        "Events": [_event(event) for event in events],
                    }
                )
    return ActionResult({"InstanceStatuses": found})


def _event(event: Any) -> dict[str, Any]:
    at = datetime.fromtimestamp(event.at, UTC)
    return {
        "InstanceEventId": event.id,
        "Code": event.code,
        "Description": f"scheduled {event.code}",
        "NotBefore": at,
        "NotAfter": at,
    }


def apply() -> None:
    InstanceResponse.describe_instance_status = _instance_status
    InstanceResponse.run_instances = _run_instances
    General.get_console_output = _console_output
    AmisResponse.create_image = _create_image
