"""EC2's instances as the hypervisor needs them, and the hypervisor's word turned into EC2's state. Callers hold the lock."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from moto.ec2.models.instance_types import INSTANCE_TYPES

from mesaform.common.errors import BadInput
from mesaform.localcloud.announcing import Bus
from mesaform.localcloud.faults import Rebalance, Scheduled, SpotInterruption
from mesaform.localcloud.moto_patches import states
from mesaform.localcloud.protocol import (
    Credentials,
    Event,
    Machine,
    Notice,
    PendingImage,
    StateReport,
    World,
)

SPOT_ENDED = (
    "Server.SpotInstanceTermination",
    "Server.SpotInstanceTermination: Spot instance termination",
)
RETIRED = ("Server.ScheduledStop", "Server.ScheduledStop: Stopped due to a scheduled retirement")
ZONE_ENDED = ("Server.InternalError", "Server.InternalError: the availability zone lost power")
CREDENTIALS_S = 6 * 3600


class Ec2:
    """All regions and accounts of moto's EC2."""

    def __init__(self, ec2_backends: Any, iam_backends: Any, sts_backends: Any, bus: Bus) -> None:
        self.bus = bus
        self._ec2 = ec2_backends
        self._iam = iam_backends
        self._sts = sts_backends

    def _backends(self) -> Iterator[Any]:
        for regions in list(self._ec2.values()):
            yield from list(regions.values())

    def _instances(self) -> Iterator[tuple[Any, Any]]:
        for backend in self._backends():
            for reservation in backend.reservations.values():
                for instance in reservation.instances:
                    yield backend, instance

    def _find(self, instance_id: str) -> tuple[Any, Any]:
        for backend, instance in self._instances():
            if instance.id == instance_id:
                return backend, instance
        raise LookupError(f"no instance {instance_id}")

    def world(self, version: str, boot_delay_s: float) -> World:
        everything = list(self._instances())
        return World(
            version=version,
            machines=tuple(
                self._machine(backend, instance)
                for backend, instance in everything
                if instance.state != "terminated"
            ),
            known=tuple(instance.id for _, instance in everything),
            images=tuple(
                PendingImage(image.id, *image.copied_from)
                for backend in self._backends()
                for image in backend.amis.values()
                if image.state == "pending"
            ),
            deregistered=tuple(
                image_id for backend in self._backends() for image_id in backend.deleted_amis
            ),
            boot_delay_s=boot_delay_s,
        )

    def _machine(self, backend: Any, instance: Any) -> Machine:
        kind = INSTANCE_TYPES.get(instance.instance_type)
        profile = instance.iam_instance_profile or {}
        return Machine(
            instance_id=instance.id,
            image_id=instance.image_id,
            instance_type=instance.instance_type,
            account_id=backend.account_id,
            region=backend.region_name,
            zone=instance.placement.zone or "",
            address=instance.private_ip or "",
            public_address=instance.public_ip or "",
            state=instance.state,
            boots=states.boots(instance),
            hard=bool(getattr(instance, "hard", False)),
            launched_at=instance.launch_time.timestamp(),
            vcpus=kind["VCpuInfo"]["DefaultVCpus"] if kind else 1,
            mem_mib=kind["MemoryInfo"]["SizeInMiB"] if kind else 1024,
            user_data=instance.user_data.as_bytes().decode() if instance.user_data else "",
            profile_arn=profile.get("Arn", ""),
            profile_id=profile.get("Id", ""),
            lifecycle=instance.lifecycle or "on-demand",
            shutdown_behavior="terminate"
            if instance.lifecycle == "spot"
            else instance.instance_initiated_shutdown_behavior,
            tokens_required=instance.metadata_options.http_tokens == "required",
            metadata_tags=dict(backend.tags.get(instance.id, {}))
            if instance.metadata_options.instance_metadata_tags == "enabled"
            else {},
            notice=getattr(instance, "notice", None),
            rebalance_at=getattr(instance, "rebalance_at", 0.0),
            events=getattr(instance, "events", ()),
        )

    def settle(self, instance_id: str, report: StateReport) -> bool:
        """Take the hypervisor's report; whether it changed anything."""
        _, instance = self._find(instance_id)
        return states.settle(instance, report.state, report.boots, report.code, report.message)

    def settle_image(self, image_id: str, state: str) -> bool:
        for backend in self._backends():
            image = backend.amis.get(image_id)
            if image is not None and image.state == "pending":
                image.state = state
                return True
        return False

    def credentials(self, instance_id: str) -> Credentials:
        """Credentials of the role in the instance's profile, good for six hours."""
        backend, instance = self._find(instance_id)
        profile = instance.iam_instance_profile
        if not profile:
            raise LookupError(f"{instance_id} has no instance profile")
        found = self._iam[backend.account_id][backend.partition].get_instance_profile_by_arn(
            profile["Arn"]
        )
        if not found.roles:
            raise LookupError(f"instance profile {found.name} has no role")
        role = found.roles[0]
        assumed = self._sts[backend.account_id][backend.partition].assume_role(
            region_name=backend.region_name,
            role_session_name=instance_id,
            role_arn=role.arn,
            policy="",
            duration=CREDENTIALS_S,
            external_id="",
        )
        return Credentials(
            access_key_id=assumed.access_key_id,
            secret_access_key=assumed.secret_access_key,
            session_token=assumed.session_token,
            expires_at=assumed.expiration.timestamp(),
            role_name=role.name,
        )

    def require_spot(self, instance_id: str) -> None:
        """Raise BadInput unless the instance exists and is a spot instance."""
        _, instance = self._find(instance_id)
        if instance.lifecycle != "spot":
            raise BadInput(
                f"{instance_id} is not a spot instance; only those are interrupted",
                where="instance_id",
            )

    def announce(
        self, fault: SpotInterruption | Rebalance | Scheduled, name: str, at: float, *, due: bool
    ) -> bool:
        """Tell what will happen to an instance, once, on the ways that the fault names; do it when it is due. Whether anything changed."""
        try:
            backend, instance = self._find(fault.instance_id)
        except LookupError:
            return False
        if isinstance(fault, SpotInterruption):
            return self._interrupt(backend, instance, fault, at, due=due)
        if isinstance(fault, Rebalance):
            if fault.via != "queue":
                instance.rebalance_at = at
            if fault.via != "metadata":
                self.bus.rebalance(backend, instance.id)
            return True
        return self._schedule(backend, instance, fault, Event(name, fault.code, at), due=due)

    def _interrupt(
        self, backend: Any, instance: Any, fault: SpotInterruption, at: float, *, due: bool
    ) -> bool:
        if due:
            return bool(
                states.end(instance, *SPOT_ENDED).name not in {"terminated", "shutting-down"}
            )
        notice = Notice("terminate", at)
        if getattr(instance, "announced", None) == notice:
            return False
        instance.announced = notice
        if fault.via != "queue":
            instance.notice = notice
        if fault.via != "metadata":
            self.bus.interruption(backend, instance.id, notice)
        return True

    def _schedule(
        self, backend: Any, instance: Any, fault: Scheduled, event: Event, *, due: bool
    ) -> bool:
        known = getattr(instance, "events", ())
        if due:
            instance.events = tuple(one for one in known if one.id != event.id)
            if instance.state == "running":
                _carry_out(instance, event.code)
            return True
        if event in known:
            return False
        instance.events = (*known, event)
        if fault.via != "metadata":
            self.bus.scheduled(backend, instance.id, event)
        return True

    def states(self) -> dict[str, tuple[Any, str]]:
        """Each instance's backend and state."""
        return {instance.id: (backend, instance.state) for backend, instance in self._instances()}

    def kill_zones(self, zones: set[str]) -> bool:
        """End, hard, whatever lives in the zones; whether anything did."""
        changed = False
        for _, instance in self._instances() if zones else ():
            if instance.placement.zone in zones and instance.state in {
                "pending",
                "running",
                "stopping",
            }:
                states.end(instance, *ZONE_ENDED, hard=True)
                changed = True
        return changed

    def forget_ended(self, now: float) -> bool:
        return any(states.forget_ended(backend, now) for backend in self._backends())


def _carry_out(instance: Any, code: str) -> None:
    """What a scheduled event does when its time has come."""
    if code == "instance-retirement":
        states.end(instance, *RETIRED)
    elif code == "instance-stop":
        instance.stop()
    else:
        instance.reboot()
