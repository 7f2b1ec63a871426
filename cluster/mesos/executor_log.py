"""The log of Apache Mesos' command executor, which shares the file stderr with its task. Pure.

The executor logs by glog to its standard error, which the task inherits, and no flag or variable
turns that off (Mesos' src/launcher/executor.cpp and src/exec/exec.cpp). The names are those of the
source files that log there: executor, driver, fetcher, health checks.
"""

from __future__ import annotations

import re

_SOURCES = "exec|executor|fetcher|checker|checker_process|health_checker|logging|subprocess"
_LINE = re.compile(rf"[IWEF]\d{{4}} \d\d:\d\d:\d\d\.\d{{6}} +\d+ ({_SOURCES})\.(cpp|hpp):\d+\] ")
_SHAPE = "I0000 00:00:00.000000"
"""A line that agrees with this so far may become a line of the log."""

_PREFIX_LIMIT = 80
"""The prefix of a line of the log is shorter: date, time, thread, source file and line."""


class ExecutorLogFilter:
    """Takes text of a task's stderr in pieces and gives back what the task wrote."""

    def __init__(self) -> None:
        self._held = ""

    def feed(self, text: str) -> str:
        """What of the text so far is the task's. The start of a possible log line is held back."""
        *lines, rest = (self._held + text).split("\n")
        own = "".join(f"{line}\n" for line in lines if not _LINE.match(line))
        self._held = rest if _may_be_log(rest) else ""
        return own if self._held else own + rest

    def flush(self) -> str:
        """What was held back, at the end of the file."""
        rest, self._held = self._held, ""
        return "" if _LINE.match(rest) else rest


def _may_be_log(start: str) -> bool:
    """Whether a line that begins so may be one of the log."""
    if len(start) >= _PREFIX_LIMIT or " " in start[:5]:
        return _LINE.match(start) is not None
    alike = (_is_alike(character, shape) for character, shape in zip(start, _SHAPE, strict=False))
    return bool(start) and all(alike)


def _is_alike(character: str, shape: str) -> bool:
    if shape == "I":
        return character in "IWEF"
    return character.isdigit() if shape == "0" else character == shape
