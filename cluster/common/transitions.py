"""Transition tables of state machines. Standard library and `common.errors` only."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from mesaform.common.errors import MesaformError

S = TypeVar("S", bound=Hashable)
E = TypeVar("E", bound=Hashable)


class UnknownTransition(MesaformError):
    """An event met a state in which it cannot happen: a defect, reported with the history."""


@dataclass(frozen=True, slots=True)
class TransitionTable(Generic[S, E]):
    """The states that follow, by state and event. `subject` names the entity in errors."""

    subject: str
    edges: Mapping[tuple[S, E], S]

    def next_state(self, state: S, event: E, history: Iterable[object] = ()) -> S:
        """The state that follows `state` on `event`.

        Raises:
            UnknownTransition: the table has no such edge; the error's place is the history.

        """
        try:
            return self.edges[state, event]
        except KeyError:
            raise UnknownTransition(
                f"{self.subject}: {event} in state {state}",
                where=" > ".join(str(entry) for entry in history),
                fix="report this history as a defect",
            ) from None

    def allows(self, state: S, event: E) -> bool:
        """Whether the table has an edge for `event` in `state`."""
        return (state, event) in self.edges
