"""`python -m tests.checkov`: check every example; exit 1 after a finding without a reason."""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.checkov.findings import exemptions, run_checkov, unexplained, unneeded


def main() -> int:
    """Print the summary, the findings without a reason, and exemptions that are not needed."""
    known = exemptions()
    with tempfile.TemporaryDirectory(prefix="checkov-") as folder:
        outcome = run_checkov(Path(folder))
    wrong = unexplained(outcome.findings, known) + unneeded(outcome.findings, known)
    counts = Counter(item.check for item in outcome.findings)
    for check in sorted(counts):
        reason = known[check].reason if check in known else "NO REASON"
        print(f"{check:12} {counts[check]:3}  {reason}")
    print(f"{outcome.passed} checks passed, {len(outcome.findings)} fail with a reason above")
    print("\n".join(wrong) or "nothing else fails")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
