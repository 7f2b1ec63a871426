"""Security groups of moto as the hypervisor needs them: their inbound rules for IPv4."""

from __future__ import annotations

from collections.abc import Iterable

from mesaform.localcloud.moto_patches.moto_types import PatchedInstance, SecurityGroupOfMoto
from mesaform.localcloud.protocol import IngressRule, SecurityGroup


def groups_of(instance: PatchedInstance) -> tuple[str, ...]:
    """The ids of an instance's groups, those of its interfaces included."""
    ids = {group.id for group in _listed(instance)}
    return tuple(sorted(ids))


def described(instances: Iterable[PatchedInstance]) -> tuple[SecurityGroup, ...]:
    """The groups of all instances, once each."""
    groups = {group.id: group for instance in instances for group in _listed(instance)}
    return tuple(SecurityGroup(name, _rules(groups[name])) for name in sorted(groups))


def _listed(instance: PatchedInstance) -> list[SecurityGroupOfMoto]:
    of_interfaces = (group for nic in instance.nics.values() for group in nic.group_set)
    return [*instance.security_groups, *of_interfaces]


def _rules(group: SecurityGroupOfMoto) -> tuple[IngressRule, ...]:
    return tuple(
        IngressRule(
            protocol=rule.ip_protocol or "-1",
            first_port=rule.from_port,
            last_port=rule.to_port,
            cidrs=(rule.cidr_ipv4,) if rule.cidr_ipv4 else (),
            groups=(rule.source_group["GroupId"],) if rule.source_group.get("GroupId") else (),
        )
        for rule in group.ingress_rules
    )
