"""Renderers of progress: stages on a terminal, lines without one, JSON lines for programs.

All of it goes to standard error: standard output is for the result.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from mesaform.common.progress import Report, State

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

QUIET_S = 2.0  # between two lines about one stage where there is no terminal
ALIVE_S = 15.0  # after which a stage that has nothing new to say says the same again
MARKS: dict[State, tuple[str, str]] = {
    "done": ("✓", "green"),
    "failed": ("✗", "red"),
    "started": ("…", "cyan"),
    "advanced": ("…", "cyan"),
}


@dataclass(slots=True)
class _Stage:
    """A stage as it stands; times in seconds of the renderer's clock."""

    name: str
    began: float
    state: State = "started"
    detail: str = ""
    ended: float | None = None
    printed_at: float = 0.0
    printed_detail: str = ""

    def elapsed_s(self, now: float) -> float:
        return (self.ended if self.ended is not None else now) - self.began


class _Stages:
    """State of all renderers: each stage once, by its start. Calls may come from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._stages: dict[str, _Stage] = {}

    def started(self, stage: str, detail: str = "") -> None:
        with self._lock:
            self._stages.pop(stage, None)  # begun again: it counts anew, and stands last
            self._show(self._set(stage, "started", detail))

    def advanced(self, stage: str, detail: str) -> None:
        with self._lock:
            self._show(self._set(stage, "advanced", detail))

    def done(self, stage: str, detail: str = "") -> None:
        self._end(stage, "done", detail)

    def failed(self, stage: str, detail: str = "") -> None:
        self._end(stage, "failed", detail)

    def _end(self, stage: str, state: State, detail: str) -> None:
        with self._lock:
            ended_stage = self._set(stage, state, detail)
            ended_stage.ended = self._clock()
            self._show(ended_stage)

    def _set(self, name: str, state: State, detail: str) -> _Stage:
        stage = self._stages.setdefault(name, _Stage(name, self._clock()))
        stage.state, stage.detail = state, " ".join(detail.split())
        return stage

    def _show(self, stage: _Stage) -> None:
        raise NotImplementedError


class Lines(_Stages):
    """A line when a stage begins, has something new to say, and ends.

    Not more than one each `QUIET_S`, and one each `ALIVE_S` while there is nothing new.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        self._stream = stream

    def _show(self, stage: _Stage) -> None:
        now = self._clock()
        if stage.state == "advanced" and now - stage.printed_at < (
            ALIVE_S if stage.detail == stage.printed_detail else QUIET_S
        ):
            return
        stage.printed_at, stage.printed_detail = now, stage.detail
        mark, _ = MARKS[stage.state]
        detail = f": {stage.detail}" if stage.detail else ""
        self._stream.write(f"{mark} {stage.elapsed_s(now):6.1f} s  {stage.name}{detail}\n")
        self._stream.flush()


class JsonLines(_Stages):
    """Each event as an object on a line of its own."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        self._stream = stream

    def _show(self, stage: _Stage) -> None:
        event = {
            "stage": stage.name,
            "state": stage.state,
            "detail": stage.detail,
            "elapsed_s": round(stage.elapsed_s(self._clock()), 3),
        }
        self._stream.write(json.dumps(event) + "\n")
        self._stream.flush()


class Live(_Stages):
    """A list that Rich redraws ten times a second: mark, stage, time and detail."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        from rich.spinner import Spinner

        super().__init__(clock)
        self._spinner = Spinner("dots", style="cyan")

    def _show(self, _stage: _Stage) -> None:
        return

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 1), expand=False)
        table.add_column(width=1)
        table.add_column(justify="right", no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(overflow="ellipsis", no_wrap=True, style="dim")
        with self._lock:
            now = self._clock()
            for stage in self._stages.values():
                mark, colour = MARKS[stage.state]
                sign = Text(mark, style=colour) if stage.ended is not None else self._spinner
                detail = Text(stage.detail, style="red" if stage.state == "failed" else "dim")
                table.add_row(sign, f"{stage.elapsed_s(now):.1f} s", stage.name, detail)
        yield table


@contextmanager
def reporter(*, as_json: bool = False, stream: TextIO | None = None) -> Iterator[Report]:
    """The renderer that suits standard error; its last state stays on the screen."""
    stream = stream or sys.stderr
    if as_json:
        yield JsonLines(stream)
        return
    if not stream.isatty():
        yield Lines(stream)
        return
    from rich.console import Console
    from rich.live import Live as Screen

    stages = Live()
    with Screen(stages, console=Console(file=stream), refresh_per_second=10, transient=False):
        yield stages
