"""Whether the account may use the region and its zones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mesaform.aws import account_facts
from mesaform.aws.account_facts import Zone
from mesaform.doctor.finding import Finding, error, ok
from mesaform.doctor.subject import Examination

REGION, ZONES = "region", "zones"
ENABLED = ("opt-in-not-required", "opted-in")


def look_at_region(examination: Examination) -> list[Finding]:
    """Ask for the region's opt-in status in a region that is always enabled."""
    status = account_facts.region_opt_in(examination.region, examination.subject.home_region)
    return [assess_region(examination.region, status)]


def assess_region(region: str, opt_in: str) -> Finding:
    """The finding about a region with an opt-in status; it is empty for an unknown region. Pure."""
    if not opt_in:
        return error(REGION, f"there is no region {region}", "correct region in the cluster file")
    if opt_in not in ENABLED:
        return error(
            REGION,
            f"{region} is not enabled in this account ({opt_in})",
            "enable it: AWS console, Account, AWS Regions; it takes some minutes",
        )
    return ok(REGION, f"{region}, {opt_in}")


def look_at_zones(examination: Examination) -> list[Finding]:
    """Compare the cluster's zones with the account's."""
    zones = account_facts.availability_zones(examination.region)
    return list(assess_zones(examination.spec.zones, zones))


def assess_zones(wanted: Sequence[str], zones: Sequence[Zone]) -> Iterable[Finding]:
    """The findings about the wanted zones. Pure."""
    usable = _usable_names(zones)
    known = {zone.name: zone for zone in zones}
    remedy = f"set network.zones; this account has {', '.join(usable)}"
    lacking = [name for name in wanted if name not in usable]
    for name in lacking:
        yield error(ZONES, _problem(name, known.get(name)), remedy)
    if not lacking:
        yield ok(ZONES, f"{', '.join(wanted)} of {len(usable)} in this account")


def _usable_names(zones: Iterable[Zone]) -> list[str]:
    usable = (zone for zone in zones if zone.opt_in in ENABLED and zone.state == "available")
    return sorted(zone.name for zone in usable)


def _problem(name: str, zone: Zone | None) -> str:
    if zone is None:
        return f"this account has no zone {name}"
    return f"{name} cannot be used: {zone.state}, {zone.opt_in}"
