"""Attributes and fault domains of agents and offers as the text that constraints compare. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from mesaform.mesos.messages import Attribute, DomainInfo
from mesaform.placement.attributes import REGION, ZONE, ranges_text, scalar_text, set_text


def attribute_text(attribute: Attribute) -> str:
    """An attribute's value as text: scalars `0.5`, ranges `[1-2]`, sets `{a,b}`."""
    if attribute.text is not None:
        return attribute.text.value
    if attribute.scalar is not None:
        return scalar_text(attribute.scalar.value)
    if attribute.ranges is not None:
        return ranges_text((part.begin, part.end) for part in attribute.ranges.range)
    return set_text(attribute.set.item if attribute.set else ())


def attribute_texts(
    attributes: Iterable[Attribute], domain: DomainInfo | None = None
) -> dict[str, str]:
    """Values by name, with `@region` and `@zone`. Of attributes of one name the first counts."""
    texts: dict[str, str] = {}
    for attribute in attributes:
        texts.setdefault(attribute.name, attribute_text(attribute))
    fault_domain = domain.fault_domain if domain is not None else None
    if fault_domain is not None:
        texts[REGION] = fault_domain.region.name
        texts[ZONE] = fault_domain.zone.name
    return texts
