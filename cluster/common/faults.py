"""Contained faults: an unexpected exception in the work for one thing ends the work for that thing.

The thing is a task, an app, a framework's report, an agent, a pool. Pure code collects `Fault`s and
goes on with the next thing; its shell logs and counts them. Depends on structlog.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

METRIC = "mesaform_contained_faults_total"
"""Counter of faults with the label `kind`."""

LONGEST_REPORTED = 10_000
"""Faults of different things or texts that are logged; later ones are only counted."""

log = structlog.get_logger("faults")


@dataclass(frozen=True, slots=True)
class Fault:
    """An unexpected exception in the work for one thing. `kind` is such as `app`."""

    kind: str
    subject: str
    error: Exception

    @property
    def text(self) -> str:
        """The exception for people."""
        return f"{type(self.error).__name__}: {self.error}"[:300]


@contextmanager
def contained(kind: str, subject: str, faults: list[Fault]) -> Iterator[None]:
    """End the enclosed work at an unexpected exception, and add the fault to the list."""
    try:
        yield
    except Exception as error:
        faults.append(Fault(kind, subject, error))


class FaultLog:
    """Counts and logs the faults of one process. `counts` are the values of `METRIC` by kind."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._reported: set[tuple[str, str, str]] = set()

    def report(self, faults: Iterable[Fault]) -> list[Fault]:
        """Count each fault; log it with its traceback the first time. Return the new ones."""
        new = []
        for fault in faults:
            self.counts[fault.kind] += 1
            entry = (fault.kind, fault.subject, fault.text)
            if entry in self._reported or len(self._reported) >= LONGEST_REPORTED:
                continue
            self._reported.add(entry)
            new.append(fault)
            log.error(
                "a fault ended the work for one thing; the rest goes on",
                kind=fault.kind,
                subject=fault.subject[:200],
                exc_info=fault.error,
            )
        return new


def metric_lines(counts: Counter[str]) -> list[str]:
    """The counter in Prometheus' text format."""
    head = [
        f"# HELP {METRIC} Unexpected exceptions that ended the work for one thing only",
        f"# TYPE {METRIC} counter",
    ]
    return head + [f'{METRIC}{{kind="{kind}"}} {counts[kind]}' for kind in sorted(counts)]
