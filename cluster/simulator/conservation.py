"""Checks of every simulated run: no task, machine second or dollar appears or is lost. Pure.

A run that breaks one of them has no result, because its figures mean nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from mesaform.common.errors import MesaformError
from mesaform.simulator.results import LEAST_BILLED_S, Bill

RELATIVE = 1e-6
"""Tolerated relative difference of sums of floating-point numbers."""


class BrokenBooks(MesaformError):
    """A simulated run does not add up: a fault of the simulator."""


@dataclass(frozen=True, slots=True)
class Account:
    """A task at the end of a run.

    `is_reported` says that it is listed as never placed. `core_s` are the core seconds that it
    occupied agents.
    """

    name: str
    has_ended: bool
    is_waiting: bool
    is_running: bool
    is_reported: bool
    core_s: float


@dataclass(slots=True)
class Meter:
    """Machine seconds, dollars and used core seconds, added up from levels as time passes."""

    machine_s: float = 0.0
    usd: float = 0.0
    used_core_s: float = 0.0
    at: float | None = None

    def advance(self, now: float, machines: int, usd_per_hour: float, used_cores: float) -> None:
        """Add the time since the last call at these levels."""
        passed_s = now - self.at if self.at is not None else 0.0
        self.machine_s += machines * passed_s
        self.usd += usd_per_hour * passed_s / 3600
        self.used_core_s += used_cores * passed_s
        self.at = now


def check(accounts: Sequence[Account], bills: Sequence[Bill], meter: Meter) -> None:
    """Check a run.

    Raises:
        BrokenBooks: it does not add up; the message says where.

    """
    problems = [*_tasks(accounts), *_sums(accounts, bills, meter), *_prices(bills)]
    if problems:
        raise BrokenBooks(
            "the simulation does not add up: " + "; ".join(problems[:5]),
            fix="report it with the trace, the policy and the seed",
        )


def _tasks(accounts: Iterable[Account]) -> Iterator[str]:
    """Every arrival ended, or waits and is reported, and is one of these only."""
    for account in accounts:
        states = account.has_ended + account.is_waiting + account.is_running
        if states != 1:
            yield f"task {account.name} is in {states} states"
        elif account.is_reported is account.has_ended:
            yield f"task {account.name} is {'' if account.has_ended else 'not '}reported"


def _sums(accounts: Iterable[Account], bills: Sequence[Bill], meter: Meter) -> Iterator[str]:
    """What is billed and used is what passed."""
    billed_s = math.fsum(bill.gone_at - bill.bought_at for bill in bills)
    usd = math.fsum(bill.usd_per_hour * (bill.gone_at - bill.bought_at) / 3600 for bill in bills)
    used = math.fsum(account.core_s for account in accounts)
    for what, booked, passed in (
        ("machine seconds", billed_s, meter.machine_s),
        ("dollars", usd, meter.usd),
        ("core seconds", used, meter.used_core_s),
    ):
        if not math.isclose(booked, passed, rel_tol=RELATIVE, abs_tol=1e-3):
            yield f"{booked:.6f} {what} are booked and {passed:.6f} passed"


def _prices(bills: Iterable[Bill]) -> Iterator[str]:
    """Each machine is billed once, for its time and at least the minimum."""
    seen: set[str] = set()
    for bill in bills:
        if bill.machine in seen:
            yield f"{bill.machine} is billed twice"
        seen.add(bill.machine)
        expected = bill.usd_per_hour * max(LEAST_BILLED_S, bill.gone_at - bill.bought_at) / 3600
        if not math.isclose(bill.usd, expected, rel_tol=RELATIVE, abs_tol=1e-9):
            yield f"{bill.machine} is billed ${bill.usd:.6f} in place of ${expected:.6f}"
