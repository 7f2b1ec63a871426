"""Attributes and fault domain of agents: what a machine registers, known before it exists. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mesaform.common.architecture import (
    ARCH,
    REQUIRES_PIN,
    Architecture,
    architecture_of,
    pin_needed,
)
from mesaform.placement.attributes import REGION, ZONE, comparison_text

if TYPE_CHECKING:
    from mesaform.config.schema import ClusterSpec, Pool


@dataclass(frozen=True, slots=True)
class AgentMachine:
    """A machine as its agent describes it; `lifecycle` is `on-demand` or `spot`."""

    instance_type: str
    zone: str
    pool: str
    lifecycle: str


def machine_attributes(own: Mapping[str, str], machine: AgentMachine) -> dict[str, str]:
    """What the agent of a machine is configured with, but for the instance's id.

    The machine's facts override `own`, the attributes of its pool.
    """
    return {
        **own,
        ARCH: architecture_of(machine.instance_type),
        "instance_type": machine.instance_type,
        "zone": machine.zone,
        "pool": machine.pool,
        "lifecycle": machine.lifecycle,
    }


def pool_attributes(pool: Pool, spec: ClusterSpec, architecture: Architecture) -> dict[str, str]:
    """The attributes of a pool's agents of one architecture, as they are configured."""
    pin = pin_needed(architecture, spec.tasks.architecture, pool.types)
    return {**pool.attributes, **({REQUIRES_PIN: pin} if pin else {})}


def registered_attributes(
    own: Mapping[str, str], machine: AgentMachine, region: str
) -> dict[str, str]:
    """Attributes and fault domain of a machine's agent, as constraints compare them."""
    configured = machine_attributes(own, machine)
    compared = {name: comparison_text(value) for name, value in configured.items()}
    return {**compared, REGION: region, ZONE: machine.zone}


def fault_domain(region: str, zone: str) -> dict[str, object]:
    """The DomainInfo of a machine, for Mesos' flag `--domain`."""
    return {"fault_domain": {"region": {"name": region}, "zone": {"name": zone}}}
