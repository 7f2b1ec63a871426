"""Match an app's next instance against the rest of an offer. No I/O.

A mismatch is one of the reasons in `REJECT_REASONS`, which Marathon 1.11 reports in `/v2/queue`.
Depends on `mesaform.placement`, `mesaform.mesos.messages` and `constraints`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mesaform.common.architecture import implied_constraints
from mesaform.common.resources import EMPTY, Range, Resources
from mesaform.mesos.messages import Offer, Resource, from_wire, to_wire
from mesaform.placement.ports import choose_ports
from mesaform.placement.task_labels import constraint_parts
from mesaform.services.constraints import AgentFields, are_satisfied, fields_of
from mesaform.services.model import ROLE, App

REJECT_REASONS = (
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
"""Marathon's names in the order of examination; an offer counts under its first reason."""

CONSTRAINT_REASON = "UnfulfilledConstraint"

FAULT_REASON = "InternalError"
"""A reason of this server only: it failed in the work for the app."""

_SCALAR_REASONS = {
    "cpus": "InsufficientCpus",
    "mem": "InsufficientMemory",
    "disk": "InsufficientDisk",
    "gpus": "InsufficientGpus",
}


@dataclass(frozen=True, slots=True)
class Fit:
    """Resources that an instance takes, by reservation role, and its host ports.

    `ports` are in the order of the app's port definitions.
    """

    taken: dict[str, Resources]
    ports: tuple[int, ...]

    def wire(self) -> list[Resource]:
        """The task's resources as Mesos messages."""
        return [
            item
            for role, part in self.taken.items()
            for item in to_wire(part, role=role, allocated_to=ROLE)
        ]


class OpenOffer:
    """An offer from which instances are taken one after the other."""

    def __init__(self, offer: Offer) -> None:
        self.offer = offer
        self.agent_fields = fields_of(offer)
        by_role: dict[str, list[Resource]] = {}
        for resource in offer.resources:
            by_role.setdefault(resource.role or ROLE, []).append(resource)
        # Reserved resources come first, because no other framework can use them.
        self._remaining = {
            role: from_wire(by_role[role])
            for role in sorted(by_role, key=lambda role: (role == ROLE, role))
        }

    @property
    def remaining(self) -> Resources:
        """Resources that are not taken yet, of all roles."""
        total = EMPTY
        for part in self._remaining.values():
            total = total + part
        return total

    def examine(self, app: App, placed: Iterable[AgentFields], port_seed: int) -> Fit | str:
        """How one more instance fits, or the reject reason; takes nothing.

        Args:
            app: the app to place.
            placed: the fields of the agents of the app's other instances.
            port_seed: any number. It varies the choice of host ports, so that a port is not reused
                as soon as it is free.

        """
        roles = self._accepted_roles(app)
        if not roles:
            return "UnfulfilledRole"
        stated = [*app.constraints, *constraint_parts(app.labels)]
        constraints = [*stated, *implied_constraints(stated)]
        if not are_satisfied(constraints, self.agent_fields, placed):
            return CONSTRAINT_REASON
        scalars = self._match_scalars(app, roles)
        if isinstance(scalars, str):
            return scalars
        offered = [part for role in roles for part in self._remaining[role].ports]
        defined = [definition.port for definition in app.port_definitions]
        ports = choose_ports(defined, offered, port_seed, is_required=app.require_ports)
        if ports is None:
            return "InsufficientPorts"
        return self._fit(scalars, ports)

    def _fit(self, scalars: dict[str, dict[str, int]], ports: tuple[int, ...]) -> Fit:
        taken = {
            role: Resources(amounts, self._ports_of(role, ports))
            for role, amounts in scalars.items()
        }
        return Fit({role: part for role, part in taken.items() if not part.is_empty}, ports)

    def take(self, fit: Fit) -> None:
        """Take the resources of a fit that `examine` returned just before."""
        for role, part in fit.taken.items():
            self._remaining[role] = self._remaining[role] - part

    def _accepted_roles(self, app: App) -> list[str]:
        accepted = app.accepted_resource_roles
        return [role for role in self._remaining if accepted is None or role in accepted]

    def _match_scalars(self, app: App, roles: Iterable[str]) -> dict[str, dict[str, int]] | str:
        """Thousandths of each scalar resource to take, by role; or the reject reason."""
        taken: dict[str, dict[str, int]] = {role: {} for role in roles}
        for name, reason in _SCALAR_REASONS.items():
            if not self._take_scalar(name, app.resources.milli.get(name, 0), taken):
                return reason
        return taken

    def _take_scalar(self, name: str, wanted: int, taken: dict[str, dict[str, int]]) -> bool:
        """Add the amount to `taken`, role by role; whether all of it is there."""
        for role, amounts in taken.items():
            part = min(wanted, self._remaining[role].milli.get(name, 0))
            if part > 0:
                amounts[name] = part
                wanted -= part
        return wanted == 0

    def _ports_of(self, role: str, ports: Iterable[int]) -> tuple[Range, ...]:
        """Those of the ports that this role's resources contain."""
        ranges = self._remaining[role].ports
        contained = [port for port in ports if any(low <= port <= high for low, high in ranges)]
        return Resources.of(ports=[(port, port) for port in contained]).ports
