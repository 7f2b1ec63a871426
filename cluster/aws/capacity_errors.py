"""What an error of capacity is about: one offering, a whole zone, or a quota that many types count towards. Pure.

A scope is a key like an offering's, `type/zone/capacity`, with `*` for what it does not name.
"""

from __future__ import annotations

from mesaform.aws.ports import Offering

ANY = "*"
STANDARD = frozenset("acdhimrtz")
"""First letters of the families that count towards the quota of standard types."""

OWN_QUOTA = frozenset({"dl", "hpc", "inf", "mac", "trn"})
"""Families that begin with one of those letters and yet have a quota of their own."""


def quota_of(instance_type: str) -> str:
    """The quota that a type counts towards, as EC2 divides them; most types are `standard`."""
    end = next(
        (index for index, letter in enumerate(instance_type) if not letter.isalpha()),
        len(instance_type),
    )
    family = instance_type[:end]
    return "standard" if family[:1] in STANDARD and family not in OWN_QUOTA else family


def of_zone(zone: str) -> str:
    """All that a zone sells."""
    return f"{ANY}/{zone}/{ANY}"


def of_quota(instance_type: str, capacity: str) -> str:
    """All that counts towards the same quota."""
    return f"quota:{quota_of(instance_type)}/{ANY}/{capacity}"


def of_error(code: str, offering_key: str) -> str:
    """What an error that EC2 gave for one offering is about."""
    kind, zone, capacity = offering_key.split("/")
    if code == "InsufficientFreeAddressesInSubnet":
        return of_zone(zone)
    if code in {"VcpuLimitExceeded", "InstanceLimitExceeded", "MaxSpotInstanceCountExceeded"}:
        return of_quota(kind, capacity)
    return offering_key


def concerning(offering: Offering) -> tuple[str, ...]:
    """Every scope that an offering is in, its own first.

    Spot machines are on-demand machines that nobody has: where there are none of those there is no spot capacity, so the on-demand
    offering of the same type and zone is one of a spot offering's scopes.
    """
    kind, zone, capacity = offering.instance_type, offering.zone, offering.capacity
    return (offering.key, f"{kind}/{zone}/on-demand", of_zone(zone), of_quota(kind, capacity))


def describe(key: str) -> str:
    """For people."""
    kind, zone, capacity = key.split("/")
    if kind.startswith("quota:"):
        return f"the account's quota of {kind.removeprefix('quota:')} types ({capacity})"
    return f"addresses in {zone}" if kind == ANY else f"{kind} ({capacity}) in {zone}"
