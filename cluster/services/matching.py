"""Whether an app's next instance fits what is left of an offer, and if not, why not, in Marathon's words. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mesaform.common.resources import EMPTY, Range, Resources, subtract_ranges
from mesaform.mesos.messages import Offer, Resource, from_wire, to_wire
from mesaform.services.constraints import Places, places_of, satisfied
from mesaform.services.model import ROLE, App

# The order in which an offer is examined; an offer counts under the first reason that rejects it.
FUNNEL = (
    "UnfulfilledRole",
    "UnfulfilledConstraint",
    "NoCorrespondingReservationFound",
    "AgentMaintenance",
    "InsufficientCpus",
    "InsufficientMemory",
    "InsufficientDisk",
    "InsufficientGpus",
    "InsufficientPorts",
    "DeclinedScarceResources",
)
_SCALAR_REASONS = {
    "cpus": "InsufficientCpus",
    "mem": "InsufficientMemory",
    "disk": "InsufficientDisk",
    "gpus": "InsufficientGpus",
}


@dataclass(frozen=True, slots=True)
class Fit:
    """What an instance takes, by the role that the resources are reserved for, and its host ports in the order of the app's definitions."""

    taken: dict[str, Resources]
    ports: tuple[int, ...]

    def wire(self) -> list[Resource]:
        """The task's resources as the wire has them."""
        return [
            item
            for role, part in self.taken.items()
            for item in to_wire(part, role=role, allocated_to=ROLE)
        ]


class OpenOffer:
    """An offer from which instances are cut one after the other."""

    def __init__(self, offer: Offer) -> None:
        self.offer = offer
        self.places = places_of(offer)
        by_role: dict[str, list[Resource]] = {}
        for resource in offer.resources:
            by_role.setdefault(resource.role or ROLE, []).append(resource)
        # What is reserved goes first: nobody else can use it.
        self._left = {
            role: from_wire(by_role[role])
            for role in sorted(by_role, key=lambda role: (role == ROLE, role))
        }

    @property
    def left(self) -> Resources:
        """What is not taken yet, of all roles."""
        total = EMPTY
        for part in self._left.values():
            total = total + part
        return total

    def examine(self, app: App, placed: Iterable[Places], port_seed: int) -> Fit | str:
        """How one more instance would fit, or the reason why it does not; takes nothing.

        Args:
            app: what to place.
            placed: where the app's other instances are.
            port_seed: any number; it spreads the choice of host ports, so that a port is not reused the moment it is free.

        """
        roles = [
            role
            for role in self._left
            if app.accepted_resource_roles is None or role in app.accepted_resource_roles
        ]
        if not roles:
            return "UnfulfilledRole"
        if not satisfied(app.constraints, self.places, placed):
            return "UnfulfilledConstraint"
        taken: dict[str, dict[str, int]] = {role: {} for role in roles}
        for name, reason in _SCALAR_REASONS.items():
            if not self._take_scalar(name, app.resources.milli.get(name, 0), taken):
                return reason
        ports = _choose_ports(
            app, [part for role in roles for part in self._left[role].ports], port_seed
        )
        if ports is None:
            return "InsufficientPorts"
        parts = {
            role: Resources(amounts, self._ports_of(role, ports)) for role, amounts in taken.items()
        }
        return Fit({role: part for role, part in parts.items() if not part.is_empty}, ports)

    def take(self, fit: Fit) -> None:
        """Cut out what `examine` found just before."""
        for role, part in fit.taken.items():
            self._left[role] = self._left[role] - part

    def _take_scalar(self, name: str, wanted: int, taken: dict[str, dict[str, int]]) -> bool:
        for role, amounts in taken.items():
            part = min(wanted, self._left[role].milli.get(name, 0))
            if part > 0:
                amounts[name] = part
                wanted -= part
        return wanted == 0

    def _ports_of(self, role: str, ports: tuple[int, ...]) -> tuple[Range, ...]:
        mine = [
            (port, port)
            for port in ports
            if any(low <= port <= high for low, high in self._left[role].ports)
        ]
        return Resources.of(ports=mine).ports


def _choose_ports(app: App, offered: list[Range], seed: int) -> tuple[int, ...] | None:
    wanted = [definition.port for definition in app.port_definitions]
    if app.require_ports:
        missing = subtract_ranges([(port, port) for port in wanted if port], offered)
        if missing:
            return None
    fixed = {port for port in wanted if port and app.require_ports}
    free = subtract_ranges(offered, [(port, port) for port in fixed])
    count = sum(high - low + 1 for low, high in free)
    needed = sum(1 for port in wanted if port not in fixed)
    if count < needed:
        return None
    picked = iter(_nth(free, (seed + index) % count) for index in range(needed))
    return tuple(port if port in fixed else next(picked) for port in wanted)


def _nth(ranges: tuple[Range, ...], index: int) -> int:
    for low, high in ranges:
        if index <= high - low:
            return low + index
        index -= high - low + 1
    raise IndexError(index)
