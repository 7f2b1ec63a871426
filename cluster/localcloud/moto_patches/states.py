"""An instance's life as EC2 tells it: pending -> running, shutting-down -> terminated, stopping -> stopped, driven by the hypervisor.

moto jumps to the end state at once. Here a call only asks; `settle` takes the hypervisor's word that it happened, and only
then are interfaces and volumes given back. A terminated instance stays listed for an hour, without addresses, as on AWS.
"""

from __future__ import annotations

import copy
import time
from typing import Any

from moto.core.utils import utcnow
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.instances import Instance, InstanceState, StateReason

LISTED_AFTER_END_S = 3600.0
CODES = {
    "pending": 0,
    "running": 16,
    "shutting-down": 32,
    "terminated": 48,
    "stopping": 64,
    "stopped": 80,
}
USER_INITIATED = (
    "Client.UserInitiatedShutdown",
    "Client.UserInitiatedShutdown: User initiated shutdown",
)

_terminate_now = Instance.terminate


def set_state(instance: Any, name: str) -> None:
    instance._state = InstanceState(name, CODES[name])  # noqa: SLF001


def boots(instance: Any) -> int:
    """How often the instance was told to boot."""
    return int(getattr(instance, "boots", 1))


def begin_pending(instance: Any) -> None:
    instance.boots = 1
    set_state(instance, "pending")


def _give_reason(instance: Any, code: str, message: str) -> None:
    stamp = utcnow().strftime("%Y-%m-%d %H:%M:%S GMT")
    instance._reason = (  # noqa: SLF001
        f"User initiated ({stamp})" if code == USER_INITIATED[0] else f"{code} ({stamp})"
    )
    instance.state_reason = StateReason(message, code)


def end(instance: Any, code: str, message: str, *, hard: bool = False) -> Any:
    """Ask for the instance's termination; the previous state. Idempotent."""
    previous = copy.copy(instance._state)  # noqa: SLF001
    if previous.name not in {"terminated", "shutting-down"}:
        instance.hard = hard
        _give_reason(instance, code, message)
        set_state(instance, "shutting-down")
    return previous


def _terminate(self: Any) -> Any:
    return end(self, *USER_INITIATED)


def _stop(self: Any) -> Any:
    previous = copy.copy(self._state)
    if previous.name in {"terminated", "shutting-down"}:
        raise EC2ClientError(
            "IncorrectInstanceState",
            f"This instance '{self.id}' is not in a state from which it can be stopped.",
        )
    if previous.name not in {"stopped", "stopping"}:
        _give_reason(self, *USER_INITIATED)
        set_state(self, "stopping")
    return previous


def _start(self: Any) -> Any:
    previous = copy.copy(self._state)
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


def _reboot(self: Any) -> None:
    if self.state != "running":
        raise EC2ClientError(
            "IncorrectInstanceState",
            f"The instance '{self.id}' is not in a state from which it can be rebooted.",
        )
    self.boots = boots(self) + 1


def settle(instance: Any, state: str, boot: int, code: str, message: str) -> bool:
    """Take the hypervisor's report; whether it changed anything. A report about an earlier boot, or after the end, is ignored."""
    current = instance.state
    if current == "terminated" or (
        state == "running" and (current != "pending" or boot != boots(instance))
    ):
        return False
    if state == "running":
        set_state(instance, "running")
    elif state == "stopped":
        if code:
            _give_reason(instance, code, message)
        set_state(instance, "stopped")
    else:
        _finish(instance, code, message)
    return True


def _finish(instance: Any, code: str, message: str) -> None:
    reason = (instance.state_reason, instance._reason)  # noqa: SLF001
    asked = instance.state == "shutting-down"
    kept = [nic for nic in instance.nics.values() if not nic.delete_on_termination]
    _terminate_now(instance)
    for nic in kept:
        instance.detach_eni(nic)
    instance.state_reason, instance._reason = reason  # noqa: SLF001
    if not asked:
        _give_reason(instance, code, message)
    instance.nics = {}
    instance._subnet_id = None  # noqa: SLF001
    instance.ended_at = time.time()


def forget_ended(backend: Any, now: float) -> bool:
    """Take instances that ended more than an hour ago off the list; whether any was."""
    changed = False
    for reservation in list(backend.reservations.values()):
        gone = [
            item
            for item in reservation.instances
            if getattr(item, "ended_at", now) + LISTED_AFTER_END_S <= now
        ]
        for instance in gone:
            reservation.instances.remove(instance)
            backend.tags.pop(instance.id, None)
            changed = True
        if not reservation.instances:
            del backend.reservations[reservation.id]
    return changed


def _of_primary(name: str) -> property:
    return property(lambda self: getattr(self.nics[0], name) if 0 in self.nics else None)


def _private_name(self: Any) -> str:
    address = self.private_ip
    if not address:
        return ""
    dashed = address.replace(".", "-")
    return (
        f"ip-{dashed}.ec2.internal"
        if self.region_name == "us-east-1"
        else f"ip-{dashed}.{self.region_name}.compute.internal"
    )


def apply() -> None:
    Instance.terminate = _terminate
    Instance.stop = _stop
    Instance.start = _start
    Instance.reboot = _reboot
    for name, attribute in (
        ("private_ip", "private_ip_address"),
        ("private_ip_address", "private_ip_address"),
        ("public_ip", "public_ip"),
        ("public_ip_address", "public_ip"),
    ):
        setattr(Instance, name, _of_primary(attribute))
    Instance.private_dns_name = property(_private_name)
    del Instance.__del__  # would give addresses back that somebody else may hold by then
