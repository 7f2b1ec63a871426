"""The hypervisor's decisions. Pure: what EC2 wants of an instance and what runs of it give the one next step.

Desired: EC2's state. Observed: the process tree. Nothing is remembered between two looks, so a hypervisor that starts anew
comes to the same conclusions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mesaform.localcloud.protocol import Machine, StateReport

SHUTDOWN = (
    "Client.InstanceInitiatedShutdown",
    "Client.InstanceInitiatedShutdown: Instance initiated shutdown",
)


@dataclass(frozen=True, slots=True)
class Up:
    """A process tree that runs, of the given boot."""

    boots: int


@dataclass(frozen=True, slots=True)
class Down:
    """A process tree that ended by itself. `code` is its first process's exit code (negative: a signal); None if nobody saw it."""

    boots: int
    code: int | None


@dataclass(frozen=True, slots=True)
class Failed:
    """A boot that could not be: `why` in a sentence."""

    boots: int
    why: str


@dataclass(frozen=True, slots=True)
class Busy:
    """A boot or a kill is under way; look again when it is done."""


Seen = Up | Down | Failed | Busy | None


@dataclass(frozen=True, slots=True)
class Boot:
    after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Kill:
    """End the tree; `hard` without asking it first."""

    hard: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """Tell EC2; `forget` what was observed afterwards."""

    report: StateReport
    forget: bool = False


@dataclass(frozen=True, slots=True)
class Forget:
    pass


Step = Boot | Kill | Report | Forget | Literal["nothing"]


def next_step(machine: Machine | None, seen: Seen, now: float, boot_delay_s: float = 0.0) -> Step:
    """What to do about one instance; `machine` is None when EC2 has none such any more. `now` is seconds since the epoch."""
    if isinstance(seen, Busy):
        return "nothing"
    if machine is None:
        return Kill() if isinstance(seen, Up) else ("nothing" if seen is None else Forget())
    if machine.state in {"shutting-down", "stopping"}:
        return _ending(machine, seen)
    if machine.state in {"pending", "running"}:
        return _living(machine, seen, now, boot_delay_s)
    return Kill() if isinstance(seen, Up) else ("nothing" if seen is None else Forget())


def _ending(machine: Machine, seen: Seen) -> Step:
    if isinstance(seen, Up):
        return Kill(hard=machine.hard)
    state = "terminated" if machine.state == "shutting-down" else "stopped"
    return Report(StateReport(state, machine.boots), forget=True)


def _living(machine: Machine, seen: Seen, now: float, boot_delay_s: float) -> Step:
    if seen is None:
        waited = now - machine.launched_at
        return Boot(max(0.0, boot_delay_s - waited) if machine.state == "pending" else 0.0)
    if seen.boots != machine.boots:  # type: ignore[union-attr]  # Busy was answered by the caller
        return Kill() if isinstance(seen, Up) else Forget()
    if isinstance(seen, Up):
        return (
            Report(StateReport("running", machine.boots))
            if machine.state == "pending"
            else "nothing"
        )
    if isinstance(seen, Failed):
        reason = (
            "Server.InternalError",
            f"Server.InternalError: Internal error on launch: {seen.why}",
        )
        return Report(StateReport("terminated", machine.boots, *reason), forget=True)
    return Report(_died(machine, seen), forget=True)


def _died(machine: Machine, seen: Seen) -> StateReport:
    """A machine that went down by itself: in order by its shutdown behaviour, otherwise for good."""
    in_order = isinstance(seen, Down) and seen.code == 0
    state = "stopped" if in_order and machine.shutdown_behavior == "stop" else "terminated"
    return StateReport(state, machine.boots, *SHUTDOWN)
