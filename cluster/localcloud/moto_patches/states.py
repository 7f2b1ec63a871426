"""The states of an instance: pending, running, shutting-down, terminated, stopping, stopped.

moto sets the final state at once. With these patches a call only asks for it; `apply_report` sets
it when the hypervisor reports it, and only then are interfaces and volumes released. A terminated
instance stays listed for an hour, without addresses, as on AWS.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable

from moto.core.utils import utcnow
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.instances import Instance, InstanceState, StateReason

from mesaform.localcloud.moto_patches.moto_types import Ec2Backend, PatchedInstance, State
from mesaform.localcloud.protocol import Event, StateReport

LISTED_AFTER_END_S = 3600.0
"""How long a terminated instance is listed; EC2's documentation says about an hour."""
CODES = {
    "pending": 0,
    "running": 16,
    "shutting-down": 32,
    "terminated": 48,
    "stopping": 64,
    "stopped": 80,
}
"""EC2's codes of the states (API reference, InstanceState)."""
USER_INITIATED = (
    "Client.UserInitiatedShutdown",
    "Client.UserInitiatedShutdown: User initiated shutdown",
)

_moto_terminate = Instance.terminate


def set_state(instance: PatchedInstance, name: str) -> None:
    """Set the state by its name."""
    instance._state = InstanceState(name, CODES[name])  # noqa: SLF001 - moto has no setter


def boots(instance: PatchedInstance) -> int:
    """How often EC2 booted the instance."""
    return int(getattr(instance, "boots", 1))


def events(instance: PatchedInstance) -> tuple[Event, ...]:
    """The instance's scheduled events."""
    return getattr(instance, "events", ())


def begin_pending(instance: PatchedInstance) -> None:
    """Set a new instance's state."""
    instance.boots = 1
    set_state(instance, "pending")


def _set_reason(instance: PatchedInstance, code: str, message: str) -> None:
    stamp = utcnow().strftime("%Y-%m-%d %H:%M:%S GMT")
    text = "User initiated" if code == USER_INITIATED[0] else code
    instance._reason = f"{text} ({stamp})"  # noqa: SLF001 - moto has no setter
    instance.state_reason = StateReason(message, code)


def _previous(instance: PatchedInstance) -> State:
    return copy.copy(instance._state)  # noqa: SLF001 - moto's own code reads it


def end(instance: PatchedInstance, code: str, message: str, *, hard: bool = False) -> State:
    """Ask for the instance's termination; the previous state. Idempotent."""
    previous = _previous(instance)
    if previous.name not in {"terminated", "shutting-down"}:
        instance.hard = hard
        _set_reason(instance, code, message)
        set_state(instance, "shutting-down")
    return previous


def _terminate(self: PatchedInstance) -> State:
    return end(self, *USER_INITIATED)


def _stop(self: PatchedInstance) -> State:
    previous = _previous(self)
    if previous.name in {"terminated", "shutting-down"}:
        raise EC2ClientError(
            "IncorrectInstanceState",
            f"This instance '{self.id}' is not in a state from which it can be stopped.",
        )
    if previous.name not in {"stopped", "stopping"}:
        _set_reason(self, *USER_INITIATED)
        set_state(self, "stopping")
    return previous


def _start(self: PatchedInstance) -> State:
    previous = _previous(self)
    if previous.name in {"pending", "running"}:
        return previous
    if previous.name != "stopped":
        raise EC2ClientError(
            "IncorrectInstanceState",
            f"The instance '{self.id}' is not in a state from which it can be started.",
        )
    self.boots = boots(self) + 1
    self._reason = ""
    self.state_reason = StateReason()
    set_state(self, "pending")
    return previous


def _reboot(self: PatchedInstance) -> None:
    if self.state != "running":
        raise EC2ClientError(
            "IncorrectInstanceState",
            f"The instance '{self.id}' is not in a state from which it can be rebooted.",
        )
    self.boots = boots(self) + 1


def apply_report(instance: PatchedInstance, report: StateReport) -> bool:
    """Set the state that the hypervisor reports; whether that changed anything.

    A report about an earlier boot, or after the termination, is ignored.
    """
    if not _is_current(instance, report):
        return False
    if report.state == "running":
        set_state(instance, "running")
    elif report.state == "stopped":
        if report.code:
            _set_reason(instance, report.code, report.message)
        set_state(instance, "stopped")
    else:
        _finish(instance, report)
    return True


def _is_current(instance: PatchedInstance, report: StateReport) -> bool:
    if instance.state == "terminated":
        return False
    if report.state != "running":
        return True
    return instance.state == "pending" and report.boots == boots(instance)


def _finish(instance: PatchedInstance, report: StateReport) -> None:
    """Terminate: release volumes and interfaces, keep the reason of the request."""
    reason = (instance.state_reason, instance._reason)  # noqa: SLF001 - moto overwrites both
    was_requested = instance.state == "shutting-down"
    detached = [nic for nic in instance.nics.values() if not nic.delete_on_termination]
    _moto_terminate(instance)
    for nic in detached:
        instance.detach_eni(nic)
    instance.state_reason, instance._reason = reason  # noqa: SLF001
    if not was_requested:
        _set_reason(instance, report.code, report.message)
    instance.nics = {}
    instance._subnet_id = None  # noqa: SLF001 - moto has no setter
    instance.ended_at = time.time()


def forget_ended(backend: Ec2Backend, now: float) -> bool:
    """Remove the instances that ended more than an hour ago; whether there are any."""
    has_changed = False
    for reservation in list(backend.reservations.values()):
        expired = [
            instance
            for instance in reservation.instances
            if getattr(instance, "ended_at", now) + LISTED_AFTER_END_S <= now
        ]
        for instance in expired:
            reservation.instances.remove(instance)
            backend.tags.pop(instance.id, None)
            has_changed = True
        if not reservation.instances:
            del backend.reservations[reservation.id]
    return has_changed


def _of_primary(name: str) -> property:
    """A property that shows an attribute of the primary interface, None without one."""

    def read(self: PatchedInstance) -> str | None:
        return getattr(self.nics[0], name) if 0 in self.nics else None

    return property(read)


def _private_name(self: PatchedInstance) -> str:
    address = self.private_ip
    if not address:
        return ""
    dashed = address.replace(".", "-")
    if self.region_name == "us-east-1":
        return f"ip-{dashed}.ec2.internal"
    return f"ip-{dashed}.{self.region_name}.compute.internal"


def apply() -> None:
    """Patch moto in this process."""
    methods: dict[str, Callable[..., object]] = {
        "terminate": _terminate,
        "stop": _stop,
        "start": _start,
        "reboot": _reboot,
    }
    for name, method in methods.items():
        setattr(Instance, name, method)
    for name, attribute in (
        ("private_ip", "private_ip_address"),
        ("private_ip_address", "private_ip_address"),
        ("public_ip", "public_ip"),
        ("public_ip_address", "public_ip"),
    ):
        setattr(Instance, name, _of_primary(attribute))
    Instance.private_dns_name = property(_private_name)
    # moto's finaliser would release addresses that another instance may have by then.
    del Instance.__del__
