"""The hypervisor's decisions: the next step from EC2's state of an instance and what runs.

Pure. The desired state is EC2's, the observed state is the process tree. Nothing is remembered
between two decisions, so a restarted hypervisor decides the same.
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
    """A process tree that ended by itself.

    `code` is the first process's exit code, negative for a signal, None if it is not known.
    """

    boots: int
    code: int | None


@dataclass(frozen=True, slots=True)
class Failed:
    """A boot that failed, with the reason."""

    boots: int
    reason: str


@dataclass(frozen=True, slots=True)
class Busy:
    """A boot or a kill is under way; decide again when it is finished."""


Present = Up | Down | Failed
"""What was observed when no step is under way."""
Observation = Present | Busy | None


@dataclass(frozen=True, slots=True)
class Boot:
    """Boot the machine in `after_s` seconds."""

    after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Kill:
    """End the tree; `hard` without SIGTERM."""

    hard: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """Report to EC2; with `forget` remove what was observed afterwards."""

    report: StateReport
    forget: bool = False


@dataclass(frozen=True, slots=True)
class Forget:
    """Remove what was observed."""


Step = Boot | Kill | Report | Forget | Literal["nothing"]


def next_step(
    machine: Machine | None, observed: Observation, now: float, boot_delay_s: float = 0.0
) -> Step:
    """What to do about one instance.

    `machine` is None when EC2 does not list the instance; `now` is in seconds since the epoch.
    """
    if isinstance(observed, Busy):
        return "nothing"
    state = machine.state if machine is not None else ""
    if machine is not None and state in {"shutting-down", "stopping"}:
        return _end(machine, observed)
    if machine is not None and state in {"pending", "running"}:
        return _run(machine, observed, now, boot_delay_s)
    return _remove(observed)


def _remove(observed: Present | None) -> Step:
    """No process may run: the instance is stopped, or EC2 does not list it."""
    if isinstance(observed, Up):
        return Kill()
    return "nothing" if observed is None else Forget()


def _end(machine: Machine, observed: Present | None) -> Step:
    if isinstance(observed, Up):
        return Kill(hard=machine.hard)
    state = "terminated" if machine.state == "shutting-down" else "stopped"
    return Report(StateReport(state, machine.boots), forget=True)


def _run(machine: Machine, observed: Present | None, now: float, boot_delay_s: float) -> Step:
    is_pending = machine.state == "pending"
    if observed is None:
        remaining_s = boot_delay_s - (now - machine.launched_at)
        return Boot(max(0.0, remaining_s) if is_pending else 0.0)
    if observed.boots != machine.boots:
        return _remove(observed)
    if isinstance(observed, Up):
        return Report(StateReport("running", machine.boots)) if is_pending else "nothing"
    if isinstance(observed, Failed):
        message = f"Server.InternalError: Internal error on launch: {observed.reason}"
        report = StateReport("terminated", machine.boots, "Server.InternalError", message)
        return Report(report, forget=True)
    return Report(_shutdown_report(machine, observed), forget=True)


def _shutdown_report(machine: Machine, observed: Down) -> StateReport:
    """The state after a machine ended by itself.

    An orderly end follows the instance's shutdown behaviour; any other terminates it.
    """
    stops = observed.code == 0 and machine.shutdown_behavior == "stop"
    return StateReport("stopped" if stops else "terminated", machine.boots, *SHUTDOWN)
