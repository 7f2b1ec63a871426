"""Scopes of capacity errors: an offering, a zone, or a quota that many types share. Pure.

A scope is a key such as an offering's, `type/zone/capacity`, with `*` for parts it does not name.
"""

from __future__ import annotations

from mesaform.aws.ports import Offering

ANY = "*"
STANDARD = frozenset("acdhimrtz")
"""First letters of the families that share the quota of standard types."""

OWN_QUOTA = frozenset({"dl", "hpc", "inf", "mac", "trn"})
"""Families with these first letters that have a quota of their own."""


def quota_of(instance_type: str) -> str:
    """Return the quota of a type, as EC2 divides them; that of most types is `standard`."""
    end = next(
        (index for index, letter in enumerate(instance_type) if not letter.isalpha()),
        len(instance_type),
    )
    family = instance_type[:end]
    return "standard" if family[:1] in STANDARD and family not in OWN_QUOTA else family


def of_zone(zone: str) -> str:
    """Return the scope of all offerings of a zone."""
    return f"{ANY}/{zone}/{ANY}"


def of_quota(instance_type: str, capacity: str) -> str:
    """Return the scope of all offerings that share the type's quota."""
    return f"quota:{quota_of(instance_type)}/{ANY}/{capacity}"


def of_error(code: str, offering_key: str) -> str:
    """Return the scope of an error code that EC2 returned for one offering."""
    kind, zone, capacity = offering_key.split("/")
    if code == "InsufficientFreeAddressesInSubnet":
        return of_zone(zone)
    if code in {"VcpuLimitExceeded", "InstanceLimitExceeded", "MaxSpotInstanceCountExceeded"}:
        return of_quota(kind, capacity)
    return offering_key


def concerning(offering: Offering) -> tuple[str, ...]:
    """Return every scope of an offering, its own key first.

    Spot capacity is unused on-demand capacity. So an error of the on-demand offering of the same
    type and zone concerns the spot offering too.
    """
    kind, zone, capacity = offering.instance_type, offering.zone, offering.capacity
    return (offering.key, f"{kind}/{zone}/on-demand", of_zone(zone), of_quota(kind, capacity))


def describe(key: str) -> str:
    """Describe a scope for people."""
    kind, zone, capacity = key.split("/")
    if kind.startswith("quota:"):
        return f"the account's quota of {kind.removeprefix('quota:')} types ({capacity})"
    return f"addresses in {zone}" if kind == ANY else f"{kind} ({capacity}) in {zone}"
