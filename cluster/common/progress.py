"""Progress of long work: the protocol that deploy, bake and teardown report to.

Renderers for people and for programs live in `mesaform.cli.progress`; nothing is printed here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

STOPPED = {
    "CancelledError": "interrupted",
    "KeyboardInterrupt": "interrupted",
}  # what has no words of its own
State = Literal["started", "advanced", "done", "failed"]


@runtime_checkable
class Report(Protocol):
    """Receiver of progress, stage by stage.

    Stages have names for people ("Deploy the network"); each name is one stage.

    Calls are quick, never raise, and may come from any thread.
    """

    def started(self, stage: str, detail: str = "") -> None:
        """The stage has begun; its time counts from here."""
        ...

    def advanced(self, stage: str, detail: str) -> None:
        """The stage goes on; `detail` replaces what was said before ("3 of 5 machines")."""
        ...

    def done(self, stage: str, detail: str = "") -> None:
        """The stage ended well; `detail` is what came of it."""
        ...

    def failed(self, stage: str, detail: str = "") -> None:
        """The stage ended badly; `detail` is why, in one line."""
        ...


class Silent:
    """Tells nobody."""

    def started(self, stage: str, detail: str = "") -> None: ...

    def advanced(self, stage: str, detail: str) -> None: ...

    def done(self, stage: str, detail: str = "") -> None: ...

    def failed(self, stage: str, detail: str = "") -> None: ...


@dataclass(slots=True)
class Recorded:
    """Report that stores its events: `(state, stage, detail)`, oldest first."""

    events: list[tuple[State, str, str]] = field(default_factory=list)

    def started(self, stage: str, detail: str = "") -> None:
        self.events.append(("started", stage, detail))

    def advanced(self, stage: str, detail: str) -> None:
        self.events.append(("advanced", stage, detail))

    def done(self, stage: str, detail: str = "") -> None:
        self.events.append(("done", stage, detail))

    def failed(self, stage: str, detail: str = "") -> None:
        self.events.append(("failed", stage, detail))


@dataclass(slots=True)
class Stage:
    """A stage under way; `outcome` is shown when it ends well."""

    report: Report
    name: str
    outcome: str = ""

    def advance(self, detail: str) -> None:
        """Say where the stage is."""
        self.report.advanced(self.name, detail)


@contextmanager
def stage(report: Report, name: str, detail: str = "") -> Iterator[Stage]:
    """Report a stage that lasts as long as the block. An exception makes it fail and propagates."""
    under_way = Stage(report, name)
    report.started(name, detail)
    try:
        yield under_way
    except BaseException as error:
        why = str(error).strip().partition("\n")[0] or STOPPED.get(
            type(error).__name__, type(error).__name__
        )
        report.failed(name, why)
        raise
    report.done(name, under_way.outcome)
