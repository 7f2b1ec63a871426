"""Hand-written and generated calls to both engines: `python -m tests.differential COUNT SEED`.

Prints each difference that no row of the table explains, the count of each row, and ends with 1
when a difference has no reason.
"""

# ruff: noqa: T201  (a program for the terminal)

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

from harness.mesos_prefix import PREFIX_VARIABLE, mesos_prefix
from tests.differential.cases import hand_written
from tests.differential.comparison import Answers
from tests.differential.engines import EngineEnded
from tests.differential.run import NoEnd, comparer, run_generated
from tests.differential.table import differences, explanation


def main(count: int, seed: int) -> int:
    prefix = mesos_prefix()
    if prefix is None:
        print(f"${PREFIX_VARIABLE} names no installed Apache Mesos")
        return 2
    rows = differences()
    explained: Counter[str] = Counter()
    unexplained: list[Answers] = []
    total = 0

    def report(answers: Answers) -> None:
        nonlocal total
        total += 1
        if not answers.differ:
            return
        row = explanation(rows, answers)
        if row is not None:
            explained[f"{row.call}: {row.reason}"] += 1
            return
        unexplained.append(answers)
        print(f"--- {answers.case.name}: {answers.case.document!r:.1500}")
        print(f"    mesos    {json.dumps(answers.mesos):.600}")
        if "log" in answers.mesos:
            print(answers.mesos["log"])
        print(f"    embedded {json.dumps(answers.embedded):.600}", flush=True)

    print(f"seed {seed}; repeat with: make differential SEED={seed}")
    folder = Path(tempfile.mkdtemp(prefix="differential-"))
    print(f"logs of the engines: {folder}", flush=True)
    fault = ""
    with comparer(prefix, folder) as compare:
        try:
            for case in hand_written():
                report(compare(case))
            run_generated(compare, count, seed, report)
        except (EngineEnded, NoEnd) as error:
            fault = str(error)
    for reason, number in explained.most_common():
        print(f"{number:5} {reason}")
    print(f"{total} calls, {explained.total()} differ with a reason, {len(unexplained)} without")
    if fault:
        print(f"the run stopped: {fault}")
    if unexplained or fault:
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
