"""What the endpoint and the hypervisor tell each other, below `/_mesaform/` of the endpoint's address.

The endpoint owns what EC2 says; the hypervisor owns what runs. Neither keeps a copy of the other's truth beyond one answer.
"""

from __future__ import annotations

import msgspec

PREFIX = "/_mesaform"


class Notice(msgspec.Struct, frozen=True):
    """An interruption notice as IMDS shows it. `at` is the time of the action, seconds since the epoch."""

    action: str
    at: float


class Event(msgspec.Struct, frozen=True):
    """Something that EC2 will do to the instance at `at` (epoch s): `code` as DescribeInstanceStatus names it."""

    id: str
    code: str
    at: float


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """An instance that is not terminated, with all that booting it and its metadata service need."""

    instance_id: str
    image_id: str
    instance_type: str
    account_id: str
    region: str
    zone: str
    address: str
    public_address: str
    state: str
    boots: int  # how often it was told to boot; a higher number than the process tree's own means: boot again
    hard: bool  # to be killed without a chance to stop in order (its zone is out)
    launched_at: float
    vcpus: int
    mem_mib: int
    user_data: str  # base64
    profile_arn: str
    profile_id: str
    lifecycle: str  # on-demand | spot
    shutdown_behavior: str  # stop | terminate: what a shutdown from inside means
    tokens_required: bool
    metadata_tags: dict[str, str]
    notice: Notice | None
    rebalance_at: float = 0.0  # when it was advised to move its work; 0: it was not
    events: tuple[Event, ...] = ()


class PendingImage(msgspec.Struct, frozen=True):
    """An image to be copied from an instance."""

    image_id: str
    instance_id: str
    source_image_id: str


class World(msgspec.Struct, frozen=True):
    """What EC2 says. `version` grows with each change; `known` has every instance id still listed, terminated ones too."""

    version: str
    machines: tuple[Machine, ...]
    known: tuple[str, ...]
    images: tuple[PendingImage, ...]
    deregistered: tuple[str, ...]
    boot_delay_s: float

    def is_older_than(self, other: World) -> bool:
        """Whether the same endpoint process said `other` later."""
        session, _, sequence = self.version.partition("-")
        other_session, _, other_sequence = other.version.partition("-")
        return session == other_session and int(sequence) < int(other_sequence)


class StateReport(msgspec.Struct, frozen=True):
    """The hypervisor's word that an instance is now in `state`; `code` and `message` become its StateReason."""

    state: str
    boots: int
    code: str = ""
    message: str = ""


class Credentials(msgspec.Struct, frozen=True):
    access_key_id: str
    secret_access_key: str
    session_token: str
    expires_at: float
    role_name: str
