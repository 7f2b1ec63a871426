"""The v1 messages about containers: images, volumes, networks, Linux settings and secrets.

Shapes are from include/mesos/v1/mesos.proto of Apache Mesos. The embedded engine runs few of these;
`engine.validation.support` lists what it refuses. Depends on `values`.
"""

# ruff: noqa: RUF012  (msgspec copies mutable defaults)

from __future__ import annotations

from typing import Literal

from mesaform.mesos.values import (
    ContainerId,
    Labels,
    Message,
    Parameter,
    Parameters,
    UInt32,
    UInt64,
)

IpProtocol = Literal["IPv4", "IPv6"]


class SecretReference(Message, frozen=True, kw_only=True):
    name: str
    key: str | None = None


class SecretValue(Message, frozen=True, kw_only=True):
    data: bytes


class Secret(Message, frozen=True, kw_only=True):
    type: Literal["UNKNOWN", "REFERENCE", "VALUE"] | None = None
    reference: SecretReference | None = None
    value: SecretValue | None = None


class Credential(Message, frozen=True, kw_only=True):
    principal: str
    secret: str | None = None


class AppcImage(Message, frozen=True, kw_only=True):
    name: str
    id: str | None = None
    labels: Labels | None = None


class DockerImage(Message, frozen=True, kw_only=True):
    name: str
    credential: Credential | None = None
    config: Secret | None = None


class Image(Message, frozen=True, kw_only=True):
    type: Literal["APPC", "DOCKER"]
    appc: AppcImage | None = None
    docker: DockerImage | None = None
    cached: bool | None = None


class DockerVolume(Message, frozen=True, kw_only=True):
    driver: str | None = None
    name: str
    driver_options: Parameters | None = None


class MountPropagation(Message, frozen=True, kw_only=True):
    mode: Literal["UNKNOWN", "HOST_TO_CONTAINER", "BIDIRECTIONAL"] | None = None


class HostPath(Message, frozen=True, kw_only=True):
    path: str
    mount_propagation: MountPropagation | None = None


class SandboxPath(Message, frozen=True, kw_only=True):
    type: Literal["UNKNOWN", "SELF", "PARENT"] | None = None
    path: str


class BlockVolume(Message, frozen=True, kw_only=True):
    """A CSI volume that is a block device."""


class MountVolume(Message, frozen=True, kw_only=True):
    """A CSI volume with a file system."""

    fs_type: str | None = None
    mount_flags: list[str] = []


class CsiAccessMode(Message, frozen=True, kw_only=True):
    mode: Literal[
        "UNKNOWN",
        "SINGLE_NODE_WRITER",
        "SINGLE_NODE_READER_ONLY",
        "MULTI_NODE_READER_ONLY",
        "MULTI_NODE_SINGLE_WRITER",
        "MULTI_NODE_MULTI_WRITER",
    ]


class CsiVolumeCapability(Message, frozen=True, kw_only=True):
    block: BlockVolume | None = None
    mount: MountVolume | None = None
    access_mode: CsiAccessMode


class CsiStaticProvisioning(Message, frozen=True, kw_only=True):
    volume_id: str
    volume_capability: CsiVolumeCapability
    node_stage_secrets: dict[str, Secret] = {}
    node_publish_secrets: dict[str, Secret] = {}
    volume_context: dict[str, str] = {}


class CsiVolume(Message, frozen=True, kw_only=True):
    plugin_name: str
    static_provisioning: CsiStaticProvisioning | None = None


VolumeSourceType = Literal[
    "UNKNOWN", "DOCKER_VOLUME", "HOST_PATH", "SANDBOX_PATH", "SECRET", "CSI_VOLUME"
]


class VolumeSource(Message, frozen=True, kw_only=True):
    """Where a volume comes from; `type` names the field that is set."""

    type: VolumeSourceType | None = None
    docker_volume: DockerVolume | None = None
    host_path: HostPath | None = None
    sandbox_path: SandboxPath | None = None
    secret: Secret | None = None
    csi_volume: CsiVolume | None = None


class Volume(Message, frozen=True, kw_only=True):
    mode: Literal["RW", "RO"]
    container_path: str
    host_path: str | None = None
    image: Image | None = None
    source: VolumeSource | None = None


class IpAddress(Message, frozen=True, kw_only=True):
    protocol: IpProtocol | None = None
    ip_address: str | None = None


class PortMapping(Message, frozen=True, kw_only=True):
    host_port: UInt32
    container_port: UInt32
    protocol: str | None = None


class NetworkInfo(Message, frozen=True, kw_only=True):
    ip_addresses: list[IpAddress] = []
    name: str | None = None
    groups: list[str] = []
    labels: Labels | None = None
    port_mappings: list[PortMapping] = []


LinuxCapability = Literal[
    "UNKNOWN", "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID",
    "SETUID", "SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN",
    "NET_RAW", "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE",
    "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME",
    "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE",
    "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
]  # fmt: skip


class CapabilityInfo(Message, frozen=True, kw_only=True):
    capabilities: list[LinuxCapability] = []


class SeccompInfo(Message, frozen=True, kw_only=True):
    profile_name: str | None = None
    unconfined: bool | None = None


class LinuxInfo(Message, frozen=True, kw_only=True):
    capability_info: CapabilityInfo | None = None
    bounding_capabilities: CapabilityInfo | None = None
    effective_capabilities: CapabilityInfo | None = None
    share_pid_namespace: bool | None = None
    seccomp: SeccompInfo | None = None
    ipc_mode: Literal["UNKNOWN", "PRIVATE", "SHARE_PARENT"] | None = None
    shm_size: UInt32 | None = None
    share_cgroups: bool | None = None


LimitType = Literal[
    "UNKNOWN", "RLMT_AS", "RLMT_CORE", "RLMT_CPU", "RLMT_DATA", "RLMT_FSIZE", "RLMT_LOCKS",
    "RLMT_MEMLOCK", "RLMT_MSGQUEUE", "RLMT_NICE", "RLMT_NOFILE", "RLMT_NPROC", "RLMT_RSS",
    "RLMT_RTPRIO", "RLMT_RTTIME", "RLMT_SIGPENDING", "RLMT_STACK",
]  # fmt: skip


class ProcessLimit(Message, frozen=True, kw_only=True):
    type: LimitType | None = None
    hard: UInt64 | None = None
    soft: UInt64 | None = None


class ProcessLimits(Message, frozen=True, kw_only=True):
    rlimits: list[ProcessLimit] = []


class WindowSize(Message, frozen=True, kw_only=True):
    rows: UInt32
    columns: UInt32


class TerminalInfo(Message, frozen=True, kw_only=True):
    window_size: WindowSize | None = None


class DockerInfo(Message, frozen=True, kw_only=True):
    image: str
    network: Literal["HOST", "BRIDGE", "NONE", "USER"] | None = None
    port_mappings: list[PortMapping] = []
    privileged: bool | None = None
    parameters: list[Parameter] = []
    force_pull_image: bool | None = None
    volume_driver: str | None = None


class MesosInfo(Message, frozen=True, kw_only=True):
    image: Image | None = None


class ContainerInfo(Message, frozen=True, kw_only=True):
    """How a task is isolated. `type` is the containerizer."""

    type: Literal["DOCKER", "MESOS"]
    volumes: list[Volume] = []
    hostname: str | None = None
    docker: DockerInfo | None = None
    mesos: MesosInfo | None = None
    network_infos: list[NetworkInfo] = []
    linux_info: LinuxInfo | None = None
    rlimit_info: ProcessLimits | None = None
    tty_info: TerminalInfo | None = None


class ContainerStatus(Message, frozen=True, kw_only=True):
    """The container of a task that runs, as in TaskStatus."""

    container_id: ContainerId | None = None
    network_infos: list[NetworkInfo] = []
    executor_pid: UInt32 | None = None
