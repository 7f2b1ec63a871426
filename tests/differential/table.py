"""The table of differences: what each engine answers, and why the embedded engine differs.

`differences.toml` is the data. docs/engine.md has it as a table
(`python -m tests.differential.table` writes it).
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path

import msgspec

from tests.differential.comparison import Answers

FILE = Path(__file__).with_name("differences.toml")
PAGE = Path(__file__).parents[2] / "docs" / "engine.md"
BEGIN, END = "<!-- differences: generated -->", "<!-- differences: end -->"


class Difference(msgspec.Struct, frozen=True):
    """One row. The expressions are searched in the answers as JSON; `case` in the call."""

    call: str
    mesos: str
    embedded: str
    reason: str
    mesos_matches: str
    embedded_matches: str
    case: str = ""

    def explains(self, answers: Answers) -> bool:
        """Whether the answers differ as this row says."""
        return all(
            re.search(expression, text, re.DOTALL) is not None
            for expression, text in (
                (self.mesos_matches, json.dumps(answers.mesos)),
                (self.embedded_matches, json.dumps(answers.embedded)),
                (self.case, answers.case.kind + " " + repr(answers.case.document)),
            )
        )


def differences() -> list[Difference]:
    """The rows of the table."""
    document = tomllib.loads(FILE.read_text(encoding="utf-8"))
    return msgspec.convert(document["difference"], list[Difference])


def explanation(rows: Iterable[Difference], answers: Answers) -> Difference | None:
    """The first row that explains why the answers differ."""
    return next((row for row in rows if row.explains(answers)), None)


def as_markdown() -> str:
    """The table of docs/engine.md."""
    head = ["| Call | Apache Mesos | Embedded engine | Reason |", "|---|---|---|---|"]
    rows = [
        f"| {row.call} | {row.mesos} | {row.embedded} | {row.reason} |" for row in differences()
    ]
    return "\n".join([*head, *rows])


def updated_page(page: str) -> str:
    """The page with the present table."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{as_markdown()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(updated_page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
