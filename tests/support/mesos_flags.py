"""The table of Apache Mesos' flags in docs/engine.md, generated from `mesaform.node.mesos_flags`.

`python -m tests.support.mesos_flags` writes it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from mesaform.node import mesos_flags

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "engine.md"
BEGIN, END = "<!-- flags of mesos: generated -->", "<!-- flags of mesos: end -->"


def table() -> str:
    """The flags of both programs with their values and reasons."""
    lines = ["| Program | Flag | Value | Reason |", "|---|---|---|---|"]
    lines += _rows("master", (*mesos_flags.MASTER, mesos_flags.LOG, *mesos_flags.MASTER_ACCESS))
    lines += _rows("agent", (*mesos_flags.AGENT, *mesos_flags.AGENT_ACCESS))
    return "\n".join(lines)


def _rows(program: str, flags: Sequence[mesos_flags.Flag | mesos_flags.AccessFlag]) -> list[str]:
    return [f"| {program} | `{flag.name}` | {flag.shown} | {flag.reason} |" for flag in flags]


def with_table(text: str) -> str:
    """The document with its table replaced by the present one."""
    pattern = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    return pattern.sub(lambda _: f"{BEGIN}\n{table()}\n{END}", text)


if __name__ == "__main__":
    DOCUMENT.write_text(with_table(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
