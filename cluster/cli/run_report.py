"""How `mesaform run` tells what happens: lines for people, or one JSON object a line."""

from __future__ import annotations

import json
import sys
from typing import TextIO

from mesaform.mesos.run_state import Change

STREAMS = {"stdout": lambda: sys.stdout, "stderr": lambda: sys.stderr}


class TextReporter:
    """States and notes on standard error; output on its stream, with task names if many."""

    def __init__(self, *, many: bool) -> None:
        self._many = many
        self._partial: dict[tuple[str, str], str] = {}

    def changed(self, change: Change) -> None:
        where = f" on {change.host}" if change.host else ""
        why = f": {change.message}" if change.message else ""
        sys.stderr.write(f"{change.task}: {change.state}{where}{why}\n")

    def output(self, task: str, stream: str, text: str) -> None:
        """Single task: as it comes. Many: whole lines, so that they do not mix."""
        to = STREAMS[stream]()
        if not self._many:
            to.write(text)
            to.flush()
            return
        *lines, rest = (self._partial.pop((task, stream), "") + text).split("\n")
        if rest:
            self._partial[task, stream] = rest
        to.write("".join(f"{task} | {line}\n" for line in lines))
        to.flush()

    def note(self, line: str) -> None:
        sys.stderr.write(f"mesaform: {line}\n")

    def ended(self, code: int) -> None:
        """Write out last lines that have no end."""
        for (task, stream), rest in self._partial.items():
            STREAMS[stream]().write(f"{task} | {rest}\n")
        self._partial.clear()
        if code > 128:
            sys.stderr.write(f"mesaform: exit code {code}\n")


class JsonReporter:
    """`{"event": "state" | "output" | "note" | "end", …}`, one a line, on standard output."""

    def __init__(self, to: TextIO | None = None) -> None:
        self._to = to or sys.stdout

    def changed(self, change: Change) -> None:
        self._write(
            event="state",
            task=change.task,
            state=change.state,
            host=change.host,
            message=change.message,
        )

    def output(self, task: str, stream: str, text: str) -> None:
        self._write(event="output", task=task, stream=stream, text=text)

    def note(self, line: str) -> None:
        self._write(event="note", text=line)

    def ended(self, code: int) -> None:
        self._write(event="end", exit_code=code)

    def _write(self, **row: object) -> None:
        self._to.write(json.dumps(row) + "\n")
        self._to.flush()
