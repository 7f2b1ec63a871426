"""Rules for containers and volumes."""

from __future__ import annotations

from mesaform.mesos.containers import ContainerInfo, Volume, VolumeSource

_SOURCE_FIELDS = {
    "DOCKER_VOLUME": ("docker_volume", "DOCKER_VOLUME"),
    "HOST_PATH": ("host_path", "HOST_PATH"),
    "SANDBOX_PATH": ("sandbox_path", "SANDBOX_PATH"),
    "SECRET": ("secret", "SECRET"),
    "CSI_VOLUME": ("csi_volume", "CSI"),
}
"""For each type of a volume's source, the field that it requires and its name in errors."""


def invalid_container(container: ContainerInfo) -> str | None:
    """Why a container is malformed."""
    for volume in container.volumes:
        problem = invalid_volume(volume)
        if problem is not None:
            return f"Invalid volume: {problem}"
    if container.type == "DOCKER":
        if container.docker is None:
            return "DockerInfo 'docker' is not set for DOCKER typed ContainerInfo"
        if any(parameter.key == "name" for parameter in container.docker.parameters):
            return "Parameter in DockerInfo must not be 'name'"
    return None


def invalid_volume(volume: Volume) -> str | None:
    """Why a volume is malformed."""
    origins = (volume.host_path, volume.image, volume.source)
    if sum(origin is not None for origin in origins) != 1:
        return "Only one of them should be set: 'host_path', 'image' and 'source'"
    return None if volume.source is None else _invalid_source(volume.source)


def _invalid_source(source: VolumeSource) -> str | None:
    if source.type is None or source.type == "UNKNOWN":
        return "'source.type' is unknown"
    field, name = _SOURCE_FIELDS[source.type]
    if getattr(source, field) is None:
        return f"'source.{field}' is not set for {name} volume"
    csi = source.csi_volume if source.type == "CSI_VOLUME" else None
    if csi is not None and csi.static_provisioning is None:
        return "'source.csi_volume.static_provisioning' is not set for CSI volume"
    return None
