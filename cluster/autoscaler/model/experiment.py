"""What the planner remembers of purchases for a framework whose need is inferred. Pure.

`demand.experiments` updates the records. Depends on `shape`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mesaform.autoscaler.model.shape import NOTHING, Shape


@dataclass(frozen=True, slots=True)
class TrialLaunch:
    """A launch whose outcome is open, decided at `at`.

    `pieces` of `shape` and the price are those of one of its `machines`.
    `tested` are its machines whose outcome is known.
    """

    at: float
    machines: int
    pieces: int
    usd_per_hour: float
    shape: Shape
    tested: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NewAgent:
    """When the agent of a launch was first seen, and the framework's counter `sent` then."""

    at: float
    sent: int


@dataclass(frozen=True, slots=True)
class Guess:
    """A machine bought on suspicion that the framework has not accepted: when, and its price."""

    at: float
    usd_per_hour: float


@dataclass(frozen=True, slots=True)
class Experiment:
    """Purchases for one framework and what it took of them.

    Attributes:
        launches: launches whose outcome is open, by token.
        agents: agents of these launches that it may have been offered, by instance id.
        bought: pieces of the machines whose outcome is known.
        accepted: pieces that it runs on them.
        refusals: launches of which it refused a machine, in a row.
        refused_at: when the last of them was refused (epoch s).
        until: nothing is bought before this time (epoch s).
        revived: its REVIVE calls at the last refusal.
        refused: the largest machine that it refused as a whole, by dimension.
        guesses: machines of the last hour that it has not accepted.
        accepted_at: when its counter of accepted offers last grew (epoch s).
        accepted_before: that counter then.
        satisfied_at: since when its refusals are long (epoch s); 0: they are not.
        satisfied_revived: its REVIVE calls when they became long.

    """

    launches: dict[str, TrialLaunch] = field(default_factory=dict)
    agents: dict[str, NewAgent] = field(default_factory=dict)
    bought: int = 0
    accepted: int = 0
    refusals: int = 0
    refused_at: float = 0.0
    until: float = 0.0
    revived: int = 0
    refused: Shape = NOTHING
    guesses: tuple[Guess, ...] = ()
    accepted_at: float = 0.0
    accepted_before: int = 0
    satisfied_at: float = 0.0
    satisfied_revived: int = 0

    @property
    def pending_pieces(self) -> int:
        """Pieces of machines whose outcome is not known yet."""
        return sum(
            launch.pieces * max(0, launch.machines - len(launch.tested))
            for launch in self.launches.values()
        )


NO_EXPERIMENT = Experiment()
