"""Processor architectures of instance types and images, with EC2's names. Pure.

A type's architecture follows from its name, so that a cluster file can be checked and stacks can be
synthesized without a call. EC2's own answer (`DescribeInstanceTypes`) decides at a launch.

Source: EC2 user guide, "Amazon EC2 instance type naming conventions".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, get_args

Architecture = Literal["x86_64", "arm64"]
"""What an image can be baked for."""

ARCHITECTURES: tuple[Architecture, ...] = get_args(Architecture)
X86_64: Architecture = "x86_64"
ARM64: Architecture = "arm64"

ARCH = "arch"
"""The agents' attribute with their architecture, and the field of constraints on it."""

REQUIRES_PIN = "requires_pin"
"""The attribute of agents whose architecture is not that of tasks which name none.

Its value says what pins a task: `pool` (a constraint on the pool, the type or the architecture) or
`arch` (one on the type or the architecture, because the pool has both).
"""

ARCH_LABEL = "mesaform/arch"
"""The label of an app that pins its architecture, as a constraint on `arch` does."""

_KERNEL_NAMES: dict[str, Architecture] = {"aarch64": ARM64, "arm64": ARM64}
"""Names that `uname -m` has for arm64; x86_64 is called so everywhere."""

_FAMILY = re.compile(r"[a-z]+(?:-[a-z0-9]+)??(?P<generation>\d+)(?P<options>[a-z]*)")


def architecture_of(instance_type: str) -> Architecture:
    """Return the architecture of a type by its name: a `g` behind the generation is Graviton."""
    family = instance_type.partition(".")[0]
    if family == "a1" or "-gb" in family:  # the first Graviton; NVIDIA Grace
        return ARM64
    match = _FAMILY.match(family)
    return ARM64 if match and "g" in match["options"] else X86_64


def architectures_of(instance_types: Iterable[str]) -> tuple[Architecture, ...]:
    """Return the architectures of several types, each once, x86_64 first."""
    present = {architecture_of(name) for name in instance_types}
    return tuple(name for name in ARCHITECTURES if name in present)


def architecture_of_kernel(machine: str) -> Architecture:
    """Return the architecture that `uname -m` names."""
    return _KERNEL_NAMES.get(machine, X86_64)


def boot_problem(instance_type: str) -> str:
    """Why no image boots on a type, as far as its name tells; empty if nothing is known."""
    family, _, size = instance_type.partition(".")
    if family.startswith("mac"):
        return "it runs macOS only"
    if family.startswith("hpc"):
        return "HPC types are sold in one zone each, without spot capacity"
    if size.startswith("metal"):
        return "bare metal takes many minutes to start"
    return ""


def pin_needed(architecture: Architecture, wanted: str, pool_types: Iterable[str]) -> str:
    """Return the value of `REQUIRES_PIN` of a pool's agents; empty if any task may run there.

    Args:
        architecture: of the agent.
        wanted: that of tasks which pin none, or `any`.
        pool_types: the types of the agent's pool.

    """
    if wanted in ("any", architecture):
        return ""
    return "arch" if len(architectures_of(pool_types)) > 1 else "pool"


_NAMING_OPERATORS = frozenset({"CLUSTER", "LIKE", "IS"})
_MACHINE_FIELDS = frozenset({"instance_type", "hostname", "@hostname"})

Parts = tuple[str, str, str]
"""A constraint: field, operator and value."""


def implied_constraints(
    constraints: Iterable[Sequence[str]], labels: Mapping[str, str] | None = None
) -> tuple[Parts, ...]:
    """Return the constraints that a task has besides its own, because of architectures.

    The label `ARCH_LABEL` is a constraint on `ARCH`. A task that pins no architecture is kept off
    agents that require a pin. A constraint on `ARCH`, and one that names a type or a machine, is a
    pin. One that names a pool is a pin where the pool has one architecture.

    Args:
        constraints: the task's own, each as field, operator and value, if it has one.
        labels: the task's labels.

    """
    wanted = (labels or {}).get(ARCH_LABEL, "")
    if wanted:
        return ((ARCH, "IS", wanted),)
    pinned = {_pinned_by(*constraint) for constraint in constraints}
    if "arch" in pinned:
        return ()
    return ((REQUIRES_PIN, "UNLIKE", "arch" if "pool" in pinned else ".*"),)


def _pinned_by(field: str, operator: str, value: str = "") -> str:
    """Whether a constraint pins the architecture (`arch`), the pool (`pool`) or neither."""
    if field == ARCH:
        return "" if operator.upper() == "UNLIKE" else "arch"
    if not value or operator.upper() not in _NAMING_OPERATORS:
        return ""
    if field in _MACHINE_FIELDS:
        return "arch"
    return "pool" if field == "pool" else ""
