"""What the planner remembers of purchases by unit of demand. Pure. Depends on `reason`."""

from __future__ import annotations

from dataclasses import dataclass, field

from mesaform.autoscaler.model.reason import Reason


@dataclass(frozen=True, slots=True)
class WaitingPieces:
    """How long as many pieces of a unit wait as now, while as many instances of it run.

    `agents` are the machines on which these pieces fit, as the planner sees it.
    """

    waiting: int
    running: int
    since: float
    agents: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class UnitPurchases:
    """Purchases for a unit of demand and what became of them (`planner.purchase_outcomes`).

    Attributes:
        app: the services app; empty for demand of other sources.
        config: the version of the app's configuration; a change begins a new record.
        launches: launch tokens whose outcome is open, with the time of the purchase.
        worked: machines of these launches that had a task.
        offered: machines of these launches that were idle while the unit waited.
        unused: launches in a row whose machines were given back without a task while it waited.
        withdrawn: the same after its demand was withdrawn.
        unused_at: when the last of either was seen.
        stops: how often purchases stopped in a row.
        until: until when nothing is bought; then one machine is tried.
        reason: why purchases stopped.
        pieces: what waits, for units that get offers.
        refused_by: agents whose offers the unit refused although it fits on them.

    """

    app: str = ""
    config: str = ""
    launches: dict[str, float] = field(default_factory=dict)
    worked: tuple[str, ...] = ()
    offered: tuple[str, ...] = ()
    unused: int = 0
    withdrawn: int = 0
    unused_at: float = 0.0
    stops: int = 0
    until: float = 0.0
    reason: Reason | None = None
    pieces: WaitingPieces | None = None
    refused_by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FailingApp:
    """An app whose tasks fail soon after their start (`demand.failing_apps`).

    `backed_off_at` is when it was last seen in back-off, at most `WRITE_EVERY_S` ago. Of
    configuration `config` no instance has lived long enough since. `purchases` were made for it
    meanwhile; nothing is bought before `until`.
    """

    config: str
    backed_off_at: float
    purchases: int = 0
    until: float = 0.0
