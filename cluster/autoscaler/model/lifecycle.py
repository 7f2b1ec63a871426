"""States of a machine, and the table of their transitions. Pure.

States are observed, not commanded: a pass may skip some. Each edge says how it comes about.
"""

from __future__ import annotations

from typing import Literal

from mesaform.common.errors import MesaformError

State = Literal[
    "bought",  # EC2 took the order; not running yet
    "booting",  # running, its agent has not registered
    "busy",  # registered, with tasks
    "idle",  # registered, without tasks
    "lost",  # was registered; its agent is unreachable
    "deactivated",  # gets no offers; can be reactivated
    "draining",  # drains; cannot be reactivated until it has drained
    "drained",  # its agent is gone for good
    "terminating",  # EC2 was asked, or does it by itself
    "gone",  # terminated, or no longer listed
]

REGISTERED = {"busy", "idle"}

EDGES: dict[State, dict[State, str]] = {
    "bought": {
        "booting": "it runs",
        "busy": "its agent registered and got work between two passes",
        "idle": "its agent registered",
        "terminating": "it never ran in time, or EC2 gave it up",
        "gone": "EC2 gave it up between two passes",
    },
    "booting": {
        "bought": "EC2's answers are not in order: an older one came later",
        "busy": "its agent registered and got work between two passes",
        "idle": "its agent registered",
        "terminating": "its agent never registered in time, or the machine was interrupted",
        "gone": "terminated by somebody else, or interrupted",
    },
    "busy": {
        "idle": "its last task ended",
        "lost": "its agent is unreachable",
        "deactivated": "a task landed on it meanwhile, or it is emptied on purpose",
        "draining": "emptied on purpose, between two passes",
        "terminating": "interrupted or terminated by somebody else",
        "gone": "the same, between two passes",
    },
    "idle": {
        "busy": "a task started",
        "lost": "its agent is unreachable",
        "deactivated": "unneeded for long enough",
        "terminating": "interrupted or terminated by somebody else",
        "gone": "the same, between two passes",
    },
    "lost": {
        "busy": "its agent came back with its tasks",
        "idle": "its agent came back",
        "deactivated": "its agent came back, still deactivated",
        "terminating": "away for too long",
        "gone": "the machine had died",
    },
    "deactivated": {
        "idle": "demand returned: reactivated",
        "busy": "a task had landed before: reactivated",
        "draining": "looked at again, and still empty",
        "drained": "drained between two passes",
        "lost": "its agent is unreachable",
        "terminating": "drained, and terminated at once",
        "gone": "the machine had died",
    },
    "draining": {
        "drained": "its agent is gone",
        "terminating": "its agent is gone, and the machine was terminated at once",
        "gone": "the machine had died",
        "lost": "its drain was given up, and its agent is unreachable",
        "idle": "its drain was given up, or an operator took it back",
        "busy": "the same, and it got work between two passes",
    },
    "drained": {
        "idle": "its drain was given up, or an operator took it back",
        "busy": "the same, and it got work between two passes",
        "draining": "its agent was only out of reach",
        "terminating": "EC2 was asked to terminate it",
        "gone": "terminated between two passes",
    },
    "terminating": {"gone": "EC2 no longer runs it"},
    "gone": {},
}


class UnknownEdge(MesaformError):
    """A transition that the table lacks. The machine is left alone until a person has looked."""


def step(history: tuple[str, ...], state: State, keep: int = 12) -> tuple[str, ...]:
    """The history with `state` at its end (unchanged when it is there already).

    Raises:
        UnknownEdge: the table has no such edge; the message holds the history.

    """
    if not history:
        return (state,)
    last = history[-1]
    if last == state:
        return history
    if state not in EDGES[last]:  # type: ignore[index]
        raise UnknownEdge(
            f"from {last} to {state}",
            where=" > ".join((*history, state)),
            fix="report this history",
        )
    return (*history, state)[-keep:]
