"""T types: the vCPUs that their CPU credits pay for, and what an agent of them offers. Pure.

Source: EC2 user guide, "Key concepts for burstable performance instances".
"""

from __future__ import annotations

from collections.abc import Mapping

BASELINE_SHARES: Mapping[str, float] = {
    "nano": 0.05,
    "micro": 0.1,
    "small": 0.2,
    "medium": 0.2,
    "large": 0.3,
    "xlarge": 0.4,
    "2xlarge": 0.4,
}
"""Share of each vCPU that T3, T3a and T4g types earn credits for, by size."""

T2_SHARES: Mapping[str, float] = {**BASELINE_SHARES, "xlarge": 0.225, "2xlarge": 0.16875}
"""The same of T2: 90 % of four vCPUs, 135 % of eight."""

FAMILIES: Mapping[str, Mapping[str, float]] = {
    "t2": T2_SHARES,
    "t3": BASELINE_SHARES,
    "t3a": BASELINE_SHARES,
    "t4g": BASELINE_SHARES,
}


def baseline_share(instance_type: str) -> float:
    """Share of each vCPU that is used without surplus credits; 1 for other families."""
    family, _, size = instance_type.partition(".")
    return FAMILIES.get(family, {}).get(size, 1.0)


def offered_vcpus(instance_type: str, vcpus: float, *, has_burst: bool) -> float:
    """How many cpus an agent offers: the baseline of a T type, or all vCPUs with `has_burst`."""
    return vcpus if has_burst else vcpus * baseline_share(instance_type)
