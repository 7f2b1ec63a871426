"""EC2's instances as the hypervisor needs them, and its reports as EC2's state.

The caller holds the endpoint's lock.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from moto.ec2.models.instance_types import INSTANCE_TYPES

from mesaform.common.errors import BadInput
from mesaform.localcloud import security_groups, timestamps
from mesaform.localcloud.announcing import Bus
from mesaform.localcloud.faults import Due, Rebalance, Scheduled, SpotInterruption
from mesaform.localcloud.moto_patches import profiles, states, volumes
from mesaform.localcloud.moto_patches.moto_types import (
    Ec2Backend,
    IamBackend,
    PatchedInstance,
    StsBackend,
    Vpc,
    instances_of,
)
from mesaform.localcloud.protocol import (
    Credentials,
    Event,
    Machine,
    Notice,
    PendingImage,
    StateReport,
    World,
)

SPOT_INTERRUPTED = (
    "Server.SpotInstanceTermination",
    "Server.SpotInstanceTermination: Spot instance termination",
)
RETIRED = ("Server.ScheduledStop", "Server.ScheduledStop: Stopped due to a scheduled retirement")
ZONE_OUT = ("Server.InternalError", "Server.InternalError: the availability zone lost power")
CREDENTIALS_S = 6 * 3600
"""How long a role's credentials are valid: EC2 gives them for six hours."""
UNKNOWN_TYPE = (1, 1024)
"""vCPUs and MiB of an instance type that moto does not list."""


class Ec2:
    """EC2 of all accounts and regions."""

    def __init__(
        self,
        ec2_backends: Mapping[str, Mapping[str, Ec2Backend]],
        iam_backends: Mapping[str, Mapping[str, IamBackend]],
        sts_backends: Mapping[str, Mapping[str, StsBackend]],
        bus: Bus,
    ) -> None:
        self.bus = bus
        self._ec2 = ec2_backends
        self._iam = iam_backends
        self._sts = sts_backends

    def _backends(self) -> Iterator[Ec2Backend]:
        for regions in list(self._ec2.values()):
            yield from list(regions.values())

    def _instances(self) -> Iterator[tuple[Ec2Backend, PatchedInstance]]:
        return instances_of(self._backends())

    def _find(self, instance_id: str) -> tuple[Ec2Backend, PatchedInstance]:
        for backend, instance in self._instances():
            if instance.id == instance_id:
                return backend, instance
        raise LookupError(f"no instance {instance_id}")

    def world(self, version: str, boot_delay_s: float, *, is_complete: bool) -> World:
        """Everything that the hypervisor makes true."""
        listed = list(self._instances())
        return World(
            version=version,
            machines=tuple(
                _machine(backend, instance)
                for backend, instance in listed
                if instance.state != "terminated"
            ),
            known=tuple(instance.id for _, instance in listed),
            images=self._pending_images(),
            deregistered=tuple(
                image_id for backend in self._backends() for image_id in backend.deleted_amis
            ),
            boot_delay_s=boot_delay_s,
            is_complete=is_complete,
            volumes=self._volumes(),
            groups=security_groups.described(instance for _, instance in listed),
        )

    def _volumes(self) -> tuple[str, ...]:
        return tuple(volume_id for backend in self._backends() for volume_id in backend.volumes)

    def _pending_images(self) -> tuple[PendingImage, ...]:
        return tuple(
            PendingImage(image.id, *image.copied_from)
            for backend in self._backends()
            for image in backend.amis.values()
            if image.state == "pending"
        )

    def apply_report(self, instance_id: str, report: StateReport) -> bool:
        """Set an instance's state as the hypervisor reports it; whether that changed anything.

        Raises:
            LookupError: there is no such instance.

        """
        _, instance = self._find(instance_id)
        return states.apply_report(instance, report)

    def apply_image_report(self, image_id: str, state: str) -> bool:
        """Set a pending image's state; whether there is such an image."""
        for backend in self._backends():
            image = backend.amis.get(image_id)
            if image is not None and image.state == "pending":
                image.state = state
                return True
        return False

    def credentials(self, instance_id: str) -> Credentials:
        """Credentials of the role in the instance's profile, valid for `CREDENTIALS_S`.

        Raises:
            LookupError: there is no such instance, or it has no role.

        """
        backend, instance = self._find(instance_id)
        reference = instance.iam_instance_profile
        if not reference:
            raise LookupError(f"{instance_id} has no instance profile")
        iam = self._iam[backend.account_id][backend.partition]
        profile = profiles.find_associated(iam, reference)
        if not profile.roles:
            raise LookupError(f"instance profile {profile.name} has no role")
        role = profile.roles[0]
        session = self._sts[backend.account_id][backend.partition].assume_role(
            region_name=backend.region_name,
            role_session_name=instance_id,
            role_arn=role.arn,
            policy="",
            duration=CREDENTIALS_S,
            external_id="",
        )
        session.role_id = role.id
        return Credentials(
            access_key_id=session.access_key_id,
            secret_access_key=session.secret_access_key,
            session_token=session.session_token,
            expires_at=timestamps.seconds(session.expiration),
            role_name=role.name,
        )

    def require_spot(self, instance_id: str) -> None:
        """Check that an instance can be interrupted.

        Raises:
            LookupError: there is no such instance.
            BadInput: it is not a spot instance.

        """
        _, instance = self._find(instance_id)
        if instance.lifecycle != "spot":
            raise BadInput(
                f"{instance_id} is not a spot instance; only those are interrupted",
                where="instance_id",
            )

    def announce(self, announcement: Due) -> bool:
        """Announce once what will happen to an instance, and do it when it is due.

        Returns whether anything changed.
        """
        fault, at = announcement.fault, announcement.at
        try:
            backend, instance = self._find(fault.instance_id)
        except LookupError:
            return False
        if isinstance(fault, SpotInterruption):
            if announcement.is_due:
                previous = states.end(instance, *SPOT_INTERRUPTED)
                return previous.name not in {"terminated", "shutting-down"}
            return self._announce_interruption(backend, instance, fault, Notice("terminate", at))
        if isinstance(fault, Rebalance):
            return self._recommend_rebalance(backend, instance, fault, at)
        event = Event(announcement.id, fault.code, at)
        if announcement.is_due:
            return _execute_event(instance, event)
        return self._schedule(backend, instance, fault, event)

    def _announce_interruption(
        self,
        backend: Ec2Backend,
        instance: PatchedInstance,
        fault: SpotInterruption,
        notice: Notice,
    ) -> bool:
        if getattr(instance, "announced", None) == notice:
            return False
        instance.announced = notice
        if fault.via != "queue":
            instance.notice = notice
        if fault.via != "metadata":
            self.bus.interruption(backend, instance.id, notice)
        return True

    def _recommend_rebalance(
        self, backend: Ec2Backend, instance: PatchedInstance, fault: Rebalance, at: float
    ) -> bool:
        if fault.via != "queue":
            instance.rebalance_at = at
        if fault.via != "metadata":
            self.bus.rebalance(backend, instance.id)
        return True

    def _schedule(
        self, backend: Ec2Backend, instance: PatchedInstance, fault: Scheduled, event: Event
    ) -> bool:
        known = states.events(instance)
        if event in known:
            return False
        instance.events = (*known, event)
        if fault.via != "metadata":
            self.bus.scheduled(backend, instance.id, event)
        return True

    def states(self) -> dict[str, tuple[Ec2Backend, str]]:
        """Each instance's backend and state, by instance id."""
        return {instance.id: (backend, instance.state) for backend, instance in self._instances()}

    def kill_zones(self, zones: set[str]) -> bool:
        """End the instances in these zones without a chance to stop; whether there are any."""
        has_changed = False
        for _, instance in self._instances() if zones else ():
            is_up = instance.state in {"pending", "running", "stopping"}
            if instance.placement.zone in zones and is_up:
                states.end(instance, *ZONE_OUT, hard=True)
                has_changed = True
        return has_changed

    def forget_ended(self, now: float) -> bool:
        """Remove the instances that ended long ago; whether there are any."""
        return any(states.forget_ended(backend, now) for backend in self._backends())


def _machine(backend: Ec2Backend, instance: PatchedInstance) -> Machine:
    profile = instance.iam_instance_profile or {}
    options = instance.metadata_options
    vcpus, mem_mib = _size(instance.instance_type)
    is_spot = instance.lifecycle == "spot"
    vpc = _vpc(backend, instance)
    shows_tags = options.instance_metadata_tags == "enabled"
    return Machine(
        instance_id=instance.id,
        image_id=instance.image_id,
        instance_type=instance.instance_type,
        account_id=backend.account_id,
        region=backend.region_name,
        zone=_text(instance.placement.zone),
        address=_text(instance.private_ip),
        public_address=_text(instance.public_ip),
        state=instance.state,
        boots=states.boots(instance),
        hard=bool(getattr(instance, "hard", False)),
        launched_at=timestamps.seconds(instance.launch_time),
        vcpus=vcpus,
        mem_mib=mem_mib,
        user_data=instance.user_data.as_bytes().decode() if instance.user_data else "",
        profile_arn=profile.get("Arn", ""),
        profile_id=profile.get("Id", ""),
        lifecycle=instance.lifecycle or "on-demand",
        shutdown_behavior="terminate" if is_spot else instance.instance_initiated_shutdown_behavior,
        tokens_required=options.http_tokens == "required",
        metadata_tags=dict(backend.tags.get(instance.id, {})) if shows_tags else {},
        notice=getattr(instance, "notice", None),
        rebalance_at=getattr(instance, "rebalance_at", 0.0),
        events=states.events(instance),
        volumes=volumes.data_volumes(instance),
        vpc_id=vpc.id if vpc else "",
        vpc_cidr=vpc.cidr_block if vpc else "",
        groups=security_groups.groups_of(instance),
        hop_limit=getattr(options, "http_put_response_hop_limit", 1),
    )


def _vpc(backend: Ec2Backend, instance: PatchedInstance) -> Vpc | None:
    """The VPC of the instance's first interface."""
    first = instance.nics.get(0)
    return backend.vpcs.get(first.subnet.vpc_id) if first else None


def _text(value: str | None) -> str:
    return value or ""


def _size(instance_type: str) -> tuple[int, int]:
    """VCPUs and MiB of memory of an instance type."""
    described = INSTANCE_TYPES.get(instance_type)
    if not described:
        return UNKNOWN_TYPE
    return described["VCpuInfo"]["DefaultVCpus"], described["MemoryInfo"]["SizeInMiB"]


def _execute_event(instance: PatchedInstance, event: Event) -> bool:
    """Do what a scheduled event is for, and take it off the list."""
    instance.events = tuple(other for other in states.events(instance) if other.id != event.id)
    if instance.state != "running":
        return True
    if event.code == "instance-retirement":
        states.end(instance, *RETIRED)
    elif event.code == "instance-stop":
        instance.stop()
    else:
        instance.reboot()
    return True
