"""Constraints on offers: the fields of an offer's agent, and whether an instance fits. No I/O.

The operators are in `mesaform.placement.constraints`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mesaform.common.resources import Range
from mesaform.mesos.attributes import attribute_texts
from mesaform.mesos.messages import Offer
from mesaform.placement import constraints as placement
from mesaform.placement.constraints import Constraint, InstanceCounts, room

MAX_FIELDS = 200
MAX_FIELD_CHARACTERS = 1024
"""Further attributes and characters are ignored: the fields are part of each instance's record."""

AgentFields = Mapping[str, str]
"""Values of one agent by field name, as constraints compare them; `@hostname` is its host."""


@dataclass(frozen=True, slots=True)
class _Agent:
    """The fields of an agent as a location. Host ports are matched with the offer's resources."""

    attributes: AgentFields
    ports: tuple[Range, ...] = ()

    @property
    def hostname(self) -> str:
        return self.attributes.get("@hostname", "")


def fields_of(offer: Offer) -> dict[str, str]:
    """The fields of the offer's agent."""
    texts = attribute_texts(offer.attributes[:MAX_FIELDS], offer.domain)
    texts["@hostname"] = offer.hostname
    return {
        name[:MAX_FIELD_CHARACTERS]: text[:MAX_FIELD_CHARACTERS] for name, text in texts.items()
    }


def value_of(field: str, fields: AgentFields) -> str | None:
    """The value of a constraint's field on an agent; None when the agent has no such field."""
    return placement.value_of(field, fields.get("@hostname", ""), fields)


def has_groups(constraints: Iterable[Sequence[str]]) -> bool:
    """Whether an agent that an instance may not run on may take one after others are placed."""
    return placement.is_grouped(Constraint.of(parts) for parts in constraints)


def are_satisfied(
    constraints: Iterable[Sequence[str]], agent: AgentFields, placed: Iterable[AgentFields]
) -> bool:
    """Whether one more instance may run on an agent.

    Args:
        constraints: valid ones (see `placement.constraints.problem_with`).
        agent: the agent's fields.
        placed: the fields of the agents of the app's instances that count, one entry per instance:
            those of its present configuration.

    """
    wanted = [Constraint.of(parts) for parts in constraints]
    counts = InstanceCounts()
    for fields in placed if wanted else ():
        counts.add("", wanted, _Agent(fields), 1)
    return room("", wanted, _Agent(agent), counts) > 0
