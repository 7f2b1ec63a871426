"""How `mesaform run` tells what happens: lines for people, or one JSON object a line."""

from __future__ import annotations

import json
import sys
from typing import TextIO

from mesaform.mesos.run_state import Change
from mesaform.mesos.sandbox import bytes_of

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
            _write(to, text)
            return
        *lines, rest = (self._partial.pop((task, stream), "") + text).split("\n")
        if rest:
            self._partial[task, stream] = rest
        _write(to, "".join(f"{task} | {line}\n" for line in lines))

    def note(self, line: str) -> None:
        sys.stderr.write(f"mesaform: {line}\n")

    def ended(self, code: int) -> None:
        """Write out last lines that have no end."""
        for (task, stream), rest in self._partial.items():
            _write(STREAMS[stream](), f"{task} | {rest}\n")
        self._partial.clear()
        if code > 128:
            sys.stderr.write(f"mesaform: exit code {code}\n")


def _write(to: TextIO, text: str) -> None:
    """Write the exact bytes of a task's output."""
    to.flush()
    to.buffer.write(bytes_of(text))
    to.flush()


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
        shown = bytes_of(text).decode("utf-8", "replace")
        self._write(event="output", task=task, stream=stream, text=shown)

    def note(self, line: str) -> None:
        self._write(event="note", text=line)

    def ended(self, code: int) -> None:
        self._write(event="end", exit_code=code)

    def _write(self, **row: object) -> None:
        self._to.write(json.dumps(row) + "\n")
        self._to.flush()
