"""Runs the checks side by side, each within a time limit. A check that fails becomes a warning."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from mesaform.common.errors import CloudError, NotAuthenticated
from mesaform.doctor.finding import Finding, warning
from mesaform.doctor.subject import Examination

TIMEOUT_S = 30.0
"""Time for all checks together, which run side by side."""


@dataclass(frozen=True, slots=True)
class Check:
    """A check. `look` returns its findings; it blocks, and may raise anything.

    `is_quick` marks checks that `mesaform up` also makes on the local cloud.
    """

    name: str
    look: Callable[[Examination], Iterable[Finding]]
    is_quick: bool = False


class _Run:
    """One check in a thread of its own, which ends with the program if AWS never answers."""

    def __init__(self, check: Check, examination: Examination) -> None:
        self.check = check
        self._examination = examination
        self._findings: list[Finding] = []
        self._thread = threading.Thread(target=self._look, name=f"check {check.name}", daemon=True)
        self._thread.start()

    def _look(self) -> None:
        try:
            self._findings = list(self.check.look(self._examination))
        except Exception as fault:  # a check that fails must not end the others
            self._findings = [not_checked(self.check.name, fault)]

    def findings(self, until: float) -> list[Finding]:
        """The findings; a warning if there are none at `until` (monotonic seconds)."""
        self._thread.join(max(0.0, until - time.monotonic()))
        if self._thread.is_alive():
            return [
                warning(
                    self.check.name,
                    "not checked: AWS did not answer in time",
                    "try again: mesaform doctor",
                )
            ]
        return self._findings


def run_checks(
    checks: Sequence[Check], examination: Examination, timeout_s: float = TIMEOUT_S
) -> list[Finding]:
    """The findings of all checks in their order. Never raises what a check raises."""
    until = time.monotonic() + timeout_s
    runs = [_Run(check, examination) for check in checks]
    return [finding for run in runs for finding in run.findings(until)]


def not_checked(check: str, fault: Exception) -> Finding:
    """The finding of a check that could not look."""
    if isinstance(fault, NotAuthenticated):
        return warning(check, f"not checked: {fault.what}", "check the credentials")
    if isinstance(fault, CloudError):
        place = f" ({fault.where})" if fault.where else ""
        remedy = "allow this call, or check this by hand; mesaform doctor --policy lists the rights"
        return warning(check, f"not checked: {fault.what}{place}", remedy)
    detail = f"not checked: {type(fault).__name__}: {fault}"
    return warning(check, detail, "check this by hand, and report this line as a fault")
