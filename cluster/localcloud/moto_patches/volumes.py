"""EC2's rules for the attachment of volumes, which moto does not check.

A volume has one instance at a time, in its own zone. Terminated instances release it
(`states.apply_report`). Errors: EC2 API reference, "Error codes".
"""

from __future__ import annotations

from moto.core.responses import ActionResult
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.responses.elastic_block_store import ElasticBlockStore

from mesaform.localcloud.moto_patches.moto_types import Ec2Backend, Ec2Response, PatchedInstance

_moto_attach_volume = ElasticBlockStore.attach_volume
ATTACHABLE = frozenset({"running", "stopping", "stopped"})


def data_volumes(instance: PatchedInstance) -> tuple[str, ...]:
    """The ids of an instance's volumes, without the root volume."""
    return tuple(
        mapped.volume_id
        for device, mapped in instance.block_device_mapping.items()
        if device != instance.root_device_name
    )


def _attach_volume(self: Ec2Response) -> ActionResult:
    _require_attachable(
        self.ec2_backend,
        self._get_param("VolumeId"),
        self._get_param("InstanceId"),
        self._get_param("Device"),
    )
    return _moto_attach_volume(self)


def _require_attachable(backend: Ec2Backend, volume_id: str, instance_id: str, device: str) -> None:
    volume, instance = backend.get_volume(volume_id), backend.get_instance(instance_id)
    if volume.attachment is not None:
        raise EC2ClientError("VolumeInUse", f"{volume_id} is already attached to an instance")
    if instance.state not in ATTACHABLE:
        raise EC2ClientError("IncorrectState", f"Instance '{instance_id}' is not 'running'.")
    if volume.availability_zone != instance.placement.zone:
        raise EC2ClientError(
            "InvalidVolume.ZoneMismatch",
            f"The volume '{volume_id}' is not in the same availability zone as instance"
            f" '{instance_id}'",
        )
    if device in instance.block_device_mapping:
        raise EC2ClientError(
            "InvalidParameterValue",
            f"Invalid value '{device}' for unixDevice. Attachment point {device} is already in use",
        )


def _detach_volume(self: Ec2Response) -> ActionResult:
    """Detach; the request need not name the instance."""
    self.error_on_dryrun()
    volume_id = self._get_param("VolumeId")
    attachment = self.ec2_backend.get_volume(volume_id).attachment
    if attachment is None:
        raise EC2ClientError("IncorrectState", f"Volume '{volume_id}' is in the 'available' state.")
    instance_id = self._get_param("InstanceId") or attachment.instance.id
    device = self._get_param("Device") or attachment.device
    self.ec2_backend.detach_volume(volume_id, instance_id, device)
    return ActionResult(
        {
            "VolumeId": volume_id,
            "InstanceId": instance_id,
            "Device": device,
            "State": "detaching",
        }
    )


def apply() -> None:
    """Patch moto in this process."""
    ElasticBlockStore.detach_volume = _detach_volume
    ElasticBlockStore.attach_volume = _attach_volume
