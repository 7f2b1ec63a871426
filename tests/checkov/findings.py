"""Runs Checkov on the examples, and compares what fails with `exceptions.toml`."""

from __future__ import annotations

import json
import os
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.synthesis import ACCOUNT, REPOSITORY, example_files, synthesize

HERE = Path(__file__).parent
CHECKOV = REPOSITORY / ".venv" / "checkov" / "bin" / "checkov"
"""In an environment of its own (`make checkov`): the project does not depend on it."""


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """A check that fails for a resource of an example."""

    check: str
    example: str
    resource: str
    title: str


@dataclass(frozen=True, slots=True)
class Exemption:
    """Why a check fails in some examples. No example named means any."""

    reason: str
    examples: tuple[str, ...] = ()

    def covers(self, finding: Finding) -> bool:
        """Whether a finding of this check is expected."""
        return not self.examples or finding.example in self.examples


Exemptions = Mapping[str, Exemption]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What Checkov says of all examples."""

    passed: int
    findings: tuple[Finding, ...]


def read_exemptions(text: str) -> dict[str, Exemption]:
    """The exemptions by the id of their check."""
    return {
        check: Exemption(entry["reason"], tuple(entry.get("examples", ())))
        for check, entry in tomllib.loads(text).items()
    }


def exemptions() -> dict[str, Exemption]:
    """Those of `exceptions.toml`."""
    return read_exemptions((HERE / "exceptions.toml").read_text())


def run_checkov(folder: Path) -> Outcome:
    """Synthesize the examples into a folder and check all of them in one process."""
    synthesize(folder, example_files(), ACCOUNT)
    ended = subprocess.run(
        [CHECKOV, "-d", ".", "--framework", "terraform_json", "--skip-download", "-o", "json"],
        cwd=folder,
        env={**os.environ, "LOG_LEVEL": "ERROR"},
        capture_output=True,
        text=True,
        check=False,
    )
    # 1 means that checks fail.
    assert ended.returncode in {0, 1}, ended.stderr[-3000:]
    return read_report(json.loads(ended.stdout))


def read_report(report: Any) -> Outcome:
    """Checkov's JSON."""
    results, summary = report["results"], report["summary"]
    assert summary["parsing_errors"] == 0, results["parsing_errors"]
    findings = sorted(_findings(results["failed_checks"]))
    return Outcome(summary["passed"], tuple(findings))


def _findings(failed: list[dict[str, Any]]) -> Iterator[Finding]:
    for entry in failed:
        example = entry["file_path"].strip("/").split("/")[0]
        yield Finding(entry["check_id"], example, entry["resource"], entry["check_name"])


def unexplained(findings: tuple[Finding, ...], known: Exemptions) -> list[str]:
    """Findings that no exemption covers, as lines."""
    return [
        f"{item.example}: {item.resource}: {item.check}: {item.title}"
        for item in findings
        if item.check not in known or not known[item.check].covers(item)
    ]


def unneeded(findings: tuple[Finding, ...], known: Exemptions) -> list[str]:
    """Parts of exemptions that no finding needs any more, as lines."""
    lines = []
    for check, exemption in known.items():
        failing = {item.example for item in findings if item.check == check}
        if not failing:
            lines.append(f"{check}: fails nowhere")
        lines += [
            f"{check}: does not fail in {example}"
            for example in exemption.examples
            if example not in failing
        ]
    return lines
