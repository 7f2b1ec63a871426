"""The parts of moto's objects that the local cloud uses, as protocols.

mypy does not follow moto's modules here; these types state what the patches rely on. Names and
attributes are moto's (5.2). Needs no moto.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from ipaddress import IPv4Network
from typing import Any, Protocol

Parameters = dict[str, Any]
"""A request's or an answer's parameters with AWS's names: a tree whose shape is in botocore's
service model, not in a Python type. User data in it may be moto's `Base64EncodedString`."""

MotoObject = Any
"""An object of moto's that is only passed on, or a method of moto's that a patch replaces."""

Tags = dict[str, str]


class State(Protocol):
    """An instance's state."""

    name: str
    code: int


class Placement(Protocol):
    """Where an instance is."""

    zone: str | None


class MetadataOptions(Protocol):
    """Settings of an instance's metadata service."""

    http_tokens: str
    http_put_response_hop_limit: int
    instance_metadata_tags: str


class UserData(Protocol):
    """moto's `Base64EncodedString`."""

    def as_bytes(self) -> bytes:
        """The base64 text."""
        ...


class Vpc(Protocol):
    """A VPC."""

    id: str
    cidr_block: str
    is_default: bool


class Subnet(Protocol):
    """A subnet. `last_address` is a patch's: the address handed out last, if any."""

    id: str
    vpc_id: str
    cidr: IPv4Network
    availability_zone: str
    default_for_az: bool
    map_public_ip_on_launch: bool
    ec2_backend: Ec2Backend
    last_address: str


class SecurityGroupRule(Protocol):
    """One rule: of one protocol, one range of ports and one source. Ports may be None."""

    ip_protocol: str | None
    from_port: int | None
    to_port: int | None
    source_group: Mapping[str, str]

    @property
    def cidr_ipv4(self) -> str | None:
        """The source, if it is a network of IPv4."""
        ...


class SecurityGroupOfMoto(Protocol):
    """A security group."""

    id: str
    ingress_rules: list[SecurityGroupRule]


class NetworkInterface(Protocol):
    """A network interface."""

    subnet: Subnet
    private_ip_address: str
    private_ip_addresses: list[Parameters]
    public_ip: str | None
    public_ip_auto_assign: object
    delete_on_termination: bool
    group_set: list[SecurityGroupOfMoto]

    def add_tags(self, tags: Tags) -> None:
        """Add tags."""
        ...


class BlockDevice(Protocol):
    """A volume of an instance."""

    volume_id: str


class Instance(Protocol):
    """An instance. moto sets `state_reason` and `_reason` for the two forms of a reason."""

    id: str
    image_id: str
    instance_type: str
    architecture: str
    region_name: str
    root_device_name: str
    private_ip: str | None
    public_ip: str | None
    launch_time: datetime
    lifecycle: str | None
    instance_initiated_shutdown_behavior: str
    iam_instance_profile: Mapping[str, str] | None
    user_data: UserData | None
    metadata_options: MetadataOptions
    block_device_mapping: Mapping[str, BlockDevice]
    nics: dict[int, NetworkInterface]
    security_groups: list[SecurityGroupOfMoto]
    state_reason: object
    _state: State
    _reason: str
    _placement: Placement
    _subnet_id: str | None

    @property
    def state(self) -> str:
        """The state's name."""
        ...

    @property
    def placement(self) -> Placement:
        """Where it is."""
        ...

    def detach_eni(self, eni: NetworkInterface) -> None:
        """Detach an interface."""
        ...

    def stop(self) -> State:
        """Begin to stop; the previous state."""
        ...

    def reboot(self) -> None:
        """Begin to reboot."""
        ...


class PatchedInstance(Instance, Protocol):
    """An instance with the attributes that the patches add. Any of them may be missing.

    Attributes:
        boots: how often EC2 booted the instance.
        hard: it is killed without a chance to stop in order.
        ended_at: when it terminated, in seconds since the epoch.
        notice, announced, rebalance_at, events: see `protocol.Machine`; `announced` is the notice
            that was sent to the event bus.

    """

    boots: int
    hard: bool
    ended_at: float
    notice: object
    announced: object
    rebalance_at: float
    events: tuple[object, ...]


class Reservation(Protocol):
    """The instances of one launch."""

    id: str
    instances: list[PatchedInstance]


class Snapshot(Protocol):
    """An image's snapshot."""

    def add_tags(self, tags: Tags) -> None:
        """Add tags."""
        ...


class Image(Protocol):
    """An image. `copied_from` is a patch's: the instance and the image of a pending copy."""

    id: str
    name: str
    state: str
    architecture: str
    root_device_name: str
    ebs_snapshot: Snapshot
    copied_from: tuple[str, str]

    def add_tags(self, tags: Tags) -> None:
        """Add tags."""
        ...


class LaunchTemplate(Protocol):
    """A launch template."""

    id: str

    def get_version(self, number: str) -> LaunchTemplateVersion:
        """One of its versions; `$Default` and `$Latest` are names."""
        ...


class LaunchTemplateVersion(Protocol):
    """One version of a launch template."""

    number: int
    template: LaunchTemplate
    data: Parameters


class VolumeAttachment(Protocol):
    """An attachment of a volume."""

    instance: Instance
    device: str


class Volume(Protocol):
    """A volume. Of its attachment there is one at most."""

    id: str
    attachment: VolumeAttachment | None
    availability_zone: str | None

    def add_tags(self, tags: Tags) -> None:
        """Add tags."""
        ...


class Zone(Protocol):
    """An availability zone."""

    name: str


class Profile(Protocol):
    """An instance profile."""

    id: str
    name: str
    arn: str
    roles: list[Role]


class Role(Protocol):
    """An IAM role."""

    id: str
    name: str
    arn: str


class Ec2Backend(Protocol):
    """EC2 of one account and region."""

    account_id: str
    region_name: str
    partition: str
    reservations: dict[str, Reservation]
    amis: dict[str, Image]
    deleted_amis: list[str]
    tags: dict[str, Tags]
    volumes: dict[str, Volume]
    enis: dict[str, NetworkInterface]
    vpcs: dict[str, Vpc]
    default_vpc: Vpc
    # moto's own signatures, with more parameters than are used here:
    get_instance: Callable[..., PatchedInstance]
    get_subnet: Callable[..., Subnet]
    get_network_interface: Callable[..., NetworkInterface]
    get_launch_template: Callable[..., LaunchTemplate]
    get_launch_template_by_name: Callable[..., LaunchTemplate]
    get_default_subnets: Callable[[], dict[str, Subnet]]
    get_security_group_by_name_or_id: Callable[..., object | None]
    run_instances: Callable[..., Reservation]
    associate_iam_instance_profile: Callable[..., object]
    iam_instance_profile_associations: dict[str, Any]
    create_volume: Callable[..., Volume]
    attach_volume: Callable[..., object]
    detach_volume: Callable[..., object]
    get_volume: Callable[[str], Volume]
    create_vpc: Callable[..., Vpc]
    create_default_vpc: Callable[[], Vpc]
    create_subnet: Callable[..., Subnet]
    delete_subnet: Callable[..., object]
    describe_subnets: Callable[..., list[Subnet]]
    describe_availability_zones: Callable[..., list[Zone]]
    describe_regions: Callable[..., list[Any]]
    create_internet_gateway: Callable[..., Any]
    attach_internet_gateway: Callable[..., object]
    route_tables: dict[str, Any]
    create_route: Callable[..., object]
    describe_spot_price_history: Callable[..., list[Parameters]]


class UserAccessKey(Protocol):
    """An access key of an IAM user."""

    access_key_id: str
    secret_access_key: str


class User(Protocol):
    """An IAM user."""

    access_keys: list[UserAccessKey]


class IamBackend(Protocol):
    """IAM of one account. `roles` by their ids."""

    users: dict[str, User]
    roles: dict[str, Role]

    def get_instance_profiles(self) -> Iterable[Profile]:
        """All instance profiles."""
        ...


class AssumedRole(Protocol):
    """The credentials of a role's session. `machines` sets `role_id`, which moto does not have."""

    role_arn: str
    role_id: str
    access_key_id: str
    secret_access_key: str
    session_token: str
    expiration: datetime


class StsBackend(Protocol):
    """STS of one account."""

    assumed_roles: list[AssumedRole]
    assume_role: Callable[..., AssumedRole]


class EventsBackend(Protocol):
    """EventBridge of one account and region."""

    def put_events(self, events: list[Parameters]) -> object:
        """Match events against the rules and deliver them."""
        ...


class Rule(Protocol):
    """An EventBridge rule."""

    name: str
    arn: str
    account_id: str
    region_name: str


class Ec2Response(Protocol):
    """The handler of one EC2 request."""

    params: Parameters
    ec2_backend: Ec2Backend

    def error_on_dryrun(self) -> None:
        """Raise EC2's `DryRunOperation` when the request asks for a dry run."""
        ...

    get_access_key: Callable[[], str]
    _get_param: Callable[..., Any]
    _filters_from_querystring: Callable[[], dict[str, list[str]]]


def instances_of(backends: Iterable[Ec2Backend]) -> Iterator[tuple[Ec2Backend, PatchedInstance]]:
    """Every instance with its backend, terminated ones included."""
    for backend in backends:
        for reservation in backend.reservations.values():
            for instance in reservation.instances:
                yield backend, instance
