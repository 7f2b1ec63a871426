"""Whether the machines' types exist, boot the image, and are sold in the cluster's zones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mesaform.aws import account_facts
from mesaform.aws.account_facts import TypeFacts
from mesaform.config.schema import ClusterSpec, Pool
from mesaform.doctor.finding import Finding, error, ok, warning
from mesaform.doctor.subject import Examination

CHECK = "instance types"


@dataclass(frozen=True, slots=True)
class Market:
    """The region's types by name, and the (type, zone) pairs that are sold."""

    types: Mapping[str, TypeFacts]
    places: frozenset[tuple[str, str]]

    def zones_of(self, name: str, zones: Sequence[str]) -> list[str]:
        """Those of the zones in which a type is sold."""
        return [zone for zone in zones if (name, zone) in self.places]


def look(examination: Examination) -> list[Finding]:
    """Ask EC2 for the types and their zones, and assess masters and pools."""
    names, region = examination.subject.types, examination.region
    market = Market(
        account_facts.instance_types(region, names), account_facts.sold_places(region, names)
    )
    return list(assess(examination.spec, market))


def assess(spec: ClusterSpec, market: Market) -> Iterable[Finding]:
    """The findings about all types of a cluster. Pure."""
    yield from _masters(spec, market)
    for pool in spec.agents:
        problems = [*_fixed_machines(spec, pool, market), *_pool(spec, pool, market)]
        yield from problems
        if not problems:
            detail = f"pool {pool.name}: {len(pool.types)} types in {len(spec.zones)} zones"
            yield ok(CHECK, detail)


def _masters(spec: ClusterSpec, market: Market) -> Iterable[Finding]:
    name = spec.masters.type
    used = _zones_in_turn(spec, spec.masters.count)
    problem = _unusable(name, market)
    if problem:
        yield error(CHECK, f"masters: {name} {problem}", "set masters.type to another type")
        return
    if missing := [zone for zone in used if zone not in market.zones_of(name, used)]:
        yield _not_sold("masters", name, missing, "masters.type")
        return
    yield ok(CHECK, f"masters: {name} in {', '.join(used)}")


def _fixed_machines(spec: ClusterSpec, pool: Pool, market: Market) -> Iterable[Finding]:
    """The machines that Terraform keeps have the first type and are spread over the zones."""
    name = pool.types[0]
    used = _zones_in_turn(spec, pool.count)
    missing = [zone for zone in used if zone not in market.zones_of(name, used)]
    if missing and not _unusable(name, market):
        yield _not_sold(f"pool {pool.name}", name, missing, f"the first type of {pool.name}")


def _pool(spec: ClusterSpec, pool: Pool, market: Market) -> Iterable[Finding]:
    """Types that the autoscaler may launch."""
    for name in pool.types:
        subject = f"pool {pool.name}: {name}"
        if problem := _unusable(name, market):
            yield error(CHECK, f"{subject} {problem}", f"take it out of the pool {pool.name}")
            continue
        facts = market.types[name]
        if not market.zones_of(name, spec.zones):
            detail = f"{subject} is sold in none of the zones, and is never bought"
            yield warning(CHECK, detail, "take it out, or name other zones")
        if pool.spot_share > 0 and "spot" not in facts.capacities:
            yield warning(CHECK, f"{subject} is not sold as spot", "take it out, or set spot_share")
        yield from _surprises(subject, facts, has_burst=pool.burst)


def _surprises(subject: str, facts: TypeFacts, *, has_burst: bool) -> Iterable[Finding]:
    if facts.gpus:
        detail = f"{subject} has {facts.gpus} GPUs, which no image offers to tasks"
        yield warning(CHECK, detail, "take a type without GPUs, which costs less")
    if facts.is_burstable:
        yield _burst(subject, has_burst=has_burst)


def _burst(subject: str, *, has_burst: bool) -> Finding:
    """What a pool offers of a T type."""
    if has_burst:
        detail = "all its vCPUs are offered, and those beyond its baseline cost $0.05 per vCPU-hour"
        return warning(
            CHECK, f"{subject} is burstable: {detail}", "take an m, c or r type, or unset burst"
        )
    detail = "its agents offer only the baseline that its CPU credits pay for"
    return warning(
        CHECK, f"{subject} is burstable: {detail}", "take an m, c or r type, or set burst"
    )


def _unusable(name: str, market: Market) -> str:
    """Why no machine of a type can serve; empty if it can."""
    facts = market.types.get(name)
    if facts is None:
        return "does not exist in this region"
    if facts.unbootable:
        return f"boots no image: {facts.unbootable}"
    if "on-demand" not in facts.capacities:
        return "is not sold on demand"
    return ""


def _not_sold(who: str, name: str, zones: Sequence[str], field: str) -> Finding:
    detail = f"{who}: {name} is not sold in {', '.join(zones)}"
    return error(CHECK, detail, f"set {field} to a type that is sold there, or network.zones")


def _zones_in_turn(spec: ClusterSpec, machines: int) -> list[str]:
    """The zones that so many machines use, which are spread over the zones in turn."""
    return list(spec.zones[: min(machines, len(spec.zones))])
