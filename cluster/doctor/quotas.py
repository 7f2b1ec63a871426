"""Whether the account's quotas hold the cluster beside what the account already runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mesaform.aws import account_facts, service_quotas
from mesaform.aws.account_facts import RunningMachine
from mesaform.aws.service_quotas import Quota, family_of, quota_value
from mesaform.common.errors import CloudError
from mesaform.config.schema import ClusterSpec
from mesaform.doctor.finding import Finding, error, ok, warning
from mesaform.doctor.subject import Examination, Subject
from mesaform.topology import ports
from mesaform.topology.names import Tag

CHECK = "quotas"
CONSOLE = "raise it: AWS console, Service Quotas"


@dataclass(frozen=True, slots=True)
class Need:
    """What a cluster needs of a quota.

    Attributes:
        at_once: what `mesaform up` needs in any case, beside what the cluster has.
        at_most: what it needs if every pool grows to its max.

    """

    at_once: int
    at_most: int


@dataclass(frozen=True, slots=True)
class Usage:
    """The machines of the account, and the vCPUs of every type among them and in the file."""

    machines: Sequence[RunningMachine]
    vcpus: Mapping[str, int]

    def vcpus_of(self, machine: RunningMachine) -> int:
        """The vCPUs that a machine counts against its quota."""
        return machine.vcpus or self.vcpus.get(machine.instance_type, 0)

    def used(self, quota: Quota) -> int:
        """The vCPUs that count against a quota now."""
        return sum(
            self.vcpus_of(machine)
            for machine in self.machines
            if family_of(machine.instance_type).quota(is_spot=machine.is_spot) == quota
        )

    def count(self, cluster: str, role: str, pool: str = "") -> int:
        """How many machines of a cluster have a role, and a pool if one is named."""
        wanted = {Tag.CLUSTER: cluster, Tag.ROLE: role, **({Tag.POOL: pool} if pool else {})}
        return sum(wanted.items() <= machine.tags.items() for machine in self.machines)


def look_at_vcpus(examination: Examination) -> list[Finding]:
    """Compare vCPU quotas with the account's machines and the cluster's needs."""
    region, subject = examination.region, examination.subject
    machines = account_facts.running_machines(region)
    names = [*subject.types, *subject.builders, *(item.instance_type for item in machines)]
    types = account_facts.instance_types(region, names)
    usage = Usage(machines, {name: facts.vcpus for name, facts in types.items()})
    return [
        finding
        for quota, need in vcpu_needs(subject, usage).items()
        for finding in _compare(region, quota, need, usage.used(quota))
    ]


def vcpu_needs(subject: Subject, usage: Usage) -> dict[Quota, Need]:
    """The vCPUs that the cluster needs of each quota. Pure."""
    at_once: Counter[Quota] = Counter()
    at_most: Counter[Quota] = Counter()
    for name, count in _fixed(subject, usage):
        _add(at_once, name, usage, count)
    for pool in subject.spec.agents:
        present = usage.count(subject.spec.name, "agent", pool.name)
        growth = max(0, pool.max - max(pool.count, present))
        smallest = min(pool.types, key=lambda name: usage.vcpus.get(name, 0))
        spot = round(growth * pool.spot_share)
        _add(at_most, smallest, usage, growth - spot)
        _add(at_most, smallest, usage, spot, is_spot=True)
    return {
        quota: Need(at_once[quota], at_once[quota] + at_most[quota])
        for quota in (*at_once, *(quota for quota in at_most if quota not in at_once))
    }


def _fixed(subject: Subject, usage: Usage) -> Iterable[tuple[str, int]]:
    """Types and numbers of machines that `mesaform up` launches: the missing ones, a builder."""
    spec = subject.spec
    yield spec.masters.type, max(0, spec.masters.count - usage.count(spec.name, "master"))
    for pool in spec.agents:
        present = usage.count(spec.name, "agent", pool.name)
        yield pool.types[0], max(0, pool.count - present)
    yield from ((name, 1) for name in subject.builders)


def _add(
    needs: Counter[Quota], name: str, usage: Usage, count: int, *, is_spot: bool = False
) -> None:
    quota = family_of(name).quota(is_spot=is_spot)
    if quota is not None and (count or not is_spot):
        needs[quota] += count * usage.vcpus.get(name, 0)


def _compare(region: str, quota: Quota, need: Need, used: int) -> Iterable[Finding]:
    try:
        value = quota_value(region, quota)
    except CloudError as fault:
        remedy = f"compare by hand: Service Quotas, {quota.code}"
        yield warning(CHECK, f"{quota.name}: not checked: {fault.what}", remedy)
        return
    yield assess(quota, need, used, value)


def assess(quota: Quota, need: Need, used: int, value: float) -> Finding:
    """The finding about one quota. Pure."""
    facts = f"{quota.name}: {value:.0f}, {used} in use"
    remedy = f"{CONSOLE}, {quota.code}"
    if used + need.at_once > value:
        return error(CHECK, f"{facts}, mesaform up needs {need.at_once} more", remedy)
    if used + need.at_most > value:
        detail = f"{facts}, the pools' max needs {need.at_most} more"
        return warning(CHECK, detail, f"{remedy}, or lower max")
    return ok(CHECK, f"{facts}, up to {need.at_most} more are needed")


def look_at_network(examination: Examination) -> list[Finding]:
    """Compare the quotas of VPCs, gateways, addresses and rules with the cluster's needs."""
    spec, region = examination.spec, examination.region
    has_network = bool(account_facts.tagged_vpcs(region, spec.name))
    vpcs = account_facts.vpc_count(region)
    own = 0 if has_network else 1
    wanted: list[tuple[Quota, Need, int]] = [
        (service_quotas.VPCS, Need(own, own), vpcs),
        (service_quotas.INTERNET_GATEWAYS, Need(own, own), vpcs),
        (service_quotas.GROUP_RULES, Need(*[rules_needed(spec)] * 2), 0),
    ]
    return [
        finding for quota, need, used in wanted for finding in _compare(region, quota, need, used)
    ]


def rules_needed(spec: ClusterSpec) -> int:
    """The rules of the cluster's largest security group. Pure."""
    groups = Counter(rule.group for rule in ports.ingress_rules(spec))
    return max(groups.values())
