"""Defaults of cluster.yaml that depend on the target. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel

TOP = ""
"""The section of the fields that are in no section."""

BY_TARGET: Mapping[str, Mapping[str, Mapping[str, object]]] = {
    "local": {
        TOP: {"engine": "embedded"},
        "network": {"cidr": "127.42.0.0/16", "operator_cidrs": ("127.0.0.0/8",)},
        "access": {"token": "none"},
        "autoscaler": {"idle_after_s": 20.0, "boot_timeout_s": 90.0},
    },
    "aws": {
        TOP: {"engine": "embedded"},
        "network": {"cidr": "10.42.0.0/16"},
        "access": {"token": "required"},
        "autoscaler": {"idle_after_s": 300.0, "boot_timeout_s": 600.0},
    },
}
"""Target -> section -> field -> default."""

OF_CONTAINERS: Mapping[str, Mapping[str, object]] = {
    "network": {"cidr": "10.42.0.0/16", "operator_cidrs": ("10.0.0.0/8",)},
    "autoscaler": {"boot_timeout_s": 180.0},
}
"""Defaults of the local target that differ where machines are containers."""

OPTIONAL_SECTIONS = frozenset(
    {
        "network",
        "masters",
        "tasks",
        "autoscaler",
        "http",
        "access",
        "bake",
        "account",
        "snapshots",
        "cost",
        "local",
    }
)
"""Sections that may be left empty, which gives their defaults."""


def with_defaults(data: Mapping[str, object]) -> dict[str, object]:
    """Return the data of a spec with the defaults of its target in place of missing fields."""
    spec = {
        section: value
        for section, value in data.items()
        if value is not None or section not in OPTIONAL_SECTIONS
    }
    for section, defaults in _defaults_of(spec).items():
        if section == TOP:
            spec = {**defaults, **spec}
        else:
            spec[section] = _section_with_defaults(spec.get(section, {}), defaults)
    return spec


def _defaults_of(spec: Mapping[str, object]) -> dict[str, dict[str, object]]:
    """The defaults of each section, by the target and by what its machines are."""
    target = spec.get("target", "local")
    sections = BY_TARGET.get(target, {}) if isinstance(target, str) else {}
    of_kind = OF_CONTAINERS if target == "local" and _has_containers(spec.get("local")) else {}
    return {name: {**given, **of_kind.get(name, {})} for name, given in sections.items()}


def _has_containers(local: object) -> bool:
    if isinstance(local, BaseModel):
        local = local.model_dump()
    return isinstance(local, dict) and local.get("machines") == "containers"


def _section_with_defaults(section: object, defaults: Mapping[str, object]) -> object:
    if isinstance(section, BaseModel):
        section = section.model_dump(include=section.model_fields_set)
    return {**defaults, **section} if isinstance(section, dict) else section
